/*
 * The first block of a log segment file (docs/formats/log-segment.md). The embedded log writes it with the first group of
 * a segment and reads it at open, to put the files in order and to tell a started segment from a recycled or prepared one.
 * The records behind it are log-record.ts.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { type BadBytes, bad, idPattern, isZero, readInteger, writeInteger } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";

/** "VSEG" as bytes. */
export const segmentMagic = 0x4745_5356;
export const segmentVersion = 1;
/** The header takes the whole first block; records follow. */
export const segmentHeaderBytes = limits.blockBytes;
const fieldsEnd = 72;

export interface SegmentHeader {
  /** 16 hex digits. */
  readonly volumeId: string;
  readonly line: string;
  /** Counts up over the life of the volume's log, from 1; also in the file's name. */
  readonly sequence: number;
  /** Bytes of the whole file, this header included; a multiple of 4096. */
  readonly segmentBytes: number;
  /** LSN of the first entry of the first record. Replaces everything at or past it in segments of lower sequence. */
  readonly firstLsn: number;
  /** Greatest LSN known durable when this header was written; below firstLsn. */
  readonly durableLsn: number;
  /** Checksum of the batch before firstLsn, 0n where firstLsn is the line's first. */
  readonly previousChecksum: bigint;
}

/**
 * notASegment: no magic (a blank or prepared file). truncated: less than a block. checksum: the bytes changed. version,
 * flags: intact, but written by something newer. fields, padding: intact, but not what any Varve writes.
 */
export type SegmentFault =
  | "notASegment"
  | "truncated"
  | "checksum"
  | "version"
  | "flags"
  | "fields"
  | "padding";

export type BadSegmentHeader = BadBytes<SegmentFault>;

/** Fills bytes [at, at + 4096) with the header block. */
export function writeSegmentHeader(bytes: Buffer, at: number, header: SegmentHeader): void {
  invariant(at + segmentHeaderBytes <= bytes.length, "a segment header has a whole block");
  const mistake = fieldMistake(header);
  invariant(mistake === null, `a segment header is valid: ${mistake}`);
  bytes.fill(0, at + fieldsEnd, at + segmentHeaderBytes);
  bytes.writeUInt32LE(segmentMagic, at + 8);
  bytes.writeUInt16LE(segmentVersion, at + 12);
  bytes.writeUInt16LE(0, at + 14);
  writeInteger(bytes, at + 16, header.segmentBytes);
  bytes.write(header.volumeId, at + 24, "hex");
  bytes.write(header.line, at + 32, "hex");
  writeInteger(bytes, at + 40, header.sequence);
  writeInteger(bytes, at + 48, header.firstLsn);
  writeInteger(bytes, at + 56, header.durableLsn);
  bytes.writeBigUInt64LE(header.previousChecksum, at + 64);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(at + 8, at + segmentHeaderBytes)), at);
}

/** Reads the header block at `at`. Never throws. The version is judged only after the checksum, as in records. */
export function readSegmentHeader(bytes: Buffer, at = 0): SegmentHeader | BadSegmentHeader {
  const available = bytes.length - at;
  if (available < segmentHeaderBytes)
    return bad("truncated", `${available} of ${segmentHeaderBytes} header bytes`);
  if (bytes.readUInt32LE(at + 8) !== segmentMagic) return bad("notASegment", "no segment starts here");
  if (checksumOf(bytes.subarray(at + 8, at + segmentHeaderBytes)) !== bytes.readBigUInt64LE(at)) {
    return bad("checksum", "the segment header's checksum does not match its bytes");
  }
  const version = bytes.readUInt16LE(at + 12);
  if (version !== segmentVersion) return bad("version", `segment version ${version}`);
  const flags = bytes.readUInt16LE(at + 14);
  if (flags !== 0) return bad("flags", `segment flags ${flags}`);
  const header: SegmentHeader = {
    volumeId: bytes.toString("hex", at + 24, at + 32),
    line: bytes.toString("hex", at + 32, at + 40),
    sequence: readInteger(bytes, at + 40),
    segmentBytes: readInteger(bytes, at + 16),
    firstLsn: readInteger(bytes, at + 48),
    durableLsn: readInteger(bytes, at + 56),
    previousChecksum: bytes.readBigUInt64LE(at + 64),
  };
  const mistake = fieldMistake(header);
  if (mistake !== null) return bad("fields", mistake);
  if (!isZero(bytes, at + fieldsEnd, at + segmentHeaderBytes)) {
    return bad("padding", "segment header padding is not zero");
  }
  return header;
}

export function isBadSegmentHeader(value: SegmentHeader | BadSegmentHeader): value is BadSegmentHeader {
  return "fault" in value;
}

/** One rule for both directions. */
function fieldMistake(header: SegmentHeader): string | null {
  const { sequence, segmentBytes, firstLsn, durableLsn } = header;
  if (!idPattern.test(header.volumeId)) return `volume id ${JSON.stringify(header.volumeId)}`;
  if (!idPattern.test(header.line)) return `line ${JSON.stringify(header.line)}`;
  if (!Number.isSafeInteger(sequence) || sequence < 1) return `sequence ${sequence}`;
  const sizeHolds =
    Number.isSafeInteger(segmentBytes) &&
    segmentBytes > segmentHeaderBytes &&
    segmentBytes % limits.blockBytes === 0;
  if (!sizeHolds) return `segment bytes ${segmentBytes}`;
  if (!Number.isSafeInteger(firstLsn) || firstLsn < 1) return `first LSN ${firstLsn}`;
  if (durableLsn < 0 || durableLsn >= firstLsn) return `durable LSN ${durableLsn} for first LSN ${firstLsn}`;
  return null;
}
