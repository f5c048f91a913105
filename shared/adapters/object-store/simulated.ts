/*
 * A process's view on a simulated bucket: the same retrying store as for S3, over requests that SimulatedBucket answers with its
 * faults. Opened by the simulator and by tests of faults, once for each process life.
 */

import { limits } from "#shared/domain/limits.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ObjectFacts, ObjectStore, PutOptions } from "#shared/ports/object-store.ts";
import { rangeWithin } from "./object-key.ts";
import { RetryingObjectStore } from "./retrying-store.ts";
import type { SimulatedBucket } from "./simulated-bucket.ts";
import type { Attempt, ListedPage, ObjectRange, StoreRequests } from "./store-requests.ts";

export function openSimulatedObjectStore(bucket: SimulatedBucket, clock: Clock, random: Random): ObjectStore {
  return new RetryingObjectStore(new SimulatedRequests(bucket), { clock, random });
}

class SimulatedRequests implements StoreRequests {
  readonly place: string;
  private readonly bucket: SimulatedBucket;
  private readonly life: number;

  constructor(bucket: SimulatedBucket) {
    this.bucket = bucket;
    this.place = bucket.place;
    this.life = bucket.life;
  }

  put(key: string, content: Buffer, options: PutOptions): Promise<"stored" | "exists"> {
    const copy = Buffer.from(content);
    const onlyNew = options.onlyNew === true;
    return this.bucket.serve(this.life, "put", key, () => this.bucket.store(key, copy, onlyNew));
  }

  get(key: string, range: ObjectRange | undefined, attempt: Attempt): Promise<Buffer | null> {
    return this.bucket.serve(this.life, "get", key, () => {
      const facts = this.bucket.facts(key);
      if (facts === null) return null;
      const { start, end } = rangeWithin(facts.bytes, range);
      attempt.expect(end - start);
      return this.bucket.read(key, start, end);
    });
  }

  head(key: string): Promise<ObjectFacts | null> {
    return this.bucket.serve(this.life, "head", key, () => this.bucket.facts(key));
  }

  remove(key: string): Promise<void> {
    return this.bucket.serve(this.life, "delete", key, () => this.bucket.delete(key));
  }

  /** `after` is the last key of the page before: what is put meanwhile may be seen or not, as in S3. */
  listPage(prefix: string, after: string | null): Promise<ListedPage> {
    return this.bucket.serve(this.life, "list", prefix, () => {
      const keys = this.bucket
        .keys()
        .filter((key) => key.startsWith(prefix) && (after === null || key > after));
      const page = keys.slice(0, limits.bucketListPageMax);
      const objects = page.flatMap((key) => this.bucket.facts(key) ?? []);
      return { objects, next: keys.length > page.length ? (page.at(-1) ?? null) : null };
    });
  }

  close(): void {}
}
