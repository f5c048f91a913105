/*
 * What a cluster refuses of a new or changed volume, said alike by cluster-volumes.ts, cluster-past.ts and cluster-clones.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";

export function writeOnly(name: string): VarveError {
  return new VarveError(
    "FlushVolumeRefused",
    "Invalid",
    `volume ${name}: a cluster has durability write only`,
    {
      hint: "A client that fails over to another gateway could not know of lost answers.",
      fields: { name },
    },
  );
}

export function noHistory(name: string): VarveError {
  return new VarveError(
    "NoHistoryInCluster",
    "Invalid",
    `volume ${name}: this api has no bucket to keep history in`,
    {
      hint: "Start varve api with --bucket, the archivers' one, or leave the policy out. Nothing was changed.",
      fields: { name },
    },
  );
}

export function notYet(name: string, what: string): VarveError {
  return new VarveError("NotInCluster", "Invalid", `volume ${name} can't be ${what} in a cluster`, {
    hint: "This works with varve up on one machine only. Nothing was changed.",
    fields: { name },
  });
}
