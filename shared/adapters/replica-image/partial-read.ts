/*
 * Reads and allocation of an image that is not wholly local: local bytes come from the file, the others from their points,
 * and what is in the file by the time the fetched bytes arrive is newer. Called by raw-file.ts; next: extent-table.ts
 * says where bytes are, remote-reader.ts fetches. See docs/specs/residency.md, "Reads".
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ExtentTable } from "./extent-table.ts";
import type { RemoteReader } from "./remote-reader.ts";
import { residentRuns } from "./residency.ts";

/** A read whose extents become remote under its hands again and again gives up. */
const attemptsMax = 8;
const frameBytes = limits.archiveFrameBytes;

export interface PartialReadParts {
  readonly file: BlockFile;
  readonly table: ExtentTable;
  readonly remote: RemoteReader;
  /** An extent was read from its point. */
  readonly onRemoteRead: (extent: number) => void;
}

export async function readPartial(
  parts: PartialReadParts,
  slab: Slab,
  start: number,
  length: number,
  offset: number,
): Promise<void> {
  const { table } = parts;
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const since = table.departed;
    await readPlaces(parts, slab, start, length, offset);
    if (!table.departedSince(since, offset, length)) return;
  }
  throw new VarveError("ExtentsUnsettled", "Retry", `bytes at ${offset} were moved while they were read`, {
    hint: "Read again.",
    fields: { offset, length },
  });
}

async function readPlaces(
  parts: PartialReadParts,
  slab: Slab,
  start: number,
  length: number,
  offset: number,
): Promise<void> {
  const work: Promise<void>[] = [];
  parts.table.visit(offset, offset + length, (from, to, point) => {
    if (point === null) {
      work.push(parts.file.read(slab, start + (from - offset), to - from, from));
      return;
    }
    for (let at = from; at < to; ) {
      const end = Math.min(to, (Math.floor(at / frameBytes) + 1) * frameBytes);
      work.push(readRemote(parts, point, slab, start + (at - offset), at, end));
      at = end;
    }
    for (let at = from; at < to; at += limits.extentBytes) {
      parts.onRemoteRead(Math.floor(at / limits.extentBytes));
    }
  });
  // All of them, also after a failure: none may write into the caller's memory later.
  const failed = (await Promise.allSettled(work)).find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** Bytes [from, to), which lie in one frame of one extent. */
async function readRemote(
  { file, table, remote }: PartialReadParts,
  point: RemotePoint,
  slab: Slab,
  start: number,
  from: number,
  to: number,
): Promise<void> {
  const newer: [start: number, end: number][] = [];
  const fetched = await remote.fetch(point, from, to - from);
  try {
    table.visit(from, to, (first, last, place) => {
      if (place === null) newer.push([first, last]);
      else fetched.slab.bytes.copy(slab.bytes, start + (first - from), first - from, last - from);
    });
  } finally {
    fetched.release();
  }
  for (const [first, last] of newer) await file.read(slab, start + (first - from), last - first, first);
}

/** Where an image's bytes are, and only then what a hole means (see residency.ts for wholly local images). */
export function partialRuns(
  { file, table, remote }: Pick<PartialReadParts, "file" | "table" | "remote">,
  offset: number,
  length: number,
  runsMax: number,
): readonly AllocationRun[] {
  const runs = new RunList(runsMax);
  table.visit(offset, offset + length, (from, to, point) => {
    if (runs.full) return;
    const source = point === null ? null : remote.opened(point);
    if (point !== null && source === null) {
      runs.add({ offset: from, length: to - from, allocated: true });
      return;
    }
    for (let at = from; at < to && !runs.full; ) {
      const found =
        source === null ? residentRuns(file, at, to - at, runsMax) : source.allocation(at, to - at, runsMax);
      for (const run of found) runs.add(run);
      const last = found[found.length - 1];
      at = last === undefined ? to : last.offset + last.length;
    }
  });
  return runs.runs;
}

/** Maximal runs, at most so many: what comes behind the last is left out. */
class RunList {
  readonly runs: { offset: number; length: number; allocated: boolean }[] = [];
  full = false;
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  add(run: AllocationRun): void {
    const last = this.runs[this.runs.length - 1];
    if (this.full) return;
    if (last !== undefined && last.allocated === run.allocated) last.length += run.length;
    else if (this.runs.length < this.#most) this.runs.push({ ...run });
    else this.full = true;
  }
}
