/*
 * The bucket as the collector, check, usage and rescue read it: which manifest of each volume is the present one, and what
 * stands behind a key, decoded and checked. Whatever can't be read or understood is an error that names the key, never
 * something less. Next: bucket-marker.ts follows the names.
 */
import type { BaseContent, BasePage, VolumeManifest } from "#shared/domain/archive.ts";
import { manifestKey, manifestPrefix } from "#shared/domain/archive.ts";
import { bucketKeyOf } from "#shared/domain/bucket-keys.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { decodeBase, decodeBasePage } from "#shared/formats/base-object.ts";
import { decodeIndexPage, type IndexPage } from "#shared/formats/index-page.ts";
import { decodeManifest } from "#shared/formats/manifest-object.ts";
import { type BadObject, isBadObject } from "#shared/formats/sealed-object.ts";
import type { ObjectFacts, ObjectStore } from "#shared/ports/object-store.ts";

/** The manifests of one volume as a listing showed them. */
export interface ListedVolume {
  readonly volumeId: string;
  /** Ascending: the last one is the present one. Empty for objects without a manifest. */
  readonly manifests: readonly ObjectFacts[];
  readonly lines: number;
  readonly otherObjects: number;
}

/** A manifest under the key it was read from. */
export interface PresentManifest {
  readonly key: string;
  readonly manifest: VolumeManifest;
}

/** A volume, and what its present manifest was at this look. */
export interface SeenVolume {
  readonly listed: ListedVolume;
  /** Null for objects without a manifest. */
  readonly present: PresentManifest | null;
}

export class BucketReader {
  readonly store: ObjectStore;

  constructor(store: ObjectStore) {
    this.store = store;
  }

  /** One listing of all volumes. */
  async volumes(): Promise<readonly ListedVolume[]> {
    const found = new Map<string, { manifests: ObjectFacts[]; lines: number; otherObjects: number }>();
    for await (const facts of this.store.list("volumes/")) {
      const { kind, volumeId } = bucketKeyOf(facts.key);
      if (volumeId === null) continue;
      const volume = found.get(volumeId) ?? { manifests: [], lines: 0, otherObjects: 0 };
      found.set(volumeId, volume);
      if (kind === "manifest") volume.manifests.push(facts);
      else if (kind === "line") volume.lines += 1;
      else volume.otherObjects += 1;
    }
    return [...found]
      .map(([volumeId, volume]) => ({ volumeId, ...volume, manifests: volume.manifests.sort(byKey) }))
      .sort((a, b) => (a.volumeId < b.volumeId ? -1 : 1));
  }

  /** One listing, and the present manifests; those that did not change since `before` are not read again. */
  async seenVolumes(
    before: ReadonlyMap<string, PresentManifest> = new Map(),
  ): Promise<readonly SeenVolume[]> {
    const seen: SeenVolume[] = [];
    for (const listed of await this.volumes()) {
      const key = listed.manifests.at(-1)?.key;
      const known = before.get(listed.volumeId);
      if (key === undefined) seen.push({ listed, present: null });
      else if (known?.key === key) seen.push({ listed, present: known });
      else seen.push({ listed, present: { key, manifest: await this.manifest(key) } });
    }
    return seen;
  }

  /** The present manifest's key, or null. One LIST of a short prefix. */
  async presentKey(volumeId: string): Promise<string | null> {
    let greatest: string | null = null;
    for await (const { key } of this.store.list(manifestPrefix(volumeId))) {
      if (bucketKeyOf(key).kind !== "manifest") continue;
      if (greatest === null || key > greatest) greatest = key;
    }
    return greatest;
  }

  async manifest(key: string): Promise<VolumeManifest> {
    const manifest = await this.decoded(key, decodeManifest);
    if (manifestKey(manifest) !== key) throw damaged(key, "is another manifest's content");
    return manifest;
  }

  async indexPage(key: string): Promise<IndexPage> {
    return await this.decoded(key, decodeIndexPage);
  }

  async base(key: string): Promise<BaseContent> {
    return await this.decoded(key, decodeBase);
  }

  async basePage(key: string): Promise<BasePage> {
    return await this.decoded(key, (object) => decodeBasePage(object, key));
  }

  async object(key: string): Promise<Buffer> {
    const object = await this.store.get(key);
    if (object === null) throw missing(key);
    return object;
  }

  private async decoded<T extends object>(
    key: string,
    decode: (object: Buffer) => T | BadObject,
  ): Promise<T> {
    const content = decode(await this.object(key));
    if (isBadObject(content)) throw undecodable(key, content);
    return content;
  }
}

function byKey(a: ObjectFacts, b: ObjectFacts): number {
  return a.key < b.key ? -1 : 1;
}

export function missing(key: string): VarveError {
  return new VarveError("BucketObjectMissingError", "Corrupt", `${key} is named, but not in the bucket`, {
    hint: "varve bucket check lists everything that is missing. Nothing was deleted.",
    fields: { key },
  });
}

export function damaged(key: string, what: string): VarveError {
  return new VarveError("BucketObjectDamagedError", "Corrupt", `${key} ${what}`, {
    hint: "varve bucket check lists everything that is damaged. Nothing was deleted.",
    fields: { key },
  });
}

function undecodable(key: string, bad: BadObject): VarveError {
  if (bad.fault !== "version" && bad.fault !== "flags") return damaged(key, `is damaged: ${bad.detail}`);
  return new VarveError("BucketFormatError", "Invalid", `${key} can't be read: ${bad.detail}`, {
    hint: "A newer Varve, or one with a key, wrote it. Use that one.",
    fields: { key },
  });
}
