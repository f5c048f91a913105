/*
 * What an undelete in a cluster refuses, and what it says of a volume that is on its way. Used by cluster-undelete.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";

/** What is still here of it, or half back, has its name. */
export function comesBackAs(name: string, as: string): VarveError {
  return new VarveError(
    "VolumeSettlingError",
    "Retry",
    `volume ${name} comes back as ${name} only, not as ${as}: its log or its files are still here`,
    {
      hint: `Leave out --as, or wait until the bucket holds all of it: until then varve volume list has it.`,
      fields: { name, as },
    },
  );
}

/** Its nodes have not removed their files yet, or it is back. */
export function stillGoing({ name, state }: VolumeRecord): VarveError {
  const what = state === "deleting" ? "is being removed by its storage nodes" : "is there";
  return new VarveError("VolumeSettlingError", "Retry", `volume ${name} ${what}`, {
    hint: "It can be undeleted when it is gone: a node that is away removes its files when it is back. Nothing was changed.",
    fields: { name },
  });
}

export function logOfAnother(name: string): VarveError {
  return new VarveError("LogOfAnotherLine", "Retry", `volume ${name} has a log that it does not go on with`, {
    hint: `Take away what is half there, then undelete it again: varve volume delete ${name}.`,
    fields: { name },
  });
}

/** Somebody deleted it while it came back, or another process brings it back. */
export function takenAway(name: string): VarveError {
  return new VarveError(
    "UndeleteOvertaken",
    "Retry",
    `volume ${name} was changed by somebody else meanwhile`,
    {
      hint: "Look how it stands: varve volume list, varve volume list --deleted. Then undelete it again if it is not back.",
      fields: { name },
    },
  );
}
