/*
 * Memory for batches read back from a log: their payload lies in ordinary memory, and the image thread wants a slab. One
 * slab per replay, kept per store and used again, because a store's slabs are never unmapped. Called by raw-file.ts while a
 * volume replays its log at open; drafts of the write path never come through here.
 */
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

const spare = new WeakMap<FileStore, Slab[]>();

/** Room for one largest batch's payload, at least. */
export function takePayloadSlab(store: FileStore): Slab {
  return spare.get(store)?.pop() ?? store.allocateSlab(2 * limits.batchPayloadBytesMax);
}

export function returnPayloadSlab(store: FileStore, slab: Slab): void {
  store.shrinkSlab(slab);
  const kept = spare.get(store) ?? [];
  kept.push(slab);
  spare.set(store, kept);
}
