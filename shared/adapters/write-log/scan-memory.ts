/*
 * Memory for reading a log: a small window to begin with, a large one for whoever reads on or meets a large record. Kept for
 * the next reader, its pages given back meanwhile. Used by record-scanner.ts for recovery, log readers and inspect; nothing
 * that is being written passes through here.
 */
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

const smallBytes = 256 * 1024;
/** Holds the largest record, and as much again to read ahead. */
const largeBytes = 2 * limits.batchPayloadBytesMax;

export class ScanMemory {
  readonly #store: FileStore;
  readonly #small: Slab[] = [];
  readonly #large: Slab[] = [];

  constructor(store: FileStore) {
    this.#store = store;
  }

  takeSmall(): Slab {
    return this.#small.pop() ?? this.#store.allocateSlab(smallBytes);
  }

  takeLarge(): Slab {
    return this.#large.pop() ?? this.#store.allocateSlab(largeBytes);
  }

  give(slab: Slab): void {
    if (slab.bytes.byteLength === smallBytes) {
      this.#small.push(slab);
      return;
    }
    this.#store.shrinkSlab(slab);
    this.#large.push(slab);
  }
}
