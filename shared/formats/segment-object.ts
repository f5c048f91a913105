/*
 * A segment in the bucket (docs/formats/segment.md): head, frames of the record stream, footer, trailer. The archiver gathers
 * batches with a SegmentBuilder on the event loop and hands the stream to a worker, where sealSegment makes the object;
 * point sources read the footer, then the frames they need.
 */
import type { SegmentRef, SegmentSummary } from "#shared/domain/archive.ts";
import { segmentKey } from "#shared/domain/archive.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { bad, readInteger, writeInteger } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import { frameCoding, type ObjectFrame, openFrame, packFrame } from "./object-frame.ts";
import { ObjectRoom } from "./object-room.ts";
import {
  type BadObject,
  decompress,
  digestHolds,
  isBadObject,
  versionFault,
  writeDigests,
} from "./sealed-object.ts";
import { readColumns, type SegmentColumns, segmentStreamBytesMax } from "./segment-columns.ts";
import { decodeFooter, encodeFooter, writeIdentity } from "./segment-footer.ts";
import { SegmentIndex, segmentRefOf, summaryOf } from "./segment-index.ts";

export const segmentVersion = 1;
export const segmentHeadBytes = 64;
/** Fixed size at the object's end: 40 bytes that say where the footer is, then the SHA-256. */
export const segmentTrailerBytes = 72;
const headMagic = "VSGM";
const trailerMagic = "VSGE";

/** Whose segments these are; with first and last LSN it makes the key. */
export interface SegmentOwner {
  readonly volumeId: string;
  readonly line: string;
  readonly archiverEpoch: number;
}

/** The records of a segment to be, as they go to the worker. */
export interface SegmentStream extends SegmentOwner {
  readonly firstLsn: number;
  readonly lastLsn: number;
  /**
   * Shared with the worker, and used again and again: memory that is made and transferred for each segment counts as the heap's, and
   * makes V8 collect the whole heap after every second one.
   */
  readonly records: SharedArrayBuffer;
  /** Bytes of `records` that are used. */
  readonly recordBytes: number;
}

/** A batch's record, and what a segment's builder has to know of it. */
export interface RecordFacts extends Pick<Batch, "firstLsn" | "previousChecksum" | "checksum"> {
  readonly record: Uint8Array;
  readonly entryCount: number;
  /** Entries that change more than bytes: epochs, marks, resizes, rebases. */
  readonly eventCount: number;
}

/** Gathers batches of one line, in order. One memory is filled, one spare waits; more are given back by reuse(). */
export class SegmentBuilder {
  private readonly owner: SegmentOwner;
  private memory: SharedArrayBuffer | null = null;
  private spare: SharedArrayBuffer | null = null;
  private used = 0;
  private events = 0;
  private first = 0;
  private last = 0;
  private lastChecksum: bigint | null = null;

  constructor(owner: SegmentOwner) {
    this.owner = owner;
  }

  get empty(): boolean {
    return this.used === 0;
  }

  /** Take before the next add: bytes or events of a whole segment are here. */
  get full(): boolean {
    return this.used >= limits.segmentRecordBytes || this.events >= limits.segmentEventsMax;
  }

  get recordBytes(): number {
    return this.used;
  }

  /** 0 while nothing was ever added; lastLsn stays after take(). */
  get firstLsn(): number {
    return this.first;
  }

  get lastLsn(): number {
    return this.last;
  }

  /** Copies the batch's record. It continues the one before, also across take(). */
  add(batch: Batch & { readonly record: Uint8Array }): void {
    invariant(batch.line === this.owner.line, "a segment is of one line");
    const { entries } = batch;
    const eventCount = entries.reduce((sum, { kind }) => sum + (entryKind[kind] > entryKind.trim ? 1 : 0), 0);
    this.addRecord({ ...batch, entryCount: entries.length, eventCount });
  }

