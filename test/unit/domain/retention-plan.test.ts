/*
 * Retention against brute force: random manifests with bases, rebases, gaps, holes, snapshots and wrong clocks. What opened
 * before a trim and is retained opens after it, by a search that knows nothing of the plan's rules; and whatever stays is needed.
 */
import { describe, expect, it } from "vitest";
import type { BaseRef, IndexPageRef, SegmentRef } from "#shared/domain/archive.ts";
import {
  dropsAnything,
  needsOf,
  planRetention,
  type RetentionPlan,
  type RetentionSubject,
} from "#shared/domain/retention-plan.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const hour = 3_600_000;
const start = Date.UTC(2026, 10, 1);

const segment = (
  firstLsn: number,
  lastLsn: number,
  wallMinMs: number,
  wallMaxMs = wallMinMs,
): SegmentRef => ({
  key: `s${firstLsn}`,
  firstLsn,
  lastLsn,
  bytes: 100,
  footerStart: 50,
  recordBytes: 4096,
  wallMinMs,
  wallMaxMs,
});

const base = (s: number, e: number): BaseRef => ({
  key: `b${s}-${e}`,
  s,
  e,
  sizeBytes: 1 << 20,
  newChunkBytes: 0,
});

const subjectOf = (parts: Partial<RetentionSubject>): RetentionSubject => ({
  archivedLsn: parts.segments?.at(-1)?.lastLsn ?? 0,
  retainedFromLsn: 0,
  createdAtMs: start,
  origin: null,
  rebases: [],
  gaps: [],
  snapshots: [],
  pins: [],
  bases: [],
  pages: [],
  segments: [],
  ...parts,
});

const snapshot = (lsn: number) => ({ name: `at-${lsn}`, lsn, wallTimeMs: start });
const plan = (subject: RetentionSubject, nowMs: number, pointsInUse: readonly number[] = []): RetentionPlan =>
  planRetention(subject, { nowMs, historyMs: 24 * hour, pointsInUse });

/** Can `lsn` be folded from this, in any way that the log's meaning allows? */
function opens(
  subject: Pick<RetentionSubject, "bases" | "rebases" | "gaps" | "pages" | "segments">,
  lsn: number,
): boolean {
  const has = (after: number, upTo: number): boolean => {
    for (let at = after + 1; at <= upTo; at += 1) {
      const isThere = [...subject.pages, ...subject.segments].some(
        (one) => one.firstLsn <= at && at <= one.lastLsn,
      );
      if (!isThere || subject.gaps.some((gap) => gap.fromLsn === at)) return false;
    }
    return true;
  };
  const rebase = subject.rebases.findLast((one) => one.lsn <= lsn);
  const after = rebase?.lsn ?? 0;
  if (subject.bases.some((one) => one.e <= lsn && one.s >= after && has(one.s, lsn))) return true;
  if (!has(after, lsn)) return false;
  return rebase === undefined || opens(subject, rebase.toLsn);
}

function randomSubject(random: SeededRandom): RetentionSubject {
  const segments: SegmentRef[] = [];
  const pages: IndexPageRef[] = [];
  const gaps: { fromLsn: number; toLsn: number }[] = [];
  const bases: BaseRef[] = [];
  let lsn = 0;
  let wall = start;
  const count = 3 + random.between(0, 14);
  for (let index = 0; index < count; index += 1) {
    if (random.between(0, 20) === 0 && lsn > 0) {
      const missing = 1 + random.between(0, 4);
      const s = lsn + missing;
      gaps.push({ fromLsn: lsn + 1, toLsn: s });
      bases.push(base(s, s));
      lsn = s;
    }
    const first = lsn + 1;
    lsn += 1 + random.between(0, 4);
    const wrong = random.between(0, 25);
    const from = wall;
    wall += random.between(0, 10) * hour;
    const at = wrong === 0 ? Date.UTC(2040, 0, 1) : wrong === 1 ? Date.UTC(1970, 0, 2) : null;
    segments.push(segment(first, lsn, at ?? from, at ?? wall));
  }
  const inGap = (at: number): boolean => gaps.some((gap) => gap.fromLsn <= at && at < gap.toLsn);
  const rebases: { lsn: number; toLsn: number }[] = [];
  const plain = { bases, rebases, gaps, pages, segments };
  for (let at = 2; at <= lsn; at += 1) {
    if (inGap(at) || gaps.some((gap) => gap.toLsn === at) || random.between(0, 8) > 0) continue;
    const toLsn = 1 + random.between(0, at - 1);
    if (!inGap(toLsn) && opens(plain, toLsn)) rebases.push({ lsn: at, toLsn });
  }
  for (let tries = random.between(0, 6); tries > 0; tries -= 1) {
    const s = 1 + random.between(0, lsn);
    const e = Math.min(lsn, s + random.between(0, 3));
    const isFree = !bases.some((one) => one.s === s && one.e === e);
    const spans =
      rebases.some((one) => s < one.lsn && one.lsn <= e) ||
      gaps.some((gap) => gap.fromLsn <= e && gap.toLsn > s);
    if (isFree && !spans) bases.push(base(s, e));
  }
  bases.sort((a, b) => a.s - b.s || a.e - b.e);
  const paged = random.between(0, Math.max(1, segments.length - 1));
  if (paged > 1) {
    const run = segments.splice(0, paged);
    const last = run.at(-1)!;
    pages.push({
      key: "p",
      firstLsn: run[0]!.firstLsn,
      lastLsn: last.lastLsn,
      segments: run.length,
      recordBytes: 0,
      wallMinMs: Math.min(...run.map((one) => one.wallMinMs)),
      wallMaxMs: Math.max(...run.map((one) => one.wallMaxMs)),
    });
  }
  const names = Array.from({ length: random.between(0, 3) }, () => 1 + random.between(0, lsn));
  const subject = subjectOf({
    archivedLsn: lsn,
    bases,
    rebases,
    gaps,
    pages,
    segments,
    snapshots: [...new Set(names)].map(snapshot),
  });
  return subject;
}

