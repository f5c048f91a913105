/*
 * One collector per bucket, and retention time. Leases are numbered objects: who wrote the greatest holds it, each renewal is
 * the next number. The lease saves work, it protects nothing: two collectors at once would still delete only what nobody
 * names. Taken by collector.ts around each run. See docs/specs/retention.md.
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  acceptWallClock,
  type ClockWitness,
  firstRetentionTime,
  type RetentionTime,
  type Tick,
  tickRetentionTime,
} from "#shared/domain/retention-clock.ts";
import {
  collectorNumber,
  decodeLease,
  encodeLease,
  type LeaseContent,
  leaseKey,
  leasePrefix,
} from "#shared/formats/collector-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { damaged } from "./bucket-reader.ts";

/** Older leases that stay, so that a store which loses its last seconds falls back to one of them. */
const leasesKept = 16;

export interface LeaseParts {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  /** For people. */
  readonly who: string;
  /** Whether the store's probe passed; asked when it is needed, because the bucket may be away at the start. */
  conditionalPut(): Promise<boolean>;
  /** Monotonic time at which this process began. */
  readonly startedMs: number;
}

/** Times that the bucket's manifests tell. */
export type BucketTimes = Omit<ClockWitness, "upMs">;

export function bucketTimes(manifests: readonly VolumeManifest[]): BucketTimes {
  let [newestMs, oldestMs]: [number | null, number | null] = [null, null];
  for (const { writtenAtMs, pages, segments } of manifests) {
    newestMs = Math.max(newestMs ?? 0, writtenAtMs);
    for (const { wallMinMs } of [...pages, ...segments])
      oldestMs = Math.min(oldestMs ?? wallMinMs, wallMinMs);
  }
  return { newestMs, oldestMs };
}

export class CollectorLease {
  private readonly parts: LeaseParts;
  private readonly holder: string;
  /** The last number that this process wrote, and when it ticked. */
  private lastNumber = 0;
  private lastTickMs = 0;
  /** The last lease that others wrote, and since when it did not change by our clock. */
  private seen: { number: number; sinceMs: number } | null = null;
  private renewedMs = 0;

  constructor(parts: LeaseParts) {
    this.parts = parts;
    this.holder = parts.random.hex(8);
  }

  get number(): number {
    return this.lastNumber;
  }

  /** See LeaseParts. */
  async conditionalPut(): Promise<boolean> {
    return await this.parts.conditionalPut();
  }

  /** Retention time as the last run stored it; null: none did. */
  async stored(): Promise<RetentionTime | null> {
    return (await this.latest())?.time ?? null;
  }

  /** Retention time as it would be now, with nothing written. `seen`: for a bucket that no run has collected. */
  async look(seen: BucketTimes): Promise<Tick> {
    return this.tick(await this.latest(), seen);
  }

  /** Takes the lease and moves retention time on. Rejects Retry where another collector is at work. */
  async take(seen: BucketTimes, acceptClock: boolean): Promise<Tick> {
    const latest = await this.latest();
    this.requireFree(latest);
    const ticked = acceptClock
      ? { time: acceptWallClock(this.parts.clock.wallTimeMs()), alarm: null }
      : this.tick(latest, seen);
    await this.write((latest?.number ?? 0) + 1, "held", ticked.time);
    this.lastTickMs = this.parts.clock.monotonicMs();
    await this.require();
    return ticked;
  }

  /** Rejects Fenced where somebody took the lease over. Renews it when it is old. */
  async require(time?: RetentionTime): Promise<void> {
    const latest = await this.latest();
    if (latest?.number !== this.lastNumber || latest.holder !== this.holder) throw this.lost(latest);
    if (time === undefined || this.parts.clock.monotonicMs() - this.renewedMs < limits.collectorRenewMs)
      return;
    await this.write(this.lastNumber + 1, "held", time);
  }

  async renew(time: RetentionTime): Promise<void> {
    await this.require();
    await this.write(this.lastNumber + 1, "held", time);
  }

  /** Gives it back, and clears away what is older than a store may lose. */
  async release(time: RetentionTime): Promise<void> {
    await this.require();
    await this.write(this.lastNumber + 1, "released", time);
    for (const number of await this.numbers()) {
      if (number <= this.lastNumber - leasesKept) await this.parts.store.remove(leaseKey(number));
    }
  }

  private tick(latest: LeaseContent | null, seen: BucketTimes): Tick {
    const wallMs = this.parts.clock.wallTimeMs();
    const nowMs = this.parts.clock.monotonicMs();
    if (latest === null) {
      const upMs = nowMs - this.parts.startedMs;
      return { time: firstRetentionTime(wallMs, { ...seen, upMs }), alarm: null };
    }
    const continuous = latest.holder === this.holder;
    // Time that another process may have counted already is not counted again.
    const elapsedMs = nowMs - (continuous ? this.lastTickMs : this.seenSince(latest));
    return tickRetentionTime(latest.time, { wallMs, elapsedMs, continuous });
  }

  private requireFree(latest: LeaseContent | null): void {
    if (latest === null || latest.state === "released" || latest.holder === this.holder) return;
    const waitedMs = this.parts.clock.monotonicMs() - this.seenSince(latest);
    if (waitedMs >= limits.collectorLeaseMs) return;
    throw new VarveError("CollectorBusyError", "Retry", `another collector is at work: ${latest.who}`, {
      hint: `If that process is gone, this one takes over in ${Math.ceil((limits.collectorLeaseMs - waitedMs) / 60_000)} minutes.`,
      fields: { who: latest.who, number: latest.number },
    });
  }

  private seenSince(latest: LeaseContent): number {
    if (this.seen?.number !== latest.number) {
      this.seen = { number: latest.number, sinceMs: this.parts.clock.monotonicMs() };
    }
    return this.seen.sinceMs;
  }

  private async write(number: number, state: LeaseContent["state"], time: RetentionTime): Promise<void> {
    const content = encodeLease({ number, holder: this.holder, who: this.parts.who, state, time });
    const options = (await this.parts.conditionalPut()) ? { onlyNew: true } : {};
    const result = await this.parts.store.put(leaseKey(number), content, options);
    if (result === "exists") {
      // An answer that was lost makes the store's own retry find our object.
      const found = await this.read(number);
      if (found?.holder !== this.holder || found.state !== state) throw this.lost(found);
    }
    this.lastNumber = number;
    this.renewedMs = this.parts.clock.monotonicMs();
  }

  private async latest(): Promise<LeaseContent | null> {
    const numbers = await this.numbers();
    return numbers.length === 0 ? null : await this.read(Math.max(...numbers));
  }

  private async numbers(): Promise<readonly number[]> {
    const numbers: number[] = [];
    for await (const { key } of this.parts.store.list(leasePrefix)) {
      const number = collectorNumber(key, leasePrefix);
      if (number !== null) numbers.push(number);
    }
    return numbers;
  }

  private async read(number: number): Promise<LeaseContent | null> {
    const object = await this.parts.store.get(leaseKey(number));
    if (object === null) return null;
    const lease = decodeLease(object);
    if (isBadObject(lease)) throw damaged(leaseKey(number), `is damaged: ${lease.detail}`);
    return lease;
  }

  private lost(latest: LeaseContent | null): VarveError {
    const who = latest === null || latest.holder === this.holder ? "somebody" : latest.who;
    return new VarveError("CollectorFencedError", "Fenced", `${who} took over collecting this bucket`, {
      hint: "Nothing more was deleted by this run. The next one begins by itself.",
      fields: { who, number: latest?.number ?? 0 },
    });
  }
}
