/*
 * What a volume's view says of its past in a cluster: its history record's policy, how far its archiver is, and how much of a clone is
 * on its nodes. Part of cluster-volumes.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumePastView } from "#shared/ports/volume-administration.ts";
import { missingExtents } from "./clone-rules.ts";

/** Null where the volume keeps no history. */
export function clusterPastView(
  past: Pick<PastRecords, "historyOf" | "archiveOf">,
  { id, sizeBytes }: VolumeRecord,
  replicas: readonly Pick<ReplicaView, "report">[],
): VolumePastView | null {
  const history = past.historyOf(id);
  if (history === null) return null;
  const { historyMs, residency, coldAfterMs, bucketAway, origin, snapshots, pins } = history;
  const archive = past.archiveOf(id);
  const error = archive === null || archive.error === "" ? null : archive.error;
  const total = Math.ceil(sizeBytes / limits.extentBytes);
  // Of the one that misses most.
  const remote = Math.max(0, ...replicas.map((one) => missingExtents(one, sizeBytes)));
  return {
    policy: { historyMs, residency, coldAfterMs, bucketAway },
    origin,
    snapshots: snapshots.length,
    pins: pins.length,
    archive: archive?.state ?? "away",
    archivedLsn: archive?.archivedLsn ?? 0,
    heldLsn: archive?.heldLsn ?? 0,
    retainedFromLsn: null,
    fillBytesPerSecond: null,
    archiveError: error === null ? null : new VarveError("ArchiverError", "Retry", error),
    extents:
      origin === null && residency === "full" && remote === 0
        ? null
        : { total, local: total - remote, remote, partial: 0 },
    job: null,
  };
}
