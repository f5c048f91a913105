/*
 * The archive thread's manners: before each piece of work it leaves the processor for a moment, then waits until no client waits for an
 * answer, for a bounded time. Idle priority alone is not enough: a scheduler that picks by eligibility (EEVDF, Linux from 6.6) lets such a thread run
 * up to the next tick, 4 ms, before one that just woke there, while the other processor has nothing to do; and whatever runs slows down what
 * runs on the other one (ADR 008). Used by worker-program.ts of the calm worker.
 */
import { type ForegroundLoad, foregroundCell } from "#shared/memory/foreground-load.ts";

/**
 * For each piece of 256 KiB, and all pieces of a task with their pauses. A pause is asked to be so short, and is as long as the kernel's timers and
 * the others on the processor make it: where they take long, the end of a task goes without, so that archiving keeps up.
 */
export const giveWayMs = { pause: 0.05, piece: 1, task: 40 } as const;

/** Nobody writes it: to wait for it is to sleep. */
const never = new Int32Array(new SharedArrayBuffer(4));

export class GiveWay {
  readonly #cells: Int32Array<SharedArrayBuffer>;
  #leftMs = 0;

  constructor(cells: ForegroundLoad["cells"]) {
    this.#cells = cells;
  }

  /** A new task. One that is behind does not wait: clients of a slow disk are always waiting, for the disk, and the log grows. */
  begin(isBehind: boolean): void {
    this.#leftMs = isBehind ? 0 : giveWayMs.task;
  }

  /** Blocks the calling thread: for a moment, under load for longer; a task takes giveWayMs.task longer, not more. */
  wait(): void {
    if (this.#leftMs <= 0) return;
    const startedMs = performance.now();
    Atomics.wait(never, 0, 0, giveWayMs.pause);
    if (Atomics.load(this.#cells, foregroundCell.requests) > 0) this.#waitForQuiet();
    this.#leftMs -= performance.now() - startedMs;
  }

  #waitForQuiet(): void {
    Atomics.add(this.#cells, foregroundCell.waiting, 1);
    this.#untilQuiet(performance.now() + Math.min(giveWayMs.piece, this.#leftMs));
    Atomics.sub(this.#cells, foregroundCell.waiting, 1);
  }

  #untilQuiet(deadlineMs: number): void {
    for (;;) {
      const requests = Atomics.load(this.#cells, foregroundCell.requests);
      const leftMs = deadlineMs - performance.now();
      if (requests === 0 || leftMs <= 0) return;
      // A count that changed meanwhile does not wait: it is looked at again.
      Atomics.wait(this.#cells, foregroundCell.requests, requests, leftMs);
    }
  }
}
