/*
 * Takes one extent of an image from the bucket again, for scrubs: the image's bytes are wrong, the log's are right. No base is needed:
 * the extent becomes remote with the newest point that the bucket holds, and is filled from there. Called through
 * hosted-volume.ts (KeptVolume.refill); next: session-extents.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { heldUpTo } from "./held-waits.ts";
import type { VolumePast } from "./volume-past.ts";
import type { VolumeSession } from "./volume-session.ts";

/** What a repair needs of the open volume. */
interface RepairedVolume {
  readonly volumeId: string;
  readonly clock: Clock;
  readonly past: VolumePast;
  readonly session: { readonly extents: Pick<VolumeSession["extents"], "refill"> };
}

/**
 * False where that is not possible now: entries after what the bucket holds touched the extent. What the bucket has is read before
 * the image lets go of its own: an extent that is damaged in a few bytes is better than one that nobody has.
 */
export async function refillExtent(volume: RepairedVolume, extent: number, memory: Slab): Promise<boolean> {
  // First without a word to the archiver: what it archives may make a base due, which would read the damaged extent.
  if (await refillFromHeld(volume, extent, memory)) return true;
  const lsn = await volume.past.archiveAll();
  return (await heldUpTo(volume.past, volume.clock, lsn)) && (await refillFromHeld(volume, extent, memory));
}

async function refillFromHeld(volume: RepairedVolume, extent: number, memory: Slab): Promise<boolean> {
  const { volumeId, past, session } = volume;
  const lsn = past.archiveStatus?.heldLsn ?? 0;
  if (lsn === 0) return false;
  const source = await past.open(lsn);
  try {
    const offset = extent * limits.extentBytes;
    const length = Math.min(limits.extentBytes, source.sizeBytes - offset);
    if (length <= 0) return false;
    await source.read(memory, 0, length, offset);
  } finally {
    await source.close();
  }
  return await session.extents.refill({ baseLsn: lsn, point: { volumeId, lsn } }, extent);
}
