/*
 * Puts right what a scrub found wrong in the file: in a turn, under which no apply runs, and only where no entry touched the extent after
 * the LSN that the right bytes are of. So nothing newer is ever overwritten, and a crash in the middle leaves bytes that are wrong as
 * before or right. Part of image-extents.ts. Rules: docs/specs/residency.md, "Mending".
 */
import { limits } from "#shared/domain/limits.ts";
import type { BlockFile, FileOperation } from "#shared/ports/file-store.ts";
import type { ExtentMending } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ExtentTable } from "./extent-table.ts";
import type { ExtentTouches } from "./extent-touches.ts";
import type { Turns } from "./turns.ts";

const { extentBytes, blockBytes } = limits;

/** Those of image-extents.ts. */
interface MendingParts {
  readonly file: BlockFile;
  readonly table: ExtentTable;
  readonly turns: Turns;
  readonly requireOpen: () => void;
  readonly onWritten: (operations: readonly FileOperation[]) => void;
  readonly checkpoint: () => Promise<unknown>;
}

export class MendedExtents implements ExtentMending {
  readonly #parts: MendingParts;
  readonly #touches: ExtentTouches;

  constructor(parts: MendingParts, touches: ExtentTouches) {
    this.#parts = parts;
    this.#touches = touches;
  }

  touchedLsn(extent: number): number {
    return this.#touches.lsnOf(extent);
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.#parts.requireOpen();
    await this.#parts.file.read(slab, start, length, offset);
    this.#parts.requireOpen();
  }

  mend(extent: number, lsn: number, right: Slab, scratch: Slab): Promise<boolean> {
    const { file, table, turns, requireOpen, onWritten } = this.#parts;
    return turns.take(async () => {
      requireOpen();
      const start = extent * extentBytes;
      const length = Math.min(extentBytes, table.sizeBytes - start);
      if (length <= 0 || !table.isLocal(extent) || this.#touches.lsnOf(extent) > lsn) return false;
      await file.read(scratch, 0, length, start);
      const operations = wrongBlocks(right, scratch, start, length);
      if (operations.length === 0) return true;
      await file.applyAll(operations);
      onWritten(operations);
      return true;
    });
  }

  async record(): Promise<void> {
    await this.#parts.checkpoint();
  }
}

/** Writes of the runs of blocks that differ. Zeroes are written, too: a hole stays one where it was right. */
function wrongBlocks(right: Slab, present: Slab, base: number, length: number): FileOperation[] {
  const operations: FileOperation[] = [];
  let from = -1;
  const end = (to: number): void => {
    if (from >= 0)
      operations.push({
        kind: "write",
        piece: { slab: right, start: from, length: to - from },
        offset: base + from,
      });
    from = -1;
  };
  for (let at = 0; at < length; at += blockBytes) {
    const to = Math.min(length, at + blockBytes);
    if (right.bytes.compare(present.bytes, at, to, at, to) === 0) end(at);
    else if (from < 0) from = at;
  }
  end(length);
  return operations;
}
