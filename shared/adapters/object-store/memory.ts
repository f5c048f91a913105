/*
 * A bucket in memory, for unit tests of everything above: no faults, no waiting beyond a turn of the event loop. Content is
 * copied both ways, so that nobody sees a caller's later changes. Fault injection is simulated.ts.
 */
import type { Clock } from "#shared/ports/clock.ts";
import type { ObjectFacts, ObjectStore, PutOptions, StoreCapabilities } from "#shared/ports/object-store.ts";
import { checkKey, checkPrefix, checkSize, rangeWithin } from "./object-key.ts";
import { RequestCounters } from "./request-counters.ts";

interface StoredObject {
  readonly content: Buffer;
  readonly modifiedMs: number;
}

export class MemoryObjectStore implements ObjectStore {
  readonly place: string;
  readonly counters = new RequestCounters();
  private readonly clock: Clock;
  private readonly objects = new Map<string, StoredObject>();

  constructor(clock: Clock, place = "memory://bucket") {
    this.clock = clock;
    this.place = place;
  }

  async probe(): Promise<StoreCapabilities> {
    return { conditionalPut: true, durablePut: true };
  }

  async put(key: string, content: Uint8Array, options: PutOptions = {}): Promise<"stored" | "exists"> {
    checkKey("put", this.place, key);
    checkSize("put", this.place, key, content.length);
    this.counters.request("put", content.length);
    if (options.onlyNew === true && this.objects.has(key)) return "exists";
    this.objects.set(key, { content: Buffer.from(content), modifiedMs: this.clock.wallTimeMs() });
    return "stored";
  }

  async get(
    key: string,
    range?: { readonly start: number; readonly length: number },
  ): Promise<Buffer | null> {
    checkKey("get", this.place, key);
    this.counters.request("get");
    const object = this.objects.get(key);
    if (object === undefined) return null;
    const { start, end } = rangeWithin(object.content.length, range);
    this.counters.received(end - start);
    return Buffer.from(object.content.subarray(start, end));
  }

  async head(key: string): Promise<ObjectFacts | null> {
    checkKey("head", this.place, key);
    this.counters.request("head");
    const object = this.objects.get(key);
    return object === undefined ? null : factsOf(key, object);
  }

  async remove(key: string): Promise<void> {
    checkKey("delete", this.place, key);
    this.counters.request("delete");
    this.objects.delete(key);
  }

  async *list(prefix: string): AsyncGenerator<ObjectFacts> {
    checkPrefix(this.place, prefix);
    this.counters.request("list");
    const found = [...this.objects].filter(([key]) => key.startsWith(prefix));
    for (const [key, object] of found) yield factsOf(key, object);
  }

  async close(): Promise<void> {}
}

function factsOf(key: string, object: StoredObject): ObjectFacts {
  return { key, bytes: object.content.length, modifiedMs: object.modifiedMs };
}
