// What a volume of the swarm does, told to one place: counts, times, failures. checked-volume.ts and file-system-volume.ts are the loads;
// swarm-run.ts runs many of them on one server and judges.

import { WorkSlots } from "../../services/archiver/engine/work-slots.ts";
import type { PastServer } from "../tools/past-server.ts";

export interface SwarmCounts {
  requests: number;
  bytesWritten: number;
  snapshots: number;
  /** Points that were opened while the load ran, and read whole. */
  pointsVerified: number;
  /** Of those: snapshots taken long before, which must still be the same bytes. */
  pointsReread: number;
  fileSystems: number;
}

/** Times of one kind, from outside. */
export interface Slowness {
  worstMs: number;
  count: number;
  /** By doubling bounds from 1 ms on: enough for percentiles. */
  readonly buckets: number[];
}

export type Step = "request" | "snapshot" | "point open";

/**
 * Points that are open and read whole at once, over all volumes: as many as two backup programs would have, at full speed. With each
 * volume reading its own, the machine's two cores do nothing else any more and all wait in line.
 */
const pointReaders = 2;

export class SwarmContext {
  readonly server: PastServer;
  readonly signal: AbortSignal;
  readonly failures: string[] = [];
  readonly counts: SwarmCounts = {
    requests: 0,
    bytesWritten: 0,
    snapshots: 0,
    pointsVerified: 0,
    pointsReread: 0,
    fileSystems: 0,
  };
  readonly times: Record<Step, Slowness> = {
    request: slowness(),
    snapshot: slowness(),
    "point open": slowness(),
  };
  private readonly stallMs: number;
  private readonly readers = new WorkSlots(pointReaders);

  constructor(server: PastServer, signal: AbortSignal, stallMs: number) {
    this.server = server;
    this.signal = signal;
    this.stallMs = stallMs;
  }

  took(step: Step, ms: number, volume: string): void {
    const times = this.times[step];
    times.count += 1;
    times.worstMs = Math.max(times.worstMs, ms);
    const bucket = Math.max(0, Math.ceil(Math.log2(Math.max(ms, 1))));
    times.buckets[bucket] = (times.buckets[bucket] ?? 0) + 1;
    if (ms > this.stallMs) this.fail(volume, `a ${step} took ${Math.round(ms)} ms`);
  }

  fail(volume: string, what: string): void {
    if (this.failures.length < 50) this.failures.push(`${volume}: ${what}`);
  }

  async timed<T>(step: Step, volume: string, work: () => Promise<T>): Promise<T> {
    const startedAtMs = performance.now();
    const result = await work();
    this.took(step, performance.now() - startedAtMs, volume);
    return result;
  }

  /** Reads a point when it is its turn. */
  async reading<T>(work: () => Promise<T>): Promise<T> {
    const leave = await this.readers.take();
    try {
      return await work();
    } finally {
      leave();
    }
  }

  /** Ends early with the swarm. */
  async pause(ms: number): Promise<void> {
    const { signal } = this;
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener("abort", end);
    });
  }
}

function slowness(): Slowness {
  return { worstMs: 0, count: 0, buckets: [] };
}

/** Upper bound of the bucket that this share of the times fits. */
export function boundOf({ buckets, count }: Slowness, share: number): number {
  let seen = 0;
  for (const [bucket, found] of buckets.entries()) {
    seen += found ?? 0;
    if (seen >= share * count) return 2 ** bucket;
  }
  return 0;
}
