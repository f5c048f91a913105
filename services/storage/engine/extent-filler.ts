/*
 * Fetches remote extents of one replica in the background: what was read a moment ago and its neighbour first, then all in
 * ascending order, a few at once, under a rate limit. Nothing is given up: while the bucket is away or the disk is full
 * it waits and tries again. Made by extent-tending.ts; next: shared/ports/replica-residency.ts. docs/specs/residency.md.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { ReplicaExtents } from "#shared/ports/replica-residency.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";

export interface ExtentFillerOptions {
  readonly extents: ReplicaExtents;
  readonly clock: Clock;
  readonly admission: Pick<SpaceAdmission, "refuse" | "admit" | "settle" | "withdraw">;
  /** What was filled becomes part of the replica's checkpoint. */
  readonly checkpoint: () => Promise<unknown>;
  /** Everything is local, and the checkpoint says so. */
  readonly onWhole: () => void;
  readonly onNote: (text: string) => void;
}

export type FillerState = "idle" | "filling" | "waiting" | "paused" | "closed";

/** Filled between two checkpoints: what a crash makes it fetch again. */
const extentsPerCheckpoint = 128;
const retryMsMin = 500;
const retryMsMax = 30_000;
const noRoomMs = 5_000;
/** An extent that can't be read for another reason than the bucket being away is tried again after so long. */
const badExtentMs = 60_000;
const badExtentsMax = 4096;

export class ExtentFiller {
  readonly #options: ExtentFillerOptions;
  readonly #wakes = new Set<() => void>();
  readonly #busy = new Set<number>();
  /** Extent → when it may be tried again. */
  readonly #bad = new Map<number, number>();
  readonly #recent: number[] = [];
  #timer: Timer | null = null;
  #everything = false;
  #paused = false;
  #closed = false;
  #cursor = 0;
  #bytesPerSecond: number | null = null;
  #nextFillMs = 0;
  #retryMs = 0;
  #waitingFor: VarveError | null = null;
  #unrecorded = 0;
  #recording: Promise<void> | null = null;
  #told = true;
  filledBytes = 0;

