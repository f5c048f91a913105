/*
 * The archive thread's manners: before each piece of work it leaves the processor for a moment, then waits until no client waits for an
 * answer, for a bounded time. Idle priority alone is not enough: a scheduler that picks by eligibility (EEVDF, Linux from 6.6) lets such a thread run
 * up to the next tick, 4 ms, before one that just woke there, while the other processor has nothing to do; and whatever runs slows down what
 * runs on the other one (ADR 008). Used by worker-program.ts of the calm worker.
 */
import { type ForegroundLoad, foregroundCell } from "#shared/memory/foreground-load.ts";

/**
 * For each piece of 256 KiB, and all pieces of a task: a segment of 8 MiB takes 25 ms with the pauses, and these, which leaves 150 MB/s. The
 * pause is asked to be so short, and is as long as the kernel's timers make it: about 0.1 ms.
 */
export const giveWayMs = { pause: 0.05, piece: 3, task: 30 } as const;

/** Nobody writes it: to wait for it is to sleep. */
const never = new Int32Array(new SharedArrayBuffer(4));

export class GiveWay {
  readonly #cells: Int32Array<SharedArrayBuffer>;
  #leftMs = 0;

  constructor(cells: ForegroundLoad["cells"]) {
    this.#cells = cells;
  }

  /** A new task. */
  begin(): void {
    this.#leftMs = giveWayMs.task;
  }

  /** Blocks the calling thread: for a moment always, and under steady load a task takes giveWayMs.task longer, not more. */
  wait(): void {
    Atomics.wait(never, 0, 0, giveWayMs.pause);
    const requests = Atomics.load(this.#cells, foregroundCell.requests);
    if (requests === 0 || this.#leftMs <= 0) return;
    const startedMs = performance.now();
    Atomics.add(this.#cells, foregroundCell.waiting, 1);
    this.#untilQuiet(startedMs + Math.min(giveWayMs.piece, this.#leftMs));
    Atomics.sub(this.#cells, foregroundCell.waiting, 1);
    this.#leftMs -= performance.now() - startedMs;
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
