/*
 * How many requests of clients wait for their answer in this process, in memory that threads share: the gateway tells it (nbd-server.ts),
 * background work on a thread of its own gives way to it (adapters/archive-worker/give-way.ts). Made by services/cli/single-machine.ts.
 */

/** Places in `cells`. */
export const foregroundCell = { requests: 0, waiting: 1 } as const;

export class ForegroundLoad {
  /** For threads: see foregroundCell. */
  readonly cells = new Int32Array(new SharedArrayBuffer(8));

  /** Called at each change. Who waits for quiet is woken when there is none left. */
  tell(requests: number): void {
    Atomics.store(this.cells, foregroundCell.requests, requests);
    if (requests > 0 || Atomics.load(this.cells, foregroundCell.waiting) === 0) return;
    Atomics.notify(this.cells, foregroundCell.requests);
  }
}
