/*
 * A hosted volume in the words of the administration port: figures of its session, state of its past. Pure turning of one
 * shape into another; hosted-volume.ts calls it for every view.
 */
import { defaultHistoryPolicy } from "#shared/domain/history-record.ts";
import type { ResidencyState } from "#shared/ports/replica-residency.ts";
import type { VolumeFigures, VolumePastView } from "#shared/ports/volume-administration.ts";
import type { VolumeParts } from "./volume-parts.ts";
import type { VolumePast } from "./volume-past.ts";
import type { VolumeSessionStatus } from "./volume-session.ts";

export function figuresOf(status: VolumeSessionStatus, room: { readonly limitBytes: number }): VolumeFigures {
  return {
    line: status.log.line,
    epoch: status.log.epoch,
    oldestLsn: status.log.oldestLsn,
    lastLsn: status.log.lastLsn,
    durableLsn: status.log.durableLsn,
    appliedLsn: status.image.appliedLsn,
    checkpointLsn: status.image.checkpointLsn,
    imageAllocatedBytes: status.image.allocatedBytes,
    logDiskBytes: status.log.diskBytes,
    logBytesMax: room.limitBytes,
    overlayRanges: status.overlayRanges,
    counters: status.counters,
  };
}

export function pastViewOf(
  past: VolumePast,
  residency: ResidencyState | null,
  { homes, tending }: Pick<VolumeParts, "homes" | "tending">,
  job: string | null,
): VolumePastView | null {
  const { history, archiveStatus } = past;
  if (history === null) return null;
  const { historyMs, residency: kind, coldAfterMs, bucketAway } = history ?? defaultHistoryPolicy;
  return {
    policy: { historyMs, residency: kind, coldAfterMs, bucketAway },
    origin: history.origin,
    snapshots: history.snapshots.length,
    pins: history.pins.length,
    archive: archiveStatus?.state ?? (homes === null ? "off" : past.attached ? "away" : "closed"),
    archivedLsn: archiveStatus?.archivedLsn ?? 0,
    heldLsn: archiveStatus?.heldLsn ?? 0,
    retainedFromLsn: past.manifest()?.retainedFromLsn ?? null,
    fillBytesPerSecond: tending.fillBytesPerSecond,
    archiveError: past.archiveError,
    extents:
      residency === null
        ? null
        : {
            total: residency.extents,
            local: residency.localExtents,
            remote: residency.remoteExtents,
            partial: residency.partialExtents,
          },
    job,
  };
}