  constructor(options: ExtentFillerOptions) {
    this.#options = options;
    // Idle is idle: no timer where there is nothing to fetch.
    options.extents.onWanted(() => {
      if (this.#timer === null && this.#busy.size < limits.fillsMax) this.#lookSoon(0);
    });
  }

  get state(): FillerState {
    if (this.#closed) return "closed";
    if (this.#paused) return "paused";
    if (this.#waitingFor !== null) return "waiting";
    return this.#busy.size > 0 ? "filling" : "idle";
  }

  get error(): VarveError | null {
    return this.#waitingFor;
  }

  /** `everything`: not only what is read. */
  set(everything: boolean, bytesPerSecond: number | null): void {
    this.#everything = everything;
    this.#bytesPerSecond = bytesPerSecond;
    // Who asks for less need not hear again that all is there: that would ask anew, for ever.
    if (everything) this.#told = false;
    this.#wake();
    this.#lookSoon(0);
  }

  pause(on: boolean): void {
    this.#paused = on;
    this.#wake();
    this.#lookSoon(0);
  }

  /** Nothing new is begun. A fetch that waits for the bucket is refused when the replica is detached, so it is not waited for. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
    this.#wake();
    await this.#recording;
  }

  #lookSoon(ms: number): void {
    if (this.#closed) return;
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(ms, () => {
      this.#timer = null;
      this.#look();
    });
  }

  /** Begins what may be begun, then looks again after a while. */
  #look(): void {
    if (this.#closed) return;
    while (!this.#paused && this.#busy.size < limits.fillsMax) {
      const extent = this.#next();
      if (extent === -1) break;
      void this.#work(extent);
    }
    if (this.#busy.size > 0 || this.#paused) return;
    if (this.#options.extents.nextRemote(0) === -1) void this.#finish();
    else if (this.#bad.size > 0) this.#lookSoon(badExtentMs);
  }

  async #work(first: number): Promise<void> {
    this.#told = false;
    for (let extent = first; extent !== -1; extent = this.#closed || this.#paused ? -1 : this.#next()) {
      this.#busy.add(extent);
      try {
        await this.#fillOne(extent);
      } finally {
        this.#busy.delete(extent);
      }
    }
    // The last one out sees whether all is done.
    if (this.#busy.size === 0) this.#lookSoon(0);
  }

  /** The extent that is wanted most, or -1. */
  #next(): number {
    const { extents } = this.#options;
    if (extents.nextRemote(0) === -1) {
      this.#bad.clear();
      this.#recent.length = 0;
      return -1;
    }
    if (extents.crowded) {
      const crowding = extents.partialExtents(2 * limits.fillsMax).find((extent) => this.#mayFill(extent));
      if (crowding !== undefined) return crowding;
    }
    const read = extents.takeRecentReads();
    if (read.length > 0)
      this.#recent.splice(0, this.#recent.length, ...read.flatMap((extent) => [extent, extent + 1]));
    for (let extent = this.#recent.shift(); extent !== undefined; extent = this.#recent.shift()) {
      if (this.#mayFill(extent)) return extent;
    }
    return this.#everything ? this.#nextInOrder() : -1;
  }

  #nextInOrder(): number {
    const { extents } = this.#options;
    // Once around: what became remote behind the cursor is found from the start.
    for (let wraps = 0; wraps < 2; wraps += 1) {
      for (
        let extent = extents.nextRemote(this.#cursor);
        extent !== -1;
        extent = extents.nextRemote(extent + 1)
      ) {
        if (!this.#mayFill(extent)) continue;
        this.#cursor = extent + 1;
        return extent;
      }
      this.#cursor = 0;
    }
    return -1;
  }

  #mayFill(extent: number): boolean {
    if (this.#busy.has(extent) || this.#options.extents.isLocal(extent)) return false;
    const againMs = this.#bad.get(extent);
    if (againMs === undefined) return true;
    if (this.#options.clock.monotonicMs() < againMs) return false;
    this.#bad.delete(extent);
    return true;
  }

  async #fillOne(extent: number): Promise<void> {
    await this.#rateLimit();
    const { admission, extents } = this.#options;
    const refusal = admission.refuse(limits.extentBytes);
    if (refusal !== null) {
      await this.#waitFor(refusal, noRoomMs);
      return;
    }
    if (this.#closed) return;
    admission.admit(limits.extentBytes);
    try {
      this.filledBytes += await extents.fill(extent);
      admission.settle(limits.extentBytes);
      this.#goesOn();
    } catch (cause) {
      admission.withdraw(limits.extentBytes);
      await this.#failed(extent, toVarveError(cause, `fill extent ${extent}`));
      return;
    }
    this.#unrecorded += 1;
    if (this.#unrecorded >= extentsPerCheckpoint) await this.#record();
  }

  async #failed(extent: number, error: VarveError): Promise<void> {
    if (this.#closed) return;
    if (error.kind === "Retry" || error.kind === "Full") {
      this.#retryMs = Math.min(retryMsMax, Math.max(retryMsMin, 2 * this.#retryMs));
      await this.#waitFor(error, error.kind === "Full" ? noRoomMs : this.#retryMs);
      return;
    }
    // This one alone: the others are filled meanwhile.
    if (this.#bad.size >= badExtentsMax) this.#bad.clear();
    this.#bad.set(extent, this.#options.clock.monotonicMs() + badExtentMs);
    this.#options.onNote(`extent ${extent} can't be fetched and is tried again later: ${error.message}`);
    await this.#sleep(retryMsMin);
  }

  async #waitFor(error: VarveError, waitMs: number): Promise<void> {
    if (this.#waitingFor === null) this.#options.onNote(`filling waits: ${error.message}`);
    this.#waitingFor = error;
    await this.#sleep(waitMs);
  }

  #goesOn(): void {
    this.#retryMs = 0;
    if (this.#waitingFor === null) return;
    this.#waitingFor = null;
    this.#options.onNote("filling goes on");
  }

  /** Nothing is left to fetch: the checkpoint learns of it, then the owner. */
  async #finish(): Promise<void> {
    if (this.#told || this.#options.extents.nextRemote(0) !== -1) return;
    await this.#record();
    if (this.#busy.size > 0) return;
    if (this.#unrecorded > 0) {
      // The checkpoint failed; the feed says why, where it matters.
      this.#lookSoon(noRoomMs);
      return;
    }
    const { points } = this.#options.extents.residency();
    if (this.#closed || points.length > 0) return;
    this.#told = true;
    this.#options.onWhole();
  }

  /** A checkpoint; one at a time. One that failed is told by the replica's feed, and tried again here. */
  #record(): Promise<void> {
    this.#recording ??= this.#options
      .checkpoint()
      .then(
        () => {
          this.#unrecorded = 0;
        },
        (cause: unknown) => {
          this.#waitingFor = toVarveError(cause, "checkpoint of what was filled");
        },
      )
      .finally(() => {
        this.#recording = null;
      });
    return this.#recording;
  }

  async #rateLimit(): Promise<void> {
    if (this.#bytesPerSecond === null) return;
    const nowMs = this.#options.clock.monotonicMs();
    const startMs = Math.max(nowMs, this.#nextFillMs);
    this.#nextFillMs = startMs + (limits.extentBytes / this.#bytesPerSecond) * 1000;
    if (startMs > nowMs) await this.#sleep(startMs - nowMs);
  }

  /** Until the time is over, or something changed. */
  #sleep(ms: number): Promise<void> {
    if (this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      let timer: Timer | null = null;
      const wake = (): void => {
        timer?.cancel();
        this.#wakes.delete(wake);
        resolve();
      };
      this.#wakes.add(wake);
      timer = this.#options.clock.after(ms, wake);
    });
  }

  #wake(): void {
    for (const wake of this.#wakes) wake();
  }
}
