/*
 * When a base is due and which older base the next one may build on. Pure; the archiver asks after each manifest
 * (services/archiver/engine/base-schedule.ts). The rules are in docs/specs/archive.md#bases.
 */
import type { BaseRef, VolumeManifest } from "./archive.ts";
import { limits } from "./limits.ts";

export interface BaseSizes {
  /** Log records since the last base began. */
  readonly logBytes: number;
  /** Extents that they touch. */
  readonly dirtyBytes: number;
  /** Bases in the manifest. */
  readonly bases: number;
  readonly logBytesMin: number;
  readonly logBytesMax: number;
}

/**
 * Due where reading the log would cost twice the extents that it touches; with little log, where it would cost four times that, because
 * each read of a point gathers its bytes from all segments of that log; and at the replay limit. That limit
 * is a sixteenth of the touched extents where this is more (a restore fetches those anyway), at most four times itself.
 * With many bases in the window they come less often, up to those four times; a full list waits until some have left it.
 */
export function isBaseDue({ logBytes, dirtyBytes, bases, logBytesMin, logBytesMax }: BaseSizes): boolean {
  if (bases >= limits.manifestBasesMax) return false;
  const rarer = Math.max(1, bases / limits.manifestBasesDense);
  const cheap =
    rarer *
    Math.min(Math.max(logBytesMin, 2 * dirtyBytes), Math.max(logBytesLeast(logBytesMin), 4 * dirtyBytes));
  const replay = Math.max(rarer * logBytesMax, dirtyBytes / 16);
  return logBytes >= Math.min(cheap, replay, 4 * logBytesMax);
}

/** Below so much log no base is due, whatever it touches. */
export function logBytesLeast(logBytesMin: number): number {
  return logBytesMin / 4;
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
