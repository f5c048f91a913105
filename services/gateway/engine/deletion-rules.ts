/*
 * When a volume of a data directory may not go: others still read from it. volume-host.ts asks before it promises a deletion.
 */
import { volumeNeeded, volumeNotHeld } from "./host-errors.ts";
import type { HostedVolume } from "./hosted-volume.ts";

/** A clone's older points are folded from it: they must not hang on what a bucket without power could still lose. */
export async function requireHeld(volume: HostedVolume, all: readonly HostedVolume[]): Promise<void> {
  const { id, name } = volume.record;
  const clones = all.filter((one) => one.past.history?.origin?.volumeId === id);
  const held = clones.length === 0 || (await volume.past.heldAll());
  if (!held) throw volumeNotHeld(name, clones.map((one) => one.name).join(", "));
}

export function requireNotNeeded({ name, record }: HostedVolume, all: readonly HostedVolume[]): void {
  const clones = all.filter((one) => one.name !== name && one.readsFrom(record.id));
  if (clones.length > 0) throw volumeNeeded(name, clones.map((one) => one.name).join(", "));
}
