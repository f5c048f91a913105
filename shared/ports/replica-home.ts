/*
 * What the gateway needs of the storage service on the same machine: a place where replicas of volumes are made, attached,
 * fed and repaired. Implemented by services/storage/layer.ts, used by services/gateway/layer.ts; the process that runs both
 * (services/cli/single-machine.ts) joins them, because services know each other only by ports.
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { VolumePaths } from "#shared/domain/data-layout.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ReplicaFeed, ReplicaFeedHandlers } from "./replica-feed.ts";
import type { ReplicaImage } from "./replica-image.ts";
import type { SpaceAdmission } from "./space-admission.ts";
import type { ImageReport } from "./volume-administration.ts";
import type { WriteLog } from "./write-log.ts";

export type ImageOperation = "check" | "adopt" | "discard";

export interface ReplicaHome {
  /** Room for all replicas of the data directory together. */
  readonly admission: SpaceAdmission;
  /** Makes an empty (all zero, thin) replica of the record's size. Its directory exists. Durable when it resolves. */
  create(volume: VolumeRecord, paths: VolumePaths): Promise<void>;
  /** Opens and locks a replica; refuses one that somebody else changed (promise 7). */
  attach(volume: VolumeRecord, paths: VolumePaths): Promise<ReplicaImage>;
  /** What applies durable batches to an attached replica, in order, with checkpoints. */
  feed<D extends BatchDraft>(image: ReplicaImage, handlers: ReplicaFeedHandlers<D>): ReplicaFeed<D>;
  /** `image check|adopt|discard` on a replica that is not attached; `log` is its log, not open. */
  repair(
    operation: ImageOperation,
    volume: VolumeRecord,
    paths: VolumePaths,
    log: WriteLog,
  ): Promise<ImageReport>;
}
