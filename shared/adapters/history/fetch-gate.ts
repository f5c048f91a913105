/*
 * Memory of what is being fetched: each fetch says how many bytes it will hold (as stored and opened), and waits until they
 * fit. First come, first served, so that a large one is not overtaken for ever; but what says where bytes are (footers, pages, heads)
 * goes before bytes: an open takes several rounds of it, and each would wait for all that is being read of other points. Nothing
 * starves, because opens and their rounds are few. One per process (histories.ts).
 */
import { invariant } from "#shared/domain/invariant.ts";

interface Waiting {
  readonly bytes: number;
  readonly start: () => void;
}

export class FetchGate {
  private readonly bytesMax: number;
  private readonly countMax: number;
  private readonly waitingPlaces: Waiting[] = [];
  private readonly waitingBytes: Waiting[] = [];
  private bytes = 0;
  private count = 0;
  private peak = 0;

  constructor(bytesMax: number, countMax: number) {
    this.bytesMax = bytesMax;
    this.countMax = countMax;
  }

  /** Runs the task when its bytes fit; something larger than all the gate has goes alone. `kind`: what it brings. */
  async run<T>(kind: "places" | "bytes", bytes: number, task: () => Promise<T>): Promise<T> {
    const cost = Math.min(bytes, this.bytesMax);
    const queue = kind === "places" ? this.waitingPlaces : this.waitingBytes;
    if (this.waitingPlaces.length > 0 || queue.length > 0 || !this.fits(cost)) {
      await new Promise<void>((resolve) => {
        queue.push({ bytes: cost, start: resolve });
      });
    } else {
      this.take(cost);
    }
    try {
      return await task();
    } finally {
      this.bytes -= cost;
      this.count -= 1;
      this.startNext();
    }
  }

  statistics(): {
    readonly bytes: number;
    readonly count: number;
    readonly waiting: number;
    readonly peakBytes: number;
  } {
    const waiting = this.waitingPlaces.length + this.waitingBytes.length;
    return { bytes: this.bytes, count: this.count, waiting, peakBytes: this.peak };
  }

  private fits(bytes: number): boolean {
    return this.count < this.countMax && this.bytes + bytes <= this.bytesMax;
  }

  private take(bytes: number): void {
    this.bytes += bytes;
    this.count += 1;
    this.peak = Math.max(this.peak, this.bytes);
    invariant(this.bytes <= this.bytesMax, "fetches fit their memory");
  }

  private startNext(): void {
    for (;;) {
      const queue = this.waitingPlaces.length > 0 ? this.waitingPlaces : this.waitingBytes;
      const first = queue[0];
      if (first === undefined || !this.fits(first.bytes)) return;
      queue.shift();
      this.take(first.bytes);
      first.start();
    }
  }
}
