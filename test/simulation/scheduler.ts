/*
 * Simulated time: every completion, timer and client step of a simulated world is a task at a simulated moment. One seed gives
 * one order. The world's tasks die with a crash (reset), as a process's do. Called by world.ts and everything below it.
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

  /** One of the choices, by weight. */
  weighted<T extends string>(weights: Readonly<Record<T, number>>): T {
    const entries = Object.entries(weights) as [T, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    return (entries[0] as [T, number])[0];
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length)] as T;
  }

  hex(bytes: number): string {
    let text = "";
    for (let index = 0; index < bytes; index++) text += this.integer(0, 256).toString(16).padStart(2, "0");
    return text;
  }

  /** A stream of its own, so that one consumer's draws do not shift another's. */
  fork(): SeededRandom {
    return new SeededRandom(Math.floor(this.next() * 4294967296));
  }
}

interface Task {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

/** Something waits, and nothing that is left to happen will ever end its wait. */
export class StuckError extends Error {}

/** No single wait of a simulated world takes longer than this, in steps and in simulated time. */
const waitStepsMax = 100_000;
const waitMsMax = 30 * 60_000;

export class Scheduler {
  readonly random: SeededRandom;
  /** Called after each task and all that follows from it at once; throws what is wrong. */
  afterStep: () => void = () => undefined;
  private tasks: Task[] = [];
  private order = 0;
  private simulatedMs = 0;
  private wallOffsetMs = 1_700_000_000_000;
  steps = 0;

  constructor(random: SeededRandom) {
    this.random = random;
  }

  get nowMs(): number {
    return this.simulatedMs;
  }

  readonly clock: Clock = {
    wallTimeMs: () => Math.floor(this.wallOffsetMs + this.simulatedMs),
    monotonicMs: () => this.simulatedMs,
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
    const task: Task = { atMs: this.simulatedMs + delayMs, order: this.order++, run, cancelled: false };
    this.tasks.push(task);
    return {
      cancel: () => {
        task.cancelled = true;
      },
    };
  }

  /** How long input and output take; one in fifty may take a hundred times as long. */
  latencyMsMax = 2;
  hesitates = true;

  /** A completion of input or output: after a random latency. */
  readonly schedule = (run: () => void): void => {
    const slow = this.hesitates && this.random.chance(0.02);
    this.after(this.random.next() * this.latencyMsMax * (slow ? 100 : 1), run);
  };

  /** Runs the next task; false where there is none. */
  private step(): boolean {
    let best: Task | undefined;
    let bestIndex = -1;
    let kept = 0;
    for (const task of this.tasks) {
      if (task.cancelled) continue;
      this.tasks[kept] = task;
      if (
        best === undefined ||
        task.atMs < best.atMs ||
        (task.atMs === best.atMs && task.order < best.order)
      ) {
        best = task;
        bestIndex = kept;
      }
      kept += 1;
    }
    this.tasks.length = kept;
    if (best === undefined) return false;
    this.tasks.splice(bestIndex, 1);
    this.simulatedMs = Math.max(this.simulatedMs, best.atMs);
    this.steps += 1;
    best.run();
    return true;
  }

  /** Runs tasks until `promise` settles. Fails where nothing is left to run, or no end is in sight: somebody waits for ever. */
  async until<T>(promise: Promise<T>, what: string): Promise<T> {
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    promise.then(settle, settle);
    await this.while(() => !settled, what);
    return await promise;
  }

  /** Runs tasks while `waits()` holds. */
  async while(waits: () => boolean, what: string): Promise<void> {
    const stepsEnd = this.steps + waitStepsMax;
    const msEnd = this.simulatedMs + waitMsMax;
    for (;;) {
      await this.settled();
      if (!waits()) return;
      if (!this.step()) throw new StuckError(`stuck: ${what} waits, and nothing is left to happen`);
      if (this.steps > stepsEnd || this.simulatedMs > msEnd) {
        throw new StuckError(`stuck: ${what} waits without an end (${Math.round(this.simulatedMs)} ms)`);
      }
    }
  }

  /** Runs up to `count` tasks while `goesOn()` holds and some are left. */
  async run(count: number, goesOn: () => boolean = () => true): Promise<void> {
    await this.settled();
    for (let done = 0; done < count && goesOn(); done++) {
      if (!this.step()) break;
      await this.settled();
    }
  }

  /** Runs everything that is due within `ms`. */
  async pass(ms: number): Promise<void> {
    let over = false;
    this.after(ms, () => {
      over = true;
    });
    await this.while(() => !over, "time");
  }

  /** The process is gone: nothing that it had asked for will be heard of. */
  reset(): void {
    this.tasks = [];
  }

  /** Lets all promises and microtasks run; simulated code uses no other source of asynchrony. */
  private async settled(): Promise<void> {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    this.afterStep();
  }
}
