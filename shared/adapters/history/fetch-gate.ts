/*
 * Memory of what is being fetched: each fetch says how many bytes it will hold (as stored and opened), and waits until they
 * fit. First come, first served, so that a large one is not overtaken for ever. One per process (histories.ts).
 */
import { invariant } from "#shared/domain/invariant.ts";

interface Waiting {
  readonly bytes: number;
  readonly start: () => void;
}

export class FetchGate {
  private readonly bytesMax: number;
  private readonly countMax: number;
  private readonly waiting: Waiting[] = [];
  private bytes = 0;
  private count = 0;
  private peak = 0;

  constructor(bytesMax: number, countMax: number) {
    this.bytesMax = bytesMax;
    this.countMax = countMax;
  }

  /** Runs the task when its bytes fit; something larger than all the gate has goes alone. */
  async run<T>(bytes: number, task: () => Promise<T>): Promise<T> {
    const cost = Math.min(bytes, this.bytesMax);
    if (this.waiting.length > 0 || !this.fits(cost)) {
      await new Promise<void>((resolve) => {
        this.waiting.push({ bytes: cost, start: resolve });
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
    return { bytes: this.bytes, count: this.count, waiting: this.waiting.length, peakBytes: this.peak };
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
    for (
      let first = this.waiting[0];
      first !== undefined && this.fits(first.bytes);
      first = this.waiting[0]
    ) {
      this.waiting.shift();
      this.take(first.bytes);
      first.start();
    }
  }
}
