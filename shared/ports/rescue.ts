/*
 * Between archiver and gateway: what the files of a volume begin with when it comes back from a bucket. The archiver's rescuer makes
 * the plan after it took the volume's next line; services/gateway/rescued-volume.ts makes the files. See docs/specs/retention.md,
 * "Rescue".
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import type { HistoryRecord, TakenLine } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { RescuedVolume } from "./bucket-administration.ts";
import type { RemoteBeginning } from "./replica-home.ts";
import type { LogBeginning } from "./write-log.ts";

/** The deleted volumes of a bucket. Implemented by services/archiver/engine/deleted-volumes.ts for the api process of a cluster. */
export interface DeletedVolumes {
  /** Last manifests of those that can come back. Changes nothing. */
  find(): Promise<readonly VolumeManifest[]>;
  /** Retention time in ms that is left to those that a collection has seen. */
  left(): Promise<ReadonlyMap<string, number>>;
  /** What comes back, on which line. Changes nothing; throws Invalid where nothing of the volume is left. */
  plan(volumeId: string): Promise<RescuePlan>;
  /**
   * Takes that line in the bucket, whose manifest still says deleted. Done again it changes nothing. Rejects Fenced where somebody else
   * took it or a later one, Invalid as plan().
   */
  takeLine(volumeId: string, line: TakenLine): Promise<RescuePlan>;
}

export interface RescuePlan {
  readonly record: VolumeRecord;
  readonly history: HistoryRecord;
  /** Null: the disk is empty. */
  readonly replica: RemoteBeginning | null;
  readonly log: LogBeginning;
  readonly reached: RescuedVolume;
}
