/*
 * A batch: a contiguous run of entries stored as one record (group commit), as read back from a log. The write side is
 * batch-draft.ts. Encoded by shared/formats/log-record.ts.
 */
import type { Entry } from "./entry.ts";

export interface Batch {
  readonly line: string;
  readonly epoch: number;
  /** LSN of entries[0]; the last entry has firstLsn + entries.length - 1. */
  readonly firstLsn: number;
  /** Writer's wall clock when the batch was closed; may go backwards. */
  readonly wallTimeMs: number;
  /** Greatest LSN known durable when this batch was written. */
  readonly durableLsn: number;
  /** Checksum of the batch before (0n for the first of a line) and of this one. */
  readonly previousChecksum: bigint;
  readonly checksum: bigint;
  readonly entries: readonly Entry[];
  /** Where the log holds it, for logs that count their messages: several batches may have the same. */
  readonly sequence?: number;
  /** The bytes of all write entries, one after the other. Valid until the reader goes on to the next batch. */
  readonly payload: Uint8Array;
}

export function lastLsnOf(batch: { readonly firstLsn: number; readonly entries: readonly Entry[] }): number {
  return batch.firstLsn + (batch.entries.length - 1);
}

/** The batch with a payload of the caller's own, and nothing else that its reader has along with it. */
export function batchWith(batch: Batch, payload: Uint8Array): Batch {
  const { line, epoch, firstLsn, wallTimeMs, durableLsn, previousChecksum, checksum, entries } = batch;
  return { line, epoch, firstLsn, wallTimeMs, durableLsn, previousChecksum, checksum, entries, payload };
}
