/*
 * The LogWriter of the embedded file log: numbers batches, takes their room, tells the listener what is stored and durable,
 * and keeps the log's state through failures, fencing and close. The volume session calls it; group-writer.ts, sync-scheduler.ts
 * and segment-supply.ts do the work behind it. States: open → repairing → open, and from any to halted, fenced or closed.
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { Durability, LogListener, LogState, LogWriter } from "#shared/ports/write-log.ts";
import { DraftQueue } from "./draft-queue.ts";
import { rewriteUndurable } from "./failure-repair.ts";
import { GroupWriter, type LogPosition } from "./group-writer.ts";
import { closed, fenced, noRoomYet, notRetained } from "./log-errors.ts";
import type { LogSetup } from "./log-options.ts";
import { readBatches } from "./log-reader.ts";
import { type RecordDraft, recordBytesOfDraft } from "./record-draft.ts";
import type { ScanMemory } from "./scan-memory.ts";
import type { SegmentSet } from "./segment-set.ts";
import { SegmentSupply } from "./segment-supply.ts";
import { SyncScheduler } from "./sync-scheduler.ts";

/** Where recovery left the log. */
export interface LogStart {
  readonly line: string;
  readonly epoch: number;
  readonly lastLsn: number;
  /** Checksum of the last record. */
  readonly chain: bigint;
}

/** Nobody listens before open() has handed the log out. */
const nobody: LogListener = {
  stored: () => undefined,
  durable: () => undefined,
  halted: () => undefined,
};

interface Waiter {
  readonly lsn: number;
  readonly resolve: () => void;
  readonly reject: (error: VarveError) => void;
}

export class EmbeddedLogWriter implements LogWriter, LogPosition {
  readonly batchPayloadBytesMax = limits.batchPayloadBytesMax;
  readonly line: string;
  readonly epoch: number;
  readonly #setup: LogSetup;
  readonly #set: SegmentSet;
  readonly #memory: ScanMemory;
  readonly #durability: Durability;
  #listener: LogListener = nobody;
  readonly #queue = new DraftQueue();
  readonly #groups: GroupWriter;
  readonly #supply: SegmentSupply;
  readonly #syncs: SyncScheduler;
  #waiters: Waiter[] = [];
  #lastLsn: number;
  #storedLsn: number;
  #durableLsn: number;
  /** Why nothing may be appended any more; null while the log is open. */
  #ended: VarveError | null = null;
  #repairing: Promise<void> | null = null;
  #closing: Promise<void> | null = null;

