/*
 * The job of a clone or a rollback in a cluster: how much of the volume its storage nodes have, until every replica has all of it. Begun
 * by cluster-clones.ts and cluster-rollback.ts when their change is done; what it knows is what the nodes say. docs/specs/points.md#7-jobs.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { missingExtents } from "./clone-rules.ts";
import type { ApiJob } from "./cluster-bucket.ts";

export interface WholeJobParts {
  readonly catalog: Pick<VolumeCatalog, "get">;
  readonly replicasOf: (record: VolumeRecord) => readonly Pick<ReplicaView, "report">[];
  readonly clock: Clock;
  readonly isClosed: () => boolean;
}

const followMs = 1000;

/** A replica that has not applied `fromLsn` yet has nothing of it. */
export function followUntilWhole(
  { catalog, replicasOf, clock, isClosed }: WholeJobParts,
  job: ApiJob,
  volumeId: string,
  fromLsn: number,
): void {
  const missing = ({ report }: Pick<ReplicaView, "report">, sizeBytes: number): number =>
    missingExtents({ report: report !== null && report.appliedLsn < fromLsn ? null : report }, sizeBytes);
  const look = (): void => {
    const record = catalog.get(volumeId);
    if (isClosed() || record?.state !== "active") {
      if (!isClosed()) job.failed(volumeGone(job.view().volume));
      return;
    }
    const { sizeBytes } = record;
    const views = replicasOf(record);
    const total = Math.ceil(sizeBytes / limits.extentBytes) * views.length;
    const left = views.reduce((sum, view) => sum + missing(view, sizeBytes), 0);
    job.progress((total - left) * limits.extentBytes, total * limits.extentBytes);
    if (left === 0) job.done("every extent is on its storage nodes");
    else clock.after(followMs, look);
  };
  look();
}

function volumeGone(name: string): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `volume ${name} was deleted before it was whole`, {
    hint: "Nothing is left to do.",
    fields: { name },
  });
}
