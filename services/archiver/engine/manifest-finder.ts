/*
 * Finds the manifest that an archiver continues from: one LIST of the volume's manifests, then the greatest key. Where a store lost or
 * damaged it before it was held, the one before: the log is still here for all that came after it. Called once per open by
 * volume-archiver.ts, which judges whose manifest it is.
 */
import { manifestPrefix, type VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeManifest } from "#shared/formats/manifest-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";

export interface FoundManifest {
  readonly key: string;
  readonly manifest: VolumeManifest;
  readonly object: Buffer;
  /** Keys after it that could not be read, and why. */
  readonly damaged: readonly string[];
}

const keyPattern = /\/[0-9]{6}\.[0-9a-f]{16}\.[0-9]{8}\.[0-9]{10}$/;

/** The newest that is wanted. Null where there is none. Corrupt where there are some and none is whole, or a newer Varve wrote the newest. */
export async function findManifest(
  store: ObjectStore,
  volumeId: string,
  isWanted: (manifest: VolumeManifest) => boolean = () => true,
): Promise<FoundManifest | null> {
  const keys: string[] = [];
  for await (const { key } of store.list(manifestPrefix(volumeId))) if (keyPattern.test(key)) keys.push(key);
  keys.sort().reverse();
  const damaged: string[] = [];
  let isPassed = false;
  for (const key of keys.slice(0, limits.manifestTriesMax)) {
    const object = await store.get(key);
    if (object === null) continue; // collected since the listing: an older one
    const manifest = decodeManifest(object);
    if (!isBadObject(manifest)) {
      if (!isWanted(manifest)) {
        isPassed = true;
        continue;
      }
      const missing = await missingPage(store, manifest);
      if (missing === null) return { key, manifest, object, damaged };
      damaged.push(`${key}: ${missing} is not in the bucket`);
      continue;
    }
    if (manifest.fault === "version" || manifest.fault === "flags") {
      throw new VarveError("NewerManifest", "Corrupt", `${key}: ${manifest.detail}`, {
        hint: "Use the Varve that wrote it, or a newer one.",
        fields: { key },
      });
    }
    damaged.push(`${key}: ${manifest.detail}`);
  }
  if (keys.length === 0 || isPassed) return null;
  throw new VarveError(
    "NoWholeManifest",
    "Corrupt",
    `no manifest of volume ${volumeId} can be read: ${damaged[0]}`,
    {
      hint: "Run `varve bucket check`. Nothing is archived, and the log is kept, until this is mended.",
      fields: { volumeId },
    },
  );
}

/** Pages can't be made again from a log that is gone; segments can, as long as they are not held. */
async function missingPage(store: ObjectStore, manifest: VolumeManifest): Promise<string | null> {
  const last = manifest.pages.at(-1);
  return last === undefined || (await store.head(last.key)) !== null ? null : last.key;
}
