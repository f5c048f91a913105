/*
 * An entry: one event of a volume. Entries are physical (exact byte ranges), so that applying one twice gives the same disk.
 * Batches carry them (batch.ts); the fold (fold.ts) and the image applier interpret them.
 */

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
