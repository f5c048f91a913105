/*
 * One simulated process of a cluster: its clock, and the one gate through which everything reaches it, timers, messages, disk
 * completions. Paused (SIGSTOP) it takes nothing and its clock goes on; killed it never takes anything again. Made by
 * cluster-world.ts for each life of a gateway or storage node.
 */
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { Scheduler } from "../scheduler.ts";

interface Held {
  readonly isTimer: boolean;
  readonly run: () => void;
}

export class SimulatedProcess {
  readonly name: string;
  readonly clock: Clock;
  private readonly scheduler: Scheduler;
  private state: "runs" | "paused" | "dead" = "runs";
  private held: Held[] = [];

  constructor(name: string, scheduler: Scheduler) {
    this.name = name;
    this.scheduler = scheduler;
    this.clock = {
      wallTimeMs: () => scheduler.clock.wallTimeMs(),
      monotonicMs: () => scheduler.nowMs,
      after: (delayMs, task) => this.after(delayMs, task),
      soon: (task) => {
        this.after(0, task);
      },
    };
  }

  get alive(): boolean {
    return this.state !== "dead";
  }

  get paused(): boolean {
    return this.state === "paused";
  }

  /** Something reaches the process from outside. */
  take(run: () => void): void {
    if (this.state === "runs") run();
    else if (this.state === "paused") this.held.push({ isTimer: false, run });
  }

  /** A completion of its disk. */
  readonly schedule = (run: () => void): void => {
    this.scheduler.schedule(() => this.take(run));
  };

  pause(): void {
    if (this.state === "runs") this.state = "paused";
  }

  /** What came meanwhile is taken in its order, either timers or input first. */
  resume(): void {
    if (this.state !== "paused") return;
    this.state = "runs";
    const timersFirst = this.scheduler.random.chance(0.5);
    const held = this.held;
    this.held = [];
    const first = held.filter(({ isTimer }) => isTimer === timersFirst);
    const then = held.filter(({ isTimer }) => isTimer !== timersFirst);
    for (const { run } of [...first, ...then]) this.scheduler.after(0, () => this.take(run));
  }

  die(): void {
    this.state = "dead";
    this.held = [];
  }

  private after(delayMs: number, task: () => void): Timer {
    let cancelled = false;
    const run = (): void => {
      if (!cancelled) task();
    };
    const timer = this.scheduler.after(delayMs, () => {
      if (this.state === "runs") run();
      else if (this.state === "paused") this.held.push({ isTimer: true, run });
    });
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }
}
