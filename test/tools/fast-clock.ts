// Real time, ten times as fast: what a process waits for before it tries again is not waited for by its test.
import { SystemClock } from "#shared/adapters/clock/system.ts";
import type { Timer } from "#shared/ports/clock.ts";

export class FastClock extends SystemClock {
  override after(delayMs: number, task: () => void): Timer {
    return super.after(delayMs / 10, task);
  }
}
