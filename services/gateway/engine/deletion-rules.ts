/*
 * When a volume of a data directory may not go: others still read from it. volume-host.ts asks before it promises a deletion.
 */
import { volumeNeeded } from "./host-errors.ts";
import type { HostedVolume } from "./hosted-volume.ts";

export function requireNotNeeded({ name, record }: HostedVolume, all: readonly HostedVolume[]): void {
  const clones = all.filter((one) => one.name !== name && one.readsFrom(record.id));
  if (clones.length > 0) throw volumeNeeded(name, clones.map((one) => one.name).join(", "));
}
