/*
 * Takes out pins that nobody needs any more (docs/specs/points.md §6): those of clones that no longer read from their parent,
 * and of rollbacks behind which a base stands. volume-host.ts calls it at start and every minute. Whatever can't be told
 * (a volume that is not open, a manifest not there yet) keeps the pin.
 */
import type { PointPin, VolumeManifest } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { HostedVolume } from "./hosted-volume.ts";

/** Looks every minute, until it is stopped. */
export class PinUpkeep {
  private readonly clock: Clock;
  private readonly look: () => Promise<void>;
  private timer: Timer | null = null;
  private stopped = false;

  constructor(clock: Clock, look: () => Promise<void>) {
    this.clock = clock;
    this.look = look;
  }

  start(): void {
    if (this.stopped) return;
    this.timer = this.clock.after(limits.pinUpkeepMs, () => {
      this.look()
        .catch(() => undefined) // kept pins cost room in the bucket, and are looked at again
        .finally(() => this.start());
    });
  }

  stop(): void {
    this.stopped = true;
    this.timer?.cancel();
  }
}

export async function dropNeedlessPins(volumes: readonly HostedVolume[]): Promise<void> {
  const byId = new Map(volumes.map((volume) => [volume.record.id, volume]));
  for (const volume of volumes) {
    for (const pin of volume.past.history?.pins ?? []) {
      const needed =
        pin.holder === "rebase" ? rebaseNeeds(volume, pin) : cloneNeeds(byId.get(pin.holder), volume, pin);
      if (!needed) await volume.past.unpin(pin.holder, pin.lsn);
    }
  }
}

/** A holder that is no volume of this machine any more needs nothing: its own manifest names its origin while it may come back. */
function cloneNeeds(clone: HostedVolume | undefined, parent: HostedVolume, pin: PointPin): boolean {
  if (clone === undefined) return false;
  const residency = clone.residency();
  const manifest = clone.past.manifest();
  if (residency === null || manifest === null) return true;
  const reads = residency.points.some(
    (point) => point.volumeId === parent.record.id && point.lsn === pin.lsn,
  );
  return reads || !standsOnBases(clone, manifest, 0);
}

function rebaseNeeds(volume: HostedVolume, pin: PointPin): boolean {
  const residency = volume.residency();
  const manifest = volume.past.manifest();
  if (residency === null || manifest === null) return true;
  if (residency.points.some((point) => point.volumeId === volume.record.id && point.lsn === pin.lsn))
    return true;
  const rebase = manifest.rebases.findLast((one) => one.toLsn === pin.lsn);
  // Not in the bucket yet, or never appended: the log before this session's start tells, once it is archived.
  if (rebase === undefined) return manifest.archivedLsn < volume.openedAtLsn;
  return !standsOnBases(volume, manifest, rebase.lsn);
}

/** Whether every point that is kept at or after `fromLsn` is folded from a base taken at or after it, which the bucket holds. */
function standsOnBases(volume: HostedVolume, manifest: VolumeManifest, fromLsn: number): boolean {
  const archive = volume.past.opened?.archive;
  const first = manifest.bases.find((base) => base.s >= fromLsn && archive?.isBaseHeld(base.key) === true);
  if (first === undefined || first.e > manifest.retainedFromLsn) return false;
  const kept = [...manifest.snapshots, ...manifest.pins].map((one) => one.lsn);
  return kept.every((lsn) => lsn < fromLsn || lsn >= first.e);
}
