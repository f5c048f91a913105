/*
 * Shapes and order rules that several metadata objects share: ids, keys, references to segments, pages and bases, summaries
 * and events (docs/formats/manifest.md, docs/formats/index-page.md). Used by manifest-object.ts, index-page.ts, base-object.ts.
 */
import type { BaseRef, ExtentRun, IndexPageRef, SegmentRef, SegmentSummary } from "#shared/domain/archive.ts";
import { baseKey, basePageKey, indexPageKey, segmentKey } from "#shared/domain/archive.ts";
import { isEntryValue, isVolumeSize } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { volumeNameMistake } from "#shared/domain/volume.ts";
import { idPattern } from "./binary-fields.ts";
import { fields, integer, list, type Shape, tagged, text } from "./json-shape.ts";

/** Extents of the largest volume: a run that goes on to the end of everything ends here. */
export const extentsMax: number = limits.volumeBytesMax / limits.extentBytes;

export const id: Shape = text(idPattern);
export const lsn: Shape = integer(1);
export const volumeName: Shape = text(volumeNameMistake);
export const volumeSize: Shape = (value, at) =>
  typeof value === "number" && isVolumeSize(value) ? null : `${at} is no volume size`;
export const milliseconds: Shape = integer();
export const objectKey: Shape = text(/^[a-zA-Z0-9._/-]{1,512}$/);
const writer: Shape = (value, at) =>
  typeof value === "string" && isEntryValue(4, value) ? null : `${at} is no writer's name`;

const segmentFields = {
  key: objectKey,
  firstLsn: lsn,
  lastLsn: lsn,
  bytes: integer(1, limits.objectBytesMax),
  footerStart: integer(1, limits.objectBytesMax),
  recordBytes: integer(limits.blockBytes, limits.objectBytesMax),
  wallMinMs: milliseconds,
  wallMaxMs: milliseconds,
};

export const segmentRef: Shape = fields<SegmentRef>(segmentFields);

export const indexPageRef: Shape = fields<IndexPageRef>({
  key: objectKey,
  firstLsn: lsn,
  lastLsn: lsn,
  segments: integer(1, limits.manifestSegmentsMax),
  recordBytes: integer(limits.blockBytes),
  wallMinMs: milliseconds,
  wallMaxMs: milliseconds,
});

export const baseRef: Shape = fields<BaseRef>({
  key: objectKey,
  s: integer(),
  e: integer(),
  sizeBytes: volumeSize,
  newChunkBytes: integer(),
});

export const segmentSummary: Shape = fields<SegmentSummary>({
  ...segmentFields,
  writes: integer(),
  writeBytes: integer(),
  zeroes: integer(),
  zeroBytes: integer(),
  extents: list(
    fields<ExtentRun>({ first: integer(0, extentsMax - 1), count: integer(1, extentsMax) }),
    limits.summaryExtentRunsMax,
  ),
  events: list(
    tagged({
      epoch: { lsn, wallTimeMs: milliseconds, writer, epoch: integer(1) },
      mark: { lsn, wallTimeMs: milliseconds, name: volumeName },
      resize: { lsn, wallTimeMs: milliseconds, sizeBytes: volumeSize },
      rebase: { lsn, wallTimeMs: milliseconds, toLsn: lsn },
    }),
    limits.segmentEventsMax + limits.batchEntriesMax,
  ),
});

/** What is wrong with a segment's or page's reference in itself. */
export function rangeMistake(ref: SegmentRef | IndexPageRef): string | null {
  if (ref.firstLsn > ref.lastLsn) return `${ref.key}: first LSN ${ref.firstLsn} after ${ref.lastLsn}`;
  if (ref.wallMinMs > ref.wallMaxMs) return `${ref.key}: least wall time above the greatest`;
  if ("footerStart" in ref && ref.footerStart >= ref.bytes)
    return `${ref.key}: its footer starts past its end`;
  return null;
}

/** What is wrong with a summary in itself: its counts, runs and events. */
export function summaryMistake(summary: SegmentSummary): string | null {
  const { key, firstLsn, lastLsn, extents, events } = summary;
  const mistake = rangeMistake(summary);
  if (mistake !== null) return mistake;
  const entries = lastLsn - firstLsn + 1;
  if (summary.writes + summary.zeroes + events.length !== entries) {
    return `${key}: writes, zeroes and events are not its ${entries} entries`;
  }
  let end = -1;
  for (const run of extents) {
    if (run.first <= end || run.first + run.count > extentsMax) return `${key}: extent runs out of order`;
    end = run.first + run.count;
  }
  let last = firstLsn - 1;
  for (const event of events) {
    if (event.lsn <= last || event.lsn > lastLsn) return `${key}: event at LSN ${event.lsn} out of order`;
    if (event.kind === "rebase" && event.toLsn >= event.lsn) return `${key}: rebase to a later LSN`;
    last = event.lsn;
  }
  return null;
}

/** Line, archiver epoch and a base's serial at the end of a key, `.<line>.<epoch>[.<serial>].<ending>`. */
const keyEnd = /\.([0-9a-f]{16})\.([0-9]{8,16})(?:\.([0-9]{16}))?\.[a-z]+$/;

/** Whether a key is the one that its facts make. Keys carry the writer of their time, whoever names them now. */
function isKey(key: string, make: (of: KeyEnd) => string): boolean {
  const [, line, archiverEpoch, digits] = keyEnd.exec(key) ?? [];
  const serial = digits === undefined ? null : Number(digits);
  return line !== undefined && make({ line, archiverEpoch: Number(archiverEpoch), serial }) === key;
}

interface KeyEnd {
  readonly line: string;
  readonly archiverEpoch: number;
  readonly serial: number | null;
}

export function isSegmentKey(volumeId: string, ref: SegmentRef): boolean {
  return isKey(ref.key, (of) => segmentKey({ volumeId, ...of }, ref.firstLsn, ref.lastLsn));
}

export function isIndexPageKey(volumeId: string, ref: IndexPageRef): boolean {
  return isKey(ref.key, (of) => indexPageKey({ volumeId, ...of }, ref.firstLsn, ref.lastLsn));
}

export function isBaseKey(volumeId: string, base: { key: string; s: number; e: number }): boolean {
  return isKey(base.key, (of) => baseKey({ volumeId, ...of }, base.s, base.e, of.serial));
}

/** A base may name pages that an earlier base wrote, but only as its own volume's page of that number. */
export function isBasePageKey(volumeId: string, key: string, page: number): boolean {
  const serial = /\/pages\/([0-9]{16})-/.exec(key)?.[1];
  return serial !== undefined && isKey(key, (of) => basePageKey({ volumeId, ...of }, Number(serial), page));
}
