/*
 * Makes segments ready ahead of the append position, in the background: allocates them as a whole (so ENOSPC shows here and
 * never in an append), writes zeroes into them in slices, recycles or removes released ones. The faster the log is written, the
 * further ahead. One step at a time; asleep when nothing is to do. The embedded writer wakes it after appends and hands it releases.
 */
import { FileStoreError, toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Timer } from "#shared/ports/clock.ts";
import { limitReached, noRoomYet, noSegment } from "./log-errors.ts";
import type { LogSetup } from "./log-options.ts";
import { LogSegment, segmentName } from "./segment-file.ts";
import type { SegmentSet } from "./segment-set.ts";
import { SegmentZeroes, type ZeroesListener } from "./segment-zeroes.ts";

/** Zeroes between two syncs of a file that is being prepared. */
const stepBytes = 4 * 1024 * 1024;

/** A full disk is asked again at most this often, when somebody appends or pumps. */
const refusalRetryMs = 1000;

/** The share of a log's limit that may lie prepared ahead. */
const aheadShareMax = 1 / 16;

/** No segment more than must be where the disk has less: room for images, whose sum counts two segments (space-reserve.ts). */
const extraFreeBytesMin = 2 * limits.reserveBytes + limits.logPreparedAhead.bytesMax;

/** A log that began no segment for this long gives its spares back, but for a few. */
const idleMs = 60_000;
const idleSpares = 2;

export interface SupplyListener extends ZeroesListener {
  /** Another segment is secured, or none can be: see refusal. */
  roomChanged(): void;
}

export class SegmentSupply {
  readonly #setup: LogSetup;
  readonly #set: SegmentSet;
  readonly #access: "direct" | "buffered";
  readonly #listener: SupplyListener;
  readonly #zeroes: SegmentZeroes;
  #releasedBefore = 0;
  #refusal: VarveError | null = null;
  #retryAtMs = 0;
  /** How far ahead blocks are prepared at the rate of the last segment. */
  #aheadBytes: number;
  /** Segments begun, and when the last of them was: tells the rate. */
  #begunSeen: number;
  #begunAtMs: number;
  #extraAtMs = 0;
  #turn: Promise<void> = Promise.resolve();
  #working = false;
  #stopped = false;
  /** The last rename or removal is not durable yet. */
  #namesUnsynced = false;
  #idleTimer: Timer | null = null;
  /** Recycled, but its new name is not durable yet. */
  #renamed: LogSegment | null = null;

  constructor(setup: LogSetup, set: SegmentSet, access: "direct" | "buffered", listener: SupplyListener) {
    this.#setup = setup;
    this.#set = set;
    this.#access = access;
    this.#listener = listener;
    this.#zeroes = new SegmentZeroes(setup, set, listener);
    this.#aheadBytes = setup.preparedAheadBytes;
    this.#begunSeen = set.begun;
    this.#begunAtMs = setup.clock.monotonicMs();
  }

  /** Why there will be no more room until something is released; null while that is not known. */
  get refusal(): VarveError | null {
    return this.#refusal;
  }

