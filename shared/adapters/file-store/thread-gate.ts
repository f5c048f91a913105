/*
 * Bounds how many slow calls of one sort (cold reads) hold a thread of the pool at once, first come first served beyond
 * that, so that a log's sync always finds a thread. Owns the count and the queue; used by native-file.ts, one gate per
 * store.
 */
export class ThreadGate {
  readonly #widthMax: number;
  #running = 0;
  readonly #waiting: (() => void)[] = [];
  /** Index of the longest waiting one: the array is emptied in one go, so a shift never moves it. */
  #first = 0;

  constructor(widthMax: number) {
    this.#widthMax = widthMax;
  }

  /** Runs `start` now or when its turn comes; whoever started calls leave() once. */
  enter(start: () => void): void {
    if (this.#running < this.#widthMax) {
      this.#running += 1;
      start();
      return;
    }
    this.#waiting.push(start);
  }

  leave(): void {
    const next = this.#waiting[this.#first];
    if (next === undefined) {
      this.#running -= 1;
      return;
    }
    this.#first += 1;
    if (this.#first === this.#waiting.length) {
      this.#waiting.length = 0;
      this.#first = 0;
    }
    next();
  }
}

/** Half of libuv's pool, so that the other half is there for syncs and gathered writes. */
export function coldReadWidth(poolSize: string | undefined): number {
  const threads = Number(poolSize ?? "4");
  return Math.max(1, Math.floor((Number.isFinite(threads) ? threads : 4) / 2));
}
