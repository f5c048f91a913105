/*
 * The LogWriter of the JetStream log: numbers batches, keeps the window of messages full, tells the listener what is durable.
 * What happens when something fails is jetstream-resume.ts. The volume session calls it as it calls the embedded writer; here
 * stored and durable are one, because JetStream answers when a quorum has synced.
 *
 *   open ─failure, notice of a newer epoch─► resuming ─► open
 *     └────────────────────────────────────────┴──────► ended: fenced, halted, closed
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { LogListener, LogOpenOptions, LogState, LogWriter } from "#shared/ports/write-log.ts";
import { followBatches } from "./jetstream-follower.ts";
import type { JetStreamLogSetup } from "./jetstream-parts.ts";
import { LogPlaces } from "./jetstream-places.ts";
import { MessageQueue } from "./jetstream-queue.ts";
import { Resume, type ResumedWriter } from "./jetstream-resume.ts";
import type { Tenure } from "./jetstream-takeover.ts";
import { type OutMessage, PublishWindow } from "./jetstream-window.ts";
import { closed, limitReached, notRetained } from "./log-errors.ts";
import { type RecordDraft, recordBytesOfDraft } from "./record-draft.ts";

interface Waiter {
  lsn: number;
  readonly resolve: () => void;
  readonly reject: (error: VarveError) => void;
}

export class JetStreamLogWriter implements LogWriter, ResumedWriter {
  readonly batchPayloadBytesMax: number;
  readonly line: string;
  readonly window: PublishWindow;
  readonly options: LogOpenOptions;
  readonly setup: JetStreamLogSetup;
  readonly #listener: LogListener;
  readonly #queue: MessageQueue;
  readonly #places: LogPlaces;
  readonly #resume: Resume;
  readonly #unsubscribe: () => void;
  readonly #leaveLeader: () => void;
  readonly #reading = new AbortController();
  #waiters: Waiter[] = [];
  #epoch: number;
  #oldestLsn: number;
  #lastLsn: number;
  #durableLsn: number;
  #durableChecksum: bigint;
  /** Checksum of the last framed batch. */
  #chain: bigint;
  /** Of the stream, as far as it is known: its own count at open and release, and what was sent since. */
  #usedBytes: number;
  #open = true;
  #ended: VarveError | null = null;
  /** Told by stalled(); kind Full while the servers refuse for want of space. */
  #stalled: VarveError | null = null;
  #refused = false;
  #closing: Promise<void> | null = null;

  constructor(setup: JetStreamLogSetup, tenure: Tenure, options: LogOpenOptions) {
    const { stream } = setup;
    this.setup = setup;
    this.options = options;
    this.line = tenure.base.line;
    const payloadBytes = stream.bodyBytesMax - limits.batchHeaderBytesMax;
    this.batchPayloadBytesMax = Math.floor(payloadBytes / limits.blockBytes) * limits.blockBytes;
    this.#listener = options.listener;
    this.#queue = new MessageQueue(stream.bodyBytesMax, setup.gatherBytes);
    this.#places = new LogPlaces(stream);
    this.window = new PublishWindow(stream, setup.messagesInFlightMax, {
      stored: (message, sequence) => this.#stored(message, sequence),
      failed: (failure) => this.#disturbed(() => this.#resume.failed(failure)),
    });
    this.#resume = new Resume(this);
    this.#epoch = tenure.epoch;
    this.#oldestLsn = tenure.oldestLsn;
    this.#usedBytes = tenure.view.bytes + limits.jetstreamStoredOverheadBytes;
    this.#lastLsn = tenure.base.lastLsn + 1;
    this.#durableLsn = this.#lastLsn;
    this.#durableChecksum = tenure.checksum;
    this.#chain = tenure.checksum;
    this.#places.add(this.#lastLsn, tenure.sequence);
    this.#leaveLeader = stream.followLeader();
    this.window.goOn(tenure.epoch, tenure.sequence);
    this.#unsubscribe = stream.onAnnounced((epoch) => {
      if (epoch > this.#epoch) this.#disturbed(() => this.#resume.failed(null));
    });
    stream.announce(tenure.epoch);
  }

  get epoch(): number {
    return this.#epoch;
  }

  get durable(): { readonly lsn: number; readonly checksum: bigint } {
    return { lsn: this.#durableLsn, checksum: this.#durableChecksum };
  }

  get ended(): VarveError | null {
    return this.#ended;
  }

  state(): LogState {
    const spaceless = this.#stalled?.kind === "Full" ? this.#stalled : null;
    return {
      line: this.line,
      epoch: this.#epoch,
      oldestLsn: this.#oldestLsn,
      lastLsn: this.#lastLsn,
      storedLsn: this.#durableLsn,
      durableLsn: this.#durableLsn,
      diskBytes: this.#usedBytes,
      roomBytes: this.#roomBytes,
      refusal: this.#ended ?? spaceless ?? (this.#isNearlyFull ? this.#full() : null),
    };
  }

  append(draft: BatchDraft): void {
    if (this.#ended !== null) throw this.#ended;
    invariant(draft.entryCount > 0, "an appended batch has entries");
    invariant(draft.payloadBytes <= this.batchPayloadBytesMax, "an appended batch fits a message");
    if (recordBytesOfDraft(draft) > this.#roomBytes) throw this.#full();
    draft.firstLsn = this.#lastLsn + 1;
    draft.epoch = this.#epoch;
    draft.wallTimeMs = this.setup.clock.wallTimeMs();
    this.#queue.push(draft as RecordDraft);
    this.#lastLsn += draft.entryCount;
  }

  pump(_mayBlock: boolean): void {
    if (!this.#open) return;
    while (!this.#queue.isEmpty && !this.window.isFull) {
      // A message that is not full waits for company while others are on their way: each costs the servers a sync.
      if (this.window.count >= limits.jetstreamSmallInFlightMax && !this.#queue.hasFullMessage) return;
      const frame = { line: this.line, epoch: this.#epoch, durableLsn: this.#durableLsn };
      const message = this.#queue.gather(frame, this.#chain);
      this.#chain = message.checksum;
      this.window.send(message.body, message.firstLsn, message.lastLsn, message.checksum);
    }
  }

  sync(): Promise<void> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    const lsn = this.#lastLsn;
    if (lsn <= this.#durableLsn) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ lsn, resolve, reject });
      this.pump(false);
    });
  }

  async *read(fromLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    const untilLsn = this.#durableLsn;
    if (fromLsn < this.#oldestLsn) throw notRetained(fromLsn, this.#oldestLsn);
    if (fromLsn > untilLsn) return;
    const { stream, clock } = this.setup;
    const sequence = Math.max(1, await this.#places.before(fromLsn));
    const parts = { stream, clock, signal: this.#reading.signal };
    for await (const { batch } of followBatches(parts, { sequence, position: null })) {
      const lastLsn = batch.firstLsn + batch.entries.length - 1;
      if (lastLsn >= fromLsn) yield batch;
      if (lastLsn >= untilLsn) return;
    }
    throw this.#ended ?? closed(stream.name);
  }

  async release(beforeLsn: number): Promise<void> {
    if (this.#ended !== null) return;
    const { stream } = this.setup;
    // The batch before stays: by it a follower whose checkpoint it is knows where it is.
    const sequence = await this.#places.before(Math.min(beforeLsn, this.#durableLsn) - 1);
    if (sequence === 0) return;
    await stream.purgeBefore(sequence);
    this.#places.forgetBefore(sequence);
    const view = await stream.view();
    if (view === null || this.#ended !== null) return;
    this.#oldestLsn = (await this.setup.oldestLsn(view)) ?? this.#oldestLsn;
    this.#usedBytes = view.bytes;
    this.#listener.room?.();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** See ResumedWriter: messages up to that LSN are in the stream, the last of them at that sequence. */
  settle(lastLsn: number, checksum: bigint): boolean {
    if (lastLsn === this.#durableLsn) return checksum === this.#durableChecksum;
    let taken: OutMessage | null = null;
    const whole = this.window.settle(lastLsn, checksum, (message) => {
      this.#count(message);
      taken = message;
    });
    if (!whole) return false;
    if (taken !== null) this.#durableUpTo(lastLsn, checksum);
    return true;
  }

  goOn(lastSequence: number): void {
    this.#open = true;
    if (this.window.count === 0 && this.#queue.isEmpty) this.stall(null);
    this.window.goOn(this.#epoch, lastSequence);
    this.pump(false);
  }

  /** The same writer, a new epoch: its entry stands before everything that was not durable. */
  beginAgain(tenure: Tenure): void {
    invariant(tenure.base.lastLsn === this.#durableLsn, "a new epoch's entry follows what is durable");
    this.window.clear();
    this.#queue.renumber();
    this.#lastLsn += 1;
    for (const waiter of this.#waiters) waiter.lsn += 1;
    this.#epoch = tenure.epoch;
    this.#chain = tenure.checksum;
    this.#places.add(tenure.base.lastLsn + 1, tenure.sequence);
    this.#usedBytes += limits.jetstreamStoredOverheadBytes;
    this.setup.stream.announce(tenure.epoch);
    this.#durableUpTo(tenure.base.lastLsn + 1, tenure.checksum);
    this.goOn(tenure.sequence);
  }

  stall(error: VarveError | null): void {
    const before = this.#stalled;
    this.#stalled = error;
    if (this.#ended !== null || before?._tag === error?._tag) return;
    this.#listener.stalled?.(error);
    if (before?.kind === "Full" || error?.kind === "Full") this.#listener.room?.();
  }

  end(error: VarveError): void {
    if (this.#ended !== null) return;
    this.#stop(error);
    this.#listener.halted(error);
  }

  get #roomBytes(): number {
    if (this.#stalled?.kind === "Full") return 0;
    const { bytesMax } = this.setup.size;
    const left = bytesMax - this.#usedBytes - this.#queue.promisedBytes - limits.jetstreamEpochReserveBytes;
    return Math.max(0, left);
  }

  /** The largest batch has no room: nobody waits for room that only a release can bring. */
  get #isNearlyFull(): boolean {
    return this.#roomBytes < limits.batchHeaderBytesMax + this.batchPayloadBytesMax;
  }

  #full(): VarveError {
    return limitReached(this.setup.stream.name, this.#usedBytes, this.setup.size.bytesMax);
  }

  #stored(message: OutMessage, sequence: number): void {
    this.#places.add(message.firstLsn, sequence);
    this.#count(message);
    this.#resume.progressed();
    this.stall(null);
    this.#durableUpTo(message.lastLsn, message.checksum);
    this.pump(false);
  }

  #count(message: OutMessage): void {
    this.#usedBytes += message.body.length + limits.jetstreamStoredOverheadBytes;
  }

  #durableUpTo(lsn: number, checksum: bigint): void {
    this.#durableLsn = lsn;
    this.#durableChecksum = checksum;
    this.#queue.dropThrough(lsn);
    if (this.#ended !== null) return;
    this.#listener.durable(lsn);
    this.#tellRoom();
    while (this.#waiters[0] !== undefined && this.#waiters[0].lsn <= lsn) this.#waiters.shift()?.resolve();
  }

  /** Whoever waits for room hears when only a release can bring it. */
  #tellRoom(): void {
    const refused = this.#isNearlyFull;
    if (refused === this.#refused) return;
    this.#refused = refused;
    this.#listener.room?.();
  }

  /** Nothing more is sent until the stream was looked at. */
  #disturbed(resume: () => Promise<void>): void {
    if (!this.#open || this.#ended !== null) return;
    this.#open = false;
    this.window.stop();
    void resume().catch((cause: unknown) => this.end(toVarveError(cause, "resuming the log")));
  }

  async #close(): Promise<void> {
    if (this.#ended === null) {
      const { clock } = this.setup;
      await new Promise<void>((resolve) => {
        const timer = clock.after(limits.jetstreamCloseMs, resolve);
        this.sync()
          .catch(() => undefined)
          .finally(() => {
            timer.cancel();
            resolve();
          });
      });
    }
    if (this.#ended === null) this.#stop(closed(this.setup.stream.name));
  }

  #stop(error: VarveError): void {
    this.#ended = error;
    this.#open = false;
    this.window.clear();
    this.#queue.clear();
    this.#unsubscribe();
    this.#leaveLeader();
    this.#reading.abort();
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(error);
  }
}
