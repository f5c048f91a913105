/*
 * An entry: one event of a volume. Entries are physical (exact byte ranges), so that applying one twice gives the same disk.
 * Batches carry them (batch.ts); the fold (fold.ts) and the image applier interpret them.
 */
import { limits } from "./limits.ts";
import { volumeNameMistake } from "./volume.ts";

/** Numbers as they stand in a batch's header (docs/formats/log-record.md). Never reused. */
export const entryKind = {
  write: 0,
  /** Reads as zero, blocks may be deallocated. */
  zero: 1,
  /** Reads as zero, blocks stay allocated (NBD WRITE_ZEROES with NO_HOLE). */
  zeroAllocated: 2,
  trim: 3,
  epoch: 4,
  mark: 5,
  resize: 6,
  rebase: 7,
} as const;

export type EntryKindNumber = (typeof entryKind)[keyof typeof entryKind];

export type Entry =
  | {
      readonly kind: "write";
      readonly offset: number;
      readonly length: number;
      /** Where this entry's bytes start in the batch's payload. */
      readonly payloadStart: number;
    }
  | { readonly kind: "zero" | "zeroAllocated" | "trim"; readonly offset: number; readonly length: number }
  | { readonly kind: "epoch"; readonly writer: string }
  | { readonly kind: "mark"; readonly name: string }
  | { readonly kind: "resize"; readonly sizeBytes: number }
  | { readonly kind: "rebase"; readonly lsn: number };

/** Who took an epoch: printable ASCII, for people to read. */
const writerPattern = /^[\x20-\x7e]{1,128}$/;

/** Whether a range may stand in an entry: not empty, within the largest volume. Both sides of the log check with it. */
export function isEntryRange(offset: number, length: number): boolean {
  return (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length > 0 &&
    offset + length <= limits.volumeBytesMax
  );
}

/** Whether a value may stand in an epoch, mark, resize or rebase entry. Marks are named by the rule of volume names. */
export function isEntryValue(kind: 4 | 5 | 6 | 7, value: string | number): boolean {
  if (typeof value === "string") {
    if (kind === entryKind.mark) return volumeNameMistake(value) === null;
    return kind === entryKind.epoch && writerPattern.test(value);
  }
  if (kind === entryKind.resize) return isVolumeSize(value);
  return kind === entryKind.rebase && Number.isSafeInteger(value) && value >= 1;
}

/** Whether a volume may have this many bytes. */
export function isVolumeSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= limits.volumeBytesMin && value <= limits.volumeBytesMax;
}

/** A writer's name that an epoch entry can hold, from any text (a host name and a process id). */
export function writerName(text: string): string {
  const plain = text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, limits.writerLengthMax);
  return plain === "" ? "unknown" : plain;
}
