/*
 * First half of recovery: the files of a log folder and what their header blocks say. Gives the started segments in order,
 * each with the part that later ones leave it, and the files that hold nothing. Changes nothing. recovery-scan.ts walks the
 * records next; inspect.ts uses it too.
 */
import { limits } from "#shared/domain/limits.ts";
import { isBadSegmentHeader, readSegmentHeader, type SegmentHeader } from "#shared/formats/log-segment.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { foreignSegment, newerFormat } from "./log-errors.ts";
import type { ScanMemory } from "./scan-memory.ts";
import { segmentName, sequenceOfName } from "./segment-file.ts";

/**
 * started: a whole header that names the file's sequence. stale: one of a former life. blank: zeroes. torn: anything else;
 * only a torn write or damage leaves that.
 */
export type HeaderState = "started" | "stale" | "blank" | "torn";

export interface FoundFile {
  readonly sequence: number;
  readonly path: string;
  /** Whole blocks. */
  readonly sizeBytes: number;
  readonly state: HeaderState;
  readonly header: SegmentHeader | null;
  /** For people, where the header is torn. */
  readonly detail: string;
}

/** A started segment that later ones leave something of: LSNs [header.firstLsn, endLsn). */
export interface LogPart {
  readonly file: FoundFile;
  readonly header: SegmentHeader;
  endLsn: number;
}

export interface FoundFiles {
  /** By sequence. */
  readonly files: readonly FoundFile[];
  readonly parts: readonly LogPart[];
  readonly line: string | null;
}

/** Reads the folder. Rejects for headers of another volume, of two lines, or of a newer version. */
export async function findFiles(
  store: FileStore,
  directory: string,
  volumeId: string | null,
  memory: ScanMemory,
): Promise<FoundFiles> {
  const slab = memory.takeSmall();
  try {
    return await findWith(store, directory, volumeId, slab);
  } finally {
    memory.give(slab);
  }
}

async function findWith(
  store: FileStore,
  directory: string,
  volumeId: string | null,
  slab: Slab,
): Promise<FoundFiles> {
  const sequences = (await store.list(directory)).map(sequenceOfName).filter((sequence) => sequence !== null);
  sequences.sort((a, b) => a - b);
  const files: FoundFile[] = [];
  let owner: { volumeId: string; line: string } | null = null;
  for (const sequence of sequences) {
    const found = await readFile(store, `${directory}/${segmentName(sequence)}`, sequence, slab);
    files.push(found);
    if (found.header === null) continue;
    const expectedVolume: string = volumeId ?? owner?.volumeId ?? found.header.volumeId;
    if (found.header.volumeId !== expectedVolume) {
      throw foreignSegment(found.path, "volume", found.header.volumeId, expectedVolume);
    }
    owner ??= { volumeId: expectedVolume, line: found.header.line };
    if (found.header.line !== owner.line) {
      throw foreignSegment(found.path, "line", found.header.line, owner.line);
    }
  }
  return { files, parts: partsOf(files), line: owner?.line ?? null };
}

/** A segment that starts at an LSN replaces everything at or past it in those before. */
function partsOf(files: readonly FoundFile[]): LogPart[] {
  const parts: LogPart[] = [];
  let endLsn = Number.MAX_SAFE_INTEGER;
  for (const file of files.toReversed()) {
    const header = file.header;
    if (file.state !== "started" || header === null || header.firstLsn >= endLsn) continue;
    parts.push({ file, header, endLsn });
    endLsn = header.firstLsn;
  }
  return parts.reverse();
}

async function readFile(store: FileStore, path: string, sequence: number, slab: Slab): Promise<FoundFile> {
  const file = await store.open(path, { readOnly: true, access: "buffered" });
  try {
    const { sizeBytes } = await file.facts();
    await file.read(slab, 0, limits.blockBytes, 0);
    const block = slab.bytes.subarray(0, limits.blockBytes);
    const header = readSegmentHeader(block);
    const common = {
      sequence,
      path,
      sizeBytes: Math.ceil(sizeBytes / limits.blockBytes) * limits.blockBytes,
    };
    if (!isBadSegmentHeader(header)) {
      const state = header.sequence === sequence ? "started" : "stale";
      return { ...common, state, header, detail: "" };
    }
    if (header.fault === "version" || header.fault === "flags") throw newerFormat(path, 0, header.detail);
    const state = block.every((byte) => byte === 0) ? "blank" : "torn";
    return { ...common, state, header: null, detail: header.detail };
  } finally {
    await file.close();
  }
}