  /** Starts working in the background if there is work. Cheap when there is none. */
  wake(): void {
    if (this.#set.begun !== this.#begunSeen) this.#measureRate();
    if (this.#working || !this.#hasWork()) return;
    this.#working = true;
    void this.#work();
  }

  /** Secures one more segment: at open, and before a repair. Rejects with why it can't. */
  secure(): Promise<void> {
    return this.#inTurn(() => this.#secureOrThrow());
  }

  /** Writes zeroes into the next `bytes` of the current segment. */
  prepareCurrent(bytes: number): Promise<void> {
    const segment = this.#set.current;
    return this.#inTurn(() =>
      this.#zeroes.write(segment, Math.min(segment.sizeBytes, segment.endOffset + bytes)),
    );
  }

  /** Recycles or removes what lies wholly below `beforeLsn`, but for what is kept as history. */
  async release(beforeLsn: number): Promise<void> {
    this.#releasedBefore = Math.max(this.#releasedBefore, beforeLsn);
    await this.#inTurn(() => this.#releaseAll());
    // Whatever was refused before may be possible now.
    this.#retryAtMs = 0;
    this.wake();
    this.#watchIdle();
  }

  /** No new step starts; the one under way is waited for. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#zeroes.stop();
    this.#idleTimer?.cancel();
    await this.#turn;
  }

  /** For a repair: no step runs meanwhile; `secure` adds a segment or rejects. */
  exclusively<T>(task: (secure: () => Promise<void>) => Promise<T>): Promise<T> {
    return this.#inTurn(() => task(() => this.#secureOrThrow()));
  }

  /** Steps never overlap: each changes the order of files. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(step);
    this.#turn = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  get #needsSegment(): boolean {
    if (this.#set.untouchedAhead > 0) return false;
    return this.#refusal === null || this.#setup.clock.monotonicMs() >= this.#retryAtMs;
  }

  /**
   * A log that fills a segment in a moment is prepared so much further ahead that a file system that takes a second for one allocation or
   * one slice of zeroes holds nobody up.
   */
  #measureRate(): void {
    const { clock, segmentBytes, preparedAheadBytes, preparedAheadBytesMax, logBytesMax } = this.#setup;
    const nowMs = clock.monotonicMs();
    const begunBytes = (this.#set.begun - this.#begunSeen) * segmentBytes;
    const bytesAhead = (begunBytes / Math.max(1, nowMs - this.#begunAtMs)) * limits.logPreparedAhead.ms;
    const mostBytes = Math.min(preparedAheadBytesMax, logBytesMax * aheadShareMax);
    this.#aheadBytes = Math.max(preparedAheadBytes, Math.min(mostBytes, bytesAhead));
    this.#begunSeen = this.#set.begun;
    this.#begunAtMs = nowMs;
  }

  /** One more segment than must be: only where the limit leaves room for it, and never a reason to refuse anything. */
  get #wantsExtra(): boolean {
    const { segmentBytes, preparedAheadBytes, logBytesMax, clock } = this.#setup;
    if (this.#aheadBytes <= preparedAheadBytes || this.#refusal !== null) return false;
    if (this.#set.untouchedAhead * segmentBytes >= this.#aheadBytes) return false;
    return this.#set.diskBytes + segmentBytes <= logBytesMax && clock.monotonicMs() >= this.#extraAtMs;
  }

  #hasWork(): boolean {
    if (this.#stopped) return false;
    return this.#needsSegment || this.#zeroes.next(this.#aheadBytes) !== null || this.#wantsExtra;
  }

  async #work(): Promise<void> {
    while (this.#hasWork()) await this.#inTurn(() => this.#step());
    this.#working = false;
  }

  async #step(): Promise<void> {
    if (this.#stopped) return;
    if (this.#needsSegment) {
      await this.#secureNext();
      return;
    }
    const segment = this.#zeroes.next(this.#aheadBytes);
    if (segment === null) await this.#secureExtra();
    else await this.#zeroes.write(segment, Math.min(segment.sizeBytes, segment.preparedBytes + stepBytes));
  }

  async #secureOrThrow(): Promise<void> {
    if (!(await this.#secureNext())) throw this.#refusal ?? noRoomYet(this.#setup.directory);
  }

  /** One more segment: an old one where the limit or the disk leaves no other, else a new file. */
  async #secureNext(): Promise<boolean> {
    const { logBytesMax, segmentBytes, directory } = this.#setup;
    let refusal = limitReached(directory, this.#set.diskBytes, logBytesMax);
    try {
      const before = this.#set.ahead.length;
      await this.#settleNames();
      if (this.#set.ahead.length > before) return true;
      if (this.#set.diskBytes + segmentBytes <= logBytesMax) {
        this.#secured(await this.#create());
        return true;
      }
    } catch (cause) {
      refusal = noSegment(directory, toVarveError(cause, "preparing a log segment"));
    }
    try {
      if (await this.#recycleOldest()) return true;
    } catch (cause) {
      refusal = noSegment(directory, toVarveError(cause, "recycling a log segment"));
    }
    this.#refusal = refusal;
    this.#retryAtMs = this.#setup.clock.monotonicMs() + refusalRetryMs;
    this.#listener.roomChanged();
    return false;
  }

  /** A disk that has no room for it is asked again later; what is ahead already is used meanwhile. */
  async #secureExtra(): Promise<void> {
    const { store, directory, clock } = this.#setup;
    const retryAtMs = clock.monotonicMs() + refusalRetryMs;
    try {
      await this.#settleNames();
      if (!this.#wantsExtra) return;
      const { freeBytes } = await store.freeSpace(directory);
      if (freeBytes < extraFreeBytesMin) this.#extraAtMs = retryAtMs;
      else this.#secured(await this.#create());
      this.#watchIdle();
    } catch (cause) {
      if (!(cause instanceof FileStoreError)) throw cause;
      this.#extraAtMs = retryAtMs;
    }
  }

  #secured(segment: LogSegment): void {
    this.#set.ahead.push(segment);
    this.#refusal = null;
    this.#listener.roomChanged();
  }

  async #create(): Promise<LogSegment> {
    const { store, directory, segmentBytes } = this.#setup;
    const segment = new LogSegment(directory, this.#set.takeSequence(), segmentBytes);
    const file = await store.open(segment.path, { create: true, access: this.#access });
    try {
      await file.allocate(0, segmentBytes);
      await store.syncDirectory(directory);
    } catch (cause) {
      await file.close();
      // Where that fails too, a blank file stays: the next open makes it a spare. The first error is the one to tell.
      await store.remove(segment.path).catch(() => undefined);
      throw cause;
    }
    segment.file = file;
    return segment;
  }

  async #releaseAll(): Promise<void> {
    const { retainedBytes, segmentBytes, preparedAheadBytes } = this.#setup;
    // A fast log keeps what it wants ahead beyond its spares: else it would make and remove so much in every checkpoint cycle.
    const aheadBytes = this.#aheadBytes > preparedAheadBytes ? this.#aheadBytes : 0;
    const sparesMax = this.#setup.sparesMax + Math.ceil(aheadBytes / segmentBytes);
    const keep = Math.floor(retainedBytes / segmentBytes);
    await this.#settleNames();
    while (!this.#stopped) {
      const releasable = this.#set.releasable(this.#releasedBefore);
      const oldest = releasable[0];
      if (oldest === undefined || releasable.length <= keep || !oldest.idle) return;
      if (this.#set.ahead.length < sparesMax && oldest.sizeBytes === segmentBytes)
        await this.#recycle(oldest);
      else await this.#remove(oldest);
    }
  }

  /** One timer while there are spares to give back, none afterwards: an idle log costs nothing. */
  #watchIdle(): void {
    if (this.#stopped || this.#idleTimer !== null || this.#set.untouchedAhead <= idleSpares) return;
    const { begun } = this.#set;
    this.#idleTimer = this.#setup.clock.after(idleMs, () => {
      this.#idleTimer = null;
      if (this.#set.begun === begun) void this.#inTurn(() => this.#dropSpares()).catch(() => undefined);
      else this.#watchIdle();
    });
  }

  /** What can't be removed stays what it was on disk: an unused file. The next open takes it as a spare. */
  async #dropSpares(): Promise<void> {
    const { store, directory, preparedAheadBytes } = this.#setup;
    this.#aheadBytes = preparedAheadBytes;
    for (;;) {
      const spare = this.#stopped ? null : this.#set.dropSpare(idleSpares);
      if (spare === null) break;
      await spare.closeFile();
      await store.remove(spare.path);
    }
    await store.syncDirectory(directory);
    this.#listener.roomChanged();
  }

  /** Takes the oldest released segment although history would keep it. */
  async #recycleOldest(): Promise<boolean> {
    await this.#settleNames();
    for (;;) {
      const oldest = this.#set.releasable(this.#releasedBefore)[0];
      if (oldest === undefined || !oldest.idle) return false;
      if (oldest.sizeBytes === this.#setup.segmentBytes) {
        await this.#recycle(oldest);
        return true;
      }
      await this.#remove(oldest);
    }
  }

  /** The oldest segment becomes the last one ahead. */
  async #recycle(oldest: LogSegment): Promise<void> {
    oldest.retired = true;
    await oldest.closeFile();
    const from = oldest.path;
    const sequence = this.#set.takeSequence();
    await this.#setup.store.rename(from, `${this.#setup.directory}/${segmentName(sequence)}`);
    this.#set.takeOldest();
    oldest.recycleAs(sequence);
    this.#renamed = oldest;
    this.#namesUnsynced = true;
    await this.#settleNames();
  }

  async #remove(oldest: LogSegment): Promise<void> {
    oldest.retired = true;
    await oldest.closeFile();
    await this.#setup.store.remove(oldest.path);
    this.#set.takeOldest();
    this.#namesUnsynced = true;
    await this.#settleNames();
  }

  /**
   * Makes the last change of names durable before the next one, so that no crash leaves a gap, and before a renamed segment
   * is used, so that no acknowledged record stands under a name that may not last.
   */
  async #settleNames(): Promise<void> {
    const { store, directory } = this.#setup;
    if (this.#namesUnsynced) await store.syncDirectory(directory);
    this.#namesUnsynced = false;
    const renamed = this.#renamed;
    if (renamed === null) return;
    renamed.file = await store.open(renamed.path, { access: this.#access });
    this.#renamed = null;
    this.#secured(renamed);
  }
}
