/*
 * The replica of one volume on this machine: the raw image file and its checkpoint. The image applier applies durable
 * batches in order; the volume session reads what no overlay covers. Adapter: adapters/replica-image/raw-file.ts on a
 * FileStore. See docs/formats/checkpoint.md and docs/specs/replica.md.
 */
import type { Batch } from "#shared/domain/batch.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { FollowFrom } from "./log-follower.ts";
import type { ReplicaExtents } from "./replica-residency.ts";
import type { Slab } from "./slab.ts";

/** What allocation() reports: maximal runs, in order, covering the range asked for. */
export interface AllocationRun {
  readonly offset: number;
  readonly length: number;
  /** Allocated: false means that the range reads as zero and takes no space. */
  readonly allocated: boolean;
}

export interface ReplicaState {
  readonly sizeBytes: number;
  readonly appliedLsn: number;
  /** The greatest LSN whose apply had begun: bytes of entries up to it may be in the image. */
  readonly begunLsn: number;
  readonly checkpointLsn: number;
  /** Written to the image since the last checkpoint. */
  readonly dirtyBytes: number;
  readonly allocatedBytes: number;
}

export interface ReplicaImage {
  /** Residency of its extents; not there where every extent is always local (the memory twin). */
  readonly extents?: ReplicaExtents;
  state(): ReplicaState;
  /** Reads page-cached bytes on the caller's thread; -1 where that would block (see BlockFile.readInline). Holes read as zero. */
  readInline(slab: Slab, start: number, length: number, offset: number): number;
  read(slab: Slab, start: number, length: number, offset: number): Promise<void>;
  /**
   * Applies a run of batches, the first one starting at appliedLsn + 1, each chained to the one before (else Corrupt, nothing
   * applied). The caller calls only with durable batches, one call after the other. Drafts are applied from their slabs
   * without a copy. Taking several at once saves a thread hand-over each.
   */
  apply(batches: readonly (Batch | BatchDraft)[]): Promise<void>;
  /** Allocation within [offset, offset + length); asks residency first. At most `runsMax` runs; the last may end early. */
  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[];
  /** Syncs the image, then replaces the checkpoint atomically; resolves with its LSN. One at a time. */
  checkpoint(): Promise<number>;
  /**
   * Told once where a sync failed, whoever asked for it (an eviction, a fill): nothing since the last checkpoint can be trusted, and
   * only closing helps. Not there where that can't happen.
   */
  onFailed?(listener: (error: VarveError) => void): void;
  /** Checkpoint, record size, mtime and ctime as a clean detach, release the locks, close. */
  detach(): Promise<void>;
  /** Closes without a checkpoint (after a failure). */
  abandon(): Promise<void>;
  /**
   * For images that follow the log by themselves, on other machines: resolves when one has applied `lastLsn`. `epoch`: the
   * caller's own; an image that meets a newer one says so. Not there where apply() does it.
   */
  follow?(lastLsn: number, epoch: number): Promise<void>;
}

/** Where a replica stands in the log: what the next batch must follow. */
export interface ReplicaLogPosition extends FollowFrom {
  /** Of the last applied batch; 0 before the first. */
  readonly epoch: number;
}

/** A replica on this machine, as its storage node follows the log with it. */
export interface LocalReplica extends ReplicaImage {
  logPosition(): ReplicaLogPosition;
}
