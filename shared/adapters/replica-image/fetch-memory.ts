/*
 * Memory that fetched bytes arrive in, of one size, shared by all images of a store: made when needed, kept, bounded; who finds
 * none waits its turn. A fetch keeps its memory until the store has answered, also when nobody waits for it any more. Used by
 * remote-reader.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

export class FetchMemory {
  readonly #store: FileStore;
  readonly #bytes: number;
  readonly #most: number;
  readonly #waiting: ((slab: Slab) => void)[] = [];
  readonly #free: Slab[] = [];
  #lent = 0;

  constructor(store: FileStore, bytes: number, most: number) {
    this.#store = store;
    this.#bytes = bytes;
    this.#most = most;
  }

  take(): Promise<Slab> {
    if (this.#lent < this.#most) {
      this.#lent += 1;
      return Promise.resolve(this.#free.pop() ?? this.#store.allocateSlab(this.#bytes));
    }
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  give(slab: Slab): void {
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next(slab);
      return;
    }
    this.#lent -= 1;
    this.#free.push(slab);
    // Nothing is being fetched: the system may have the memory back. The slabs stay, because a store never unmaps one.
    if (this.#lent === 0) for (const idle of this.#free) this.#store.shrinkSlab(idle);
  }
}

interface SharedMemory {
  readonly frames: FetchMemory;
  readonly extents: FetchMemory;
}

const shared = new WeakMap<FileStore, SharedMemory>();

/** `frames` for reads (limits.archiveFrameBytes), `extents` for fills (limits.extentBytes). */
export function fetchMemoryOf(store: FileStore): SharedMemory {
  const known = shared.get(store);
  if (known !== undefined) return known;
  const memory = {
    frames: new FetchMemory(store, limits.archiveFrameBytes, limits.remoteReadsMax),
    extents: new FetchMemory(store, limits.extentBytes, limits.fillMemoryMax),
  };
  shared.set(store, memory);
  return memory;
}
