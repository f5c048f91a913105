/*
 * The past of one volume (port VolumeHistory): which points there are, opening them, timeline, differences. Each question
 * takes one view of the volume (volume-view.ts) and is answered from it. Made by histories.ts.
 */
import type { SnapshotRecord } from "#shared/domain/archive.ts";
import { isVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Point } from "#shared/domain/point.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type {
  ByteRange,
  HistorySubject,
  PointSource,
  ResolvedPoint,
  TimelineInterval,
  VolumeHistory,
} from "#shared/ports/history.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { changedRanges } from "./changed-ranges.ts";
import {
  badQuestion,
  type OpenRange,
  pointInGap,
  pointNotThere,
  pointNotThereTag,
  timeAmbiguous,
} from "./history-errors.ts";
import { findTime, wallTimeOf } from "./time-search.ts";
import { timelineOf } from "./timeline.ts";
import { sizeAt, type VolumeView, viewOf } from "./volume-view.ts";

export interface PastDependencies {
  readonly reader: BucketReader;
  readonly clock: Clock;
  /** Opens a point, or joins those who have it open. */
  readonly openPoint: (subject: HistorySubject, lsn: number) => Promise<PointSource>;
}

const toTheEnd = Number.MAX_SAFE_INTEGER;

export class VolumePast implements VolumeHistory {
  private readonly subject: HistorySubject;
  private readonly deps: PastDependencies;

  constructor(subject: HistorySubject, deps: PastDependencies) {
    this.subject = subject;
    this.deps = deps;
  }

  async range(): Promise<OpenRange> {
    const range = await this.view(toTheEnd, (view) => this.rangeOf(view));
    if (range !== null) return range;
    throw pointNotThere(`nothing of volume ${this.subject.volumeId} opens (yet)`, null);
  }

  snapshots(): readonly SnapshotRecord[] {
    return this.subject.snapshots();
  }

  async resolve(point: Point): Promise<ResolvedPoint> {
    if (point.kind === "mark") return this.resolveMark(point.name);
    if (point.kind === "lsn") return this.view(point.lsn, (view) => this.resolveLsn(view, point.lsn));
    return this.view(toTheEnd, (view) => this.resolveTime(view, point.wallTimeMs));
  }

  async open(lsn: number): Promise<PointSource> {
    try {
      return await this.deps.openPoint(this.subject, lsn);
    } catch (error) {
      const isBare =
        isVarveError(error) && error._tag === pointNotThereTag && error.fields["toLsn"] === undefined;
      if (!isBare) throw error;
      // What opens instead helps; where that can't be told, the error as it is.
      throw pointNotThere(error.message, await this.range().catch(() => null));
    }
  }

  sizeAt(lsn: number): Promise<number> {
    return this.view(lsn, async (view) => {
      if (lsn <= view.lastLsn) return sizeAt(view, lsn);
      throw pointNotThere(`lsn:${lsn} is not there yet`, await this.rangeOf(view));
    });
  }

  async timeline(fromMs: number, toMs: number, intervals: number): Promise<readonly TimelineInterval[]> {
    const isCount =
      Number.isSafeInteger(intervals) && intervals >= 1 && intervals <= limits.historyIntervalsMax;
    if (!isCount)
      throw badQuestion(`${intervals} intervals: 1 to ${limits.historyIntervalsMax} can be asked for`);
    if (!(fromMs < toMs)) throw badQuestion("a timeline has to begin before it ends");
    return this.view(toTheEnd, (view) => timelineOf(this.deps.reader, view, fromMs, toMs, intervals));
  }

  changes(fromLsn: number, toLsn: number): Promise<readonly ByteRange[]> {
    const last = Math.max(fromLsn, toLsn);
    return this.view(last, async (view) => {
      if (last <= view.lastLsn) return changedRanges(this.deps.reader, view, fromLsn, toLsn);
      throw pointNotThere(`lsn:${last} is not there yet`, await this.rangeOf(view));
    });
  }

