/*
 * The record of one batch in the log (docs/formats/log-record.md). The log adapters call frameRecord on the way in, between
 * BatchDraft and the disk, and readRecordHeader + readRecordPayload on the way out (recovery, follow, inspect), which yield
 * a Batch for the applier. Reading trusts nothing: each field is checked, garbage gives a typed result and never throws.
 */

import type { Batch } from "#shared/domain/batch.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { type Entry, entryKind, isEntryRange, isEntryValue } from "#shared/domain/entry.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  type BadBytes,
  bad,
  idPattern,
  isZero,
  readInteger,
  roundUp,
  writeInteger,
} from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import { PackedReader, packInto } from "./packed-header.ts";

/** "VBAT" as bytes. */
export const recordMagic = 0x5441_4256;
export const recordVersion = 1;
/** Place of the payload in log files, where a record is whole blocks; other homes pack tighter. */
export const recordPayloadStart = limits.batchHeaderBytesMax;
const payloadStartMin = 80;

/** What the log adds to a draft to make it a record. A reused object serves. */
export interface RecordFrame {
  readonly line: string;
  readonly epoch: number;
  readonly wallTimeMs: number;
  /** Greatest LSN known durable now. */
  readonly durableLsn: number;
  /** Checksum of the batch before, 0n for the first of a line. */
  readonly previousChecksum: bigint;
}

/** A checked header: everything of the batch but its payload. */
export interface RecordHeader extends Omit<Batch, "payload"> {
  readonly lastLsn: number;
  readonly recordBytes: number;
  readonly payloadStart: number;
  readonly payloadBytes: number;
  readonly payloadChecksum: bigint;
}

/**
 * Why bytes are no record. notARecord: no magic. truncated: fewer bytes than needed. headerChecksum, payloadChecksum: the
 * bytes changed. version, flags: intact, but written by something newer. lengths, fields, entries, padding: intact, but not
 * what any Varve writes.
 */
export type RecordFault =
  | "notARecord"
  | "truncated"
  | "headerChecksum"
  | "payloadChecksum"
  | "version"
  | "flags"
  | "lengths"
  | "fields"
  | "entries"
  | "padding";

export type BadRecord = BadBytes<RecordFault>;

/** Where a record stands: "blocks" in log files (payload at 4096, whole blocks), "packed" elsewhere. */
export type RecordHome = "blocks" | "packed";

const flat: (string | number)[] = [];
const root: [string, number, number, (string | number)[]] = ["", 0, 0, flat];

/**
 * Makes the draft's slab bytes [0, recordBytes) the record, in place, and sets the draft's epoch, wallTimeMs,
 * previousChecksum, checksum and recordBytes. The draft has its firstLsn, at least one entry and its payload in the slab.
 */
export function frameRecord(
  draft: BatchDraft<{ readonly bytes: Buffer; readonly address: number }>,
  frame: RecordFrame,
): void {
  const bytes = draft.slab.bytes;
  invariant(draft.entryCount > 0, "a record has entries");
  invariant(draft.firstLsn > frame.durableLsn, "a record's entries are not durable before it is written");
  invariant(Number.isSafeInteger(draft.lastLsn), "LSNs are safe integers");
  invariant(frame.epoch >= 1 && idPattern.test(frame.line), "a record has a line and an epoch");
  flattenEntries(draft);
  root[0] = frame.line;
  root[1] = frame.epoch;
  root[2] = frame.wallTimeMs;
  const headerBytes = packInto(bytes, limits.recordFixedBytes, root);
  invariant(headerBytes <= recordPayloadStart - limits.recordFixedBytes, "a draft's header fits its room");

  const payloadEnd = recordPayloadStart + draft.payloadBytes;
  const recordBytes = roundUp(payloadEnd, limits.blockBytes);
  bytes.fill(0, limits.recordFixedBytes + headerBytes, recordPayloadStart);
  if (payloadEnd < recordBytes) bytes.fill(0, payloadEnd, recordBytes);
  bytes.writeUInt32LE(recordMagic, 8);
  bytes.writeUInt16LE(recordVersion, 12);
  bytes.writeUInt16LE(0, 14);
  bytes.writeUInt32LE(recordBytes, 16);
  bytes.writeUInt32LE(recordPayloadStart, 20);
  bytes.writeUInt32LE(headerBytes, 24);
  bytes.writeUInt32LE(draft.payloadBytes, 28);
  writeInteger(bytes, 32, draft.firstLsn);
  bytes.writeUInt32LE(draft.entryCount, 40);
  bytes.writeUInt32LE(0, 44);
  writeInteger(bytes, 48, frame.durableLsn);
  bytes.writeBigUInt64LE(frame.previousChecksum, 56);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(recordPayloadStart, recordBytes)), 64);
  const checksum = checksumOf(bytes.subarray(8, recordPayloadStart));
  bytes.writeBigUInt64LE(checksum, 0);

  draft.epoch = frame.epoch;
  draft.wallTimeMs = frame.wallTimeMs;
  draft.previousChecksum = frame.previousChecksum;
  draft.checksum = checksum;
  draft.recordBytes = recordBytes;
}

