/*
 * The write log without files: the embedded log's twin for tests of everything above the port, with the same promises, the
 * same record bytes and the same refusals. What survives crash() is what was durable, and a prefix of the rest; what survives
 * kill() is what was stored. Built by tests; contract: test/contract/write-log.contract.ts.
 */
import { lastLsnOf } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { frameRecord, isBadRecord, readRecord } from "#shared/formats/log-record.ts";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { LogListener, LogOpenOptions, LogState, LogWriter, WriteLog } from "#shared/ports/write-log.ts";
import {
  closed,
  damage,
  endsEarly,
  fenced,
  limitReached,
  nextEpoch,
  notRetained,
  startsLate,
} from "./log-errors.ts";
import { type RecordDraft, recordBytesOfDraft } from "./record-draft.ts";

export interface MemoryLogParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly logBytesMax?: number;
  readonly retainedBytes?: number;
  readonly unsyncedAgeMsMax?: number;
}

const place = "memory";
/** Room for the epoch entries of those who open a full log. */
const epochReserveBytes = 16 * limits.blockBytes;

interface StoredRecord {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly bytes: Buffer;
}

export class MemoryWriteLog implements WriteLog {
  readonly parts: MemoryLogParts;
  line: string;
  /** What the first record follows. */
  #beginLsn = 0;
  /** Stored records, oldest first. */
  records: StoredRecord[] = [];
  durableLsn = 0;
  #epoch = 0;
  #writer: MemoryLogWriter | null = null;

  constructor(parts: MemoryLogParts) {
    this.parts = parts;
    this.line = parts.random.hex(8);
  }

  get lastLsn(): number {
    return this.records.at(-1)?.lastLsn ?? this.#beginLsn;
  }

  async open(options: LogOpenOptions): Promise<MemoryLogWriter> {
    const { begin } = options;
    if (begin !== undefined && this.records.length === 0) {
      this.line = begin.line;
      this.#beginLsn = begin.lastLsn;
      this.#epoch = begin.epoch;
    }
    const { lastLsn } = this;
    const end = { file: place, offset: 0, lsn: lastLsn + 1 };
    if (lastLsn < options.knownLsn) throw endsEarly(place, end, "no record", options.knownLsn);
    const first = this.records[0]?.firstLsn ?? 1;
    if (first > options.knownLsn + 1) throw startsLate(place, first, options.knownLsn);
    const epoch = nextEpoch(place, this.#epoch, options.epoch);
    await this.#writer?.fence();
    this.#epoch = epoch;
    this.durableLsn = lastLsn;
    const writer = new MemoryLogWriter(this, this.#epoch, options);
    await writer.begin(options.writer);
    this.#writer = writer;
    return writer;
  }

  async close(): Promise<void> {
    await this.#writer?.close();
  }

  /** The power fails: what was durable survives, and as much of the rest as chance has it. The writer is gone. */
  crash(): void {
    const kept = this.records.filter(({ lastLsn }) => lastLsn <= this.durableLsn).length;
    const extra = Math.floor(this.parts.random.next() * (this.records.length - kept + 1));
    this.records.length = kept + extra;
    this.#abandon();
  }

  /** The process dies: what was stored survives. */
  kill(): void {
    this.#abandon();
  }

  #abandon(): void {
    this.#writer?.abandon();
    this.#writer = null;
  }
}

interface Waiter {
  readonly lsn: number;
  readonly resolve: () => void;
  readonly reject: (error: VarveError) => void;
}

export class MemoryLogWriter implements LogWriter {
  readonly batchPayloadBytesMax = limits.batchPayloadBytesMax;
  readonly #log: MemoryWriteLog;
  readonly #epoch: number;
  readonly #flushes: boolean;
  readonly #listener: LogListener;
  #queue: RecordDraft[] = [];
  #waiters: Waiter[] = [];
  #lastLsn: number;
  #chain: bigint;
  #usedBytes = 0;
  #ended: VarveError | null = null;
  #refusal: VarveError | null = null;
  #listening = false;
  #storing = false;
  #syncing = false;
  #timer: Timer | null = null;

  constructor(log: MemoryWriteLog, epoch: number, options: LogOpenOptions) {
    this.#log = log;
    this.#epoch = epoch;
    this.#flushes = options.durability === "flush";
    this.#listener = options.listener;
    this.#lastLsn = log.lastLsn;
    const last = log.records.at(-1);
    this.#chain = last === undefined ? 0n : last.bytes.readBigUInt64LE(0);
    for (const { bytes } of log.records) this.#usedBytes += bytes.length;
  }

  /** The epoch entry; then the listener is told. */
  async begin(who: string): Promise<void> {
    const draft = new BatchDraft({ bytes: Buffer.alloc(2 * limits.blockBytes), address: 0 });
    draft.addValue(entryKind.epoch, who);
    this.#append(draft, 0);
    await this.sync();
    this.#listening = true;
  }

