/*
 * What the gateway needs of the storage service on the same machine: a place where replicas of volumes are made, attached,
 * fed and repaired. Implemented by services/storage/layer.ts, used by services/gateway/layer.ts; the process that runs both
 * (services/cli/single-machine.ts) joins them, because services know each other only by ports.
 */
import type { VolumePaths } from "#shared/domain/data-layout.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { FedBatch, ReplicaFeed, ReplicaFeedHandlers } from "./replica-feed.ts";
import type { LocalReplica, ReplicaImage } from "./replica-image.ts";
import type { RemotePoint, RemoteSources } from "./replica-residency.ts";
import type { SpaceAdmission } from "./space-admission.ts";
import type { ImageReport } from "./volume-administration.ts";
import type { WriteLog } from "./write-log.ts";

export type ImageOperation = "check" | "adopt" | "discard";

/** How a replica begins whose bytes are all somewhere else: a clone, a restore, a rescue. */
export interface RemoteBeginning {
  /** Every extent is remote, read from here. */
  readonly point: RemotePoint;
  /** 0 for a clone, whose own log starts at LSN 1. A rescue goes on behind the archived LSN, on a new line. */
  readonly appliedLsn: number;
  /** Line and epoch of the log that goes on behind appliedLsn; null and 0 where that is 0. */
  readonly line: string | null;
  readonly epoch: number;
}

/** What the keeper of one replica's extents goes by. */
export interface TendingPolicy {
  /** full: every extent is fetched in the background. tiered: what is read is, and what was not used for coldAfterMs is evicted. */
  readonly residency: "full" | "tiered";
  readonly coldAfterMs: number;
  /** Image bytes in the file system: above `high` the coldest extents are evicted until `low` is reached. Null: no marks. */
  readonly capacity: { readonly highBytes: number; readonly lowBytes: number } | null;
  /** Bytes a second that the filler fetches at most; null: as fast as it goes. */
  readonly fillBytesPerSecond: number | null;
}

/** The part of it that holds for all volumes of a process. */
export type TendingLimits = Pick<TendingPolicy, "capacity" | "fillBytesPerSecond">;

export interface TendingOptions {
  readonly policy: TendingPolicy;
  /** The newest held base and a point that it serves (its own volume, lsn ≥ base e); null: nothing may be evicted now. */
  heldBase(): { readonly baseLsn: number; readonly point: RemotePoint } | null;
  /**
   * Resolves when what that point is read from stays for as long as the replica reads from it; rejects where it can't be seen to: then
   * nothing is evicted. The function is called when the eviction has ended, but where it failed, so that nobody knows how. Absent:
   * whoever keeps the bucket asks residency().points itself.
   */
  keep?(point: RemotePoint): Promise<() => void>;
  /** The last remote extent became local, and the checkpoint says so. */
  onWhole?(): void;
  /** A line for the operator: filling waits for the bucket or for room, goes on, is done. */
  onNote?(text: string): void;
}

export interface TendingStatus {
  readonly state: "idle" | "filling" | "waiting" | "paused" | "closed";
  /** Extents still to be fetched, and of how many. */
  readonly remainingExtents: number;
  readonly extents: number;
  readonly filledBytes: number;
  readonly evictedExtents: number;
  /** Why it waits. */
  readonly error: VarveError | null;
}

/** Fills and evicts extents of one attached replica in the background. Closed before the replica is detached. */
export interface ReplicaTending {
  status(): TendingStatus;
  /** Fetches everything, also of a tiered replica; resolves when the checkpoint says that all is local, rejects at close(). */
  fill(): Promise<void>;
  /** Gives back what was not used since `beforeMs`, now; resolves with how many extents went. */
  evictCold(beforeMs: number): Promise<number>;
  setPolicy(policy: TendingPolicy): void;
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}

export interface ReplicaHome {
  /** Room for all replicas of the data directory together. */
  readonly admission: SpaceAdmission;
  /**
   * Makes an empty (all zero, thin) replica of the record's size, or, with `begin`, one whose extents are all remote. Its
   * directory exists. Durable when it resolves.
   */
  create(volume: VolumeRecord, paths: VolumePaths, begin?: RemoteBeginning): Promise<void>;
  /** Opens and locks a replica; refuses one that somebody else changed (promise 7). Without `sources` remote reads fail (Retry). */
  attach(volume: VolumeRecord, paths: VolumePaths, sources?: RemoteSources): Promise<LocalReplica>;
  /** Fills and evicts in the background, from the moment the volume serves until close(). */
  tend(image: ReplicaImage, options: TendingOptions): ReplicaTending;
  /** What applies durable batches to an attached replica, in order, with checkpoints. */
  feed<D extends FedBatch>(image: ReplicaImage, handlers: ReplicaFeedHandlers<D>): ReplicaFeed<D>;
  /** `image check|adopt|discard` on a replica that is not attached; `log` is its log, not open. */
  repair(
    operation: ImageOperation,
    volume: VolumeRecord,
    paths: VolumePaths,
    log: WriteLog,
  ): Promise<ImageReport>;
}