  /** The same for who knows the batch's facts without its entries. */
  addRecord(batch: RecordFacts): void {
    const { record, firstLsn } = batch;
    invariant(!this.full, "a full segment is taken before the next batch");
    invariant(record.length % limits.blockBytes === 0, "a segment's records are whole blocks");
    if (this.lastChecksum !== null) {
      invariant(firstLsn === this.last + 1, "a segment's batches follow one another");
      invariant(batch.previousChecksum === this.lastChecksum, "a segment's batches are chained");
    }
    this.memory ??= this.spare ?? new SharedArrayBuffer(segmentStreamBytesMax);
    if (this.memory === this.spare) this.spare = null;
    new Uint8Array(this.memory).set(record, this.used);
    if (this.used === 0) this.first = firstLsn;
    this.used += record.length;
    this.last = firstLsn + batch.entryCount - 1;
    this.lastChecksum = batch.checksum;
    this.events += batch.eventCount;
  }

  /** What was gathered; the builder is empty afterwards. */
  take(): SegmentStream {
    const records = this.memory;
    invariant(records !== null && this.used > 0, "a segment has batches");
    const { first: firstLsn, last: lastLsn, used: recordBytes } = this;
    this.memory = null;
    this.used = 0;
    this.events = 0;
    return { ...this.owner, firstLsn, lastLsn, records, recordBytes };
  }

  /** Takes a stream's memory back, for a later segment. */
  reuse(records: SharedArrayBuffer): void {
    if (records.byteLength === segmentStreamBytesMax) this.spare ??= records;
  }
}

export interface SealedSegment {
  readonly object: Buffer;
  /** Of the whole object, 64 hex digits. */
  readonly sha256: string;
  readonly ref: SegmentRef;
  readonly summary: SegmentSummary;
  /** Of the last batch: what manifests record as archived. */
  readonly lastChecksum: bigint;
  readonly lastEpoch: number;
}

/** Makes the object, in `room`. `level` is zstd's; 0 stores frames and footer as they are. Bad records are a BadObject, not an object. */
export function sealSegment(
  stream: SegmentStream,
  level: number,
  room: ObjectRoom = new ObjectRoom(),
): SealedSegment | BadObject {
  const records = Buffer.from(stream.records, 0, stream.recordBytes);
  const read = readColumns(stream.volumeId, records);
  if (isBadObject(read)) return read;
  invariant(
    read.line === stream.line && read.firstLsn === stream.firstLsn,
    "a stream is what its owner says",
  );
  invariant(read.lastLsn === stream.lastLsn, "a stream is as long as its owner says");
  const frames: ObjectFrame[] = [];
  room.begin(segmentHeadBytes + records.length + segmentTrailerBytes);
  room.addZeroes(segmentHeadBytes);
  for (let place = 0; place < records.length; place += limits.archiveFrameBytes) {
    const raw = records.subarray(place, place + limits.archiveFrameBytes);
    frames.push({ number: frames.length, place, rawBytes: raw.length, ...packFrame(room, raw, level) });
  }
  const columns: SegmentColumns = { ...read, frames };
  const footer = encodeFooter(columns);
  const footerStart = room.bytes;
  const { isCompressed } = room.add(footer, level);
  room.addZeroes(segmentTrailerBytes);
  const { object } = room;
  invariant(object.length <= limits.objectBytesMax, `a segment fits: ${object.length} bytes`);
  writeHead(object, columns);
  const coding = isCompressed ? frameCoding.zstd : frameCoding.stored;
  writeTrailer(object, footerStart, footer.length, coding);
  const sha256 = writeDigests(object, room.beforePiece);
  const index = new SegmentIndex(columns);
  const key = segmentKey(stream, index.firstLsn, index.lastLsn);
  const ref = segmentRefOf(index, key, object.length, footerStart);
  return {
    object,
    sha256,
    ref,
    summary: summaryOf(index, ref),
    lastChecksum: index.lastChecksum,
    lastEpoch: index.lastEpoch,
  };
}

function writeHead(head: Buffer, columns: SegmentColumns): void {
  head.write(headMagic, 0, 4, "latin1");
  head.writeUInt16LE(segmentVersion, 4);
  head.writeUInt16LE(0, 6);
  writeIdentity(head, 8, columns);
}

function writeTrailer(object: Buffer, footerStart: number, footerRawBytes: number, coding: number): void {
  const at = object.length - segmentTrailerBytes;
  writeInteger(object, at, footerStart);
  object.writeUInt32LE(at - footerStart, at + 8);
  object.writeUInt32LE(footerRawBytes, at + 12);
  object.writeUInt32LE(coding, at + 16);
  object.writeUInt32LE(0, at + 20);
  object.write(trailerMagic, at + 24, 4, "latin1");
  object.writeUInt16LE(segmentVersion, at + 28);
  object.writeUInt16LE(0, at + 30);
  object.writeBigUInt64LE(checksumOf(object.subarray(footerStart, at + 32)), at + 32);
}

