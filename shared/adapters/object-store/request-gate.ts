/*
 * At most so many requests under way, the others in order of arrival, at most so many of those. A request that waits between
 * two attempts holds no place. Called by retrying-store.ts, one gate for writes and one for reads.
 */

export class RequestGate {
  private readonly places: number;
  private readonly queueMax: number;
  private readonly queue: (() => void)[] = [];
  private taken = 0;

  constructor(places: number, queueMax: number) {
    this.places = places;
    this.queueMax = queueMax;
  }

  get isFull(): boolean {
    return this.queue.length >= this.queueMax;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.taken >= this.places) await new Promise<void>((resolve) => this.queue.push(resolve));
    else this.taken += 1;
    try {
      return await work();
    } finally {
      // The place goes on to the next in line, so that nobody who comes meanwhile overtakes.
      const next = this.queue.shift();
      if (next === undefined) this.taken -= 1;
      else next();
    }
  }
}