  constructor(setup: LogSetup, set: SegmentSet, memory: ScanMemory, start: LogStart, durability: Durability) {
    this.line = start.line;
    this.epoch = start.epoch;
    this.#setup = setup;
    this.#set = set;
    this.#memory = memory;
    this.#durability = durability;
    this.#lastLsn = start.lastLsn;
    this.#storedLsn = start.lastLsn;
    this.#durableLsn = start.lastLsn;
    const access = durability === "write" ? "direct" : "buffered";
    this.#supply = new SegmentSupply(setup, set, access, {
      roomChanged: () => this.#roomChanged(),
      slicePrepared: () => this.#issue(false),
      startedSegmentFailed: (error) => this.#distrust(error),
    });
    this.#groups = new GroupWriter(setup, set, this.#queue, this, start.chain, durability, {
      written: (lsn, bytes) => this.#written(lsn, bytes),
      failed: (error) => this.#failed(error),
    });
    this.#syncs = new SyncScheduler(setup, set, {
      synced: (lsn) => this.#durableUpTo(lsn),
      syncFailed: (error) => this.#distrust(error),
    });
  }

  get durableLsn(): number {
    return this.#durableLsn;
  }

  /** Used by open(), before the log is handed out. */
  get supply(): SegmentSupply {
    return this.#supply;
  }

  /** Open and durable up to its epoch entry: from now on the listener is told. */
  handOver(listener: LogListener): void {
    this.#listener = listener;
    this.#supply.wake();
  }

  state(): LogState {
    return {
      line: this.line,
      epoch: this.epoch,
      oldestLsn: this.#set.oldestLsn,
      lastLsn: this.#lastLsn,
      storedLsn: this.#storedLsn,
      durableLsn: this.#durableLsn,
      diskBytes: this.#set.diskBytes,
      roomBytes: this.#set.roomBytes,
      refusal: this.#ended ?? this.#supply.refusal,
    };
  }

  append(draft: BatchDraft): void {
    this.#append(draft, false);
  }

  /** The entry that opens a tenure: it may use the room that is kept for it. */
  appendEpoch(draft: BatchDraft): void {
    this.#append(draft, true);
  }

  #append(draft: BatchDraft, isEpoch: boolean): void {
    if (this.#ended !== null) throw this.#ended;
    invariant(draft.entryCount > 0, "an appended batch has entries");
    const planned = this.#set.plan(recordBytesOfDraft(draft), isEpoch);
    this.#supply.wake();
    if (!planned) throw this.#supply.refusal ?? noRoomYet(this.#setup.directory);
    draft.firstLsn = this.#lastLsn + 1;
    draft.epoch = this.epoch;
    draft.wallTimeMs = this.#setup.clock.wallTimeMs();
    this.#queue.push(draft as RecordDraft);
    this.#lastLsn += draft.entryCount;
  }

  pump(mayBlock: boolean): void {
    // Whoever was refused for want of room does not append; the disk may have some by now.
    if (this.#supply.refusal !== null && this.#ended === null) this.#supply.wake();
    this.#issue(mayBlock);
    if (mayBlock) this.#groups.settleNow();
  }

  sync(): Promise<void> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    const lsn = this.#lastLsn;
    if (lsn <= this.#durableLsn) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ lsn, resolve, reject });
      this.#issue(false);
      if (this.#durability === "flush") this.#syncs.want(lsn);
    });
  }

  async *read(fromLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    const { oldestLsn } = this.state();
    if (fromLsn < oldestLsn) throw notRetained(fromLsn, oldestLsn);
    const range = { line: this.line, fromLsn, untilLsn: this.#storedLsn };
    yield* readBatches(this.#setup.store, this.#memory, this.#set, range);
  }

  async release(beforeLsn: number): Promise<void> {
    if (this.#ended !== null) return;
    // The segment that follows the released ones then holds a durable record: recovery learns the epoch from it.
    await this.#supply.release(Math.min(beforeLsn, this.#durableLsn));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** A newer writer opens this log: nothing more is appended or written; resolves when no write is under way. */
  async fence(): Promise<void> {
    if (this.#ended !== null) {
      await this.#quiet();
      return;
    }
    this.#ended = fenced(this.#setup.directory, this.epoch);
    // Told only when no write is under way: until then slabs are in use.
    await this.#quiet();
    this.#tellEnd(this.#ended);
  }

  async #close(): Promise<void> {
    // A log that halted or was fenced told its listener; there is nothing left to sync.
    if (this.#ended === null) await this.sync().catch(() => undefined);
    this.#ended ??= closed(this.#setup.directory);
    await this.#quiet();
  }

  /** Waits for all work under way, then closes the files. */
  async #quiet(): Promise<void> {
    this.#syncs.stop();
    await this.#repairing;
    await this.#groups.drained();
    await this.#syncs.running;
    await this.#supply.stop();
    const segments = [...this.#set.live, ...this.#set.ahead];
    await Promise.all(segments.map((segment) => segment.closeFile()));
  }

  #issue(mayBlock: boolean): void {
    if (this.#ended !== null || this.#repairing !== null || this.#syncs.full) return;
    this.#groups.issue(mayBlock);
  }

  #roomChanged(): void {
    if (this.#ended !== null) return;
    this.#issue(false);
    this.#listener.room?.();
  }

  #written(lsn: number, bytes: number): void {
    this.#storedLsn = lsn;
    if (this.#durability === "write") {
      this.#durableUpTo(lsn);
      return;
    }
    if (this.#ended !== null) return;
    this.#syncs.stored(lsn, bytes);
    this.#issue(false);
    this.#listener.stored(lsn);
  }

  #durableUpTo(lsn: number): void {
    this.#durableLsn = lsn;
    this.#queue.dropThrough(lsn);
    if (this.#ended !== null) return;
    this.#issue(false);
    this.#closeSealed();
    this.#listener.durable(lsn);
    this.#wakeWaiters();
  }

  #wakeWaiters(): void {
    while (this.#waiters.length > 0) {
      const waiter = this.#waiters[0];
      if (waiter === undefined || waiter.lsn > this.#durableLsn) return;
      this.#waiters.shift();
      waiter.resolve();
    }
  }

  /** Files of segments that are full, written and synced are closed; readers open their own. */
  #closeSealed(): void {
    const { live } = this.#set;
    for (let index = live.length - 2; index >= 0; index -= 1) {
      const segment = live[index];
      if (segment === undefined || segment.file === null) return;
      if (segment.idle) void segment.closeFile().catch((cause: unknown) => this.#halt(cause));
    }
  }

  /** Nothing since the last good sync is known to be on disk: repair as soon as no group is under way. */
  #distrust(error: VarveError): void {
    this.#syncs.distrust();
    this.#groups.halt(error);
  }

  #failed(error: VarveError): void {
    if (this.#ended !== null || this.#repairing !== null) return;
    this.#syncs.distrust();
    this.#repairing = this.#repair(error);
  }

  async #repair(error: VarveError): Promise<void> {
    try {
      await this.#syncs.running;
      await this.#supply.exclusively((secure) =>
        rewriteUndurable({
          setup: this.#setup,
          set: this.#set,
          queue: this.#queue,
          position: this,
          secure,
        }),
      );
    } catch (cause) {
      this.#halt(cause, error);
      return;
    } finally {
      this.#repairing = null;
    }
    const count = this.#queue.undurable;
    const lsn = count === 0 ? this.#durableLsn : this.#queue.undurableAt(count - 1).lastLsn;
    this.#storedLsn = lsn;
    for (const segment of this.#set.live) segment.dirty = false;
    this.#syncs.repaired();
    for (const waiter of this.#waiters) if (this.#durability === "flush") this.#syncs.want(waiter.lsn);
    this.#groups.resume();
    if (lsn > this.#durableLsn) this.#durableUpTo(lsn);
    else this.#issue(false);
  }

  #halt(cause: unknown, before?: VarveError): void {
    const second = toVarveError(cause, "rewriting the log into a fresh segment");
    const error = new VarveError("LogHalted", second.kind, `the log stopped: ${second.message}`, {
      hint: "Nothing after the last durable entry is promised. Check the disk, then start Varve again: it recovers.",
      fields: { directory: this.#setup.directory, durableLsn: this.#durableLsn },
      cause: before ?? cause,
    });
    if (this.#ended !== null) return;
    this.#ended = error;
    this.#syncs.stop();
    this.#tellEnd(error);
  }

  /** Whoever waits is told, once. */
  #tellEnd(error: VarveError): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(error);
    this.#listener.halted(error);
  }
}
