/*
 * What a segment holds, batch by batch and entry by entry, in columns (docs/formats/segment.md#footer). readColumns makes them
 * from the records on the way in; segment-footer.ts reads and writes them; segment-index.ts is what others search in.
 * columnsMistake is the one rule for both directions.
 */

import type { Entry } from "#shared/domain/entry.ts";
import { entryKind, isEntryRange, isEntryValue } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { bad, idPattern, roundUp } from "./binary-fields.ts";
import { isBadRecord, readRecord } from "./log-record.ts";
import { frameMistake, type ObjectFrame } from "./object-frame.ts";
import type { BadObject } from "./sealed-object.ts";

export interface SegmentColumns {
  readonly volumeId: string;
  readonly line: string;
  readonly firstLsn: number;
  readonly lastLsn: number;
  /** Length of the record stream. */
  readonly recordBytes: number;
  /** Checksum of the batch before the first one, 0n at a line's start. */
  readonly previousChecksum: bigint;
  /** Per batch: its record's place in the stream, number of its first entry, and fields of the record. */
  readonly batchPlaces: Uint32Array;
  readonly batchEntries: Uint32Array;
  readonly wallTimes: Float64Array;
  readonly epochs: Float64Array;
  readonly checksums: BigUint64Array;
  /** Per entry: its kind (shared/domain/entry.ts); offset (resize: the size; rebase: the LSN; else 0); length. */
  readonly kinds: Uint8Array;
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  /** Per entry: place of a write's first byte in the record stream, 0 for others. */
  readonly places: Uint32Array;
  /** Writers and names of epoch and mark entries, in order. */
  readonly texts: readonly string[];
  readonly frames: readonly ObjectFrame[];
}

/** The longest record stream: sealed at segmentRecordBytes, and the batch that passes them fits behind. */
export const segmentStreamBytesMax: number =
  limits.segmentRecordBytes + limits.batchHeaderBytesMax + limits.batchPayloadBytesMax;

/** The columns of a stream of records, but for its frames. Every record is checked, and that they follow one another. */
export function readColumns(volumeId: string, stream: Buffer): Omit<SegmentColumns, "frames"> | BadObject {
  const batchPlaces: number[] = [];
  const batchEntries: number[] = [];
  const wallTimes: number[] = [];
  const epochs: number[] = [];
  const checksums: bigint[] = [];
  const kinds: number[] = [];
  const offsets: number[] = [];
  const lengths: number[] = [];
  const places: number[] = [];
  const texts: string[] = [];
  let first: { line: string; firstLsn: number; previousChecksum: bigint } | null = null;
  for (let place = 0; place < stream.length; ) {
    const batch = readRecord(stream, place);
    if (isBadRecord(batch)) return bad("fields", `record at ${place}: ${batch.detail}`);
    first ??= batch;
    const follows = batch.line === first.line && batch.firstLsn === first.firstLsn + kinds.length;
    if (!follows || batch.previousChecksum !== (checksums.at(-1) ?? first.previousChecksum)) {
      return bad("fields", `record at ${place} does not follow the one before`);
    }
    batchPlaces.push(place);
    batchEntries.push(kinds.length);
    wallTimes.push(batch.wallTimeMs);
    epochs.push(batch.epoch);
    checksums.push(batch.checksum);
    const payloadPlace = place + limits.batchHeaderBytesMax;
    for (const entry of batch.entries) {
      kinds.push(entryKind[entry.kind]);
      offsets.push("offset" in entry ? entry.offset : numberOf(entry));
      lengths.push("length" in entry ? entry.length : 0);
      places.push(entry.kind === "write" ? payloadPlace + entry.payloadStart : 0);
      if (entry.kind === "epoch") texts.push(entry.writer);
      if (entry.kind === "mark") texts.push(entry.name);
    }
    place = roundUp(payloadPlace + batch.payload.length, limits.blockBytes);
  }
  if (first === null) return bad("fields", "a segment without records");
  return {
    volumeId,
    line: first.line,
    firstLsn: first.firstLsn,
    lastLsn: first.firstLsn + kinds.length - 1,
    recordBytes: stream.length,
    previousChecksum: first.previousChecksum,
    batchPlaces: Uint32Array.from(batchPlaces),
    batchEntries: Uint32Array.from(batchEntries),
    wallTimes: Float64Array.from(wallTimes),
    epochs: Float64Array.from(epochs),
    checksums: BigUint64Array.from(checksums),
    kinds: Uint8Array.from(kinds),
    offsets: Float64Array.from(offsets),
    lengths: Float64Array.from(lengths),
    places: Uint32Array.from(places),
    texts,
  };
}

function numberOf(entry: Entry): number {
  if (entry.kind === "resize") return entry.sizeBytes;
  return entry.kind === "rebase" ? entry.lsn : 0;
}

