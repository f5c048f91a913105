/*
 * Syncs of a `durability: flush` log: when one is due (half of the unsynced limit, age, somebody waits), and exactly what it
 * covers: writes that had returned before it started. One at a time; callers share it. Told by the embedded writer of each
 * write that returned; tells it how far the log is durable.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { Timer } from "#shared/ports/clock.ts";
import type { LogSetup } from "./log-options.ts";
import type { LogSegment } from "./segment-file.ts";
import type { SegmentSet } from "./segment-set.ts";

export interface SyncListener {
  synced(lsn: number): void;
  /** The dirty pages are lost to the kernel: nothing since the last synced() is known to be on disk. */
  syncFailed(error: VarveError): void;
}

export class SyncScheduler {
  readonly #setup: LogSetup;
  readonly #set: SegmentSet;
  readonly #listener: SyncListener;
  #storedLsn = 0;
  #unsyncedBytes = 0;
  /** LSNs that somebody waits for, ascending. The oldest decides, so that later ones never put it off. */
  #wanted: number[] = [];
  #running: Promise<void> | null = null;
  #timer: Timer | null = null;
  #stopped = false;
  /** A sync through another descriptor failed meanwhile: the one under way may report a success that is none. */
  #distrusted = false;

  constructor(setup: LogSetup, set: SegmentSet, listener: SyncListener) {
    this.#setup = setup;
    this.#set = set;
    this.#listener = listener;
  }

  /** True where writers must wait for a sync before more is stored. */
  get full(): boolean {
    return this.#unsyncedBytes >= this.#setup.unsyncedBytesMax;
  }

  /** The sync under way, or null. */
  get running(): Promise<void> | null {
    return this.#running;
  }

  stored(lsn: number, bytes: number): void {
    this.#storedLsn = lsn;
    this.#unsyncedBytes += bytes;
    this.#consider();
  }

  /** Somebody waits until `lsn` is durable: the sync starts as soon as all of it is stored. */
  want(lsn: number): void {
    if (lsn > (this.#wanted.at(-1) ?? 0)) this.#wanted.push(lsn);
    this.#consider();
  }

  /** Until the repair: what was stored may be lost whatever a sync says, because the kernel tells an error once. */
  distrust(): void {
    this.#distrusted = true;
    this.#stopTimer();
  }

  /** A repair made everything up to here durable. */
  repaired(): void {
    this.#distrusted = false;
    this.#unsyncedBytes = 0;
    this.#wanted = [];
    this.#stopTimer();
  }

  stop(): void {
    this.#stopped = true;
    this.#stopTimer();
  }

  #consider(): void {
    if (this.#stopped || this.#distrusted || this.#running !== null || this.#unsyncedBytes === 0) return;
    const oldest = this.#wanted[0];
    if (
      (oldest !== undefined && this.#storedLsn >= oldest) ||
      this.#unsyncedBytes * 2 >= this.#setup.unsyncedBytesMax
    )
      this.#start();
    else this.#timer ??= this.#setup.clock.after(this.#setup.unsyncedAgeMsMax, () => this.#due());
  }

  #due(): void {
    this.#timer = null;
    if (!this.#stopped && !this.#distrusted && this.#running === null && this.#unsyncedBytes > 0)
      this.#start();
  }

  #start(): void {
    this.#stopTimer();
    const lsn = this.#storedLsn;
    const bytes = this.#unsyncedBytes;
    const dirty = this.#set.live.filter((segment) => segment.dirty);
    for (const segment of dirty) {
      segment.dirty = false;
      segment.writers += 1;
    }
    this.#running = this.#sync(dirty).then(
      () => this.#finished(lsn, bytes),
      (cause: unknown) => {
        this.#running = null;
        this.#listener.syncFailed(toVarveError(cause, "syncing the log"));
      },
    );
  }

  async #sync(dirty: readonly LogSegment[]): Promise<void> {
    try {
      for (const segment of dirty) await segment.writable.sync();
    } finally {
      for (const segment of dirty) segment.writers -= 1;
    }
  }

  #finished(lsn: number, bytes: number): void {
    this.#running = null;
    if (this.#stopped || this.#distrusted) return;
    this.#unsyncedBytes -= bytes;
    while ((this.#wanted[0] ?? Number.MAX_SAFE_INTEGER) <= lsn) this.#wanted.shift();
    this.#listener.synced(lsn);
    this.#consider();
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }
}
