/*
 * The archive thread's manners: before each frame it waits until no client waits for an answer, for a bounded time. A thread that only
 * gets what others leave of the processors still slows down what runs on the other one (ADR 008). Used by worker-program.ts of the calm worker.
 */
import { type ForegroundLoad, foregroundCell } from "#shared/memory/foreground-load.ts";

/** For each frame of 256 KiB, and all frames of a task: a segment of 8 MiB takes 15 ms and these, which leaves 140 MB/s. */
export const giveWayMs = { frame: 3, task: 40 } as const;

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

  /** Blocks the calling thread. Under steady load a task takes giveWayMs.task longer, not more. */
  wait(): void {
    const requests = Atomics.load(this.#cells, foregroundCell.requests);
    if (requests === 0 || this.#leftMs <= 0) return;
    const startedMs = performance.now();
    Atomics.add(this.#cells, foregroundCell.waiting, 1);
    this.#untilQuiet(startedMs + Math.min(giveWayMs.frame, this.#leftMs));
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