const applied = (subject: RetentionSubject, to: RetentionPlan): RetentionSubject => ({
  ...subject,
  retainedFromLsn: to.retainedFromLsn,
  bases: to.bases,
  pages: to.pages,
  segments: to.segments,
});

/** Every point that the plan promises. */
function promised(subject: RetentionSubject, to: RetentionPlan, inUse: readonly number[]): number[] {
  const points = [...subject.snapshots, ...subject.pins].map((one) => one.lsn);
  points.push(...inUse);
  for (let lsn = Math.max(1, to.retainedFromLsn); lsn <= subject.archivedLsn; lsn += 1) points.push(lsn);
  return points;
}

describe("what is retained", () => {
  it("keeps everything while it is in the window", () => {
    const subject = subjectOf({
      segments: [segment(1, 9, start), segment(10, 19, start + hour)],
      bases: [base(5, 6)],
    });
    const kept = plan(subject, start + 2 * hour);
    expect(kept.retainedFromLsn).toBe(0);
    expect(dropsAnything(subject, kept)).toBe(false);
  });

  it("drops what only older points need, and keeps the base and log of the oldest one", () => {
    const subject = subjectOf({
      segments: [segment(1, 9, start), segment(10, 19, start + hour), segment(20, 29, start + 40 * hour)],
      bases: [base(2, 3), base(12, 14), base(25, 25)],
    });
    const kept = plan(subject, start + 48 * hour);
    expect(kept.retainedFromLsn).toBe(19);
    expect(kept.segments.map((one) => one.firstLsn)).toEqual([10, 20]);
    expect(kept.bases.map((one) => one.s)).toEqual([12, 25]);
  });

  it("keeps the present state of a disk that nobody wrote to", () => {
    const subject = subjectOf({ segments: [segment(1, 9, start)], bases: [base(4, 5)] });
    const kept = plan(subject, start + 1000 * hour);
    expect(kept.retainedFromLsn).toBe(9);
    expect(kept.segments).toHaveLength(1);
    expect(kept.bases).toHaveLength(1);
  });

  it("asks for an exact base of a snapshot that outlives the window, and lets its log go then", () => {
    const segments = [
      segment(1, 9, start),
      segment(10, 19, start + hour),
      segment(20, 29, start + 90 * hour),
    ];
    const subject = subjectOf({ segments, bases: [base(1, 1), base(18, 18)], snapshots: [snapshot(7)] });
    const first = plan(subject, start + 100 * hour);
    expect(first.exactBasesDue).toEqual([7]);
    expect(first.segments.map((one) => one.firstLsn)).toEqual([1, 10, 20]);
    const withExact = { ...subject, bases: [base(1, 1), base(7, 7), base(18, 18)] };
    const second = plan(withExact, start + 100 * hour);
    expect(second.exactBasesDue).toEqual([]);
    expect(second.segments.map((one) => one.firstLsn)).toEqual([10, 20]);
    expect(second.bases.map((one) => one.s)).toEqual([7, 18]);
  });

  it("retains what a rebase in the window goes back to, also through an older rebase", () => {
    const subject = subjectOf({
      segments: [segment(1, 9, start), segment(10, 19, start + hour), segment(20, 29, start + 90 * hour)],
      bases: [base(2, 2), base(12, 12)],
      rebases: [
        { lsn: 15, toLsn: 5 },
        { lsn: 25, toLsn: 16 },
      ],
    });
    expect(needsOf(subject, 27)).toEqual({
      bases: [base(2, 2)],
      log: [
        { after: 25, upTo: 27 },
        { after: 15, upTo: 16 },
        { after: 2, upTo: 5 },
      ],
      origin: false,
    });
    const kept = plan(subject, start + 100 * hour);
    expect(kept.segments).toHaveLength(3);
    // A base behind the last rebase ends all that.
    const later = subjectOf({ ...subject, bases: [...subject.bases, base(26, 28)] });
    const after = plan(later, start + 1000 * hour);
    expect(after.retainedFromLsn).toBe(29);
    expect(after.segments.map((one) => one.firstLsn)).toEqual([20]);
    expect(after.bases.map((one) => one.s)).toEqual([26]);
  });

  it("says when a clone still stands on its origin", () => {
    const origin = { volumeId: "00000000000000aa", name: "parent", lsn: 4 };
    const subject = subjectOf({ origin, segments: [segment(1, 9, start)] });
    expect(plan(subject, start).needsOrigin).toBe(true);
    const based = subjectOf({ origin, segments: [segment(1, 9, start)], bases: [base(5, 6)] });
    expect(plan(based, start + 1000 * hour).needsOrigin).toBe(false);
  });

  it("drops nothing where a retained point can't be opened", () => {
    const subject = subjectOf({
      segments: [segment(10, 19, start), segment(20, 29, start + 90 * hour)],
      bases: [base(12, 12)],
      snapshots: [snapshot(11)],
    });
    const kept = plan(subject, start + 1000 * hour);
    expect(kept.unopenable).toEqual([11]);
    expect(dropsAnything(subject, kept)).toBe(false);
  });

  it("a clock at 2040 or 1970 makes nothing leave early, and nothing stay for ever", () => {
    for (const wrong of [Date.UTC(2040, 0, 1), Date.UTC(1970, 0, 2)]) {
      const segments = [
        segment(1, 9, start),
        segment(10, 19, wrong),
        segment(20, 29, start + 30 * hour),
        segment(30, 39, start + 100 * hour),
      ];
      const subject = subjectOf({ segments, bases: [base(9, 9), base(19, 19), base(29, 29)] });
      expect(plan(subject, start + 50 * hour).retainedFromLsn).toBe(9);
      expect(plan(subject, start + 60 * hour).retainedFromLsn).toBe(29);
    }
  });

  it("every retained point opens, whatever the manifest, and trimming again and again changes nothing of that", () => {
    let dropped = 0;
    for (let seed = 1; seed <= 1500; seed += 1) {
      const random = new SeededRandom(seed);
      let subject = randomSubject(random);
      const inUse = random.between(0, 2) === 0 ? [] : [1 + random.between(0, subject.archivedLsn)];
      let nowMs = start;
      for (let step = 0; step < 4; step += 1) {
        nowMs += random.between(0, 60) * hour;
        const kept = plan(subject, nowMs, inUse);
        const before = promised(subject, kept, inUse).filter((lsn) => opens(subject, lsn));
        if (dropsAnything(subject, kept)) dropped += 1;
        subject = applied(subject, kept);
        for (const lsn of before) {
          expect(opens(subject, lsn), `seed ${seed}, step ${step}: LSN ${lsn} opens no more`).toBe(true);
        }
      }
    }
    expect(dropped).toBeGreaterThan(500);
  });

  it("whatever stays below the window is needed by something", () => {
    for (let seed = 1; seed <= 600; seed += 1) {
      const subject = randomSubject(new SeededRandom(seed));
      const kept = plan(subject, start + 100 * hour);
      if (kept.unopenable.length > 0) continue;
      const points = promised(subject, kept, []).filter((lsn) => needsOf(subject, lsn) !== null);
      for (const unit of [...kept.pages, ...kept.segments]) {
        const isNeeded =
          unit.lastLsn > kept.retainedFromLsn ||
          needsOfAll(subject, kept, points).some(
            (need) => unit.lastLsn > need.after && unit.firstLsn <= need.upTo,
          );
        expect(isNeeded, `seed ${seed}: ${unit.key} stays for nothing`).toBe(true);
      }
    }
  });
});

function needsOfAll(subject: RetentionSubject, kept: RetentionPlan, points: readonly number[]) {
  const targets = subject.rebases.filter((one) => one.lsn > kept.retainedFromLsn).map((one) => one.toLsn);
  return [...points, ...targets].flatMap((lsn) => needsOf(subject, lsn)?.log ?? []);
}
