/*
 * What a clone of a cluster still needs of its parent, by its records and what its replicas say, and when the parent may not go. Asked by
 * cluster-volumes.ts before a deletion, by cluster-clones.ts for a clone's progress, by cluster-past-view.ts. docs/specs/cluster.md#clones.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";

/** Extents of a replica that are not on its node, as far as it is known: all of one that says nothing. */
export function missingExtents({ report }: Pick<ReplicaView, "report">, sizeBytes: number): number {
  return report === null ? Math.ceil(sizeBytes / limits.extentBytes) : (report.remoteExtents ?? 0);
}

export interface CloneGround {
  readonly past: Pick<PastRecords, "historyOf" | "archiveOf">;
  readonly replicasOf: (record: VolumeRecord) => readonly Pick<ReplicaView, "report">[];
}

/**
 * Refuses where a clone among `records` has not got all of it yet, or the bucket does not hold yet what points of a clone are folded from.
 * Afterwards the bucket keeps of a deleted parent what its clones need (docs/specs/retention.md).
 */
export function requireNotNeeded(
  { id, name }: VolumeRecord,
  records: readonly VolumeRecord[],
  { past, replicasOf }: CloneGround,
): void {
  const clones = records.flatMap((record) => {
    const origin = past.historyOf(record.id)?.origin ?? null;
    return record.state === "deleting" || origin?.volumeId !== id ? [] : [{ record, lsn: origin.lsn }];
  });
  const reading = clones.flatMap(({ record }) => {
    const why = stillReads(record, { past, replicasOf });
    return why === null ? [] : [{ record, why }];
  });
  const [first] = reading;
  if (first !== undefined) throw stillNeeded(name, namesOf(reading), first);
  const heldLsn = past.archiveOf(id)?.heldLsn ?? 0;
  const unheld = clones.filter(({ lsn }) => lsn > heldLsn);
  if (unheld.length > 0) throw notHeld(name, namesOf(unheld));
}

/** What a clone waits for before its parent may go, as a person is told; null: nothing. */
function stillReads(record: VolumeRecord, { past, replicasOf }: CloneGround): string | null {
  if (record.state === "settling") return "was deleted, and may come back as it is until the bucket holds it";
  if (record.state !== "active") return "is not made yet";
  const missing = replicasOf(record).map((view) => missingExtents(view, record.sizeBytes));
  const most = Math.max(0, ...missing);
  if (most > 0)
    return `has a replica that misses ${most} extents (varve replica list; a tiered one is made whole by varve volume fill)`;
  const archive = past.archiveOf(record.id);
  if ((archive?.heldLsn ?? 0) > 0) return null;
  if ((archive?.archivedLsn ?? 0) > 0)
    return "is archived, which its bucket counts as safe in some minutes (varve volume show)";
  return "has no entry of its own in the bucket: a volume that was used once has one a minute later (varve volume show)";
}

function namesOf(clones: readonly { readonly record: VolumeRecord }[]): string {
  return clones.map(({ record }) => record.name).join(", ");
}

function stillNeeded(
  name: string,
  clones: string,
  { record, why }: { readonly record: VolumeRecord; readonly why: string },
): VarveError {
  return new VarveError("VolumeNeededError", "Invalid", `volume ${name} is still read from by ${clones}`, {
    hint: `Volume ${record.name} ${why}. Try again then. Nothing was changed.`,
    fields: { name, clones },
  });
}

function notHeld(name: string, clones: string): VarveError {
  return new VarveError(
    "VolumeNotHeldError",
    "Retry",
    `the bucket has not settled what ${clones} still needs of volume ${name}`,
    {
      hint: "Nothing was changed. Try again in some minutes: stores that settle need five.",
      fields: { name, clones },
    },
  );
}
