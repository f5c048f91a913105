/*
 * What a rollback in a cluster is refused with, each with what was changed by then: nothing, but for one. Thrown by cluster-rollback.ts, some
 * for a shrink, too (volume-writing.ts).
 */
import type { ErrorKind } from "#shared/domain/errors.ts";
import { VarveError } from "#shared/domain/errors.ts";

interface Refusal {
  readonly kind: ErrorKind;
  readonly tag: string;
  readonly message: string;
}

/** The gateway's own words, as the error that they are. */
export function toldByHolder(name: string, { kind, tag, message }: Refusal, refused: string): VarveError {
  const isAttached = tag === "VolumeAttachedError";
  return new VarveError(tag, kind, isAttached ? `${message}; it is not ${refused}` : message, {
    hint: isAttached
      ? `Disconnect its clients first: varve volume show ${name} says which gateway serves it.${refused === "rolled back" ? " Or add --force: their connections are cut then." : ""}`
      : "The disk was not changed.",
    fields: { name },
  });
}

export function stillHeld(name: string, cause: VarveError): VarveError {
  return new VarveError("VolumeServedError", "Retry", `volume ${name} is not given up: ${cause.message}`, {
    hint: `Its clients come back again and again, or its gateway is an older Varve: stop them, or varve volume takeover ${name} --force. The disk was not changed.`,
    fields: { name, ...cause.fields },
    cause,
  });
}

/** `origin`: of a clone, the point that it begins with, as `--from` takes it. */
export function neverOpened(name: string, origin: string | null = null): VarveError {
  const instead =
    origin === null
      ? "Connect to it first."
      : `It is as it began: varve volume create NEW --from ${origin} makes the same. Else connect to it first.`;
  return new VarveError("NothingWritten", "Invalid", `volume ${name} was never opened: it has no past`, {
    hint: instead,
    fields: { name },
  });
}

export function volumeGone(name: string): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `volume ${name} was deleted meanwhile`, {
    hint: "What there is: varve volume list.",
    fields: { name },
  });
}

export function rollbackUnknown(name: string, toLsn: number, cause: VarveError): VarveError {
  return new VarveError(
    "RollbackUnknown",
    "Retry",
    `whether volume ${name} went back to entry ${toLsn} is not known: ${cause.message}`,
    {
      hint: `varve history ${name} names the last entry L; varve changes ${name} --from lsn:${toLsn} --to lsn:L shows nothing where it did. Look before anybody writes to the disk, then ask again: a second rollback to the same point makes the same disk.`,
      fields: { name, toLsn },
      cause,
    },
  );
}
