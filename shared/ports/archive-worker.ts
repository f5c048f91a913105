/*
 * The heavy work of the archiver: compression and hashing, on one thread of lower priority so that the data path does not feel
 * it. Adapters: adapters/archive-worker/{thread,inline}.ts. Memory is handed over, not copied: an ArrayBuffer that was passed
 * in is empty here until it comes back.
 */
import type { SegmentRef, SegmentSummary } from "#shared/domain/archive.ts";

/** Records of one segment as they stand in the log, one after the other in [0, recordBytes). */
export interface SegmentRecords {
  readonly volumeId: string;
  readonly line: string;
  readonly archiverEpoch: number;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly records: ArrayBuffer;
  readonly recordBytes: number;
}

export interface SealedSegment {
  readonly object: Uint8Array;
  readonly ref: SegmentRef;
  readonly summary: SegmentSummary;
  /** Of the last record. */
  readonly lastChecksum: bigint;
  readonly lastEpoch: number;
  /** The memory of the records, to be used again. */
  readonly memory: ArrayBuffer;
}

export interface HashedExtent {
  /** SHA-256 of the content, hex; null where it is all zero. */
  readonly hash: string | null;
  /** The chunk object of the content. Once, and not after drop(). */
  build(level: number): Promise<Uint8Array>;
  /** The content's memory, to be used again; after build() or instead of it. */
  drop(): Promise<ArrayBuffer>;
}

export interface ArchiveWorker {
  /** Rejects Corrupt where the records are not what a log holds. */
  seal(records: SegmentRecords, level: number): Promise<SealedSegment>;
  /** `content` is one extent, zeroes behind the disk's end. */
  hash(content: ArrayBuffer): Promise<HashedExtent>;
  close(): Promise<void>;
}
