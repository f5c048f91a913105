/*
 * A segment's columns as others search in them: entries by LSN, batches by entry, frames by place, events, the summary for
 * index pages. Point sources go through a hundred thousand entries here without an object for each. Made by sealSegment and
 * readSegmentFooter (segment-object.ts, docs/formats/segment.md).
 */
import type { ExtentRun, LogEvent, SegmentRef, SegmentSummary } from "#shared/domain/archive.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { extentsMax } from "./archive-shape.ts";
import type { ObjectFrame } from "./object-frame.ts";
import type { SegmentColumns } from "./segment-columns.ts";

export class SegmentIndex {
  readonly columns: SegmentColumns;
  /** The columns' own, for short. An entry's LSN is firstLsn + its number. */
  readonly kinds: Uint8Array;
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  readonly places: Uint32Array;
  readonly frames: readonly ObjectFrame[];
  readonly volumeId: string;
  readonly line: string;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly recordBytes: number;
  readonly previousChecksum: bigint;
  /** Checksum and epoch of the last batch: what the next segment chains to. */
  readonly lastChecksum: bigint;
  readonly lastEpoch: number;
  /** Entries that change more than bytes, ascending. */
  readonly events: readonly LogEvent[];

  /** The columns hold the rules of columnsMistake. */
  constructor(columns: SegmentColumns) {
    this.columns = columns;
    this.kinds = columns.kinds;
    this.offsets = columns.offsets;
    this.lengths = columns.lengths;
    this.places = columns.places;
    this.frames = columns.frames;
    this.volumeId = columns.volumeId;
    this.line = columns.line;
    this.firstLsn = columns.firstLsn;
    this.lastLsn = columns.lastLsn;
    this.recordBytes = columns.recordBytes;
    this.previousChecksum = columns.previousChecksum;
    this.lastChecksum = columns.checksums.at(-1) ?? 0n;
    this.lastEpoch = columns.epochs.at(-1) ?? 0;
    this.events = this.readEvents();
  }

  get batchCount(): number {
    return this.columns.checksums.length;
  }

  get entryCount(): number {
    return this.kinds.length;
  }

  /** Entries [start, end) are those with LSNs in (fromLsn, toLsn]. */
  entryRange(fromLsn: number, toLsn: number): { readonly start: number; readonly end: number } {
    const clamp = (entry: number): number => Math.min(Math.max(entry, 0), this.entryCount);
    const start = clamp(fromLsn + 1 - this.firstLsn);
    return { start, end: Math.max(start, clamp(toLsn + 1 - this.firstLsn)) };
  }

