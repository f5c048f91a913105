/*
 * A run of a volume's log as columns of entries, in order and complete: from segment footers as far as it is archived, then
 * from the hot log's tail. Index pages and the manifest's tail say where; nothing is skipped. fold-map.ts and
 * changed-ranges.ts go through them.
 */
import type { SegmentRef } from "#shared/domain/archive.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import type { SegmentIndex } from "#shared/formats/segment-index.ts";
import type { BucketReader } from "./bucket-reader.ts";
import type { LogRun } from "./fold-plan.ts";
import type { SegmentPlace } from "./frame-reader.ts";
import { historyIncomplete, pointInGap, pointNotThere } from "./history-errors.ts";
import { type HotPlace, type HotTail, scanHotTail } from "./hot-tail.ts";
import { lineAt, type VolumeView } from "./volume-view.ts";

/** Entries firstLsn to lastLsn; entry i has LSN firstLsn + i. */
export interface LogPart {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly kinds: Uint8Array;
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  /** Where a write's bytes are in `place`. */
  readonly places: Uint32Array | Float64Array;
  readonly place: SegmentPlace | HotPlace;
}

/** Takes over the pin of a tail that parts were taken from. */
export type KeepTail = (tail: HotTail) => void;

/** The parts that hold the run, in order; the first and the last may reach past it. */
export async function* partsOf(
  reader: BucketReader,
  run: LogRun,
  keepTail: KeepTail,
): AsyncGenerator<LogPart, void, undefined> {
  const { view, afterLsn, toLsn } = run;
  if (toLsn > view.lastLsn) throw pointNotThere(`lsn:${toLsn} is not there yet`, null);
  const archivedTo = Math.min(toLsn, view.archivedLsn);
  if (archivedTo > afterLsn) yield* archivedParts(reader, run, archivedTo, keepTail);
  const hotAfter = Math.max(afterLsn, archivedTo);
  if (toLsn > hotAfter) yield hotPart(view, view.tail, hotAfter, toLsn);
}

/** The hot part, if it has all entries (afterLsn, toLsn]. */
function hotPart(view: VolumeView, tail: HotTail | null, afterLsn: number, toLsn: number): LogPart {
  const part = tail?.part ?? null;
  if (part !== null && part.firstLsn <= afterLsn + 1 && part.lastLsn >= toLsn) return part;
  throw historyIncomplete(view.volumeId, afterLsn + 1, "the hot log does not have it");
}

/** From footers; with the bucket away from the hot log, where that reaches back so far. */
async function* archivedParts(
  reader: BucketReader,
  run: LogRun,
  toLsn: number,
  keepTail: KeepTail,
): AsyncGenerator<LogPart, void, undefined> {
  const { view, afterLsn } = run;
  let next = afterLsn + 1;
  try {
    for await (const part of segmentParts(reader, view, afterLsn, toLsn)) {
      yield part;
      next = part.lastLsn + 1;
    }
  } catch (error) {
    if (toVarveError(error, "log").kind !== "Retry" || view.hotLog === null) throw error;
    const { mapRangesMax } = reader.limits;
    const tail = await scanHotTail(view.hotLog, next - 1, toLsn, mapRangesMax).catch(() => null);
    if (tail === null) throw error;
    keepTail(tail);
    if (next <= toLsn) yield hotPart(view, tail, next - 1, toLsn);
  }
}

async function* segmentParts(
  reader: BucketReader,
  view: VolumeView,
  afterLsn: number,
  toLsn: number,
): AsyncGenerator<LogPart, void, undefined> {
  for await (const { ref, index } of segmentIndexes(
    reader,
    view,
    await segmentsOf(reader, view, afterLsn, toLsn),
  )) {
    const { firstLsn, lastLsn, kinds, offsets, lengths, places, frames } = index;
    const place: SegmentPlace = { kind: "segment", key: ref.key, frames };
    yield { firstLsn, lastLsn, kinds, offsets, lengths, places, place };
  }
}

/** Footers in order, several under way at once. */
export async function* segmentIndexes(
  reader: BucketReader,
  view: VolumeView,
  refs: readonly SegmentRef[],
): AsyncGenerator<{ readonly ref: SegmentRef; readonly index: SegmentIndex }, void, undefined> {
  const ahead: Promise<SegmentIndex>[] = [];
  let started = 0;
  const start = (): void => {
    const ref = refs[started++];
    if (ref === undefined) return;
    const index = reader.segmentIndex(view.volumeId, lineAt(view, ref.lastLsn), ref);
    // Told where it is awaited; one that nobody gets to must not end the process.
    index.catch(() => undefined);
    ahead.push(index);
  };
  for (let count = 0; count < reader.limits.footerReadsMax; count += 1) start();
  for (const ref of refs) {
    const index = await (ahead.shift() as Promise<SegmentIndex>);
    start();
    yield { ref, index };
  }
}

/** The segments that hold entries (afterLsn, toLsn], ascending, complete. */
export async function segmentsOf(
  reader: BucketReader,
  view: VolumeView,
  afterLsn: number,
  toLsn: number,
): Promise<readonly SegmentRef[]> {
  const manifest = view.manifest;
  if (manifest === null || toLsn <= afterLsn) return [];
  const overlaps = (part: { readonly firstLsn: number; readonly lastLsn: number }): boolean =>
    part.lastLsn > afterLsn && part.firstLsn <= toLsn;
  // Before pages are read: a point that the retained log does not reach costs no GET.
  expectComplete(view, afterLsn, toLsn, [...manifest.pages, ...manifest.segments].filter(overlaps));
  const refs: SegmentRef[] = [];
  for (const page of manifest.pages.filter(overlaps)) {
    refs.push(...(await reader.indexPage(view.volumeId, page)).segments.filter(overlaps));
  }
  refs.push(...manifest.segments.filter(overlaps));
  expectComplete(view, afterLsn, toLsn, refs);
  return refs;
}

/** Throws what a missing entry means: given up, left the window, or damage. */
function expectComplete(
  view: VolumeView,
  afterLsn: number,
  toLsn: number,
  parts: readonly { readonly firstLsn: number; readonly lastLsn: number }[],
): void {
  let next = afterLsn + 1;
  for (const part of parts) {
    if (part.firstLsn > next) break;
    next = Math.max(next, part.lastLsn + 1);
  }
  if (next > toLsn) return;
  const gap = view.manifest?.gaps.find(({ fromLsn, toLsn }) => fromLsn <= next && next < toLsn);
  if (gap !== undefined) throw pointInGap(toLsn, gap);
  if (next <= (view.manifest?.retainedFromLsn ?? 0)) {
    throw pointNotThere(`lsn:${toLsn} of volume ${view.volumeId} has left the history window`, null);
  }
  throw historyIncomplete(view.volumeId, next, "the manifest names no segment that holds it");
}