/**
 * The index from the object's end: bytes [footerStart, objectBytes), or more before them. Where the footer starts earlier
 * than `tail` does, the fault is `truncated`.
 */
export function readSegmentFooter(tail: Buffer, objectBytes: number): SegmentIndex | BadObject {
  const at = tail.length - segmentTrailerBytes;
  if (at < 0) return bad("truncated", `${tail.length} of at least ${segmentTrailerBytes} bytes`);
  if (tail.toString("latin1", at + 24, at + 28) !== trailerMagic) {
    return bad("notThisKind", "no segment ends here");
  }
  const tailStart = objectBytes - tail.length;
  const footerStart = readInteger(tail, at);
  const packedBytes = tail.readUInt32LE(at + 8);
  if (footerStart < segmentHeadBytes || footerStart + packedBytes + segmentTrailerBytes !== objectBytes) {
    return bad("checksum", `a footer at ${footerStart} in an object of ${objectBytes} bytes`);
  }
  if (footerStart < tailStart) return bad("truncated", `the footer starts at ${footerStart}`);
  const from = footerStart - tailStart;
  if (checksumOf(tail.subarray(from, at + 32)) !== tail.readBigUInt64LE(at + 32)) {
    return bad("checksum", "the footer's checksum does not match its bytes");
  }
  const newer = versionFault(tail, at + 28, segmentVersion, "segment");
  if (newer !== null) return newer;
  const footer = unpackFooter(tail.subarray(from, at), tail, at);
  if (isBadObject(footer)) return footer;
  const columns = decodeFooter(footer, segmentHeadBytes, footerStart);
  return isBadObject(columns) ? columns : new SegmentIndex(columns);
}

function unpackFooter(packed: Buffer, tail: Buffer, at: number): Buffer | BadObject {
  const rawBytes = tail.readUInt32LE(at + 12);
  const coding = tail.readUInt32LE(at + 16);
  if (rawBytes > limits.objectBytesMax || tail.readUInt32LE(at + 20) !== 0) {
    return bad("lengths", `a footer of ${rawBytes} bytes`);
  }
  if (coding === frameCoding.stored && packed.length === rawBytes) return packed;
  if (coding !== frameCoding.zstd) return bad("lengths", `footer coding ${coding}`);
  return (
    decompress(packed, rawBytes) ?? bad("compression", `the footer does not decompress to ${rawBytes} bytes`)
  );
}

/** Checks a whole object: SHA-256, head, frames, every record and its payload, and that the footer says what they say. */
export function openSegment(
  object: Buffer,
): { readonly index: SegmentIndex; readonly stream: Buffer } | BadObject {
  const least = segmentHeadBytes + segmentTrailerBytes;
  if (object.length < least) return bad("truncated", `${object.length} of at least ${least} bytes`);
  if (object.toString("latin1", 0, 4) !== headMagic) return bad("notThisKind", "no segment starts here");
  if (!digestHolds(object)) return bad("checksum", "the object's SHA-256 does not match its bytes");
  const newer = versionFault(object, 4, segmentVersion, "segment");
  if (newer !== null) return newer;
  const index = readSegmentFooter(object, object.length);
  if (isBadObject(index)) return index;
  const { columns } = index;
  const head = Buffer.alloc(segmentHeadBytes);
  writeHead(head, columns);
  if (!head.equals(object.subarray(0, segmentHeadBytes))) return bad("fields", "head and footer differ");
  const pieces: Buffer[] = [];
  for (const frame of index.frames) {
    const raw = openFrame(object.subarray(frame.objectOffset, frame.objectOffset + frame.storedBytes), frame);
    if (isBadObject(raw)) return raw;
    pieces.push(raw);
  }
  const stream = Buffer.concat(pieces);
  const read = readColumns(columns.volumeId, stream);
  if (isBadObject(read)) return read;
  const same = encodeFooter({ ...read, frames: columns.frames }).equals(encodeFooter(columns));
  return same ? { index, stream } : bad("fields", "the footer is not what its records say");
}