/** The draft's entries as one flat list: kind and fields, entry after entry. */
function flattenEntries(draft: BatchDraft): void {
  let length = 0;
  for (let index = 0; index < draft.entryCount; index += 1) {
    const kind = draft.kinds[index] ?? 0;
    flat[length++] = kind;
    if (kind <= entryKind.trim) {
      flat[length++] = draft.offsets[index] ?? 0;
      flat[length++] = draft.lengths[index] ?? 0;
    } else {
      flat[length++] = draft.values.get(index) ?? 0;
    }
  }
  flat.length = length;
}

/**
 * Reads the header at `at`. In "blocks" it needs the whole first block, in "packed" all bytes up to the payload.
 * The version is judged only after the checksum: the layout of bytes 0 to 23 and the checksum never change.
 */
export function readRecordHeader(
  bytes: Buffer,
  at = 0,
  home: RecordHome = "blocks",
): RecordHeader | BadRecord {
  const available = bytes.length - at;
  const needed = home === "blocks" ? recordPayloadStart : payloadStartMin;
  if (available < needed) return bad("truncated", `${available} of ${needed} header bytes`);
  if (bytes.readUInt32LE(at + 8) !== recordMagic) return bad("notARecord", "no record starts here");
  const payloadStart = bytes.readUInt32LE(at + 20);
  const startFits =
    home === "blocks"
      ? payloadStart === recordPayloadStart
      : payloadStart >= payloadStartMin && payloadStart <= recordPayloadStart && payloadStart % 8 === 0;
  if (!startFits) return bad("headerChecksum", `payload start ${payloadStart}`);
  if (available < payloadStart) return bad("truncated", `${available} of ${payloadStart} header bytes`);
  const checksum = bytes.readBigUInt64LE(at);
  if (checksumOf(bytes.subarray(at + 8, at + payloadStart)) !== checksum) {
    return bad("headerChecksum", "the header's checksum does not match its bytes");
  }
  const version = bytes.readUInt16LE(at + 12);
  if (version !== recordVersion) return bad("version", `record version ${version}`);
  const flags = bytes.readUInt16LE(at + 14);
  if (flags !== 0) return bad("flags", `record flags ${flags}`);
  return readFields(bytes, at, payloadStart, checksum);
}

function readFields(
  bytes: Buffer,
  at: number,
  payloadStart: number,
  checksum: bigint,
): RecordHeader | BadRecord {
  const recordBytes = bytes.readUInt32LE(at + 16);
  const headerBytes = bytes.readUInt32LE(at + 24);
  const payloadBytes = bytes.readUInt32LE(at + 28);
  const entryCount = bytes.readUInt32LE(at + 40);
  if (
    payloadBytes > limits.batchPayloadBytesMax ||
    recordBytes !== recordBytesOf(payloadStart, payloadBytes) ||
    headerBytes > payloadStart - limits.recordFixedBytes ||
    entryCount < 1 ||
    entryCount > limits.batchEntriesMax
  ) {
    const found = `record ${recordBytes}, header ${headerBytes}, payload ${payloadBytes} bytes, ${entryCount} entries`;
    return bad("lengths", found);
  }
  const firstLsn = readInteger(bytes, at + 32);
  const durableLsn = readInteger(bytes, at + 48);
  const lastLsn = firstLsn + (entryCount - 1);
  const fieldsHold =
    firstLsn >= 1 &&
    Number.isSafeInteger(lastLsn) &&
    durableLsn < firstLsn &&
    bytes.readUInt32LE(at + 44) === 0;
  if (!fieldsHold) return bad("fields", `first LSN ${firstLsn}, durable LSN ${durableLsn}`);
  const headerEnd = at + limits.recordFixedBytes + headerBytes;
  if (!isZero(bytes, headerEnd, at + payloadStart)) return bad("padding", "header padding is not zero");

  const reader = new PackedReader(bytes, at + limits.recordFixedBytes, headerEnd);
  const parts = reader.array();
  const line = reader.text();
  const epoch = reader.number();
  const wallTimeMs = reader.number();
  if (!reader.ok || parts !== 4 || !idPattern.test(line) || epoch < 1) {
    return bad("fields", `line ${JSON.stringify(line)}, epoch ${epoch}`);
  }
  const entries = readEntries(reader, entryCount, firstLsn, payloadBytes);
  if (typeof entries === "string") return bad("entries", entries);
  return {
    line,
    epoch,
    firstLsn,
    lastLsn,
    wallTimeMs,
    durableLsn,
    previousChecksum: bytes.readBigUInt64LE(at + 56),
    checksum,
    entries,
    recordBytes,
    payloadStart,
    payloadBytes,
    payloadChecksum: bytes.readBigUInt64LE(at + 64),
  };
}

