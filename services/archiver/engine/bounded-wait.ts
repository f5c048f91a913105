/*
 * A wait with an end: for work at close that may hang with the bucket. volume-archiver.ts waits with it for what it leaves undone
 * after the time: the log keeps it for the next open.
 */
import type { Clock } from "#shared/ports/clock.ts";

/** Resolves when `work` has resolved, or after `timeoutMs`. `work` never rejects. */
export function boundedWait(work: Promise<unknown>, clock: Clock, timeoutMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = clock.after(timeoutMs, resolve);
    void work.then(() => {
      timer.cancel();
      resolve();
    });
  });
}
