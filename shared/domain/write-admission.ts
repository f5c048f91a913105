/*
 * Whether an entry may be taken in: only when log and image will find room for it, whatever happens next (design §3: refuse
 * before an acknowledged entry could fail). The storage engine keeps one SpaceLedger per file system and asks
 * refuseEntry() for each write, before the entry goes to the log. Pure: free space is sampled by the caller.
 */
import { type EntryKindNumber, entryKind, isEntryRange } from "./entry.ts";
import { VarveError } from "./errors.ts";
import { invariant } from "./invariant.ts";
import { limits } from "./limits.ts";

/** What an entry is judged by. A reused object serves. */
export interface AdmissionFacts {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Image bytes that may still be promised: SpaceLedger.roomBytes. */
  readonly imageRoomBytes: number;
  /** Record bytes that the log takes with certainty. */
  readonly logRoomBytes: number;
}

/** Null: admitted. Else why not; nothing was changed. `kind` is one of the four range kinds. */
export function refuseEntry(
  kind: EntryKindNumber,
  offset: number,
  length: number,
  facts: AdmissionFacts,
): VarveError | null {
  if (facts.readOnly) {
    return new VarveError("ReadOnlyError", "Invalid", "the volume is read-only", {
      hint: "Open it where it may be written.",
    });
  }
  if (kind > entryKind.trim || !isEntryRange(offset, length) || offset + length > facts.sizeBytes) {
    const range = `[${offset}, ${offset + length})`;
    return new VarveError(
      "OutOfRangeError",
      "Invalid",
      `${range} is not in a disk of ${facts.sizeBytes} bytes`,
      {
        hint: "Ask for a range within the disk.",
        fields: { kind, offset, length, sizeBytes: facts.sizeBytes },
      },
    );
  }
  if (recordRoomBytes(kind, length) > facts.logRoomBytes) return full("log", offset, length);
  if (imageRoomBytes(kind, offset, length) > facts.imageRoomBytes) return full("image", offset, length);
  return null;
}

/** The most that one entry can take in the image: whole blocks, as if all of its range were a hole now. */
export function imageRoomBytes(kind: EntryKindNumber, offset: number, length: number): number {
  if (kind !== entryKind.write && kind !== entryKind.zeroAllocated) return 0;
  const first = Math.floor(offset / limits.blockBytes);
  const end = Math.ceil((offset + length) / limits.blockBytes);
  return (end - first) * limits.blockBytes;
}

/** The most that one entry can take in the log: a record of its own. */
export function recordRoomBytes(kind: EntryKindNumber, length: number): number {
  const payloadBytes = kind === entryKind.write ? length : 0;
  return limits.batchHeaderBytesMax + Math.ceil(payloadBytes / limits.blockBytes) * limits.blockBytes;
}

function full(where: "log" | "image", offset: number, length: number): VarveError {
  return new VarveError("OutOfSpaceError", "Full", `no room in the ${where} for a write of ${length} bytes`, {
    hint:
      where === "log"
        ? "The log gives room back when the image's next checkpoint is done; see `varve volume show`."
        : "Free space in the file system of the data directory, or trim and delete inside the disk.",
    fields: { where, offset, length },
  });
}

/**
 * Promised and used space of one file system. Each admitted entry's bytes are promised until it is applied; a sample of the
 * free space counts what was applied before the sample began, so everything applied later stays promised until the next
 * sample. The reserve is never promised: it is for file-system metadata (extent trees, about 1 % of scattered 4 KiB
 * blocks), checkpoints, and other programs' writes between two samples.
 */
export class SpaceLedger {
  readonly reserveBytes: number;
  /** Admitted, not applied. */
  private openBytes = 0;
  /** Applied since the last finished sample began. */
  private settledBytes = 0;
  /** Applied since the sample that is under way began. */
  private settledInSampleBytes = 0;
  private freeBytes = 0;

  constructor(reserveBytes: number = limits.reserveBytes) {
    this.reserveBytes = reserveBytes;
  }

  /** Bytes that may still be promised; 0 before the first sample. */
  get roomBytes(): number {
    return Math.max(0, this.freeBytes - this.reserveBytes - this.openBytes - this.settledBytes);
  }

  /** Promised bytes of entries that are not applied. */
  get promisedBytes(): number {
    return this.openBytes;
  }

  /** An entry of so many image bytes was admitted. */
  admit(bytes: number): void {
    this.openBytes += bytes;
  }

  /** ... and is in the image now. */
  settle(bytes: number): void {
    invariant(bytes <= this.openBytes, "only what was admitted is settled");
    this.openBytes -= bytes;
    this.settledBytes += bytes;
    this.settledInSampleBytes += bytes;
  }

  /** ... or failed and never reached the image. */
  withdraw(bytes: number): void {
    invariant(bytes <= this.openBytes, "only what was admitted is withdrawn");
    this.openBytes -= bytes;
  }

  /** Call right before the file system is asked for its free space. One sample at a time. */
  beginSample(): void {
    this.settledInSampleBytes = 0;
  }

  /** ... and with its answer. */
  endSample(freeBytes: number): void {
    invariant(freeBytes >= 0, "free space is not negative");
    this.freeBytes = freeBytes;
    this.settledBytes = this.settledInSampleBytes;
  }
}
