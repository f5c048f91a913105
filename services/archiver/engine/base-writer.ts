/*
 * Writes a base from the names of its chunks: pages that changed, then the root. Unchanged pages of the base before are named again.
 * Used by base-builder.ts and for exact bases of snapshots; the manifest that names the base is the caller's.
 */
import {
  type BaseContent,
  type BaseRef,
  baseKey,
  basePageKey,
  type ExtentRun,
  extentsPerBasePage,
} from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeBase, decodeBasePage, encodeBase, encodeBasePage } from "#shared/formats/base-object.ts";
import { type BadObject, isBadObject } from "#shared/formats/sealed-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import { drawSerial } from "./chunk-writer.ts";
import type { StoredObject } from "./manifest-publisher.ts";

export interface BaseDraft {
  readonly volumeId: string;
  readonly line: string;
  readonly archiverEpoch: number;
  readonly s: number;
  readonly e: number;
  readonly sizeBytes: number;
  /** The base whose names stay where nothing below says otherwise; null: zeroes. */
  readonly previous: BaseContent | null;
  /** Extents that are all zero, whatever they were. */
  readonly zeroes: readonly ExtentRun[];
  readonly names: ReadonlyMap<number, string | null>;
  readonly newChunkBytes: number;
}

export interface WrittenBase {
  readonly ref: BaseRef;
  /** Pages and root, in the bucket. The caller ends their registration (UploadRegister) after publishing. */
  readonly stored: readonly StoredObject[];
}

export async function writeBase(
  parts: ArchiveParts,
  patience: BucketPatience,
  draft: BaseDraft,
  isUnwanted: () => boolean = () => false,
): Promise<WrittenBase> {
  const { volumeId, s, e, sizeBytes } = draft;
  const stored: StoredObject[] = [];
  const put = async (key: string, object: Buffer): Promise<void> => {
    parts.uploads.begin(key);
    stored.push({ key, bytes: object.length, digest: Uint8Array.from(object.subarray(object.length - 32)) });
    await patience.run("upload a base", () => parts.store.put(key, object), isUnwanted);
  };
  try {
    const extents = Math.ceil(sizeBytes / limits.extentBytes);
    const changed = changedPages(draft, extents);
    const serial = drawSerial(parts.random);
    const pages: (string | null)[] = [];
    for (let page = 0; page * extentsPerBasePage < extents; page += 1) {
      const old = draft.previous?.pages[page] ?? null;
      if (!changed.has(page)) {
        pages.push(old);
        continue;
      }
      const count = Math.min(extentsPerBasePage, extents - page * extentsPerBasePage);
      const chunks = await chunksOf(parts.store, patience, old, count, isUnwanted);
      applyChanges(chunks, page, draft);
      if (chunks.every((name) => name === null)) pages.push(null);
      else {
        const key = basePageKey(draft, serial, page);
        await put(key, encodeBasePage({ volumeId, serial, firstExtent: page * extentsPerBasePage, chunks }));
        pages.push(key);
      }
    }
    const key = baseKey(draft, s, e, serial);
    await put(key, encodeBase({ volumeId, s, e, sizeBytes, pages }));
    return { ref: { key, s, e, sizeBytes, newChunkBytes: draft.newChunkBytes }, stored };
  } catch (cause) {
    for (const { key } of stored) parts.uploads.end(key);
    throw cause;
  }
}

/** Pages with a changed extent, and the ones where one of both disks ends. */
function changedPages(draft: BaseDraft, extents: number): ReadonlySet<number> {
  const { names, zeroes, previous } = draft;
  const changed = new Set<number>();
  for (const extent of names.keys()) changed.add(Math.floor(extent / extentsPerBasePage));
  for (const { first, count } of zeroes) {
    const last = Math.floor((Math.min(first + count, extents) - 1) / extentsPerBasePage);
    for (let page = Math.floor(first / extentsPerBasePage); page <= last; page += 1) {
      // Zeroes where the base before had none but zeroes change nothing.
      if ((previous?.pages[page] ?? null) !== null) changed.add(page);
    }
  }
  if (previous !== null && previous.sizeBytes !== draft.sizeBytes) {
    for (const size of [previous.sizeBytes, draft.sizeBytes]) {
      const page = Math.floor((Math.ceil(size / limits.extentBytes) - 1) / extentsPerBasePage);
      if ((previous.pages[page] ?? null) !== null) changed.add(page);
    }
  }
  return changed;
}

async function chunksOf(
  store: ObjectStore,
  patience: BucketPatience,
  key: string | null,
  count: number,
  isUnwanted: () => boolean,
): Promise<(string | null)[]> {
  const old = key === null ? [] : (await fetchBasePage(store, patience, key, isUnwanted)).chunks;
  return Array.from({ length: count }, (_, index) => old[index] ?? null);
}

function applyChanges(chunks: (string | null)[], page: number, { names, zeroes }: BaseDraft): void {
  const start = page * extentsPerBasePage;
  for (const { first, count } of zeroes) {
    const from = Math.max(first, start) - start;
    const to = Math.min(first + count, start + chunks.length) - start;
    if (from < to) chunks.fill(null, from, to);
  }
  for (let index = 0; index < chunks.length; index += 1) {
    const name = names.get(start + index);
    if (name !== undefined) chunks[index] = name;
  }
}

export async function fetchBase(
  store: ObjectStore,
  patience: BucketPatience,
  key: string,
  isUnwanted: () => boolean,
): Promise<BaseContent> {
  const object = await patience.run("read a base", () => store.get(key), isUnwanted);
  return checked(key, object === null ? null : decodeBase(object));
}

export async function fetchBasePage(
  store: ObjectStore,
  patience: BucketPatience,
  key: string,
  isUnwanted: () => boolean,
) {
  const object = await patience.run("read a base page", () => store.get(key), isUnwanted);
  return checked(key, object === null ? null : decodeBasePage(object, key));
}

/** Nothing is lost by it: the extents are the next base's. */
export function givenUp(why: string): VarveError {
  return new VarveError("BaseGivenUp", "Retry", `no base now: ${why}`, {
    hint: "A later one is taken by itself.",
  });
}

function checked<T extends object>(key: string, content: T | BadObject | null): T {
  if (content !== null && !isBadObject(content)) return content;
  const problem = content === null ? "is not in the bucket" : content.detail;
  throw new VarveError("BaseDamaged", "Corrupt", `${key}: ${problem}`, {
    hint: "Run `varve bucket check`. The next base is made without it.",
    fields: { key },
  });
}
