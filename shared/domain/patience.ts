/*
 * How long somebody waits for an answer before it is an error: by the time in which this process ran. A machine that is paused, or a process
 * that gets no turn on the processor, finds every time limit passed when it goes on, though nobody had a chance to answer it. Used where an
 * error ends in a client's EIO: reads of the log, of the bucket and of replicas, and writes that wait for the log.
 */

/** Between two looks so much counts at most. */
const stepMs = 2_000;
/** Looked at so often while somebody waits. */
const lookMs = 1_000;

/** What it needs of ports/clock.ts. */
export interface PatienceClock {
  monotonicMs(): number;
  after(delayMs: number, task: () => void): { cancel(): void };
}

export class Patience {
  readonly #clock: PatienceClock;
  #leftMs: number;
  #lookedMs: number;

  constructor(clock: PatienceClock, limitMs: number) {
    this.#clock = clock;
    this.#leftMs = limitMs;
    this.#lookedMs = clock.monotonicMs();
  }

  /** Whether it is used up; to be asked at least each second where nothing waits(). */
  isOver(): boolean {
    return this.leftMs() <= 0;
  }

  leftMs(): number {
    const nowMs = this.#clock.monotonicMs();
    this.#leftMs -= Math.min(nowMs - this.#lookedMs, stepMs);
    this.#lookedMs = nowMs;
    return this.#leftMs;
  }

  /** Never so little that a clock with fractions stands still. */
  #nextLookMs(): number {
    return Math.max(1, Math.min(this.#leftMs, lookMs));
  }

  /** Calls `over` when it is used up, unless that is cancelled before; what was used stays used for the next wait. */
  wait(over: () => void): { cancel(): void } {
    let timer = { cancel: (): void => undefined };
    const look = (): void => {
      if (this.isOver()) over();
      else timer = this.#clock.after(this.#nextLookMs(), look);
    };
    timer = this.#clock.after(this.#nextLookMs(), look);
    return { cancel: () => timer.cancel() };
  }
}