  state(): LogState {
    return {
      line: this.#log.line,
      epoch: this.#epoch,
      oldestLsn: this.#log.records[0]?.firstLsn ?? 0,
      lastLsn: this.#lastLsn,
      storedLsn: this.#log.lastLsn,
      durableLsn: this.#log.durableLsn,
      diskBytes: this.#usedBytes,
      roomBytes: Math.max(0, this.#bytesMax - this.#usedBytes - epochReserveBytes),
      refusal: this.#ended ?? this.#refusal,
    };
  }

  append(draft: BatchDraft): void {
    this.#append(draft as RecordDraft, epochReserveBytes);
  }

  pump(_mayBlock: boolean): void {
    if (this.#storing || this.#ended !== null || this.#queue.length === 0) return;
    this.#storing = true;
    queueMicrotask(() => this.#store());
  }

  sync(): Promise<void> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    const lsn = this.#lastLsn;
    if (lsn <= this.#log.durableLsn) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ lsn, resolve, reject });
      this.pump(false);
      this.#startSync();
    });
  }

  async *read(fromLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    const { oldestLsn, storedLsn } = this.state();
    if (fromLsn < oldestLsn) throw notRetained(fromLsn, oldestLsn);
    let lsn = fromLsn;
    while (lsn <= storedLsn) {
      const at = lsn;
      const record = this.#log.records.find(({ firstLsn, lastLsn }) => firstLsn <= at && at <= lastLsn);
      if (record === undefined) throw notRetained(lsn, this.state().oldestLsn);
      const batch = readRecord(record.bytes);
      if (isBadRecord(batch)) throw damage({ file: place, offset: 0, lsn }, batch.detail);
      yield { ...batch, record: record.bytes };
      lsn = lastLsnOf(batch) + 1;
    }
  }

  async release(beforeLsn: number): Promise<void> {
    if (this.#ended !== null) return;
    const before = Math.min(beforeLsn, this.#log.durableLsn);
    const { records, parts } = this.#log;
    let releasable = 0;
    for (const { lastLsn, bytes } of records) if (lastLsn < before) releasable += bytes.length;
    let spare = releasable - (parts.retainedBytes ?? limits.logRetainedBytesDefault);
    for (let first = records[0]; first !== undefined && first.lastLsn < before; first = records[0]) {
      if (first.bytes.length > spare) break;
      spare -= first.bytes.length;
      this.#usedBytes -= first.bytes.length;
      records.shift();
    }
    this.#refusal = null;
    this.#listener.room?.();
  }

  async close(): Promise<void> {
    if (this.#ended !== null) return;
    await this.sync();
    this.#end(closed(place));
  }

  /** A newer writer takes over: what was queued is not stored any more. */
  async fence(): Promise<void> {
    if (this.#ended !== null) return;
    const error = fenced(place, this.#epoch);
    this.#end(error);
    this.#listener.halted(error);
  }

  /** The process that held this writer is gone: it says and does nothing more. */
  abandon(): void {
    this.#waiters = [];
    this.#end(closed(place));
  }

  get #bytesMax(): number {
    return this.#log.parts.logBytesMax ?? limits.logBytesMaxDefault;
  }

  #append(draft: RecordDraft, reserveBytes: number): void {
    if (this.#ended !== null) throw this.#ended;
    invariant(draft.entryCount > 0, "an appended batch has entries");
    const recordBytes = recordBytesOfDraft(draft);
    if (this.#usedBytes + recordBytes + reserveBytes > this.#bytesMax) {
      this.#refusal = limitReached(place, this.#usedBytes, this.#bytesMax);
      throw this.#refusal;
    }
    this.#usedBytes += recordBytes;
    draft.firstLsn = this.#lastLsn + 1;
    draft.epoch = this.#epoch;
    draft.wallTimeMs = this.#log.parts.clock.wallTimeMs();
    this.#lastLsn += draft.entryCount;
    this.#queue.push(draft);
  }

  /** One group: all that waits. */
  #store(): void {
    this.#storing = false;
    if (this.#ended !== null) return;
    const group = this.#queue;
    this.#queue = [];
    for (const draft of group) {
      frameRecord(draft, {
        line: this.#log.line,
        epoch: this.#epoch,
        wallTimeMs: draft.wallTimeMs,
        durableLsn: this.#log.durableLsn,
        previousChecksum: this.#chain,
      });
      this.#chain = draft.checksum;
      const bytes = Buffer.from(draft.slab.bytes.subarray(0, draft.recordBytes));
      this.#log.records.push({ firstLsn: draft.firstLsn, lastLsn: draft.lastLsn, bytes });
    }
    if (!this.#flushes) {
      this.#durable();
      return;
    }
    if (this.#listening) this.#listener.stored(this.#log.lastLsn);
    if (this.#waiters.length > 0) this.#startSync();
    const ageMs = this.#log.parts.unsyncedAgeMsMax ?? limits.unsyncedAgeMsMax;
    this.#timer ??= this.#log.parts.clock.after(ageMs, () => {
      this.#timer = null;
      this.#startSync();
    });
  }

  #startSync(): void {
    if (!this.#flushes || this.#syncing || this.#ended !== null) return;
    if (this.#log.lastLsn <= this.#log.durableLsn) return;
    this.#syncing = true;
    queueMicrotask(() => {
      this.#syncing = false;
      if (this.#ended === null) this.#durable();
    });
  }

  #durable(): void {
    const lsn = this.#log.lastLsn;
    if (lsn <= this.#log.durableLsn) return;
    this.#log.durableLsn = lsn;
    if (this.#listening) this.#listener.durable(lsn);
    const ready = this.#waiters.filter((waiter) => waiter.lsn <= lsn);
    this.#waiters = this.#waiters.filter((waiter) => waiter.lsn > lsn);
    for (const waiter of ready) waiter.resolve();
    if (this.#waiters.length > 0) this.pump(false);
  }

  #end(error: VarveError): void {
    this.#ended = error;
    this.#timer?.cancel();
    this.#queue = [];
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters = [];
  }
}