/** What is wrong with columns, or null. `framesStart` and `framesEnd` say where their frames stand in the object. */
export function columnsMistake(
  columns: SegmentColumns,
  framesStart: number,
  framesEnd: number,
): string | null {
  const { volumeId, line, firstLsn, lastLsn, recordBytes, kinds } = columns;
  if (!idPattern.test(volumeId) || !idPattern.test(line)) return "volume id or line";
  const lsnsHold = Number.isSafeInteger(lastLsn) && firstLsn >= 1 && lastLsn - firstLsn + 1 === kinds.length;
  if (!lsnsHold) return `LSN ${firstLsn} to ${lastLsn} for ${kinds.length} entries`;
  const isWhole = recordBytes > 0 && recordBytes % limits.blockBytes === 0;
  if (!isWhole || recordBytes > segmentStreamBytesMax) return `${recordBytes} bytes of records`;
  return batchesMistake(columns) ?? framesMistake(columns, framesStart, framesEnd);
}

/** Batches lie one behind the other, and the entries of each fill it. */
function batchesMistake(columns: SegmentColumns): string | null {
  const { batchPlaces, batchEntries, wallTimes, epochs, kinds, recordBytes } = columns;
  let textsUsed = 0;
  for (let batch = 0; batch < batchPlaces.length; batch += 1) {
    const place = batchPlaces[batch] as number;
    const nextPlace = batchPlaces[batch + 1] ?? recordBytes;
    const firstEntry = batchEntries[batch] as number;
    const nextEntry = batchEntries[batch + 1] ?? kinds.length;
    const count = nextEntry - firstEntry;
    if ((batch === 0 && (place !== 0 || firstEntry !== 0)) || count < 1 || count > limits.batchEntriesMax) {
      return `batch ${batch} has ${count} entries`;
    }
    const epoch = epochs[batch] as number;
    const timesHold = Number.isSafeInteger(wallTimes[batch]) && Number.isSafeInteger(epoch);
    if (!timesHold || epoch < 1 || epoch < (epochs[batch - 1] ?? 1))
      return `batch ${batch} has epoch ${epoch}`;
    const payloadPlace = place + limits.batchHeaderBytesMax;
    let payloadEnd = payloadPlace;
    for (let entry = firstEntry; entry < nextEntry; entry += 1) {
      const mistake = entryMistake(columns, entry, payloadEnd, textsUsed);
      if (mistake !== null) return `entry ${entry}: ${mistake}`;
      const kind = columns.kinds[entry];
      if (kind === entryKind.write) payloadEnd += columns.lengths[entry] as number;
      if (kind === entryKind.epoch || kind === entryKind.mark) textsUsed += 1;
    }
    const fits = payloadEnd - payloadPlace <= limits.batchPayloadBytesMax;
    if (!fits || roundUp(payloadEnd, limits.blockBytes) !== nextPlace) {
      return `batch ${batch} at ${place} does not end at ${nextPlace}`;
    }
  }
  return textsUsed === columns.texts.length ? null : `${columns.texts.length} texts for ${textsUsed} entries`;
}

function entryMistake(
  columns: SegmentColumns,
  entry: number,
  payloadEnd: number,
  textsUsed: number,
): string | null {
  const kind = columns.kinds[entry] as number;
  const offset = columns.offsets[entry] as number;
  const length = columns.lengths[entry] as number;
  const place = columns.places[entry] as number;
  if (place !== (kind === entryKind.write ? payloadEnd : 0)) return `payload at ${place}`;
  if (kind <= entryKind.trim) return isEntryRange(offset, length) ? null : `range ${offset} + ${length}`;
  if (length !== 0) return `kind ${kind} with a length`;
  switch (kind) {
    case entryKind.epoch:
    case entryKind.mark: {
      const text = columns.texts[textsUsed];
      return offset === 0 && text !== undefined && isEntryValue(kind, text) ? null : `text ${text}`;
    }
    case entryKind.resize:
      return isEntryValue(kind, offset) ? null : `size ${offset}`;
    case entryKind.rebase:
      return isEntryValue(kind, offset) && offset < columns.firstLsn + entry ? null : `rebase to ${offset}`;
    default:
      return `kind ${kind}`;
  }
}

/** Frames cover the stream in pieces of 256 KiB and stand one behind the other. */
function framesMistake(columns: SegmentColumns, framesStart: number, framesEnd: number): string | null {
  const { frames, recordBytes } = columns;
  if (frames.length !== Math.ceil(recordBytes / limits.archiveFrameBytes)) {
    return `${frames.length} frames for ${recordBytes} bytes`;
  }
  let at = framesStart;
  for (const frame of frames) {
    const mistake = frame.coding === 0 ? `frame ${frame.number} has coding 0` : frameMistake(frame);
    if (mistake !== null) return mistake;
    if (frame.objectOffset !== at) return `frame ${frame.number} at ${frame.objectOffset}, not at ${at}`;
    at += frame.storedBytes;
  }
  return at === framesEnd ? null : `frames end at ${at}, not at ${framesEnd}`;
}
