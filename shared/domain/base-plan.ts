/*
 * When a base is due and which older base the next one may build on. Pure; the archiver asks after each manifest
 * (services/archiver/engine/base-schedule.ts). The rules are in docs/specs/archive.md#bases.
 */
import type { BaseRef, VolumeManifest } from "./archive.ts";

export interface BaseSizes {
  /** Log records since the last base began. */
  readonly logBytes: number;
  /** Extents that they touch. */
  readonly dirtyBytes: number;
  readonly logBytesMin: number;
  readonly logBytesMax: number;
}

/**
 * Due where reading the log would cost more than half of the extents that it touches, and at the replay limit. That limit
 * is a sixteenth of the touched extents where this is more (a restore fetches those anyway), at most four times itself.
 */
export function isBaseDue({ logBytes, dirtyBytes, logBytesMin, logBytesMax }: BaseSizes): boolean {
  if (logBytes >= Math.max(logBytesMin, 2 * dirtyBytes)) return true;
  return logBytes >= Math.min(4 * logBytesMax, Math.max(logBytesMax, dirtyBytes / 16));
}

type Chronicle = Pick<VolumeManifest, "bases" | "rebases" | "gaps">;

/**
 * The newest base whose names still hold for every extent that no entry after its `s` touches: no rebase since went back before
 * its `e`, and no gap hides what was touched. Null: the next base reads everything.
 */
export function baseToBuildOn({ bases, rebases, gaps }: Chronicle): BaseRef | null {
  const holds = (base: BaseRef): boolean =>
    rebases.every((rebase) => rebase.lsn <= base.s || rebase.toLsn >= base.e) &&
    gaps.every((gap) => base.s >= gap.toLsn - 1);
  return bases.findLast(holds) ?? null;
}

/** Whether points behind the last gap wait for a base: nothing else can make them open. */
export function isBaseMissing(manifest: Chronicle): boolean {
  const last = manifest.gaps.at(-1);
  return last !== undefined && !manifest.bases.some((base) => base.s >= last.toLsn - 1);
}
