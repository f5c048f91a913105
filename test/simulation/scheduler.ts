/*
 * Simulated time: every completion, timer and client step of a simulated world is a task at a simulated moment. One seed gives
 * one order. The world's tasks die with a crash (reset), as a process's do.
 */
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";

/** Small, fast, seeded; good enough to choose schedules (mulberry32). */
export class SeededRandom implements Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = this.state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }

  /** Integer in [from, to). */
  integer(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  hex(bytes: number): string {
    let text = "";
    for (let index = 0; index < bytes; index++) text += this.integer(0, 256).toString(16).padStart(2, "0");
    return text;
  }
}

interface Task {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class Scheduler {
  readonly random: SeededRandom;
  private tasks: Task[] = [];
  private order = 0;
  private nowMs = 0;
  private wallOffsetMs = 1_700_000_000_000;
  steps = 0;

  constructor(random: SeededRandom) {
    this.random = random;
  }

  get pending(): number {
    return this.tasks.length;
  }

  readonly clock: Clock = {
    wallTimeMs: () => Math.floor(this.wallOffsetMs + this.nowMs),
    monotonicMs: () => this.nowMs,
    after: (delayMs, task) => this.after(delayMs, task),
    soon: (task) => {
      this.after(0, task);
    },
  };

  /** The wall clock may jump either way; nothing may depend on it. */
  jumpWallClock(ms: number): void {
    this.wallOffsetMs += ms;
  }

  after(delayMs: number, run: () => void): Timer {
    const task: Task = { atMs: this.nowMs + delayMs, order: this.order++, run, cancelled: false };
    this.tasks.push(task);
    return {
      cancel: () => {
        task.cancelled = true;
      },
    };
  }

  /** A completion of input or output: after a random latency, now and then a long one. */
  readonly schedule = (run: () => void): void => {
    const latencyMs = this.random.chance(0.02) ? this.random.next() * 200 : this.random.next() * 2;
    this.after(latencyMs, run);
  };

  /** Runs the next task; false where there is none. */
  step(): boolean {
    let best = -1;
    for (let index = 0; index < this.tasks.length; index++) {
      const task = this.tasks[index] as Task;
      const least = this.tasks[best];
      if (
        least === undefined ||
        task.atMs < least.atMs ||
        (task.atMs === least.atMs && task.order < least.order)
      ) {
        best = index;
      }
    }
    const task = this.tasks[best];
    if (task === undefined) return false;
    this.tasks.splice(best, 1);
    this.nowMs = Math.max(this.nowMs, task.atMs);
    this.steps += 1;
    if (!task.cancelled) task.run();
    return true;
  }

  /** Runs tasks until `promise` settles. Fails where nothing is left to run: somebody waits for ever. */
  async until<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const watched = promise.then(
      (value) => {
        settled = true;
        return value;
      },
      (cause: unknown) => {
        settled = true;
        throw cause;
      },
    );
    watched.catch(() => undefined);
    for (;;) {
      await settleMicrotasks();
      if (settled) return await watched;
      if (!this.step())
        throw new Error("simulation is stuck: something waits, and nothing is left to happen");
    }
  }

  /** Runs `count` tasks (or until none is left). */
  async run(count: number): Promise<void> {
    for (let done = 0; done < count; done++) {
      await settleMicrotasks();
      if (!this.step()) break;
    }
    await settleMicrotasks();
  }

  /** The process is gone: nothing that it had asked for will be heard of. */
  reset(): void {
    this.tasks = [];
  }
}

/** Lets all promises and microtasks run; simulated code uses no other source of asynchrony. */
function settleMicrotasks(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
