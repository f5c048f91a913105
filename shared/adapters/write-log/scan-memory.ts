/*
 * Memory for reading a log: a window of 8 MiB per reader, kept for the next one, its pages given back meanwhile. Used by
 * recovery, log readers and inspect. No payload that is being written passes through here.
 */
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { windowBytes } from "./record-scanner.ts";

export class ScanMemory {
  readonly #store: FileStore;
  readonly #free: Slab[] = [];

  constructor(store: FileStore) {
    this.#store = store;
  }

  take(): Slab {
    return this.#free.pop() ?? this.#store.allocateSlab(windowBytes);
  }

  give(slab: Slab): void {
    this.#store.shrinkSlab(slab);
    this.#free.push(slab);
  }
}
