/*
 * What the collector remembers between runs: objects that nothing names, and since when. Numbered objects, as everything in the
 * bucket; the greatest number is the present one. Read and written by collector.ts under its lease.
 */
import {
  type CollectorState,
  collectorNumber,
  decodeCollectorState,
  encodeCollectorState,
  stateKey,
  statePrefix,
} from "#shared/formats/collector-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { damaged } from "./bucket-reader.ts";

/** Older ones that stay, for a store that loses its last seconds. */
const statesKept = 2;
const nothing: CollectorState = { number: 0, sweptMs: 0, candidates: [], deletedVolumes: [] };

export class CollectorStateFile {
  private readonly store: ObjectStore;

  constructor(store: ObjectStore) {
    this.store = store;
  }

  /** The present state; an empty one where none was ever written. */
  async read(): Promise<CollectorState> {
    const number = (await this.numbers()).at(-1);
    if (number === undefined) return nothing;
    const key = stateKey(number);
    const object = await this.store.get(key);
    if (object === null) throw damaged(key, "is gone");
    const state = decodeCollectorState(object);
    if (isBadObject(state)) throw damaged(key, `is damaged: ${state.detail}`);
    return state;
  }

  async write(state: CollectorState): Promise<void> {
    await this.store.put(stateKey(state.number), encodeCollectorState(state));
    for (const number of (await this.numbers()).slice(0, -statesKept)) {
      await this.store.remove(stateKey(number));
    }
  }

  private async numbers(): Promise<readonly number[]> {
    const numbers: number[] = [];
    for await (const { key } of this.store.list(statePrefix)) {
      const number = collectorNumber(key, statePrefix);
      if (number !== null) numbers.push(number);
    }
    return numbers.sort((a, b) => a - b);
  }
}
