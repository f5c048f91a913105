/*
 * A limit in bytes per second, for lines that others use too: a request starts when all before it would have been through at
 * that rate. Bodies go out whole, so within one object the line's own rate rules. Called by retrying-store.ts, one for each
 * direction. Idle time gives no credit beyond one object at once.
 */
import type { Clock } from "#shared/ports/clock.ts";

export class BandwidthLimit {
  private readonly clock: Clock;
  private readonly bytesPerSecond: number;
  private freeAtMs = 0;

  /** No limit where `bytesPerSecond` is undefined. */
  constructor(clock: Clock, bytesPerSecond: number | undefined) {
    this.clock = clock;
    this.bytesPerSecond = bytesPerSecond ?? Number.POSITIVE_INFINITY;
  }

  /** Resolves when a request of so many bytes may start. */
  async turn(bytes: number): Promise<void> {
    if (this.bytesPerSecond === Number.POSITIVE_INFINITY) return;
    const nowMs = this.clock.monotonicMs();
    const startMs = Math.max(nowMs, this.freeAtMs);
    this.freeAtMs = startMs;
    this.charge(bytes);
    if (startMs > nowMs) await new Promise<void>((resolve) => this.clock.after(startMs - nowMs, resolve));
  }

  /** Bytes that came although nobody knew before: later requests wait for them. */
  charge(bytes: number): void {
    this.freeAtMs += (bytes / this.bytesPerSecond) * 1000;
  }
}
