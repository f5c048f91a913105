/*
 * What was fetched once and may be wanted again: least recently used goes first, bounded by bytes. Two who want the same
 * thing at once share one fetch. One per kind of thing and process (histories.ts); the readers of this folder use it.
 */

export interface Costed<V> {
  readonly value: V;
  /** What keeping it costs. */
  readonly bytes: number;
}

export interface CacheStatistics {
  readonly bytes: number;
  readonly entries: number;
  readonly hits: number;
  readonly misses: number;
}

export class BoundedCache<V> {
  private readonly bytesMax: number;
  private readonly onLeft: (value: V) => void;
  /** In the order of their last use: a Map keeps insertion order. */
  private readonly kept = new Map<string, Costed<V>>();
  private readonly underWay = new Map<string, Promise<V>>();
  private bytes = 0;
  private hits = 0;
  private misses = 0;

  /** `onLeft` is told of each value that was put and is not kept, or not any more. */
  constructor(bytesMax: number, onLeft: (value: V) => void = () => undefined) {
    this.bytesMax = bytesMax;
    this.onLeft = onLeft;
  }

  /** The thing, if it is in memory. */
  get(key: string): V | undefined {
    const found = this.kept.get(key);
    if (found === undefined) return undefined;
    this.hits += 1;
    this.kept.delete(key);
    this.kept.set(key, found);
    return found.value;
  }

  /** What somebody fetches now, if anybody does. */
  pending(key: string): Promise<V> | undefined {
    return this.underWay.get(key);
  }

  /** From memory, or from whoever fetches it now, or by `fetch`. A failure is told to all who wait, and not kept. */
  load(key: string, fetch: () => Promise<Costed<V>>): Promise<V> {
    const found = this.get(key);
    if (found !== undefined) return Promise.resolve(found);
    const pending = this.underWay.get(key);
    if (pending !== undefined) return pending;
    return this.follow(key, fetch(), true);
  }

  /** Lets others share a fetch that has begun; `keep` false: only while it is under way. */
  follow(key: string, fetch: Promise<Costed<V>>, keep: boolean): Promise<V> {
    this.misses += 1;
    const result = fetch.then(
      (costed) => {
        this.underWay.delete(key);
        if (keep) this.put(key, costed);
        return costed.value;
      },
      (error: unknown) => {
        this.underWay.delete(key);
        throw error;
      },
    );
    this.underWay.set(key, result);
    return result;
  }

  put(key: string, costed: Costed<V>): void {
    const before = this.kept.get(key);
    if (before !== undefined) {
      this.kept.delete(key);
      this.bytes -= before.bytes;
      this.onLeft(before.value);
    }
    if (costed.bytes > this.bytesMax) {
      this.onLeft(costed.value);
      return;
    }
    this.kept.set(key, costed);
    this.bytes += costed.bytes;
    for (const [oldest, { value, bytes }] of this.kept) {
      if (this.bytes <= this.bytesMax) return;
      this.kept.delete(oldest);
      this.bytes -= bytes;
      this.onLeft(value);
    }
  }

  clear(): void {
    const left = [...this.kept.values()];
    this.kept.clear();
    this.bytes = 0;
    for (const { value } of left) this.onLeft(value);
  }

  statistics(): CacheStatistics {
    return { bytes: this.bytes, entries: this.kept.size, hits: this.hits, misses: this.misses };
  }
}