/** The entries, or what is wrong with them. */
function readEntries(
  reader: PackedReader,
  entryCount: number,
  firstLsn: number,
  payloadBytes: number,
): Entry[] | string {
  const valueCount = reader.array();
  const entries: Entry[] = [];
  let payloadStart = 0;
  let values = 0;
  for (let index = 0; index < entryCount; index += 1) {
    const kind = reader.number();
    const entry =
      kind <= entryKind.trim
        ? readRange(reader, kind, payloadStart)
        : readValue(reader, kind, firstLsn + index);
    if (entry === null || !reader.ok) return `entry ${firstLsn + index} of kind ${kind} is not valid`;
    values += kind <= entryKind.trim ? 3 : 2;
    if (entry.kind === "write") payloadStart += entry.length;
    entries.push(entry);
  }
  if (!reader.complete || values !== valueCount) return `${entryCount} entries do not fill the header`;
  if (payloadStart !== payloadBytes) return `entries take ${payloadStart} of ${payloadBytes} payload bytes`;
  return entries;
}

const rangeKinds = ["write", "zero", "zeroAllocated", "trim"] as const;

function readRange(reader: PackedReader, kind: number, payloadStart: number): Entry | null {
  const offset = reader.number();
  const length = reader.number();
  const name = rangeKinds[kind];
  if (!reader.ok || name === undefined || !isEntryRange(offset, length)) return null;
  return name === "write" ? { kind: name, offset, length, payloadStart } : { kind: name, offset, length };
}

function readValue(reader: PackedReader, kind: number, lsn: number): Entry | null {
  if (kind === entryKind.epoch) {
    const writer = reader.text();
    return isEntryValue(kind, writer) ? { kind: "epoch", writer } : null;
  }
  if (kind === entryKind.mark) {
    const name = reader.text();
    return isEntryValue(kind, name) ? { kind: "mark", name } : null;
  }
  if (kind === entryKind.resize) {
    const sizeBytes = reader.number();
    return isEntryValue(kind, sizeBytes) ? { kind: "resize", sizeBytes } : null;
  }
  if (kind === entryKind.rebase) {
    const to = reader.number();
    return isEntryValue(kind, to) && to < lsn ? { kind: "rebase", lsn: to } : null;
  }
  return null;
}

/**
 * Checks the payload of a record whose header was read from the same bytes and place, and gives the batch. Its payload is
 * a view of `bytes`.
 */
export function readRecordPayload(header: RecordHeader, bytes: Buffer, at = 0): Batch | BadRecord {
  const { recordBytes, payloadStart } = header;
  if (bytes.length - at < recordBytes) {
    return bad("truncated", `${bytes.length - at} of ${recordBytes} record bytes`);
  }
  return checkedBatch(header, bytes.subarray(at + payloadStart, at + recordBytes));
}

/** The same for a payload that lies elsewhere than behind its header: `blocks` is all of it and its padding. */
export function checkedBatch(header: RecordHeader, blocks: Buffer): Batch | BadRecord {
  const { recordBytes: _bytes, payloadStart: _start, lastLsn: _lastLsn, ...rest } = header;
  const { payloadBytes, payloadChecksum, ...batch } = rest;
  if (checksumOf(blocks) !== payloadChecksum) {
    return bad("payloadChecksum", "the payload's checksum does not match its bytes");
  }
  if (!isZero(blocks, payloadBytes, blocks.length)) return bad("padding", "payload padding is not zero");
  return { ...batch, payload: blocks.subarray(0, payloadBytes) };
}

/** Header and payload in one step, for bytes that hold the whole record. */
export function readRecord(bytes: Buffer, at = 0, home: RecordHome = "blocks"): Batch | BadRecord {
  const header = readRecordHeader(bytes, at, home);
  return isBadRecord(header) ? header : readRecordPayload(header, bytes, at);
}

export function isBadRecord(value: RecordHeader | Batch | BadRecord): value is BadRecord {
  return "fault" in value;
}

/** Bytes of a record with that payload: whole blocks in log files, a multiple of 8 elsewhere. */
export function recordBytesOf(payloadStart: number, payloadBytes: number): number {
  return roundUp(payloadStart + payloadBytes, payloadStart === recordPayloadStart ? limits.blockBytes : 8);
}
