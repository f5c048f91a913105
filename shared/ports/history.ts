/*
 * The past of volumes as others use it: points that open as disks, timelines, changed ranges. The reader
 * (adapters/history/) folds bases and segments from the bucket and the hot log's tail; NBD exports of points, fills of
 * clones and cold extents, scrub and the API read through it. See docs/specs/history.md.
 */
import type { SnapshotRecord, VolumeManifest, VolumeOrigin } from "#shared/domain/archive.ts";
import type { Batch } from "#shared/domain/batch.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { Point } from "#shared/domain/point.ts";
import type { AllocationRun } from "./replica-image.ts";
import type { Slab } from "./slab.ts";

/** A batch as read from a log with the exact bytes of its record, valid until the reader goes on. */
export interface LoggedBatch extends Batch {
  readonly record: Uint8Array;
}

/** The part of a volume's log that is still on this machine. Null-safe to close over while the session lives. */
export interface HotLog {
  readonly line: string;
  /** Oldest entry that can be read now, and the last durable one. */
  state(): { readonly oldestLsn: number; readonly durableLsn: number };
  read(fromLsn: number): AsyncIterable<LoggedBatch>;
  /** Entries from `lsn` on are not released until the returned function is called. */
  pin(lsn: number): () => void;
}

/** A disk as it was at one LSN: read-only, never changes. Reads of different ranges may run side by side. */
export interface PointSource {
  readonly volumeId: string;
  readonly lsn: number;
  readonly sizeBytes: number;
  /** Reads exactly; bytes past the end are zero. Rejects Retry while the bucket is away, Corrupt for damaged objects. */
  read(slab: Slab, start: number, length: number, offset: number): Promise<void>;
  /**
   * What is known without asking the bucket: allocated false means certainly zero, true may be either. Sync, as
   * ReplicaImage.allocation().
   */
  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[];
  /** Numbers of extents that may hold anything but zeroes, ascending. Loads base pages. */
  extents(): AsyncIterable<number>;
  close(): Promise<void>;
}

export interface ResolvedPoint {
  readonly volumeId: string;
  readonly lsn: number;
  readonly wallTimeMs: number;
}

export interface TimelineInterval {
  readonly fromMs: number;
  readonly toMs: number;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly zeroBytes: number;
  readonly events: readonly string[];
}

/** Byte range [offset, offset + length). */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface VolumeHistory {
  /** Oldest and newest LSN that open now. */
  range(): Promise<{
    readonly fromLsn: number;
    readonly toLsn: number;
    readonly fromMs: number;
    readonly toMs: number;
  }>;
  snapshots(): readonly SnapshotRecord[];
  /** Throws Invalid with the range (or, for an ambiguous time, the candidates as lsn:N) where the point is not there. */
  resolve(point: Point): Promise<ResolvedPoint>;
  open(lsn: number): Promise<PointSource>;
  /** Size of the disk at that LSN, without opening it. */
  sizeAt(lsn: number): Promise<number>;
  timeline(fromMs: number, toMs: number, intervals: number): Promise<readonly TimelineInterval[]>;
  /**
   * Ranges where the disks at both points may differ: what entries between them touched, and across a rollback what it took
   * back. Extent granularity where only summaries are loaded. Ascending, merged.
   */
  changes(fromLsn: number, toLsn: number): Promise<readonly ByteRange[]>;
}

/** Where a history gets what it stands on. The archiver of a served volume gives its own; a reader of others looks it up. */
export interface HistorySubject {
  readonly volumeId: string;
  /** The present manifest; null before anything was published. */
  manifest(): Promise<VolumeManifest | null>;
  /** Why there is no manifest yet, where that is known: no room for the archive's note, wrong credentials, an answer that does not come. */
  trouble?(): VarveError | null;
  /** Null for a volume that is not served here. */
  hotLog(): HotLog | null;
  snapshots(): readonly SnapshotRecord[];
  /** The disk before entry 1: its size, and for a clone the parent's point. What fold begins with. */
  readonly begin: { readonly sizeBytes: number; readonly origin: VolumeOrigin | null };
}
