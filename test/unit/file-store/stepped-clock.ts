// A clock that stands still until a test moves it, and the order of completions for a simulated disk: both seeded, so that a
// test is the same every time. Used by the tests of the file store, the slab pool and the replica.
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";

/** mulberry32, as a port. */
export class SteppedRandom implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let word = this.#state;
    word = Math.imul(word ^ (word >>> 15), word | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  integer(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  hex(bytes: number): string {
    return Array.from({ length: bytes }, () => this.integer(0, 256).toString(16).padStart(2, "0")).join("");
  }
}

interface Task {
  readonly atMs: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class SteppedClock implements Clock {
  readonly random: SteppedRandom;
  #nowMs = 0;
  #tasks: Task[] = [];

  constructor(seed: number) {
    this.random = new SteppedRandom(seed);
  }

  get pendingTasks(): number {
    return this.#tasks.filter((task) => !task.cancelled).length;
  }

  wallTimeMs(): number {
    return 1_700_000_000_000 + Math.floor(this.#nowMs);
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): Timer {
    const task: Task = { atMs: this.#nowMs + delayMs, run, cancelled: false };
    this.#tasks.push(task);
    return { cancel: () => (task.cancelled = true) };
  }

  soon(run: () => void): void {
    this.after(0, run);
  }

  /** For SimulatedDisk: a completion after a random time. */
  readonly schedule = (run: () => void): void => {
    this.after(this.random.next() * 2, run);
  };

  /** Forgets everything that was to come: the process is gone. */
  reset(): void {
    this.#tasks = [];
  }

  /** The machine is paused: tasks that were due meanwhile run late. */
  standStill(ms: number): void {
    this.#nowMs += ms;
  }

  /** Runs the next task, if there is one. */
  async step(): Promise<boolean> {
    await settled();
    this.#tasks.sort((a, b) => a.atMs - b.atMs);
    const task = this.#tasks.shift();
    if (task === undefined) return false;
    this.#nowMs = Math.max(this.#nowMs, task.atMs);
    if (!task.cancelled) task.run();
    await settled();
    return true;
  }

  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps; step += 1) if (!(await this.step())) return;
  }

  /** Steps until the promise settles; fails where nothing is left to happen. */
  async until<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const watched = promise.finally(() => (done = true));
    watched.catch(() => undefined);
    for (;;) {
      await settled();
      if (done) return watched;
      if (!(await this.step())) throw new Error("stuck: a promise waits and nothing is left to happen");
    }
  }
}

function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
