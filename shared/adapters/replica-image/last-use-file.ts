/*
 * The file of last use beside an image (docs/formats/last-use.md): a help for tiering that nothing depends on, so neither
 * reading nor writing it ever fails anything. Called by raw-file.ts at attach and detach, and by the tiering each hour.
 */
import { lastUsePathOf } from "#shared/domain/data-layout.ts";
import { decodeLastUse, encodeLastUse, isBadLastUse } from "#shared/formats/last-use.ts";
import type { ExtentTouches } from "./extent-touches.ts";
import type { ImagePlace } from "./image-opening.ts";

type FilePlace = Pick<ImagePlace, "store" | "path">;

export async function readLastUse(place: FilePlace, touches: ExtentTouches, extents: number): Promise<void> {
  try {
    const bytes = await place.store.readWhole(lastUsePathOf(place.path));
    if (bytes === null) return;
    const use = decodeLastUse(bytes);
    if (isBadLastUse(use)) return;
    let total = 0;
    for (const run of use.runs) total += run.extents;
    if (total <= extents) touches.restore(use);
  } catch {
    // Everything counts as used now.
  }
}

export async function writeLastUse(place: FilePlace, touches: ExtentTouches, extents: number): Promise<void> {
  try {
    await place.store.replaceWhole(lastUsePathOf(place.path), encodeLastUse(touches.record(extents)));
  } catch {
    // The file of before stays: extents count as colder or warmer than they are, no more.
  }
}
