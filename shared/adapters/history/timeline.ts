/*
 * What happened when: writes, zeroes and events of a volume in equal intervals of wall time. From index pages' summaries as
 * far as they fit, from footers where a segment lies across a border and in the manifest's tail, from the hot log's batches.
 * Called by volume-past.ts.
 */
import type { LogEvent, SegmentRef, SegmentSummary } from "#shared/domain/archive.ts";
import { entryKind } from "#shared/domain/entry.ts";
import type { SegmentIndex } from "#shared/formats/segment-index.ts";
import type { TimelineInterval } from "#shared/ports/history.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { hotBatches } from "./hot-tail.ts";
import { segmentIndexes } from "./log-parts.ts";
import type { VolumeView } from "./volume-view.ts";

interface Sum {
  firstLsn: number;
  lastLsn: number;
  writes: number;
  writeBytes: number;
  zeroBytes: number;
  readonly events: string[];
}

/** The part of a summary that is counted. */
type Counted = Pick<SegmentSummary, "firstLsn" | "lastLsn" | "writes" | "writeBytes" | "zeroBytes">;

class Timeline {
  readonly fromMs: number;
  readonly toMs: number;
  readonly sums: Sum[];

  constructor(fromMs: number, toMs: number, intervals: number) {
    this.fromMs = fromMs;
    this.toMs = toMs;
    this.sums = Array.from({ length: intervals }, () => ({
      firstLsn: 0,
      lastLsn: 0,
      writes: 0,
      writeBytes: 0,
      zeroBytes: 0,
      events: [],
    }));
  }

  /** Number of the interval, or -1. */
  intervalOf(wallTimeMs: number): number {
    if (wallTimeMs < this.fromMs || wallTimeMs >= this.toMs) return -1;
    const share = (wallTimeMs - this.fromMs) / (this.toMs - this.fromMs);
    return Math.min(this.sums.length - 1, Math.floor(share * this.sums.length));
  }

  overlaps({ wallMinMs, wallMaxMs }: { readonly wallMinMs: number; readonly wallMaxMs: number }): boolean {
    return wallMaxMs >= this.fromMs && wallMinMs < this.toMs;
  }

  add(wallTimeMs: number, counted: Counted): void {
    const sum = this.sums[this.intervalOf(wallTimeMs)];
    if (sum === undefined) return;
    sum.firstLsn = sum.firstLsn === 0 ? counted.firstLsn : Math.min(sum.firstLsn, counted.firstLsn);
    sum.lastLsn = Math.max(sum.lastLsn, counted.lastLsn);
    sum.writes += counted.writes;
    sum.writeBytes += counted.writeBytes;
    sum.zeroBytes += counted.zeroBytes;
  }

  addEvents(events: readonly LogEvent[]): void {
    for (const event of events) this.sums[this.intervalOf(event.wallTimeMs)]?.events.push(eventText(event));
  }

  intervals(): TimelineInterval[] {
    const width = (this.toMs - this.fromMs) / this.sums.length;
    return this.sums.map((sum, index) => ({
      fromMs: Math.round(this.fromMs + index * width),
      toMs: Math.round(this.fromMs + (index + 1) * width),
      ...sum,
    }));
  }
}

export async function timelineOf(
  reader: BucketReader,
  view: VolumeView,
  fromMs: number,
  toMs: number,
  intervals: number,
): Promise<readonly TimelineInterval[]> {
  const timeline = new Timeline(fromMs, toMs, intervals);
  const exact: SegmentRef[] = [];
  for (const page of view.manifest?.pages ?? []) {
    if (!timeline.overlaps(page)) continue;
    for (const segment of (await reader.indexPage(view.volumeId, page)).segments) {
      if (!timeline.overlaps(segment)) continue;
      const interval = timeline.intervalOf(segment.wallMaxMs);
      const isWithinOne = interval >= 0 && interval === timeline.intervalOf(segment.wallMinMs);
      if (!isWithinOne && exact.length < reader.limits.exactSegmentsMax) {
        exact.push(segment);
        continue;
      }
      timeline.add(Math.min(segment.wallMaxMs, toMs - 1), segment);
      timeline.addEvents(segment.events);
    }
  }
  exact.push(...(view.manifest?.segments ?? []).filter((segment) => timeline.overlaps(segment)));
  for await (const { index } of segmentIndexes(reader, view, exact)) addIndex(timeline, index);
  const hot = view.tail?.part;
  for (const { firstLsn, lastLsn, wallTimeMs } of hotBatches(view.tail)) {
    if (hot === null || hot === undefined) break;
    const counts = countOf(hot.kinds, hot.lengths, firstLsn - hot.firstLsn, lastLsn + 1 - hot.firstLsn);
    timeline.add(wallTimeMs, { firstLsn, lastLsn, ...counts });
  }
  timeline.addEvents(view.tail?.events ?? []);
  return timeline.intervals();
}

function addIndex(timeline: Timeline, index: SegmentIndex): void {
  const { batchEntries, wallTimes } = index.columns;
  for (let batch = 0; batch < wallTimes.length; batch += 1) {
    const start = batchEntries[batch] as number;
    const end = batch + 1 < wallTimes.length ? (batchEntries[batch + 1] as number) : index.entryCount;
    timeline.add(wallTimes[batch] as number, {
      firstLsn: index.firstLsn + start,
      lastLsn: index.firstLsn + end - 1,
      ...countOf(index.kinds, index.lengths, start, end),
    });
  }
  timeline.addEvents(index.events);
}

function countOf(
  kinds: Uint8Array,
  lengths: Float64Array,
  start: number,
  end: number,
): Pick<Counted, "writes" | "writeBytes" | "zeroBytes"> {
  let writes = 0;
  let writeBytes = 0;
  let zeroBytes = 0;
  for (let entry = start; entry < end; entry += 1) {
    const kind = kinds[entry] as number;
    if (kind === entryKind.write) {
      writes += 1;
      writeBytes += lengths[entry] as number;
    } else if (kind <= entryKind.trim) {
      zeroBytes += lengths[entry] as number;
    }
  }
  return { writes, writeBytes, zeroBytes };
}

/** For people: begins with the point that it made. */
function eventText(event: LogEvent): string {
  return `lsn:${event.lsn} ${eventPhrase(event)}`;
}

function eventPhrase(event: LogEvent): string {
  if (event.kind === "epoch") return `opened by ${event.writer} (epoch ${event.epoch})`;
  if (event.kind === "mark") return `snapshot ${event.name}`;
  return event.kind === "resize"
    ? `resized to ${event.sizeBytes} bytes`
    : `rolled back to lsn:${event.toLsn}`;
}
