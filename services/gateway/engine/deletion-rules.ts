/*
 * When a volume of a data directory may not go: others still read from it; and what a change that failed leaves of one. Asked by
 * volume-host.ts before it promises a deletion, and before it gives a name.
 */
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { volumeNeeded } from "./host-errors.ts";
import type { HostedVolume } from "./hosted-volume.ts";

export function requireNotNeeded({ name, record }: HostedVolume, all: readonly HostedVolume[]): void {
  const clones = all.filter((one) => one.name !== name && one.readsFrom(record.id));
  if (clones.length > 0) throw volumeNeeded(name, clones.map((one) => one.name).join(", "));
}

/**
 * Records of a name that no volume has: a creation that failed and could not be undone, or a deletion that could not end, because the
 * disk was full. What is left of them goes before the name is given again.
 */
export function leftovers(catalog: Pick<VolumeCatalog, "find">, name: string): readonly VolumeRecord[] {
  const left = catalog.find(name);
  return left === null ? [] : [left];
}
