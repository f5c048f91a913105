/*
 * Opens a point: plan, then the map from footers and hot log, and what has to stay pinned while it is used. volume-past.ts
 * calls it for each open, point-source.ts again when its part of the hot log has been archived.
 */
import type { BaseRef, VolumeOrigin } from "#shared/domain/archive.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { HistorySubject } from "#shared/ports/history.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { FoldMap } from "./fold-map.ts";
import { type LogRun, planFold } from "./fold-plan.ts";
import { historyTooLong, pointNotThere } from "./history-errors.ts";
import { partsOf } from "./log-parts.ts";
import { type VolumeView, viewOf } from "./volume-view.ts";

export interface OpenFold {
  readonly map: FoldMap;
  readonly base: { readonly volumeId: string; readonly ref: BaseRef } | null;
  /** Volumes and LSNs that have to be archived before the hot log can go; empty where all is in the bucket. */
  readonly hot: readonly { readonly subject: HistorySubject; readonly lsn: number }[];
  /** Unpins the hot log. Once. */
  readonly release: () => void;
}

export type SubjectOf = (volumeId: string) => Promise<HistorySubject>;

export interface FoldDependencies {
  readonly reader: BucketReader;
  readonly clock: Clock;
  readonly subjectOf: SubjectOf;
}

/** Entries applied at a time, about 10 ms: the loop serves disks meanwhile. */
const entriesPerTurn = 8192;

export async function openFold(
  { reader, clock, subjectOf }: FoldDependencies,
  subject: HistorySubject,
  lsn: number,
): Promise<OpenFold> {
  const releases: (() => void)[] = [];
  const subjects = new Map<VolumeView, HistorySubject>();
  const take = async (from: HistorySubject, upToLsn: number): Promise<VolumeView> => {
    const view = await viewOf(from, upToLsn, reader.limits.mapRangesMax);
    releases.push(view.release);
    subjects.set(view, from);
    if (view.lastLsn >= upToLsn) return view;
    throw pointNotThere(`lsn:${upToLsn} of volume ${from.volumeId} is not there (yet)`, null);
  };
  const releaseAll = (): void => {
    for (const release of releases.splice(0)) release();
  };
  try {
    const view = await take(subject, lsn);
    const parent = async (origin: VolumeOrigin): Promise<VolumeView> =>
      take(await subjectOf(origin.volumeId), origin.lsn);
    const plan = await planFold(view, lsn, parent, reader.limits.foldStepsMax);
    const map = new FoldMap(plan.base?.ref.sizeBytes ?? 0);
    const hot: { subject: HistorySubject; lsn: number }[] = [];
    for (const run of plan.runs) {
      if (run.beginBytes !== null) map.resize(run.beginBytes);
      const usesHot = await applyRun(reader, clock, map, run, (release) => releases.push(release));
      const owner = subjects.get(run.view);
      if (usesHot && owner !== undefined) hot.push({ subject: owner, lsn: run.toLsn });
    }
    if (hot.length === 0) releaseAll();
    const base = plan.base === null ? null : { volumeId: plan.base.view.volumeId, ref: plan.base.ref };
    return { map, base, hot, release: releaseAll };
  } catch (error) {
    releaseAll();
    throw error;
  }
}

/** True where bytes of the run are in the hot log. */
async function applyRun(
  reader: BucketReader,
  clock: Clock,
  map: FoldMap,
  run: LogRun,
  keep: (release: () => void) => void,
): Promise<boolean> {
  let usesHot = false;
  for await (const part of partsOf(reader, run, (tail) => keep(tail.release))) {
    usesHot ||= part.place.kind === "hot";
    const lastLsn = Math.min(part.lastLsn, run.toLsn);
    for (let afterLsn = Math.max(run.afterLsn, part.firstLsn - 1); afterLsn < lastLsn; ) {
      const toLsn = Math.min(afterLsn + entriesPerTurn, lastLsn);
      map.apply(run.view.volumeId, part, afterLsn, toLsn);
      afterLsn = toLsn;
      if (afterLsn < lastLsn) await new Promise<void>((resolve) => clock.soon(resolve));
    }
    if (map.rangeCount > reader.limits.mapRangesMax) {
      throw historyTooLong(
        run.view.volumeId,
        run.toLsn,
        `a map of more than ${reader.limits.mapRangesMax} ranges`,
      );
    }
  }
  return usesHot;
}
