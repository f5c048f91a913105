/*
 * The present manifest of a volume as the bucket has it: one LIST of a short prefix, then the greatest key. For volumes that
 * are not served here (rescue, parents of clones, checks); a served volume's archiver knows its own.
 *
 * The greatest key is the present one, whatever is wrong with it: an older one would name objects that may be gone, and
 * silently undo what was promised since.
 */
import { manifestKey, manifestPrefix, type VolumeManifest } from "#shared/domain/archive.ts";
import { decodeManifest } from "#shared/formats/manifest-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { objectDamaged, objectMissing } from "./history-errors.ts";

export interface FoundManifest {
  readonly key: string;
  readonly manifest: VolumeManifest;
}

/** A manifest that went between LIST and GET was superseded by a newer one: listed again, so often at most. */
const attemptsMax = 3;

/** Null where the bucket has none. Rejects Corrupt for a damaged one, Invalid for one of a newer Varve, Retry while away. */
export async function latestManifest(store: ObjectStore, volumeId: string): Promise<FoundManifest | null> {
  for (let attempt = 1; ; attempt += 1) {
    const key = await greatestKey(store, manifestPrefix(volumeId));
    if (key === null) return null;
    const object = await store.get(key);
    if (object !== null) return { key, manifest: openManifest(store.place, key, object) };
    if (attempt === attemptsMax) throw objectMissing(store.place, key);
  }
}

/** The manifest in an object read from that key. */
export function openManifest(place: string, key: string, object: Buffer): VolumeManifest {
  const manifest = decodeManifest(object);
  if (isBadObject(manifest)) throw objectDamaged(place, key, manifest.fault, manifest.detail);
  if (manifestKey(manifest) !== key) {
    throw objectDamaged(place, key, "fields", `it is the manifest of ${manifestKey(manifest)}`);
  }
  return manifest;
}

async function greatestKey(store: ObjectStore, prefix: string): Promise<string | null> {
  let greatest: string | null = null;
  for await (const { key } of store.list(prefix)) {
    if (greatest === null || key > greatest) greatest = key;
  }
  return greatest;
}
