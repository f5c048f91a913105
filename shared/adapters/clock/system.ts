/*
 * The real clock and the real chance: the only place outside the shell where a running Varve asks the system for either.
 * Built once by the shell; engines get them as ports (ports/clock.ts), the simulator puts its own in their place.
 * Timers do not keep the process alive.
 */
import { randomBytes } from "node:crypto";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";

export class SystemClock implements Clock {
  wallTimeMs(): number {
    return Date.now();
  }

  monotonicMs(): number {
    return performance.now();
  }

  after(delayMs: number, task: () => void): Timer {
    const timer = setTimeout(task, delayMs);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  }

  soon(task: () => void): void {
    setImmediate(task);
  }
}

export class SystemRandom implements Random {
  hex(bytes: number): string {
    return randomBytes(bytes).toString("hex");
  }

  next(): number {
    return Math.random();
  }
}
