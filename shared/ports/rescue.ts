/*
 * Between archiver and gateway: what the files of a volume begin with when it comes back from a bucket. The archiver's rescuer makes
 * the plan after it took the volume's next line; services/gateway/rescued-volume.ts makes the files. See docs/specs/retention.md,
 * "Rescue".
 */
import type { HistoryRecord } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { RescuedVolume } from "./bucket-administration.ts";
import type { RemoteBeginning } from "./replica-home.ts";
import type { LogBeginning } from "./write-log.ts";

export interface RescuePlan {
  readonly record: VolumeRecord;
  readonly history: HistoryRecord;
  /** Null: the disk is empty. */
  readonly replica: RemoteBeginning | null;
  readonly log: LogBeginning;
  readonly reached: RescuedVolume;
}
