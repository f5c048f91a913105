/*
 * The heavy work of the archiver: compression, hashing and large JSON, on one thread of lower priority so that the data path
 * does not feel it. Adapters: adapters/archive-worker/{thread,inline}.ts. Memory is handed over, not copied: what was passed in
 * is the worker's until it comes back.
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
  readonly object: Uint8Array;
  /** SHA-256 of the whole object, hex. */
  readonly sha256: string;
}

export interface HashedExtent {
  /** SHA-256 of the content, hex; null where it is all zero. */
  readonly hash: string | null;
  /** The chunk object of the content. At most once, before release(). */
  build(level: number): Promise<BuiltChunk>;
  /** The content's memory, to be used again. */
  release(): Promise<ArrayBuffer>;
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
  /** `content` is one extent, zeroes behind the disk's end. */
  hash(content: ArrayBuffer): Promise<HashedExtent>;
  close(): Promise<void>;
}
