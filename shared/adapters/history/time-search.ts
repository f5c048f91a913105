/*
 * Finds the LSN of a time (docs/specs/history.md#finding-the-lsn): the last batch at or before it, and every candidate where
 * the clock went back. Goes through pages, segments and hot batches in LSN order and opens only those whose times enclose
 * the one asked for. Called by volume-past.ts.
 */
import type { BucketReader } from "./bucket-reader.ts";
import { hotBatches } from "./hot-tail.ts";
import { segmentIndexes } from "./log-parts.ts";
import { lineAt, type VolumeView } from "./volume-view.ts";

/** A run of batches, all before the time, one at it, or all after it. */
interface Step {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly side: "before" | "at" | "after";
}

interface Timed {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly wallMinMs: number;
  readonly wallMaxMs: number;
}

export interface TimeCandidates {
  /** LSNs, ascending; the newest `max` of them. */
  readonly lsns: readonly number[];
  /** A hole in the log where a candidate would have to be looked for: its last and first neighbour. */
  readonly hole: { readonly fromLsn: number; readonly toLsn: number } | null;
}

export async function findTime(
  reader: BucketReader,
  view: VolumeView,
  fromLsn: number,
  wallTimeMs: number,
  nowMs: number,
): Promise<TimeCandidates> {
  const lsns: number[] = [];
  let hole: TimeCandidates["hole"] = null;
  let before: Step | null = null;
  const judge = (step: Step, next: Step | null): void => {
    if (step.side === "after") return;
    // The last stretch goes on to now.
    const isMeant = next === null ? step.side === "at" || wallTimeMs <= nowMs : isCandidate(step, next);
    if (!isMeant) return;
    if (next !== null && next.firstLsn > step.lastLsn + 1) {
      hole = { fromLsn: step.lastLsn + 1, toLsn: next.firstLsn };
      return;
    }
    lsns.push(step.lastLsn);
    if (lsns.length > reader.limits.candidatesMax) lsns.shift();
  };
  for await (const step of stepsOf(reader, view, wallTimeMs)) {
    if (step.lastLsn < fromLsn) continue;
    if (before !== null) judge(before, step);
    before = step;
  }
  if (before !== null) judge(before, null);
  return { lsns, hole };
}

/** The time lies between the two, or a stretch ends at it. */
function isCandidate(step: Step, next: Step): boolean {
  return next.side === "after" || (step.side === "at" && next.side === "before");
}

async function* stepsOf(
  reader: BucketReader,
  view: VolumeView,
  wallTimeMs: number,
): AsyncGenerator<Step, void, undefined> {
  for (const page of view.manifest?.pages ?? []) {
    const step = wholeStep(page, wallTimeMs);
    if (step !== null) {
      yield step;
      continue;
    }
    const { segments } = await reader.indexPage(view.volumeId, page);
    for (const segment of segments) yield* segmentSteps(reader, view, segment, wallTimeMs);
  }
  for (const segment of view.manifest?.segments ?? []) yield* segmentSteps(reader, view, segment, wallTimeMs);
  for (const batch of hotBatches(view.tail)) {
    yield { firstLsn: batch.firstLsn, lastLsn: batch.lastLsn, side: sideOf(batch.wallTimeMs, wallTimeMs) };
  }
}

async function* segmentSteps(
  reader: BucketReader,
  view: VolumeView,
  ref: Parameters<BucketReader["segmentIndex"]>[2],
  wallTimeMs: number,
): AsyncGenerator<Step, void, undefined> {
  const step = wholeStep(ref, wallTimeMs);
  if (step !== null) {
    yield step;
    return;
  }
  const index = await reader.segmentIndex(view.volumeId, lineAt(view, ref.lastLsn), ref);
  const { batchEntries, wallTimes } = index.columns;
  for (let batch = 0; batch < wallTimes.length; batch += 1) {
    const next = batch + 1 < wallTimes.length ? (batchEntries[batch + 1] as number) : index.entryCount;
    yield {
      firstLsn: index.firstLsn + (batchEntries[batch] as number),
      lastLsn: index.firstLsn + next - 1,
      side: sideOf(wallTimes[batch] as number, wallTimeMs),
    };
  }
}

/** Null where the time lies within, so that its batches have to be seen. */
function wholeStep({ firstLsn, lastLsn, wallMinMs, wallMaxMs }: Timed, wallTimeMs: number): Step | null {
  if (wallMaxMs < wallTimeMs) return { firstLsn, lastLsn, side: "before" };
  if (wallMinMs > wallTimeMs) return { firstLsn, lastLsn, side: "after" };
  return null;
}

function sideOf(batchMs: number, wallTimeMs: number): Step["side"] {
  if (batchMs === wallTimeMs) return "at";
  return batchMs < wallTimeMs ? "before" : "after";
}

/** Wall time of the batch that holds an entry; null where the log does not have it any more. */
export async function wallTimeOf(
  reader: BucketReader,
  view: VolumeView,
  lsn: number,
): Promise<number | null> {
  const holds = (part: { readonly firstLsn: number; readonly lastLsn: number }): boolean =>
    part.firstLsn <= lsn && lsn <= part.lastLsn;
  if (lsn > view.archivedLsn) {
    for (const batch of hotBatches(view.tail)) if (holds(batch)) return batch.wallTimeMs;
  }
  const page = view.manifest?.pages.find(holds);
  const refs =
    page === undefined ? view.manifest?.segments : (await reader.indexPage(view.volumeId, page)).segments;
  const ref = refs?.find(holds);
  if (ref === undefined) return null;
  for await (const { index } of segmentIndexes(reader, view, [ref])) {
    return index.columns.wallTimes[index.batchOf(lsn - index.firstLsn)] ?? null;
  }
  return null;
}
