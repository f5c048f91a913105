/*
 * The footer of a segment in bytes (docs/formats/segment.md#footer): head, columns of eight, four and one bytes, texts.
 * segment-object.ts compresses and frames it. Reading checks every count against the length before anything is allocated.
 */
import { limits } from "#shared/domain/limits.ts";
import { bad, readInteger, writeInteger } from "./binary-fields.ts";
import { type FrameCoding, type ObjectFrame } from "./object-frame.ts";
import type { BadObject } from "./sealed-object.ts";
import { columnsMistake, type SegmentColumns, segmentStreamBytesMax } from "./segment-columns.ts";

const footerHeadBytes = 64;
/** Bytes that a batch, an entry and a frame take in all columns together. */
const batchBytes = 3 * 8 + 2 * 4;
const entryBytes = 2 * 8 + 4 + 1;
const frameBytes = 8 + 2 * 4 + 1;

/** A place that moves on with each value, in either direction. */
class Cursor {
  readonly bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  put8(values: Iterable<number>): void {
    for (const value of values) {
      writeInteger(this.bytes, this.at, value);
      this.at += 8;
    }
  }

  put4(values: Iterable<number>): void {
    for (const value of values) this.at = this.bytes.writeUInt32LE(value, this.at);
  }

  put1(values: Iterable<number>): void {
    for (const value of values) this.at = this.bytes.writeUInt8(value, this.at);
  }

  putWide(values: Iterable<bigint>): void {
    for (const value of values) this.at = this.bytes.writeBigUInt64LE(value, this.at);
  }

  take8(count: number): Float64Array {
    const values = new Float64Array(count);
    for (let index = 0; index < count; index += 1)
      values[index] = readInteger(this.bytes, this.at + index * 8);
    this.at += count * 8;
    return values;
  }

  take4(count: number): Uint32Array {
    const values = new Uint32Array(count);
    for (let index = 0; index < count; index += 1)
      values[index] = this.bytes.readUInt32LE(this.at + index * 4);
    this.at += count * 4;
    return values;
  }

  take1(count: number): Uint8Array {
    const values = Uint8Array.from(this.bytes.subarray(this.at, this.at + count));
    this.at += count;
    return values;
  }

  takeWide(count: number): BigUint64Array {
    const values = new BigUint64Array(count);
    for (let index = 0; index < count; index += 1) {
      values[index] = this.bytes.readBigUInt64LE(this.at + index * 8);
    }
    this.at += count * 8;
    return values;
  }
}

/** Writes the fields that a segment's head and its footer share: 48 bytes at `at`. */
export function writeIdentity(bytes: Buffer, at: number, columns: SegmentColumns): void {
  bytes.write(columns.volumeId, at, 8, "hex");
  bytes.write(columns.line, at + 8, 8, "hex");
  writeInteger(bytes, at + 16, columns.firstLsn);
  writeInteger(bytes, at + 24, columns.lastLsn);
  bytes.writeBigUInt64LE(columns.previousChecksum, at + 32);
  bytes.writeUInt32LE(columns.recordBytes, at + 40);
  bytes.writeUInt32LE(columns.frames.length, at + 44);
}

/** The footer's raw bytes. */
export function encodeFooter(columns: SegmentColumns): Buffer {
  const { batchPlaces, batchEntries, kinds, texts, frames } = columns;
  const textBytes = texts.reduce((sum, text) => sum + 1 + text.length, 0);
  const fixed =
    footerHeadBytes +
    batchPlaces.length * batchBytes +
    kinds.length * entryBytes +
    frames.length * frameBytes;
  const footer = Buffer.alloc(fixed + textBytes);
  writeIdentity(footer, 0, columns);
  footer.writeUInt32LE(batchPlaces.length, 48);
  footer.writeUInt32LE(kinds.length, 52);
  footer.writeUInt32LE(textBytes, 56);
  footer.writeUInt32LE(0, 60);
  const cursor = new Cursor(footer, footerHeadBytes);
  cursor.put8(columns.wallTimes);
  cursor.put8(columns.epochs);
  cursor.putWide(columns.checksums);
  cursor.put8(columns.offsets);
  cursor.put8(columns.lengths);
  cursor.putWide(frames.map((frame) => frame.checksum));
  cursor.put4(batchPlaces);
  cursor.put4(batchEntries);
  cursor.put4(columns.places);
  cursor.put4(frames.map((frame) => frame.objectOffset));
  cursor.put4(frames.map((frame) => frame.storedBytes));
  cursor.put1(kinds);
  cursor.put1(frames.map((frame) => frame.coding));
  for (const text of texts) {
    cursor.put1([text.length]);
    cursor.at += footer.write(text, cursor.at, "latin1");
  }
  return footer;
}

