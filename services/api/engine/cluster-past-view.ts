/*
 * What a volume's view says of its past in a cluster: its history record's policy and how far its archiver is. Part of cluster-volumes.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumePastView } from "#shared/ports/volume-administration.ts";

/** Null where the volume keeps no history. */
export function clusterPastView(
  past: Pick<PastRecords, "historyOf" | "archiveOf">,
  id: string,
): VolumePastView | null {
  const history = past.historyOf(id);
  if (history === null) return null;
  const { historyMs, residency, coldAfterMs, bucketAway, origin, snapshots, pins } = history;
  const archive = past.archiveOf(id);
  const error = archive === null || archive.error === "" ? null : archive.error;
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
    extents: null,
    job: null,
  };
}
