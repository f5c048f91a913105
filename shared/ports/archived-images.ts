/*
 * The newest disk of a volume that the bucket has, for a storage node that fills a replica from it (docs/specs/replica-fill.md, "From the
 * bucket"), and the points that clones begin with. Implemented by adapters/history/bucket-images.ts; used by
 * services/storage/engine/ (fill-from-bucket.ts, kept-replica.ts) and services/api/engine/cluster-clones.ts.
 */
import type { PointPin } from "#shared/domain/archive.ts";
import type { PointSource } from "./history.ts";

/** Where in the log the bucket ends: the disk is exactly the fold up to there, and the log goes on behind it. */
export interface ArchivedPlace {
  /** Of the log that was archived. */
  readonly line: string;
  readonly epoch: number;
  readonly lsn: number;
  /** Of the batch that ends there; 0n where the line begins behind it, as after a rescue: then no log can be checked against it. */
  readonly checksum: bigint;
  /** Points that this manifest keeps for others. */
  readonly pins: readonly PointPin[];
}

export interface ArchivedImages {
  /** The bucket, for messages. */
  readonly place: string;
  /**
   * How far the bucket is, by the manifest that is present now; null: it has nothing of the volume, or no entry of it. Rejects Retry while
   * the bucket is away, Corrupt for a damaged manifest.
   */
  newest(volumeId: string): Promise<ArchivedPlace | null>;
  /**
   * The disk as of that LSN, from the bucket alone; every byte was checked against its object's checksum. Waits while as many others are
   * open as a process may have. Rejects as VolumeHistory.open(). Whoever opened it closes it.
   */
  open(volumeId: string, lsn: number): Promise<PointSource>;
  /** The same without a turn: read here and there, for as long as a clone is not whole. */
  point(volumeId: string, lsn: number): Promise<PointSource>;
}
