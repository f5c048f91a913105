/*
 * What a cluster refuses of a new or changed volume, said alike by cluster-volumes.ts, cluster-past.ts and cluster-clones.ts.
 */

import { readableByteSize } from "#shared/domain/byte-size.ts";
import type { LeaseRecord } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";

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

export function stillServed(name: string, { holder, address }: LeaseRecord): VarveError {
  return new VarveError("VolumeAttachedError", "Retry", `volume ${name} is served by gateway ${holder}`, {
    hint: `Disconnect its clients at ${address}; the gateway lets it go 30 s later. Nothing was changed.`,
    fields: { name, holder },
  });
}

/** For whoever wants the volume of that name, or the name. */
export function volumeSettling(name: string): VarveError {
  return new VarveError(
    "VolumeSettlingError",
    "Retry",
    `volume ${name} was deleted; its log and its files stay until the bucket holds all of it`,
    {
      hint: `Its archiver sees to that, some minutes after it is archived; then the name is free. To have it back: varve volume undelete ${name}.`,
      fields: { name },
    },
  );
}

/** Before its name is given to another one. */
export function refuseSettling(catalog: Pick<VolumeCatalog, "find">, name: string): void {
  if (catalog.find(name)?.state === "settling") throw volumeSettling(name);
}

export function notYet(name: string, what: string): VarveError {
  return new VarveError("NotInCluster", "Invalid", `volume ${name} can't be ${what} in a cluster`, {
    hint: "This works with varve up on one machine only. Nothing was changed.",
    fields: { name },
  });
}

/** `why`: the pools that can't, each with its limit. */
export function tooLargeForFiles(name: string, sizeBytes: number, why: readonly string[]): VarveError {
  return new VarveError(
    "VolumeTooLargeForPool",
    "Full",
    `volume ${name} can't have ${readableByteSize(sizeBytes)}: ${why.join("; ")}`,
    {
      hint: "Move those replicas to a pool on a file system for larger files, as XFS: varve replica move. Nothing was changed.",
      fields: { name, sizeBytes },
    },
  );
}
