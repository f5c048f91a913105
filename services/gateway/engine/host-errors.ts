/*
 * What the volume host refuses, in its own words (docs/errors.md). volume-host.ts and host-waits.ts throw them; nothing was
 * changed when they do.
 */

import { VarveError } from "#shared/domain/errors.ts";
import type { HistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReadPolicy } from "#shared/domain/volume.ts";

export function unknownVolume(name: string, names: readonly string[]): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `there is no volume named ${JSON.stringify(name)}`, {
    hint: names.length === 0 ? "There are no volumes yet." : `Volumes: ${names.join(", ")}.`,
    fields: { name },
  });
}

export function volumeExists(name: string): VarveError {
  return new VarveError("VolumeExistsError", "Invalid", `a volume named ${name} exists already`, {
    hint: "Choose another name, or delete that volume first: varve volume delete NAME.",
    fields: { name },
  });
}

export function directoryTaken(name: string, directory: string): VarveError {
  return new VarveError(
    "VolumeDirectoryTakenError",
    "Invalid",
    `${directory} exists, but the catalogue knows no volume ${name}`,
    {
      hint: "Move that directory away, or choose another name. Nothing in it was touched.",
      fields: { name },
    },
  );
}

/** A clone that still reads from it would lose its bytes. */
export function volumeNeeded(name: string, clones: string): VarveError {
  return new VarveError("VolumeNeededError", "Invalid", `volume ${name} is still read from by ${clones}`, {
    hint: `Wait until it is filled, or fill it now: varve volume fill NAME.`,
    fields: { name, clones },
  });
}

/** The bucket would go on to keep it as a volume that lives, and a rescue would bring it back. */
export function bucketNotTold(name: string): VarveError {
  return new VarveError(
    "BucketNotToldError",
    "Invalid",
    `volume ${name} is archived in a bucket, which can't be told of its deletion while no server runs`,
    {
      hint:
        `Start varve up with its bucket, then: varve volume delete ${name}. Where that bucket is gone for good, start varve up with ` +
        `--bucket none instead. Nothing was changed.`,
      fields: { name },
    },
  );
}

export function hostClosing(): VarveError {
  return new VarveError("HostClosingError", "Retry", "the server is shutting down", {
    hint: "Try again when it runs again.",
  });
}

/** `trouble`: what its archiver says that it waits for; null: an answer. */
export function bucketAway(trouble: VarveError | null): VarveError {
  const seconds = limits.bucketCommandMs / 1000;
  if (trouble !== null && trouble.kind !== "Retry") {
    const what = `the bucket did not get what it needs within ${seconds} s: ${trouble.message}`;
    const hint = `${trouble.hint} Nothing was changed.`.trim();
    return new VarveError("BucketBehindError", trouble.kind, what, { hint, cause: trouble });
  }
  const why = trouble === null ? "" : `: ${trouble.message}`;
  return new VarveError("BucketAwayError", "Retry", `the bucket did not answer within ${seconds} s${why}`, {
    hint: "Nothing was changed. Try again when it answers.",
    ...(trouble === null ? {} : { cause: trouble }),
  });
}

export function volumeBusy(name: string): VarveError {
  return new VarveError("VolumeBusyError", "Retry", `volume ${name} is being changed`, {
    hint: "Try again in a moment.",
    fields: { name },
  });
}

export function requireStrictReads(name: string, reads: ReadPolicy | undefined): void {
  if (reads !== "available") return;
  throw new VarveError(
    "ReadsAreStrict",
    "Invalid",
    `volume ${name}: reads of one machine are always strict`,
    {
      hint: "reads: available is for a cluster, whose gateways may be cut off. Nothing was changed.",
      fields: { name },
    },
  );
}

export function bucketNeeded(name: string, remote: number, extents: number): VarveError {
  return new VarveError(
    "BucketNeededError",
    "Invalid",
    `volume ${name} has ${remote} of its ${extents} extents in a bucket only, and there is none`,
    {
      hint: `Start varve up with its bucket. To do without one, fill it there first: varve volume set ${name} --residency full.`,
      fields: { name, remoteExtents: remote },
    },
  );
}

export function unknownSnapshot(record: HistoryRecord, volume: string, name: string): VarveError {
  const names = record.snapshots.map((one) => one.name);
  const shown = names.slice(-10).join(", ");
  return new VarveError("UnknownSnapshotError", "Invalid", `volume ${volume} has no snapshot ${name}`, {
    hint:
      names.length === 0
        ? "It has no snapshots yet."
        : `Snapshots: ${shown}${names.length > 10 ? ` and ${names.length - 10} older ones` : ""}.`,
    fields: { name: volume, snapshot: name },
  });
}
