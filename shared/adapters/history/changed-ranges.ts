/*
 * Where two points of a volume may differ. The log that leads to a point, rollbacks followed, is a set of runs of LSNs; what
 * is in one of the two sets only may have changed bytes, everything else is common to both. Called by volume-past.ts.
 */
import type { ExtentRun, SegmentRef } from "#shared/domain/archive.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { ExtentMap } from "#shared/domain/extent-map.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ByteRange } from "#shared/ports/history.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { newestRebase } from "./fold-plan.ts";
import { type LogPart, partsOf, segmentsOf } from "./log-parts.ts";
import { sizeAt, type VolumeView } from "./volume-view.ts";

/** Entries (afterLsn, toLsn]. */
interface LsnRun {
  readonly afterLsn: number;
  readonly toLsn: number;
}

/** What fold(lsn) is made of within the volume, ascending. */
export function leadingRuns(view: VolumeView, lsn: number): readonly LsnRun[] {
  const runs: LsnRun[] = [];
  for (let toLsn = lsn; toLsn > 0; ) {
    const rebase = newestRebase(view, toLsn);
    if ((rebase?.lsn ?? 0) < toLsn) runs.push({ afterLsn: rebase?.lsn ?? 0, toLsn });
    toLsn = rebase?.toLsn ?? 0;
  }
  return runs.reverse();
}

/** LSNs that are in one of both only. */
export function differingRuns(a: readonly LsnRun[], b: readonly LsnRun[]): readonly LsnRun[] {
  const runs: LsnRun[] = [];
  const borders = [...new Set([...a, ...b].flatMap(({ afterLsn, toLsn }) => [afterLsn, toLsn]))];
  borders.sort((left, right) => left - right);
  const holds = (list: readonly LsnRun[], from: number): boolean =>
    list.some(({ afterLsn, toLsn }) => afterLsn <= from && from < toLsn);
  for (const [index, afterLsn] of borders.entries()) {
    const toLsn = borders[index + 1];
    if (toLsn === undefined || holds(a, afterLsn) === holds(b, afterLsn)) continue;
    const last = runs.at(-1);
    if (last?.toLsn === afterLsn) runs[runs.length - 1] = { afterLsn: last.afterLsn, toLsn };
    else runs.push({ afterLsn, toLsn });
  }
  return runs;
}

/** Byte ranges that were touched: overlaps and neighbours become one. */
class TouchedRanges {
  private readonly map = new ExtentMap<object>();
  private readonly mark = {};

  add(start: number, end: number): void {
    if (start < end) this.map.insert(start, end, this.mark, start);
  }

  addPart(view: VolumeView, part: LogPart, run: LsnRun): void {
    const { firstLsn, kinds, offsets, lengths } = part;
    const start = Math.max(0, run.afterLsn + 1 - firstLsn);
    const end = Math.min(kinds.length, run.toLsn + 1 - firstLsn);
    for (let index = start; index < end; index += 1) {
      const kind = kinds[index] as number;
      const offset = offsets[index] as number;
      if (kind <= entryKind.trim) this.add(offset, offset + (lengths[index] as number));
      else if (kind === entryKind.resize) {
        this.add(Math.min(offset, sizeAt(view, firstLsn + index - 1)), limits.volumeBytesMax);
      }
    }
  }

  addExtents(extents: readonly ExtentRun[]): void {
    for (const { first, count } of extents) {
      const end = Math.min((first + count) * limits.extentBytes, limits.volumeBytesMax);
      this.add(first * limits.extentBytes, end);
    }
  }

  ranges(endBytes: number): readonly ByteRange[] {
    const ranges: { offset: number; length: number }[] = [];
    this.map.visit(0, endBytes, (start, end) => {
      const last = ranges.at(-1);
      if (last !== undefined && last.offset + last.length === start) last.length += end - start;
      else ranges.push({ offset: start, length: end - start });
    });
    return ranges;
  }
}

export async function changedRanges(
  reader: BucketReader,
  view: VolumeView,
  fromLsn: number,
  toLsn: number,
): Promise<readonly ByteRange[]> {
  const touched = new TouchedRanges();
  const runs = differingRuns(leadingRuns(view, fromLsn), leadingRuns(view, toLsn));
  let exactLeft = reader.limits.exactSegmentsMax;
  // The newest first: where not all can be exact, what is new is.
  for (const run of runs.toReversed()) {
    const archivedTo = Math.min(run.toLsn, view.archivedLsn);
    const segments = await segmentsOf(reader, view, run.afterLsn, archivedTo);
    const summarized = exactLeft >= segments.length ? [] : await summariesOf(reader, view, segments);
    const exactFrom = summarized.at(-1)?.lastLsn ?? run.afterLsn;
    exactLeft -= segments.length - summarized.length;
    for (const summary of summarized) touched.addExtents(summary.extents);
    const rest = { view, afterLsn: Math.max(run.afterLsn, exactFrom), toLsn: run.toLsn, beginBytes: null };
    if (rest.afterLsn >= rest.toLsn) continue;
    const releases: (() => void)[] = [];
    try {
      for await (const part of partsOf(reader, rest, (tail) => releases.push(tail.release))) {
        touched.addPart(view, part, rest);
      }
    } finally {
      for (const release of releases) release();
    }
  }
  const sizes = [sizeAt(view, fromLsn), sizeAt(view, toLsn)];
  touched.add(Math.min(...sizes), Math.max(...sizes));
  return touched.ranges(Math.max(...sizes));
}

/** Summaries of those segments that an index page holds; those of the manifest's tail have none. */
async function summariesOf(reader: BucketReader, view: VolumeView, segments: readonly SegmentRef[]) {
  const keys = new Set(segments.map(({ key }) => key));
  const summaries = [];
  for (const page of view.manifest?.pages ?? []) {
    if (page.lastLsn < (segments[0]?.firstLsn ?? 0)) continue;
    if (page.firstLsn > (segments.at(-1)?.lastLsn ?? 0)) break;
    const found = (await reader.indexPage(view.volumeId, page)).segments;
    summaries.push(...found.filter(({ key }) => keys.has(key)));
  }
  return summaries;
}
