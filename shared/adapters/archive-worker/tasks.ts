/*
 * What the archive thread does, as plain functions: seal segments, build index pages and chunks, collect touched extents.
 * Called by worker-program.ts on the thread and by inline.ts in tests; the bytes are those of shared/formats.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { buildChunk, chunkHashOf } from "#shared/formats/chunk-object.ts";
import { decodeIndexPage, encodeIndexPage, indexPageRefOf } from "#shared/formats/index-page.ts";
import { compressByNode, ObjectRoom } from "#shared/formats/object-room.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { summaryOf, touchedExtents } from "#shared/formats/segment-index.ts";
import { readSegmentFooter, sealSegment } from "#shared/formats/segment-object.ts";
import type {
  BuiltChunk,
  BuiltPage,
  SealedSegment,
  SegmentRecords,
  SegmentTail,
} from "#shared/ports/archive-worker.ts";
import { nativeZstd } from "./native-zstd.ts";

function corrupt(what: string, detail: string): VarveError {
  return new VarveError("ArchivedBytesError", "Corrupt", `${what}: ${detail}`, {
    hint: "Nothing was published of it. Run `varve bucket check`, and check the disk's log with `varve log inspect`.",
  });
}

/** Tasks that compress, in memory of their own that is used again: each object is in other memory when its task ends. */
export class CompressingTasks {
  readonly #zstd = nativeZstd();
  readonly #room: ObjectRoom;

  /** `beforePiece` is called on the thread that does the task; see ObjectRoom. */
  constructor(beforePiece?: () => void) {
    this.#room = new ObjectRoom(this.#zstd?.compressInto ?? compressByNode, beforePiece);
  }

  seal(records: SegmentRecords, level: number): SealedSegment {
    try {
      const sealed = sealSegment(records, level, this.#room);
      if (isBadObject(sealed)) throw corrupt(`log from LSN ${records.firstLsn}`, sealed.detail);
      const { records: memory } = records;
      return { ...sealed, object: over(memory, sealed.object), memory };
    } finally {
      this.#zstd?.release();
    }
  }

  chunk(memory: SharedArrayBuffer, hash: string, level: number): BuiltChunk {
    try {
      const content = Buffer.from(memory, 0, limits.extentBytes);
      const { object, sha256 } = buildChunk(content, hash, level, this.#room);
      return { object: over(memory, object), sha256 };
    } finally {
      this.#zstd?.release();
    }
  }
}

/**
 * The object in the memory of what it was made of, which nobody needs any more: both threads see it there, and `object` is empty then.
 * Memory of its own would be handed over for each, and count there until V8 has collected the whole heap (measured: six times a second
 * at 100 MB/s).
 */
function over(memory: SharedArrayBuffer, object: Buffer): Uint8Array {
  if (object.length > memory.byteLength) return new Uint8Array(object);
  const bytes = new Uint8Array(memory, 0, object.length);
  bytes.set(object);
  return bytes;
}

export function page(volumeId: string, key: string, segments: readonly SegmentTail[]): BuiltPage {
  const summaries = segments.map(({ ref, tail }) => summaryOf(indexOf({ ref, tail }), ref));
  const content = { volumeId, segments: summaries };
  return { object: ownBytes(encodeIndexPage(content)), ref: indexPageRefOf(content, key) };
}

export function touched(
  segments: readonly SegmentTail[],
  pages: readonly Uint8Array[],
  afterLsn: number,
): readonly ExtentRun[] {
  const runs: ExtentRun[] = [];
  for (const segment of segments) {
    if (segment.ref.lastLsn > afterLsn) runs.push(...touchedExtents(indexOf(segment)));
  }
  for (const bytes of pages) {
    const content = decodeIndexPage(asBuffer(bytes));
    if (isBadObject(content)) throw corrupt("an index page", content.detail);
    for (const summary of content.segments) if (summary.lastLsn > afterLsn) runs.push(...summary.extents);
  }
  return merged(runs);
}

export function hashOf(memory: SharedArrayBuffer, beforePiece?: () => void): string | null {
  return chunkHashOf(Buffer.from(memory, 0, limits.extentBytes), beforePiece);
}

function indexOf({ ref, tail }: SegmentTail) {
  const index = readSegmentFooter(asBuffer(tail), ref.bytes);
  if (isBadObject(index)) throw corrupt(ref.key, index.detail);
  if (index.firstLsn !== ref.firstLsn || index.lastLsn !== ref.lastLsn) {
    throw corrupt(ref.key, `it holds LSN ${index.firstLsn} to ${index.lastLsn}`);
  }
  return index;
}

function merged(runs: ExtentRun[]): ExtentRun[] {
  runs.sort((a, b) => a.first - b.first);
  const result: { first: number; count: number }[] = [];
  for (const { first, count } of runs) {
    const last = result.at(-1);
    if (last !== undefined && first <= last.first + last.count) {
      last.count = Math.max(last.count, first + count - last.first);
    } else result.push({ first, count });
  }
  return result;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Bytes with an ArrayBuffer of their own, which can be handed to another thread; small Buffers share one. */
function ownBytes(bytes: Buffer): Uint8Array {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return whole ? bytes : Uint8Array.from(bytes);
}