/** The columns of a footer whose checksum holds. Frames stand in [framesStart, framesEnd) of the object. */
export function decodeFooter(
  footer: Buffer,
  framesStart: number,
  framesEnd: number,
): SegmentColumns | BadObject {
  if (footer.length < footerHeadBytes) return bad("lengths", `a footer of ${footer.length} bytes`);
  const frames = footer.readUInt32LE(44);
  const batches = footer.readUInt32LE(48);
  const entries = footer.readUInt32LE(52);
  const length = footerHeadBytes + batches * batchBytes + entries * entryBytes + frames * frameBytes;
  const countsHold =
    length + footer.readUInt32LE(56) === footer.length &&
    footer.readUInt32LE(40) <= segmentStreamBytesMax &&
    batches >= 1 &&
    footer.readUInt32LE(60) === 0;
  if (!countsHold) {
    return bad("lengths", `${batches} batches, ${entries} entries in a footer of ${footer.length} bytes`);
  }
  const columns = readColumnsOf(footer, batches, entries, frames);
  if (columns === null) return bad("fields", "the footer's texts do not fill it");
  const mistake = columnsMistake(columns, framesStart, framesEnd);
  return mistake === null ? columns : bad("fields", mistake);
}

/** The columns in their order; null where the texts do not end with the footer. */
function readColumnsOf(
  footer: Buffer,
  batches: number,
  entries: number,
  frames: number,
): SegmentColumns | null {
  const recordBytes = footer.readUInt32LE(40);
  const cursor = new Cursor(footer, footerHeadBytes);
  const wallTimes = cursor.take8(batches);
  const epochs = cursor.take8(batches);
  const checksums = cursor.takeWide(batches);
  const offsets = cursor.take8(entries);
  const lengths = cursor.take8(entries);
  const frameChecksums = cursor.takeWide(frames);
  const batchPlaces = cursor.take4(batches);
  const batchEntries = cursor.take4(batches);
  const places = cursor.take4(entries);
  const frameOffsets = cursor.take4(frames);
  const frameStored = cursor.take4(frames);
  const kinds = cursor.take1(entries);
  const frameCodings = cursor.take1(frames);
  const texts = readTexts(footer, cursor.at);
  if (texts === null) return null;
  return {
    volumeId: footer.toString("hex", 0, 8),
    line: footer.toString("hex", 8, 16),
    firstLsn: readInteger(footer, 16),
    lastLsn: readInteger(footer, 24),
    recordBytes,
    previousChecksum: footer.readBigUInt64LE(32),
    batchPlaces,
    batchEntries,
    wallTimes,
    epochs,
    checksums,
    kinds,
    offsets,
    lengths,
    places,
    texts,
    frames: Array.from(frameChecksums, (checksum, number): ObjectFrame => {
      const place = number * limits.archiveFrameBytes;
      return {
        number,
        place,
        rawBytes: Math.min(limits.archiveFrameBytes, recordBytes - place),
        coding: frameCodings[number] as FrameCoding,
        objectOffset: frameOffsets[number] as number,
        storedBytes: frameStored[number] as number,
        checksum,
      };
    }),
  };
}

/** Texts [at, end), each behind its length; null where they do not end exactly. */
function readTexts(footer: Buffer, at: number): string[] | null {
  const texts: string[] = [];
  let from = at;
  while (from < footer.length) {
    const end = from + 1 + (footer[from] as number);
    if (end > footer.length) return null;
    texts.push(footer.toString("latin1", from + 1, end));
    from = end;
  }
  return texts;
}
