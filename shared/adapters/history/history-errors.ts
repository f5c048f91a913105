/*
 * What can go wrong between a point and its bytes, each with what to do (docs/specs/history.md). Thrown all over this folder;
 * the kind decides what the caller sees: NBD errno, HTTP status, exit code.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { timeText } from "#shared/domain/wall-time.ts";

/** The object and what is wrong with it; `fault` as the codecs name it. */
export function objectDamaged(place: string, key: string, fault: string, detail: string): VarveError {
  if (fault === "version" || fault === "flags") {
    return new VarveError(
      "BucketFormatNewer",
      "Invalid",
      `${key} in ${place} can't be read here: ${detail}`,
      {
        hint: "It was written by a newer Varve. Start that version, or a newer one. Nothing was changed.",
        fields: { key, place },
      },
    );
  }
  return new VarveError("BucketObjectDamaged", "Corrupt", `${key} in ${place} is damaged: ${detail}`, {
    hint: "Nothing was changed. `varve bucket check` lists what is damaged; put the object back from a copy of the bucket.",
    fields: { key, place, fault },
  });
}

export const objectMissingTag = "BucketObjectMissing";
const logReleasedTag = "LogReleasedMeanwhile";

/** Nothing pins a log on other machines: what was released is in the bucket, and is found there by whoever looks again. */
export function logReleased(cause: VarveError): VarveError {
  return new VarveError(logReleasedTag, "Retry", cause.message, {
    hint: "It is in the bucket by now: try again.",
    cause,
  });
}

/** Waited for in vain. */
export function logAway(lsn: number): VarveError {
  return new VarveError("LogAway", "Retry", `the log's servers gave nothing from LSN ${lsn} on for 30 s`, {
    hint: "Look whether the NATS servers run and reach each other. What is in the bucket can be read meanwhile.",
    fields: { lsn },
  });
}

export function isLogReleased(error: unknown): boolean {
  return error instanceof VarveError && error._tag === logReleasedTag;
}

export function objectMissing(place: string, key: string): VarveError {
  return new VarveError(objectMissingTag, "Corrupt", `${key} is not in ${place}, but a manifest names it`, {
    hint:
      "If the point has left the history window since it was opened, open it again. Else somebody removed the object: " +
      "`varve bucket check` lists all that are missing; put it back from a copy of the bucket.",
    fields: { key, place },
  });
}

/** Served here, but its archiver has not reached the bucket since the start. */
export function historyNotKnown(volumeId: string, trouble: VarveError | null): VarveError {
  const why = trouble?.message ?? "since the start it has not answered, or has nothing of the volume";
  const message = `what the bucket has of volume ${volumeId} is not known yet: ${why}`;
  return new VarveError("HistoryNotKnown", "Retry", message, {
    ...(trouble === null ? {} : { cause: trouble }),
    hint:
      trouble !== null && trouble.kind !== "Retry" && trouble.hint !== ""
        ? trouble.hint
        : "Try again when the bucket answers. If it does already: is it the volume's own bucket? varve volume show says what its archiver waits for.",
  });
}

export function badQuestion(what: string): VarveError {
  return new VarveError("HistoryQuestion", "Invalid", what, {
    hint: "Ask for a range that begins before it ends.",
  });
}

export function volumeNotInBucket(place: string, volumeId: string): VarveError {
  return new VarveError("VolumeNotInBucket", "Invalid", `${place} has no manifest of volume ${volumeId}`, {
    hint: "See `varve rescue --list` for the volumes of a bucket, and whether this is the right one.",
    fields: { volumeId, place },
  });
}

export interface OpenRange {
  readonly fromLsn: number;
  readonly toLsn: number;
  readonly fromMs: number;
  readonly toMs: number;
}

export const pointNotThereTag = "PointNotThere";

/** `range` null: not known where it is thrown; volume-past.ts adds it. */
export function pointNotThere(what: string, range: OpenRange | null): VarveError {
  const opens =
    range === null
      ? ""
      : `: points from lsn:${range.fromLsn} (${timeText(range.fromMs)}) to lsn:${range.toLsn} (${timeText(range.toMs)}) open, and its snapshots`;
  return new VarveError(pointNotThereTag, "Invalid", `${what}${opens}`, {
    hint: "`varve history VOLUME` shows what is there, `varve snapshot list VOLUME` its snapshots.",
    fields: range === null ? {} : { fromLsn: range.fromLsn, toLsn: range.toLsn },
  });
}

export function timeAmbiguous(wallTimeMs: number, lsns: readonly number[]): VarveError {
  const candidates = lsns.map((lsn) => `lsn:${lsn}`).join(", ");
  const message = `the clock went back, and ${timeText(wallTimeMs)} was there more than once: ${candidates}`;
  return new VarveError("PointTimeAmbiguous", "Invalid", message, {
    hint: "Name one of these points instead of the time; the newest stands first.",
    fields: { candidates },
  });
}

export function pointInGap(
  lsn: number,
  gap: { readonly fromLsn: number; readonly toLsn: number },
): VarveError {
  const message = `the history from lsn:${gap.fromLsn} up to lsn:${gap.toLsn} was given up while the bucket was away, and lsn:${lsn} needs it`;
  return new VarveError("PointInGap", "Invalid", message, {
    hint: "Take a point before or after.",
    fields: { lsn, fromLsn: gap.fromLsn, toLsn: gap.toLsn },
  });
}

export function historyIncomplete(volumeId: string, lsn: number, what: string): VarveError {
  return new VarveError(
    "HistoryIncomplete",
    "Corrupt",
    `the log of volume ${volumeId} at LSN ${lsn}: ${what}`,
    {
      hint: "The bucket's manifest and its log do not fit together. Run `varve bucket check`. Nothing was changed.",
      fields: { volumeId, lsn },
    },
  );
}

export function historyTooLong(volumeId: string, lsn: number, what: string): VarveError {
  return new VarveError(
    "HistoryTooLong",
    "Full",
    `lsn:${lsn} of volume ${volumeId} needs too much: ${what}`,
    {
      hint: "Wait for the volume's next base (the archiver takes one), or take a point before or after.",
      fields: { volumeId, lsn },
    },
  );
}

export function sourceClosed(volumeId: string, lsn: number): VarveError {
  return new VarveError("PointClosed", "Retry", `lsn:${lsn} of volume ${volumeId} was closed`, {
    hint: "Open the point again.",
  });
}
