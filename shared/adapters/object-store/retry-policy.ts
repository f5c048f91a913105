/*
 * The one retry loop of all stores that may be away for a moment: full jitter (each wait is drawn from 0 to a doubling bound),
 * a most number of attempts, a most total time, and an end at close. Only failures of kind Retry are tried again. The SDK's
 * own retries are off. Called by retrying-store.ts for every request; limits in domain/limits.ts.
 */
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";

export class RetryPolicy {
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly waiting = new Map<Timer, () => void>();
  private stopped = false;

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.random = random;
  }

  /** `onRetry` is told each failure that is tried again. Rejects with the last failure. */
  async run<T>(work: () => Promise<T>, onRetry: (failure: ObjectStoreError) => void): Promise<T> {
    const patience = new Patience(this.clock, limits.bucketRetryMs);
    const watch = patience.wait(() => undefined); // an attempt takes longer than patience may go without a look
    try {
      return await this.attempts(work, onRetry, patience);
    } finally {
      watch.cancel();
    }
  }

  private async attempts<T>(
    work: () => Promise<T>,
    onRetry: (failure: ObjectStoreError) => void,
    patience: Patience,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof ObjectStoreError) || error.kind !== "Retry") throw error;
        const waitMs = this.random.next() * waitBoundMs(attempt);
        const enough = attempt >= limits.bucketAttemptsMax || waitMs > patience.leftMs();
        if (enough || this.stopped) throw error;
        await this.wait(waitMs);
        if (this.stopped) throw error;
        onRetry(error);
      }
    }
  }

  /** Ends all waits; nothing is tried again. */
  stop(): void {
    this.stopped = true;
    for (const [timer, goOn] of this.waiting) {
      timer.cancel();
      goOn();
    }
    this.waiting.clear();
  }

  private wait(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.clock.after(waitMs, () => {
        this.waiting.delete(timer);
        resolve();
      });
      this.waiting.set(timer, resolve);
    });
  }
}

function waitBoundMs(attempt: number): number {
  return Math.min(limits.bucketRetryWaitMsMax, limits.bucketRetryFirstWaitMs * 2 ** (attempt - 1));
}
