/*
 * The heavy work of the archiver: compression, hashing and large JSON, on one thread of lower priority so that the data path
 * does not feel it. Adapters: adapters/archive-worker/{thread,inline}.ts. Large memory is
 * shared, not copied: what was passed in is the worker's until its answer comes.
 */
import type { ExtentRun, IndexPageRef, SegmentRef, SegmentSummary } from "#shared/domain/archive.ts";

/** Records of one segment as they stand in the log, one after the other in [0, recordBytes). */
export interface SegmentRecords {
  readonly volumeId: string;
  readonly line: string;
  readonly archiverEpoch: number;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly records: SharedArrayBuffer;
  readonly recordBytes: number;
}

export interface SealedSegment {
  /** Mostly in `memory`. */
  readonly object: Uint8Array;
  /** SHA-256 of the whole object, hex. */
  readonly sha256: string;
  readonly ref: SegmentRef;
  readonly summary: SegmentSummary;
  /** Of the last record. */
  readonly lastChecksum: bigint;
  readonly lastEpoch: number;
  /** The memory of the records, to be used again when the object is not needed any more. */
  readonly memory: SharedArrayBuffer;
}

/** A published segment and its bytes from `ref.footerStart` to its end. */
export interface SegmentTail {
  readonly ref: SegmentRef;
  readonly tail: Uint8Array;
}

export interface BuiltPage {
  readonly object: Uint8Array;
  readonly ref: IndexPageRef;
}

export interface BuiltChunk {
  /** Mostly in the memory of the content. */
  readonly object: Uint8Array;
  /** SHA-256 of the whole object, hex. */
  readonly sha256: string;
}

/** Every call rejects Corrupt where the bytes are not what they should be. */
export interface ArchiveWorker {
  seal(records: SegmentRecords, level: number): Promise<SealedSegment>;
  /** The index page of these segments, under that key. */
  page(volumeId: string, key: string, segments: readonly SegmentTail[]): Promise<BuiltPage>;
  /** Extents that segments past `afterLsn` touch, merged: of single ones, and of those that an index page names. */
  touched(
    segments: readonly SegmentTail[],
    pages: readonly Uint8Array[],
    afterLsn: number,
  ): Promise<readonly ExtentRun[]>;
  /** SHA-256, hex, of one extent at the begin of `memory`, zeroes behind the disk's end; null where it is all zero. */
  hash(memory: SharedArrayBuffer): Promise<string | null>;
  /** The chunk object of that extent, whose hash is not null. It takes the extent's place, where it fits into `memory`. */
  chunk(memory: SharedArrayBuffer, hash: string, level: number): Promise<BuiltChunk>;
  close(): Promise<void>;
}
