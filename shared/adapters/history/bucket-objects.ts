/*
 * Objects that a manifest names, read and checked: what comes back is what its reference says, or an error with the key. A
 * missing object is damage, because a published name never points at nothing. Called by all readers of this folder, and by
 * whoever checks buckets; the bytes are the codecs' (shared/formats/).
 */
import type { BaseContent, BasePage, BaseRef, IndexPageRef, SegmentRef } from "#shared/domain/archive.ts";
import { chunkKey } from "#shared/domain/archive.ts";
import { decodeBase, decodeBasePage } from "#shared/formats/base-object.ts";
import { type ChunkHead, chunkHeadBytes, readChunkHead } from "#shared/formats/chunk-object.ts";
import { decodeIndexPage, type IndexPage } from "#shared/formats/index-page.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import type { SegmentIndex } from "#shared/formats/segment-index.ts";
import { readSegmentFooter } from "#shared/formats/segment-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { objectDamaged, objectMissing } from "./history-errors.ts";

export type ObjectReads = Pick<ObjectStore, "get" | "place">;

/** The object, or that range of it, which is there. */
export async function readObject(
  store: ObjectReads,
  key: string,
  range?: { readonly start: number; readonly length: number },
): Promise<Buffer> {
  const bytes = range === undefined ? await store.get(key) : await store.get(key, range);
  if (bytes === null) throw objectMissing(store.place, key);
  if (range !== undefined && bytes.length !== range.length) {
    const found = `it ends ${range.length - bytes.length} bytes before ${range.start + range.length}`;
    throw objectDamaged(store.place, key, "truncated", found);
  }
  return bytes;
}

export async function readBase(store: ObjectReads, volumeId: string, ref: BaseRef): Promise<BaseContent> {
  const base = decodeBase(await readObject(store, ref.key));
  if (isBadObject(base)) throw objectDamaged(store.place, ref.key, base.fault, base.detail);
  const fits =
    base.volumeId === volumeId && base.s === ref.s && base.e === ref.e && base.sizeBytes === ref.sizeBytes;
  if (!fits)
    throw objectDamaged(store.place, ref.key, "fields", "it is not the base that the manifest names");
  return base;
}

export async function readBasePage(store: ObjectReads, key: string, firstExtent: number): Promise<BasePage> {
  const page = decodeBasePage(await readObject(store, key), key);
  if (isBadObject(page)) throw objectDamaged(store.place, key, page.fault, page.detail);
  if (page.firstExtent !== firstExtent) {
    throw objectDamaged(
      store.place,
      key,
      "fields",
      `its first extent is ${page.firstExtent}, not ${firstExtent}`,
    );
  }
  return page;
}

export async function readIndexPage(
  store: ObjectReads,
  volumeId: string,
  ref: IndexPageRef,
): Promise<IndexPage> {
  const page = decodeIndexPage(await readObject(store, ref.key));
  if (isBadObject(page)) throw objectDamaged(store.place, ref.key, page.fault, page.detail);
  const fits =
    page.volumeId === volumeId &&
    page.segments[0]?.firstLsn === ref.firstLsn &&
    page.segments.at(-1)?.lastLsn === ref.lastLsn;
  if (!fits)
    throw objectDamaged(store.place, ref.key, "fields", "it is not the page that the manifest names");
  return page;
}

/** A segment's footer by one ranged GET. */
export async function readSegmentIndex(
  store: ObjectReads,
  volumeId: string,
  ref: SegmentRef,
): Promise<SegmentIndex> {
  const length = ref.bytes - ref.footerStart;
  const tail = await readObject(store, ref.key, { start: ref.footerStart, length });
  const index = readSegmentFooter(tail, ref.bytes);
  if (isBadObject(index)) throw objectDamaged(store.place, ref.key, index.fault, index.detail);
  const fits =
    index.volumeId === volumeId &&
    index.firstLsn === ref.firstLsn &&
    index.lastLsn === ref.lastLsn &&
    index.recordBytes === ref.recordBytes;
  if (!fits)
    throw objectDamaged(store.place, ref.key, "fields", "it is not the segment that the manifest names");
  return index;
}

export async function readHead(store: ObjectReads, name: string): Promise<ChunkHead> {
  const key = chunkKey(name);
  return openHead(store.place, name, await readObject(store, key, { start: 0, length: chunkHeadBytes }));
}

/** The head of the chunk of that name, from the object's first bytes. */
export function openHead(place: string, name: string, bytes: Buffer): ChunkHead {
  const head = readChunkHead(bytes);
  if (isBadObject(head)) throw objectDamaged(place, chunkKey(name), head.fault, head.detail);
  if (!name.startsWith(`${head.hash}.`)) {
    throw objectDamaged(place, chunkKey(name), "fields", `it holds the content ${head.hash}`);
  }
  return head;
}
