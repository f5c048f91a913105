/*
 * A bucket for the simulator: objects in memory with seeded bad luck, power cuts and kills. Owns the objects across the lives of
 * the processes that use it, the faults' chances, and the requests under way. Built by tests; store() (simulated.ts) is what a
 * process opens. Time and chance come from the simulator's ports, so that one seed gives one order.
 */
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ObjectFacts } from "#shared/ports/object-store.ts";

/** Chances per request, 0 to 1, and states. All may be changed at any time. */
export interface BucketFaults {
  /** Answered with an error; nothing happened. */
  errorBefore: number;
  /** It happened, and the answer is an error (or was lost). */
  errorAfter: number;
  /** Never answered. It never happens, or happens after up to `lateMsMax`, long after the caller gave up. */
  hang: number;
  /** Takes a hundred times as long. */
  slow: number;
  /** The body that comes is shorter than the object: an answer that broke off. */
  brokenBody: number;
  /** Nobody answers: every request fails at once. */
  away: boolean;
  /** If-None-Match is ignored, as some stores do. */
  conditionalPutLies: boolean;
  /** Every put is refused for want of room. */
  full: boolean;
}

export const noBucketFaults: Readonly<BucketFaults> = {
  errorBefore: 0,
  errorAfter: 0,
  hang: 0,
  slow: 0,
  brokenBody: 0,
  away: false,
  conditionalPutLies: false,
  full: false,
};

/** The disk that a bucket lies on. */
export interface BucketSpace {
  /** False where so many bytes more find no room: nothing is stored then. */
  take(bytes: number): boolean;
  give(bytes: number): void;
}

export interface SimulatedBucketOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly faults?: Partial<BucketFaults>;
  /** A request's latency is drawn from 0 to this. */
  readonly latencyMsMax?: number;
  /** What changed within so long before a power cut may be lost by it; 0: every answered change is safe. */
  readonly settleMs?: number;
  readonly lateMsMax?: number;
}

interface StoredObject {
  readonly content: Buffer;
  readonly modifiedMs: number;
}

/** A change that a power cut may still take back. */
interface RecentChange {
  readonly key: string;
  readonly before: StoredObject | undefined;
  readonly atMs: number;
}

const latencyMsMaxDefault = 20;
const settleMsDefault = 60_000;
const lateMsMaxDefault = 120_000;

export class SimulatedBucket {
  readonly faults: BucketFaults;
  readonly place = "sim://bucket";
  /** What came to pass; for statistics. */
  readonly counters = { requests: 0, faults: 0, late: 0, lost: 0, returned: 0, damaged: 0 };
  /** Null: there is always room, but for `full`. */
  space: BucketSpace | null = null;
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly latencyMsMax: number;
  private readonly settleMs: number;
  private readonly lateMsMax: number;
  private readonly objects = new Map<string, StoredObject>();
  private recent: RecentChange[] = [];
  /** Requests that have not happened yet. */
  private readonly underWay = new Set<() => unknown>();
  /** Requests that happen long after everybody gave them up, even if the simulator forgot its timers in a crash. */
  private late: { readonly atMs: number; readonly effect: () => unknown }[] = [];
  private generation = 0;

  constructor(options: SimulatedBucketOptions) {
    this.clock = options.clock;
    this.random = options.random;
    this.faults = { ...noBucketFaults, ...options.faults };
    this.latencyMsMax = options.latencyMsMax ?? latencyMsMaxDefault;
    this.settleMs = options.settleMs ?? settleMsDefault;
    this.lateMsMax = options.lateMsMax ?? lateMsMaxDefault;
  }

  /** The number of the process life that begins now asking; after kill() its requests are never answered. */
  get life(): number {
    return this.generation;
  }

  /** The process that used the bucket dies. What it had under way happens now, late, or never. */
  kill(): void {
    this.generation += 1;
    for (const effect of this.underWay) {
      const fate = this.random.next();
      if (fate < 0.3) this.happen(effect);
      else if (fate < 0.6) this.happenLate(effect);
    }
    this.underWay.clear();
  }

  /** The store's machine loses power: of what changed in the last settle time, any part is undone, newest first. */
  powerLoss(): void {
    const fromMs = this.clock.monotonicMs() - this.settleMs;
    for (const change of this.recent.toReversed()) {
      if (change.atMs < fromMs || this.random.next() < 0.5) continue;
      if (change.before === undefined) {
        if (this.objects.delete(change.key)) this.counters.lost += 1;
      } else {
        this.objects.set(change.key, change.before);
        this.counters.returned += 1;
      }
    }
    this.recent = [];
  }

  /** Turns one bit over; false where there is no such object, or no byte of it. */
  damage(key: string): boolean {
    const object = this.objects.get(key);
    if (object === undefined || object.content.length === 0) return false;
    const content = Buffer.from(object.content);
    const at = Math.floor(this.random.next() * content.length);
    content[at] = (content[at] ?? 0) ^ (1 << Math.floor(this.random.next() * 8));
    this.objects.set(key, { ...object, content });
    this.counters.damaged += 1;
    return true;
  }

