/*
 * The write log of one volume: the durable, ordered truth (docs/formats/log-record.md). The volume writer appends, the
 * image applier and later the archiver read, checkpoints release. Adapters: adapters/write-log/embedded-file.ts, jetstream-log.ts
 * (several machines), memory.ts.
 * One contract suite (test/contract/write-log.contract.ts) runs on every adapter.
 */

import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { LoggedBatch } from "./history.ts";

/**
 * What the writer is told, always in LSN order. Calls come on the event loop, never from inside append(); from inside pump()
 * only where it was told that it may block, and did.
 */
export interface LogListener {
  /** Every entry up to and including `lsn` is stored (survives a kill of the process). `flush` volumes may reply now. */
  stored(lsn: number): void;
  /** Every entry up to and including `lsn` is durable (survives power loss). Implies stored(lsn). */
  durable(lsn: number): void;
  /** The log stopped: nothing after the last durable() is promised, every later append is refused. Called once. */
  halted(error: VarveError): void;
  /** state().roomBytes or state().refusal changed: an append that was refused with Retry gets another answer now. */
  room?(): void;
  /**
   * The log can't be reached or has no quorum: what was appended waits, nothing is lost, and the log goes on by itself (kind
   * Retry; kind Full where its servers have no space). Null: it went on. Never told by a log on this machine.
   */
  stalled?(error: VarveError | null): void;
}

export type Durability = "write" | "flush";

export interface LogOpenOptions {
  /** Goes into the epoch entry: who writes (host name, pid). */
  readonly writer: string;
  readonly durability: Durability;
  readonly listener: LogListener;
  /** Greatest LSN that a checkpoint of this volume is known to have applied: a log that ends before it is refused (Corrupt). */
  readonly knownLsn: number;
  /** Where there is no log yet: it goes on from here instead of beginning at LSN 1 (rescue). Else without meaning. */
  readonly begin?: LogBeginning;
  /**
   * The epoch that a lease gave: exactly this one is taken; rejects Fenced (fields.epoch: the one found) where the log has it
   * or a newer one. Without it: one more than the last.
   */
  readonly epoch?: number;
  /**
   * Asked by a log that needs a greater epoch for the same tenure (a take-over by somebody who then went away): one above
   * `above` that is still this writer's by its lease; null: the lease is gone. Without it any number will do.
   */
  readonly renewEpoch?: (above: number) => Promise<number | null>;
}

/** What the first entry of a log follows, where its volume had another line before. */
export interface LogBeginning {
  /** The new line, 16 hex digits. */
  readonly line: string;
  /** The entry before the first one; the first one is lastLsn + 1, chained to nothing. */
  readonly lastLsn: number;
  /** Epoch of that entry; the first writer gets the next one. */
  readonly epoch: number;
}

export interface LogState {
  /** Random id of this log's life, 16 hex digits. */
  readonly line: string;
  readonly epoch: number;
  /** First LSN that can still be read. */
  readonly oldestLsn: number;
  /** LSN of the last appended entry; the next entry is lastLsn + 1. */
  readonly lastLsn: number;
  readonly storedLsn: number;
  readonly durableLsn: number;
  /** Bytes of the log on disk, spare and prepared segments included. */
  readonly diskBytes: number;
  /**
   * Bytes of records (4 KiB + payload, in whole blocks) that append() will take with certainty: their blocks are allocated.
   * More is made ready in the background while `refusal` is null; listener.room() tells.
   */
  readonly roomBytes: number;
  /** Why there will be no more room until release() (kind Full: log limit, disk full), or why the log ended; else null. */
  readonly refusal: VarveError | null;
}

export interface WriteLog {
  /**
   * Recovers and fences: cuts the torn tail, rewrites and syncs everything past the greatest durable mark, then appends an
   * epoch entry (epoch = last epoch + 1) and waits until it is durable. Rejects Corrupt for damage (with file, offset, LSN).
   */
  open(options: LogOpenOptions): Promise<LogWriter>;
  close(): Promise<void>;
}

export interface LogWriter {
  /** Payload of one batch at most; never changes while the log is open. */
  readonly batchPayloadBytesMax: number;
  state(): LogState;
  /**
   * Queues a batch: gives it LSNs (draft.firstLsn is set, state().lastLsn moves at once) and takes its slab over until the
   * batch is durable (the draft's owner may free the slab only after durable()). Order of calls is order of the log.
   * After halted() or close() it throws a VarveError. Where there is no room it throws with nothing changed: kind Full
   * (state().refusal), or Retry while more room is being made ready.
   */
  append(draft: BatchDraft): void;
  /**
   * Starts writing what is queued, if a slot is free. `mayBlock` true: the caller serves nobody else now, so a write on this
   * thread is allowed where its measured p99 is below 1 ms. Called at the end of each round of input.
   */
  pump(mayBlock: boolean): void;
  /** Resolves when all that was appended before the call is durable; at once where it is already. Rejects when halted. */
  sync(): Promise<void>;
  /**
   * Batches from the one that holds `fromLsn` (must be ≥ oldestLsn, else Invalid) up to what is stored now, checked, each with
   * the exact bytes of its record.
   */
  read(fromLsn: number): AsyncIterable<LoggedBatch>;
  /** Everything before `beforeLsn` may be forgotten; whole segments are recycled or removed. Never touches `beforeLsn` or later. */
  release(beforeLsn: number): Promise<void>;
  /** Syncs what is appended, waits, stops. Idempotent. */
  close(): Promise<void>;
}
