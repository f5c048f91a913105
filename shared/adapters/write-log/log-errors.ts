/*
 * The errors that a write log can give, each with what to do. Thrown by the embedded log and its memory twin, so that both
 * refuse alike; the volume session maps their kind (domain/errors.ts).
 */
import { VarveError } from "#shared/domain/errors.ts";

/** Where damage was found: enough to look at it with `varve log inspect`. */
export interface DamagePlace {
  readonly file: string;
  readonly offset: number;
  readonly lsn: number;
}

export function damage(place: DamagePlace, what: string): VarveError {
  return new VarveError(
    "LogDamaged",
    "Corrupt",
    `the log is damaged at LSN ${place.lsn}: ${what} (${place.file}, byte ${place.offset})`,
    {
      hint:
        "Nothing was changed. Keep a copy of the log folder, look at it with `varve log inspect`, check the disk, " +
        "and restore the file from a copy.",
      fields: { file: place.file, offset: place.offset, lsn: place.lsn },
    },
  );
}

export function endsEarly(directory: string, place: DamagePlace, what: string, knownLsn: number): VarveError {
  return new VarveError(
    "LogEndsEarly",
    "Corrupt",
    `the log ends at LSN ${place.lsn - 1} (${place.file}, byte ${place.offset}: ${what}), but LSN ${knownLsn} was applied to the image`,
    {
      hint: "The log folder is older than the image, damaged or was emptied. Nothing was changed. Put the right files back.",
      fields: { directory, file: place.file, offset: place.offset, lsn: place.lsn, knownLsn },
    },
  );
}

export function startsLate(file: string, firstLsn: number, knownLsn: number): VarveError {
  return new VarveError(
    "LogStartsLate",
    "Corrupt",
    `the log starts at LSN ${firstLsn} (${file}), but the image was applied only up to LSN ${knownLsn}`,
    {
      hint: "Log files are missing or the image's checkpoint is older than the log. Put the missing files back.",
      fields: { file, firstLsn, knownLsn },
    },
  );
}

export function foreignSegment(file: string, what: string, found: string, expected: string): VarveError {
  return new VarveError("LogForeign", "Corrupt", `${file} belongs to ${what} ${found}, not to ${expected}`, {
    hint: "A log folder holds the files of one volume only. Move the file that does not belong here away.",
    fields: { file, found, expected },
  });
}

export function newerFormat(file: string, offset: number, what: string): VarveError {
  return new VarveError(
    "LogFormatNewer",
    "Invalid",
    `${file}, byte ${offset}, was written by a newer Varve: ${what}`,
    {
      hint: "Start the Varve version that wrote it, or a newer one. Nothing was changed.",
      fields: { file, offset },
    },
  );
}

export function fenced(directory: string, epoch: number): VarveError {
  return new VarveError(
    "LogFenced",
    "Fenced",
    `a newer writer opened the log in ${directory}; epoch ${epoch} is over`,
    {
      hint: "Nothing more is appended by this writer. Reconnect to reach the new one.",
      fields: { directory, epoch },
    },
  );
}

/** The epoch of a new tenure: one more than the last, or the lease's, which must be newer than what the log has. */
export function nextEpoch(place: string, lastEpoch: number, ofLease: number | undefined): number {
  const epoch = ofLease ?? lastEpoch + 1;
  if (epoch > lastEpoch) return epoch;
  throw new VarveError(
    "LogFenced",
    "Fenced",
    `epoch ${epoch} of the lease is not above epoch ${lastEpoch} of the log in ${place}`,
    {
      hint: "Somebody newer wrote meanwhile. Nothing was changed. Ask for the lease again.",
      fields: { place, epoch: lastEpoch, ofLease: epoch },
    },
  );
}

export function closed(directory: string): VarveError {
  return new VarveError("LogClosed", "Retry", `the log in ${directory} was closed`, {
    hint: "The volume is being stopped. Connect again later.",
  });
}

export function limitReached(directory: string, diskBytes: number, bytesMax: number): VarveError {
  return new VarveError(
    "LogFull",
    "Full",
    `the log in ${directory} takes ${diskBytes} of ${bytesMax} bytes and nothing of it can be released`,
    {
      hint: "Writes are refused until a checkpoint or the archive releases log. Nothing acknowledged is lost.",
      fields: { diskBytes, bytesMax },
    },
  );
}

/** The disk gave no blocks for another segment. */
export function noSegment(directory: string, cause: VarveError): VarveError {
  return new VarveError(
    "LogNoSegment",
    cause.kind,
    `no further log segment could be made in ${directory}: ${cause.message}`,
    {
      hint: "Make room on the disk (or see to it, if it fails). Writes go on by themselves then; nothing acknowledged is lost.",
      fields: { directory },
      cause,
    },
  );
}

export function noRoomYet(directory: string): VarveError {
  return new VarveError("LogRoomPending", "Retry", `the next segment in ${directory} is being prepared`, {
    hint: "Append again when state().roomBytes has grown.",
  });
}

export function notRetained(fromLsn: number, oldestLsn: number): VarveError {
  return new VarveError(
    "LogReleased",
    "Invalid",
    `LSN ${fromLsn} is no longer in the log, which starts at LSN ${oldestLsn}`,
    { hint: "Read from a later LSN, or from the archive.", fields: { fromLsn, oldestLsn } },
  );
}