  /** Number of the batch that holds an entry. */
  batchOf(entry: number): number {
    const { batchEntries } = this.columns;
    let low = 0;
    let high = batchEntries.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((batchEntries[middle] as number) <= entry) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Wall time of the batch that holds an entry. */
  wallTimeOf(entry: number): number {
    return this.columns.wallTimes[this.batchOf(entry)] as number;
  }

  /** The frame that holds a byte of the record stream. */
  frameOf(place: number): ObjectFrame {
    return this.frames[Math.floor(place / limits.archiveFrameBytes)] as ObjectFrame;
  }

  /** Frames that hold bytes [place, place + length) of the record stream, in order. */
  framesOf(place: number, length: number): readonly ObjectFrame[] {
    const unit = limits.archiveFrameBytes;
    return this.frames.slice(Math.floor(place / unit), Math.ceil((place + length) / unit));
  }

  private readEvents(): LogEvent[] {
    const events: LogEvent[] = [];
    const { texts, epochs } = this.columns;
    let textsUsed = 0;
    for (let entry = 0; entry < this.entryCount; entry += 1) {
      const kind = this.kinds[entry] as number;
      if (kind <= entryKind.trim) continue;
      const lsn = this.firstLsn + entry;
      const batch = this.batchOf(entry);
      const wallTimeMs = this.columns.wallTimes[batch] as number;
      const value = this.offsets[entry] as number;
      if (kind === entryKind.epoch) {
        const writer = texts[textsUsed++] ?? "";
        events.push({ kind: "epoch", lsn, wallTimeMs, writer, epoch: epochs[batch] as number });
      } else if (kind === entryKind.mark) {
        events.push({ kind: "mark", lsn, wallTimeMs, name: texts[textsUsed++] ?? "" });
      } else if (kind === entryKind.resize) {
        events.push({ kind: "resize", lsn, wallTimeMs, sizeBytes: value });
      } else {
        events.push({ kind: "rebase", lsn, wallTimeMs, toLsn: value });
      }
    }
    return events;
  }
}

/** What a manifest says of the segment. */
export function segmentRefOf(
  index: SegmentIndex,
  key: string,
  bytes: number,
  footerStart: number,
): SegmentRef {
  const { wallTimes } = index.columns;
  return {
    key,
    firstLsn: index.firstLsn,
    lastLsn: index.lastLsn,
    bytes,
    footerStart,
    recordBytes: index.recordBytes,
    wallMinMs: wallTimes.reduce((least, time) => Math.min(least, time)),
    wallMaxMs: wallTimes.reduce((greatest, time) => Math.max(greatest, time)),
  };
}

/** What an index page says of the segment. */
export function summaryOf(index: SegmentIndex, ref: SegmentRef): SegmentSummary {
  let writes = 0;
  let writeBytes = 0;
  let zeroes = 0;
  let zeroBytes = 0;
  for (let entry = 0; entry < index.entryCount; entry += 1) {
    const kind = index.kinds[entry] as number;
    const length = index.lengths[entry] as number;
    if (kind === entryKind.write) {
      writes += 1;
      writeBytes += length;
    } else if (kind <= entryKind.trim) {
      zeroes += 1;
      // Trims of a whole large disk, time and again, would leave the numbers that JSON holds exactly.
      zeroBytes = Math.min(zeroBytes + length, Number.MAX_SAFE_INTEGER);
    }
  }
  const { key, firstLsn, lastLsn, bytes, footerStart, recordBytes, wallMinMs, wallMaxMs } = ref;
  return {
    key,
    firstLsn,
    lastLsn,
    bytes,
    footerStart,
    recordBytes,
    wallMinMs,
    wallMaxMs,
    writes,
    writeBytes,
    zeroes,
    zeroBytes,
    extents: touchedExtents(index),
    events: index.events,
  };
}

/** Runs of extents that an entry may have changed: all of them, and where the list would be too long, some more. */
export function touchedExtents(index: SegmentIndex): ExtentRun[] {
  const touched: { first: number; end: number }[] = [];
  for (let entry = 0; entry < index.entryCount; entry += 1) {
    const kind = index.kinds[entry] as number;
    const offset = index.offsets[entry] as number;
    let first = Math.floor(offset / limits.extentBytes);
    let end = extentsMax;
    if (kind === entryKind.epoch || kind === entryKind.mark) continue;
    if (kind === entryKind.rebase) first = 0;
    // A resize touches from its end on: those extents read as zero after it, and stay so when the disk grows again.
    else if (kind !== entryKind.resize)
      end = Math.ceil((offset + (index.lengths[entry] as number)) / limits.extentBytes);
    const last = touched.at(-1);
    if (last === undefined || first < last.first || end > last.end) touched.push({ first, end });
  }
  touched.sort((one, other) => one.first - other.first);
  const merged: { first: number; end: number }[] = [];
  for (const { first, end } of touched) {
    const last = merged.at(-1);
    if (last !== undefined && first <= last.end) last.end = Math.max(last.end, end);
    else merged.push({ first, end });
  }
  return shortened(merged).map(({ first, end }) => ({ first, count: end - first }));
}

/** Closes the smallest holes, the lower one of two equal ones, until the list is short enough. */
function shortened<T extends { readonly first: number; readonly end: number }>(runs: readonly T[]) {
  const surplus = runs.length - limits.summaryExtentRunsMax;
  if (surplus <= 0) return runs;
  const hole = (index: number): number => (runs[index]?.first ?? 0) - (runs[index - 1]?.end ?? 0);
  const holes = Array.from({ length: runs.length - 1 }, (_, index) => index + 1);
  holes.sort((one, other) => hole(one) - hole(other) || one - other);
  const closed = new Set(holes.slice(0, surplus));
  const kept: { first: number; end: number }[] = [];
  for (const [index, run] of runs.entries()) {
    const last = kept.at(-1);
    if (last !== undefined && closed.has(index)) last.end = run.end;
    else kept.push({ first: run.first, end: run.end });
  }
  return kept;
}