  private async view<T>(upToLsn: number, task: (view: VolumeView) => Promise<T>): Promise<T> {
    const view = await viewOf(this.subject, upToLsn, this.deps.reader.limits.mapRangesMax);
    try {
      return await task(view);
    } finally {
      view.release();
    }
  }

  private async resolveMark(name: string): Promise<ResolvedPoint> {
    const snapshot = this.subject.snapshots().find((record) => record.name === name);
    if (snapshot !== undefined) {
      return { volumeId: this.subject.volumeId, lsn: snapshot.lsn, wallTimeMs: snapshot.wallTimeMs };
    }
    throw pointNotThere(`there is no snapshot ${name}`, await this.range().catch(() => null));
  }

  private async resolveLsn(view: VolumeView, lsn: number): Promise<ResolvedPoint> {
    const { volumeId } = this.subject;
    const snapshot = this.subject.snapshots().find((record) => record.lsn === lsn);
    if (snapshot !== undefined) return { volumeId, lsn, wallTimeMs: snapshot.wallTimeMs };
    const gap = view.manifest?.gaps.find(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn < toLsn);
    if (gap !== undefined) throw pointInGap(lsn, gap);
    const isPinned = view.manifest?.pins.some((pin) => pin.lsn === lsn) === true;
    if (lsn > view.lastLsn || (lsn < oldestLsn(view) && !isPinned)) {
      throw pointNotThere(`there is no point lsn:${lsn}`, await this.rangeOf(view));
    }
    return { volumeId, lsn, wallTimeMs: await this.timeNear(view, lsn) };
  }

  private async resolveTime(view: VolumeView, wallTimeMs: number): Promise<ResolvedPoint> {
    const fromLsn = oldestLsn(view);
    const nowMs = this.deps.clock.wallTimeMs();
    const { lsns, hole } = await findTime(this.deps.reader, view, fromLsn, wallTimeMs, nowMs);
    const lsn = lsns.at(-1);
    if (lsn === undefined && hole !== null) throw pointInGap(hole.fromLsn, hole);
    const range = await this.rangeOf(view);
    if (range === null || lsn === undefined) {
      const what = wallTimeMs > nowMs ? "that time is in the future" : "the volume has no point so early";
      throw pointNotThere(what, range);
    }
    if (lsns.length > 1) throw timeAmbiguous(wallTimeMs, lsns.toReversed());
    return { volumeId: this.subject.volumeId, lsn, wallTimeMs: await this.timeNear(view, lsn) };
  }

  /** Null where nothing opens. The view reaches to the end, or to where the caller was told the range of. */
  private async rangeOf(view: VolumeView): Promise<OpenRange | null> {
    const fromLsn = oldestLsn(view);
    const toLsn = Math.max(view.lastLsn, view.hotLog?.state().durableLsn ?? 0);
    if (toLsn < fromLsn) return null;
    const fromMs = await this.timeNear(view, fromLsn);
    const toMs = toLsn > view.lastLsn ? this.deps.clock.wallTimeMs() : await this.timeNear(view, toLsn);
    return { fromLsn, toLsn, fromMs, toMs };
  }

  /** The batch's own time; where its footer can't be had, that of the segment or page that a reference tells. */
  private async timeNear(view: VolumeView, lsn: number): Promise<number> {
    try {
      const exact = await wallTimeOf(this.deps.reader, view, lsn);
      if (exact !== null) return exact;
    } catch (error) {
      if (!(error instanceof VarveError) || error.kind === "Internal") throw error;
    }
    const parts = [...(view.manifest?.pages ?? []), ...(view.manifest?.segments ?? [])];
    const part = parts.find(({ lastLsn }) => lastLsn >= lsn);
    return part?.wallMinMs ?? view.manifest?.writtenAtMs ?? this.deps.clock.wallTimeMs();
  }
}

function oldestLsn({ manifest }: VolumeView): number {
  return Math.max(1, manifest?.retainedFromLsn ?? 1);
}
