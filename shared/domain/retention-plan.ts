/*
 * What of a volume's past stays: given a manifest, retention time and the points that others need, which bases, index pages
 * and segments keep every retained point open. Pure; the history trimmer publishes what comes out, check and property tests
 * use the same rules. The rules in words: docs/specs/retention.md, "What is retained".
 */
import type { BaseRef, IndexPageRef, SegmentRef, VolumeManifest } from "./archive.ts";
import { limits } from "./limits.ts";

/** The parts of a manifest that decide; a manifest is one. */
export type RetentionSubject = Pick<
  VolumeManifest,
  | "archivedLsn"
  | "retainedFromLsn"
  | "createdAtMs"
  | "origin"
  | "rebases"
  | "gaps"
  | "snapshots"
  | "pins"
  | "bases"
  | "pages"
  | "segments"
>;

export interface RetentionRequest {
  /** Retention time, milliseconds since 1970. */
  readonly nowMs: number;
  readonly historyMs: number;
  /** Points that somebody reads from: origins of clones, open exports, remote extents. */
  readonly pointsInUse: readonly number[];
}

export interface RetentionPlan {
  readonly retainedFromLsn: number;
  readonly bases: readonly BaseRef[];
  readonly pages: readonly IndexPageRef[];
  readonly segments: readonly SegmentRef[];
  /** Points below the window that hold log only for themselves: an exact base of each lets it go. */
  readonly exactBasesDue: readonly number[];
  /** A retained point is folded from the volume's origin. */
  readonly needsOrigin: boolean;
  /** Retained points, outside of gaps, that nothing opens. Not empty: nothing may be dropped, and the plan drops nothing. */
  readonly unopenable: readonly number[];
}

/** What it takes to open one point. */
export interface PointNeeds {
  readonly bases: readonly BaseRef[];
  /** Log (after, upTo]. */
  readonly log: readonly LogNeed[];
  readonly origin: boolean;
}

export interface LogNeed {
  readonly after: number;
  readonly upTo: number;
}

type LogUnit = Pick<SegmentRef, "firstLsn" | "lastLsn" | "wallMinMs" | "wallMaxMs">;

export function planRetention(subject: RetentionSubject, request: RetentionRequest): RetentionPlan {
  const units: readonly LogUnit[] = [...subject.pages, ...subject.segments];
  const from = windowStart(subject, units, request);
  const kept = new Keeping(subject, units);
  kept.window(from);
  const below = new Set<number>();
  for (const { lsn } of [...subject.snapshots, ...subject.pins]) below.add(lsn);
  for (const lsn of request.pointsInUse) below.add(lsn);
  const exactBasesDue: number[] = [];
  for (const lsn of [...below].sort((a, b) => a - b)) {
    const isLongLived =
      subject.snapshots.some((one) => one.lsn === lsn) || subject.pins.some((one) => one.lsn === lsn);
    if (lsn >= from) continue;
    const addsLog = kept.point(lsn);
    if (addsLog && isLongLived) exactBasesDue.push(lsn);
  }
  if (kept.unopenable.length > 0) {
    const { retainedFromLsn, bases, pages, segments } = subject;
    const { needsOrigin, unopenable } = kept;
    return { retainedFromLsn, bases, pages, segments, exactBasesDue: [], needsOrigin, unopenable };
  }
  return {
    retainedFromLsn: from,
    bases: subject.bases.filter((base) => kept.bases.has(base)),
    pages: subject.pages.filter((_, index) => kept.units.has(index)),
    segments: subject.segments.filter((_, index) => kept.units.has(subject.pages.length + index)),
    exactBasesDue,
    needsOrigin: kept.needsOrigin,
    unopenable: [],
  };
}

/** True where the plan leaves something of the manifest out. */
export function dropsAnything(subject: RetentionSubject, plan: RetentionPlan): boolean {
  return (
    plan.bases.length < subject.bases.length ||
    plan.pages.length < subject.pages.length ||
    plan.segments.length < subject.segments.length
  );
}

/**
 * What opening `lsn` takes by the rules, whether or not the manifest's log still has it; null where a gap is in the way.
 * LSN 0 is the empty disk, or the origin.
 */
export function needsOf(
  subject: Pick<RetentionSubject, "bases" | "rebases" | "gaps" | "origin">,
  lsn: number,
): PointNeeds | null {
  const log: LogNeed[] = [];
  let point = lsn;
  for (;;) {
    const rebase = subject.rebases.findLast((one) => one.lsn <= point);
    const after = rebase?.lsn ?? 0;
    const base = subject.bases.findLast(
      (one) => one.e <= point && one.s >= after && !hasGap(subject.gaps, one.s, point),
    );
    if (base !== undefined) {
      addLog(log, base.s, point);
      return { bases: [base], log, origin: false };
    }
    if (hasGap(subject.gaps, after, point)) return null;
    addLog(log, after, point);
    if (rebase === undefined) return { bases: [], log, origin: subject.origin !== null };
    point = rebase.toLsn;
  }
}