  /** The object is gone, without anybody having removed it. */
  lose(key: string): boolean {
    this.resize(key, -(this.objects.get(key)?.content.length ?? 0));
    return this.objects.delete(key);
  }

  /** All keys, sorted; for oracles, which see through every fault. */
  keys(): string[] {
    return [...this.objects.keys()].sort();
  }

  content(key: string): Buffer | null {
    const object = this.objects.get(key);
    return object === undefined ? null : Buffer.from(object.content);
  }

  /**
   * One request of a process life: after a latency `effect` happens, after another it is answered, unless chance says
   * otherwise. `effect` is run at most once.
   */
  serve<T>(life: number, operation: string, key: string, effect: () => T): Promise<T> {
    this.counters.requests += 1;
    this.land();
    return new Promise<T>((resolve, reject) => {
      const answer = (settle: () => void): void => {
        this.later(() => {
          if (life === this.generation) settle();
        });
      };
      const fail = (what: string, kind: "Retry" | "Full" = "Retry"): void => {
        this.counters.faults += 1;
        answer(() => reject(this.failure(kind, operation, key, what)));
      };
      if (life !== this.generation) return;
      this.underWay.add(effect);
      this.later(() => {
        if (!this.underWay.delete(effect)) return;
        if (this.faults.away) return fail("the store is away");
        if (this.chance(this.faults.hang)) return this.hang(effect);
        if (this.chance(this.faults.errorBefore)) return fail("HTTP 503");
        if (operation === "put" && this.faults.full) return fail("no room", "Full");
        let result: T;
        try {
          result = effect();
        } catch (error) {
          return answer(() => reject(error));
        }
        if (this.chance(this.faults.errorAfter)) return fail("the answer was lost");
        answer(() => resolve(result));
      });
    });
  }

  store(key: string, content: Buffer, onlyNew: boolean): "stored" | "exists" {
    const before = this.objects.get(key);
    if (onlyNew && before !== undefined && !this.faults.conditionalPutLies) return "exists";
    this.resize(key, content.length - (before?.content.length ?? 0));
    this.remember(key, before);
    this.objects.set(key, { content, modifiedMs: this.clock.wallTimeMs() });
    return "stored";
  }

  delete(key: string): void {
    const before = this.objects.get(key);
    if (before === undefined) return;
    this.resize(key, -before.content.length);
    this.remember(key, before);
    this.objects.delete(key);
  }

  private resize(key: string, bytes: number): void {
    if (bytes < 0) this.space?.give(-bytes);
    if (bytes <= 0 || this.space === null || this.space.take(bytes)) return;
    this.counters.faults += 1;
    throw this.failure("Full", "put", key, "no room");
  }

  /** A body may break off on the way, which the reader sees by its announced length. */
  read(key: string, start: number, end: number): Buffer {
    const object = this.objects.get(key);
    invariant(object !== undefined, "only what is there is read");
    if (this.chance(this.faults.brokenBody)) {
      this.counters.faults += 1;
      throw this.failure("Retry", "get", key, "the body broke off");
    }
    return Buffer.from(object.content.subarray(start, end));
  }

  facts(key: string): ObjectFacts | null {
    const object = this.objects.get(key);
    return object === undefined ? null : { key, bytes: object.content.length, modifiedMs: object.modifiedMs };
  }

  private hang(effect: () => unknown): void {
    this.counters.faults += 1;
    if (this.random.next() < 0.5) this.happenLate(effect);
  }

  private happenLate(effect: () => unknown): void {
    const delayMs = this.random.next() * this.lateMsMax;
    this.late.push({ atMs: this.clock.monotonicMs() + delayMs, effect });
    this.clock.after(delayMs, () => this.land());
  }

  private land(): void {
    const nowMs = this.clock.monotonicMs();
    const due = this.late.filter(({ atMs }) => atMs <= nowMs);
    if (due.length === 0) return;
    this.late = this.late.filter(({ atMs }) => atMs > nowMs);
    for (const { effect } of due) {
      this.counters.late += 1;
      this.happen(effect);
    }
  }

  /** Nobody hears what comes of it. */
  private happen(effect: () => unknown): void {
    try {
      effect();
    } catch (error) {
      if (!(error instanceof ObjectStoreError)) throw error;
    }
  }

  private remember(key: string, before: StoredObject | undefined): void {
    const atMs = this.clock.monotonicMs();
    const oldest = this.recent.findIndex((change) => change.atMs >= atMs - this.settleMs);
    if (oldest !== 0) this.recent = oldest < 0 ? [] : this.recent.slice(oldest);
    if (this.settleMs > 0) this.recent.push({ key, before, atMs });
  }

  private later(task: () => void): void {
    const slow = this.chance(this.faults.slow) ? 100 : 1;
    this.clock.after(this.random.next() * this.latencyMsMax * slow, task);
  }

  private chance(probability: number): boolean {
    return probability > 0 && this.random.next() < probability;
  }

  private failure(kind: "Retry" | "Full", operation: string, key: string, what: string): ObjectStoreError {
    return new ObjectStoreError({ kind, operation, place: this.place, key }, what, {
      ambiguous: kind === "Retry",
    });
  }
}
