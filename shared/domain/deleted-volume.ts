/*
 * A deleted volume as its last manifest in the bucket has it: how it is listed, which one a name means, and what an undelete refuses.
 * Pure; said alike by one machine (services/archiver/engine/bucket-keeper.ts) and by a cluster's api (services/api/engine/cluster-undelete.ts).
 */
import type { VolumeManifest } from "./archive.ts";
import { VarveError } from "./errors.ts";

/** A volume of the bucket that is deleted and can come back. */
export interface DeletedVolume {
  readonly volumeId: string;
  readonly name: string;
  readonly sizeBytes: number;
  readonly deletedAtMs: number;
  readonly archivedLsn: number;
  /** Retention time left before it goes, or null where no collector has seen it yet. */
  readonly goesInMs: number | null;
}

/** `left`: the retention time that is left to those that a collection has seen. */
export function deletedView(
  { volumeId, name, sizeBytes, deletedAtMs, archivedLsn }: VolumeManifest,
  left: ReadonlyMap<string, number>,
): DeletedVolume {
  const goesInMs = left.get(volumeId) ?? null;
  return { volumeId, name, sizeBytes, deletedAtMs: deletedAtMs ?? 0, archivedLsn, goesInMs };
}

/** By name or id. Throws Invalid: UnknownVolumeError where there is none, AmbiguousVolumeError where several had the name. */
export function oneDeleted<T extends { readonly name: string; readonly volumeId: string }>(
  name: string,
  deleted: readonly T[],
): T {
  const found = deleted.filter((one) => one.name === name || one.volumeId === name);
  const [one] = found;
  if (one === undefined) throw notDeleted(name, deleted);
  if (found.length > 1) throw severalDeleted(name, found);
  return one;
}

export function isNameTaken(cause: unknown): cause is VarveError {
  return cause instanceof VarveError && cause._tag === "VolumeExistsError";
}

export function nameTaken(name: string, wanted: string, { _tag, kind, message }: VarveError): VarveError {
  return new VarveError(_tag, kind, message, {
    hint: `Bring the deleted one back under another name: varve volume undelete ${name} --as OTHER. Nothing was changed.`,
    fields: { name: wanted },
  });
}

function notDeleted(name: string, deleted: readonly { readonly name: string }[]): VarveError {
  const names = deleted.map((one) => one.name);
  return new VarveError(
    "UnknownVolumeError",
    "Invalid",
    `there is no deleted volume ${JSON.stringify(name)}`,
    {
      hint:
        names.length === 0 ? "The bucket has no deleted volumes." : `Deleted volumes: ${names.join(", ")}.`,
      fields: { name },
    },
  );
}

function severalDeleted(name: string, found: readonly { readonly volumeId: string }[]): VarveError {
  const ids = found.map(({ volumeId }) => volumeId).join(", ");
  return new VarveError("AmbiguousVolumeError", "Invalid", `several deleted volumes had the name ${name}`, {
    hint: `Say which by its id: ${ids}. varve volume list --deleted shows when each was deleted.`,
    fields: { name },
  });
}
