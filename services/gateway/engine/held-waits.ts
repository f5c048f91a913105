/*
 * Waiting until the bucket holds something of a volume: a base that extents may be evicted behind, or its log up to an entry. Called by
 * hosted-volume.ts (tiering) and extent-repair.ts; what "held" means is in docs/specs/archive.md.
 */
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";
import type { VolumePast } from "./volume-past.ts";

type Past = Pick<VolumePast, "attached" | "heldBase" | "archiveStatus">;

/** A base taken at or after `baseLsn`; null when the volume was closed or `wanted` says no meanwhile. */
export async function heldFrom(
  past: Past,
  clock: Clock,
  baseLsn: number,
  wanted: () => boolean,
): Promise<{ readonly baseLsn: number; readonly point: RemotePoint } | null> {
  for (;;) {
    if (!past.attached || !wanted()) return null;
    const held = past.heldBase();
    if (held !== null && held.baseLsn >= baseLsn) return held;
    await nextLook(clock);
  }
}

/** Whether the log up to `lsn` is held; waits a little, because a store that syncs has it in a moment. */
export async function heldUpTo(past: Past, clock: Clock, lsn: number): Promise<boolean> {
  const untilMs = clock.monotonicMs() + limits.heldWaitMs;
  while ((past.archiveStatus?.heldLsn ?? 0) < lsn) {
    if (clock.monotonicMs() >= untilMs) return false;
    await nextLook(clock);
  }
  return true;
}

async function nextLook(clock: Clock): Promise<void> {
  await new Promise<void>((resolve) => {
    clock.after(limits.heldPollMs, resolve);
  });
}