function addLog(log: LogNeed[], after: number, upTo: number): void {
  if (upTo > after) log.push({ after, upTo });
}

/** Entries [fromLsn, toLsn) of a gap are missing: is any of them in the log (after, upTo]? */
function hasGap(gaps: RetentionSubject["gaps"], after: number, upTo: number): boolean {
  return gaps.some((gap) => gap.fromLsn <= upTo && gap.toLsn - 1 > after);
}

/** Gathers what stays. Units are pages, then segments, by index. */
class Keeping {
  readonly bases = new Set<BaseRef>();
  readonly units = new Set<number>();
  readonly unopenable: number[] = [];
  needsOrigin = false;
  private readonly subject: RetentionSubject;
  private readonly all: readonly LogUnit[];

  constructor(subject: RetentionSubject, all: readonly LogUnit[]) {
    this.subject = subject;
    this.all = all;
  }

  /** Every point at or after `from`: its own needs, all log and bases behind it, and what rebases in it go back to. */
  window(from: number): void {
    this.point(from);
    this.log({ after: from, upTo: Number.MAX_SAFE_INTEGER });
    for (const base of this.subject.bases) if (base.e >= from) this.bases.add(base);
    for (const rebase of this.subject.rebases) if (rebase.lsn > from) this.point(rebase.toLsn);
  }

  /** Returns whether it needs log that was not kept before. */
  point(lsn: number): boolean {
    if (this.inGap(lsn)) return false;
    const needs = needsOf(this.subject, lsn);
    if (needs === null || !needs.log.every((need) => this.covers(need))) {
      this.unopenable.push(lsn);
      return false;
    }
    for (const base of needs.bases) this.bases.add(base);
    if (needs.origin) this.needsOrigin = true;
    const before = this.units.size;
    for (const need of needs.log) this.log(need);
    return this.units.size > before;
  }

  private log(need: LogNeed): void {
    for (const [index, unit] of this.all.entries()) {
      if (unit.lastLsn > need.after && unit.firstLsn <= need.upTo) this.units.add(index);
    }
  }

  private inGap(lsn: number): boolean {
    return this.subject.gaps.some((gap) => gap.fromLsn <= lsn && lsn < gap.toLsn);
  }

  /** The manifest's units hold this log without a hole. Log past the archived LSN is not in the bucket yet. */
  private covers(need: LogNeed): boolean {
    const upTo = Math.min(need.upTo, this.subject.archivedLsn);
    let reached = need.after;
    for (const unit of this.all) {
      if (reached >= upTo) break;
      if (unit.firstLsn <= reached + 1) reached = Math.max(reached, unit.lastLsn);
    }
    return reached >= upTo;
  }
}

/** The oldest point of the window: the last entry that is certainly at or before now - historyMs. Never before the present one. */
function windowStart(
  subject: RetentionSubject,
  units: readonly LogUnit[],
  request: RetentionRequest,
): number {
  const cutoffMs = request.nowMs - request.historyMs;
  const times = effectiveTimes(units, subject.createdAtMs, request.nowMs);
  const first = units.find((_, index) => (times[index] ?? request.nowMs) >= cutoffMs);
  const start = first === undefined ? subject.archivedLsn : first.firstLsn - 1;
  let from = Math.min(Math.max(start, subject.retainedFromLsn), subject.archivedLsn);
  for (const gap of subject.gaps) {
    if (gap.fromLsn <= from && from < gap.toLsn) from = Math.min(gap.toLsn, subject.archivedLsn);
  }
  return from;
}

/**
 * When each unit's entries were written at the latest. A time that can't be right (in the future of now, or clearly before an
 * earlier one) counts as the next one that can, or as now: it never expires before its neighbour behind it.
 */
function effectiveTimes(units: readonly LogUnit[], createdAtMs: number, nowMs: number): readonly number[] {
  const plausible: boolean[] = [];
  let floor = createdAtMs <= nowMs ? createdAtMs : 0;
  for (const unit of units) {
    const holds = unit.wallMaxMs <= nowMs && unit.wallMinMs >= floor - limits.clockJumpMs;
    plausible.push(holds);
    if (holds) floor = Math.max(floor, unit.wallMaxMs);
  }
  const times: number[] = Array.from({ length: units.length }, () => nowMs);
  let next = nowMs;
  for (let index = units.length - 1; index >= 0; index -= 1) {
    if (plausible[index] === true) next = units[index]?.wallMaxMs ?? nowMs;
    times[index] = next;
  }
  return times;
}
