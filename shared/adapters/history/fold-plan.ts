/*
 * What a point is made of (docs/specs/history.md#finding-the-fold): one base or nothing, and runs of log above it, possibly of
 * several volumes. Pure but for asking for the views of parents. volume-past.ts plans, fold-map.ts carries it out.
 */
import type { BaseRef, VolumeOrigin } from "#shared/domain/archive.ts";
import { historyTooLong } from "./history-errors.ts";
import type { VolumeView } from "./volume-view.ts";

/** Entries (afterLsn, toLsn] of a volume's log. */
export interface LogRun {
  readonly view: VolumeView;
  readonly afterLsn: number;
  readonly toLsn: number;
  /** The disk becomes this large before the run: at a clone's beginning. Null: it stays as it is. */
  readonly beginBytes: number | null;
}

export interface FoldPlan {
  readonly base: { readonly view: VolumeView; readonly ref: BaseRef } | null;
  /** In the order of application. */
  readonly runs: readonly LogRun[];
}

export async function planFold(
  view: VolumeView,
  lsn: number,
  parent: (origin: VolumeOrigin) => Promise<VolumeView>,
  stepsMax: number,
): Promise<FoldPlan> {
  const runs: LogRun[] = [];
  let at = view;
  let toLsn = lsn;
  for (let steps = 0; steps < stepsMax; steps += 1) {
    const rebase = newestRebase(at, toLsn);
    const floor = rebase?.lsn ?? 0;
    const ref = newestBase(at, floor, toLsn);
    if (ref !== null) {
      runs.push({ view: at, afterLsn: ref.s, toLsn, beginBytes: null });
      return { base: { view: at, ref }, runs: runs.reverse() };
    }
    const beginBytes = rebase === null ? at.begin.sizeBytes : null;
    runs.push({ view: at, afterLsn: floor, toLsn, beginBytes });
    if (rebase !== null) {
      toLsn = rebase.toLsn;
    } else if (at.begin.origin !== null) {
      toLsn = at.begin.origin.lsn;
      at = await parent(at.begin.origin);
    } else {
      return { base: null, runs: runs.reverse() };
    }
  }
  throw historyTooLong(view.volumeId, lsn, `more than ${stepsMax} rollbacks and clones without a base`);
}

/** The greatest rebase at or below the LSN. */
export function newestRebase(
  view: VolumeView,
  lsn: number,
): { readonly lsn: number; readonly toLsn: number } | null {
  return view.rebases.findLast((rebase) => rebase.lsn <= lsn) ?? null;
}

/** The newest base with floor ≤ s and e ≤ lsn: what it holds is part of fold(lsn), and log from s on completes it. */
function newestBase(view: VolumeView, floor: number, lsn: number): BaseRef | null {
  let newest: BaseRef | null = null;
  for (const base of view.manifest?.bases ?? []) {
    if (base.s >= floor && base.e <= lsn && (newest === null || base.s > newest.s)) newest = base;
  }
  return newest;
}
