/*
 * One volume's patience with its bucket: repeats what failed with growing waits until it succeeds, tells the operator once that
 * the bucket is away and once that it is back. Every request of the archiver goes through run(); the store's own short
 * retries lie below. Fenced and Corrupt are not a matter of patience.
 *
 *   running ─a request failed─► waiting ─one succeeded─► running          any ─stop()─► stopped
 */

import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { InvariantError } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";

export interface PatienceOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Where the bucket is, for people. */
  readonly place: string;
  readonly onNote: (text: string) => void;
}

export class BucketPatience {
  private readonly options: PatienceOptions;
  private readonly sleepers = new Set<() => void>();
  private stopped: VarveError | null = null;
  private awaySinceMs: number | null = null;
  /** What the bucket said last, while it is away. */
  error: VarveError | null = null;

  constructor(options: PatienceOptions) {
    this.options = options;
  }

  get isWaiting(): boolean {
    return this.error !== null;
  }

  /** Milliseconds since the first failure without a success after it; 0 while the bucket is there. */
  get awayMs(): number {
    return this.awaySinceMs === null ? 0 : this.options.clock.monotonicMs() - this.awaySinceMs;
  }

  /** `work` until it succeeds. Rejects when stopped, or when nobody wants it any more. */
  async run<T>(what: string, work: () => Promise<T>, isUnwanted: () => boolean = () => false): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      if (this.stopped !== null) throw this.stopped;
      if (isUnwanted()) throw new VarveError("UploadUnwanted", "Retry", `${what}: not wanted any more`);
      try {
        const result = await work();
        this.back();
        return result;
      } catch (cause) {
        const error = toVarveError(cause, what);
        if (error.kind === "Fenced" || error.kind === "Corrupt" || error instanceof InvariantError)
          throw error;
        this.away(error);
        if (this.stopped === null) await this.sleep(attempt);
      }
    }
  }

  /** Whoever waits tries again at once (what it wants may have changed). */
  wake(): void {
    for (const wake of this.sleepers) wake();
  }

  /** Nothing is tried any more. */
  stop(error: VarveError): void {
    this.stopped ??= error;
    this.wake();
  }

  private sleep(attempt: number): Promise<void> {
    const { clock, random } = this.options;
    const boundMs = Math.min(limits.archiveRetryWaitMsMax, limits.archiveRetryFirstWaitMs * 2 ** attempt);
    const waitMs = boundMs * (0.5 + random.next() / 2);
    return new Promise((resolve) => {
      let timer: Timer | null = null;
      const wake = (): void => {
        timer?.cancel();
        this.sleepers.delete(wake);
        resolve();
      };
      this.sleepers.add(wake);
      timer = clock.after(waitMs, wake);
    });
  }

  private away(error: VarveError): void {
    const isNew = this.error === null;
    this.error = error;
    this.awaySinceMs ??= this.options.clock.monotonicMs();
    if (!isNew || this.stopped !== null) return;
    const hint = error.hint === "" ? "" : ` ${error.hint}`;
    this.options.onNote(`the bucket ${this.options.place} does not take history: ${error.message}.${hint}`);
  }

  private back(): void {
    if (this.error === null) return;
    const { awayMs } = this;
    this.error = null;
    this.awaySinceMs = null;
    this.options.onNote(`the bucket ${this.options.place} is back after ${Math.round(awayMs / 1000)} s`);
    this.wake();
  }
}
