/*
 * The checkpoint of a replica (docs/formats/checkpoint.md): up to which LSN the image file is the fold of the log, and
 * whether Varve holds the file now. The replica image replaces it atomically after each successful sync of the image and
 * reads it at attach; log replay starts behind it.
 */
import { isVolumeSize } from "#shared/domain/entry.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { type BadBytes, bad, idPattern, readInteger, writeInteger } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import {
  decodeExtents,
  encodeExtents,
  extentsMistake,
  extentsOf,
  type RecordedExtents,
} from "./extent-table.ts";
import { PackedReader, type PackedValue, packInto } from "./packed-header.ts";

/** "VCKP" as bytes. */
export const checkpointMagic = 0x504b_4356;
/** Of a wholly local replica, and of one with remote extents. */
const localVersion = 1;
const partialVersion = 2;
/** Far above what the fields of version 1 can take (about 200 bytes); more is refused unread. */
const localBytesMax = 4096;
/** Version 2: the largest extent table that the limits allow, and as much again. */
export const checkpointBytesMax = 64 * 1024 * 1024;
/** Body of version 2: 200 bytes, and 28 for each point. */
const bodyBytesMax = 256 + 28 * limits.remotePointsMax;
const headBytes = 40;

/** What the image file was when it was closed in good order. Another size, time or inode: somebody changed it since. */
export interface DetachedFile {
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly inode: bigint;
}

/**
 * Recorded as the detached file while `varve image adopt` is under way: no file is ever this one, so that nothing but another
 * adopt takes the image (docs/specs/space-and-repair.md).
 */
export const adoptingFile: DetachedFile = { sizeBytes: 0, mtimeNs: 0n, ctimeNs: 0n, inode: 0n };

export function isAdoptBegun(checkpoint: Pick<Checkpoint, "detached">): boolean {
  return checkpoint.detached?.inode === adoptingFile.inode;
}

export interface Checkpoint {
  /** 16 hex digits. */
  readonly volumeId: string;
  /** Line of the log; null only for a replica that never applied a batch. */
  readonly line: string | null;
  /** Epoch of the batch at appliedLsn; 0 while nothing was applied. */
  readonly epoch: number;
  /** The image is fold(log[1..appliedLsn]), maybe with parts of later entries: replay from here is idempotent. */
  readonly appliedLsn: number;
  /** Header checksum of the batch that ends at appliedLsn: the next batch chains to it. 0n while nothing was applied. */
  readonly batchChecksum: bigint;
  /** The volume's size after appliedLsn. */
  readonly sizeBytes: number;
  /** "full": every extent is local. Else where each one is. */
  readonly residency: "full" | RecordedExtents;
  /** Where the log of several machines holds the last applied batch: the next one is not before it. A hint, to be checked. */
  readonly position: { readonly sequence: number; readonly offset: number } | null;
  /** Null while Varve holds the image ("attached"): the file may be ahead of appliedLsn. Else a clean detach. */
  readonly detached: DetachedFile | null;
}

/**
 * notACheckpoint: no magic. truncated: fewer bytes than it says; surplus: more. checksum: the bytes changed. version,
 * flags: intact, but written by something newer. fields: intact, but not what any Varve writes.
 */
export type CheckpointFault =
  | "notACheckpoint"
  | "truncated"
  | "surplus"
  | "checksum"
  | "version"
  | "flags"
  | "fields";

export type BadCheckpoint = BadBytes<CheckpointFault>;

/** The whole file's bytes. */
export function encodeCheckpoint(checkpoint: Checkpoint): Buffer {
  const mistake = fieldMistake(checkpoint);
  invariant(mistake === null, `a checkpoint is valid: ${mistake}`);
  const { position, detached, residency } = checkpoint;
  const body: PackedValue[] = [
    checkpoint.volumeId,
    checkpoint.line ?? "",
    checkpoint.epoch,
    checkpoint.sizeBytes,
    residency === "full" ? "full" : "partial",
    position === null ? [] : [position.sequence, position.offset],
    detached === null
      ? ["attached"]
      : [
          "detached",
          detached.sizeBytes,
          String(detached.mtimeNs),
          String(detached.ctimeNs),
          String(detached.inode),
        ],
  ];
  if (residency !== "full") body.push(residency.points.map(({ volumeId, lsn }) => [volumeId, lsn]));
  const table = residency === "full" ? Buffer.alloc(0) : encodeExtents(residency);
  const bytes = Buffer.alloc(headBytes + bodyBytesMax + table.length);
  const tableAt = headBytes + packInto(bytes, headBytes, body);
  bytes.set(table, tableAt);
  const fileBytes = tableAt + table.length;
  bytes.writeUInt32LE(checkpointMagic, 8);
  bytes.writeUInt16LE(residency === "full" ? localVersion : partialVersion, 12);
  bytes.writeUInt16LE(0, 14);
  writeInteger(bytes, 16, fileBytes);
  writeInteger(bytes, 24, checkpoint.appliedLsn);
  bytes.writeBigUInt64LE(checkpoint.batchChecksum, 32);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8, fileBytes)), 0);
  return bytes.subarray(0, fileBytes);
}

/** Reads a whole checkpoint file. Never throws. The version is judged only after the checksum, as in records. */
export function decodeCheckpoint(bytes: Buffer): Checkpoint | BadCheckpoint {
  if (bytes.length < headBytes) return bad("truncated", `${bytes.length} of at least ${headBytes} bytes`);
  if (bytes.readUInt32LE(8) !== checkpointMagic) return bad("notACheckpoint", "this is no checkpoint");
  const fileBytes = readInteger(bytes, 16);
  if (bytes.length > checkpointBytesMax) return bad("surplus", `${bytes.length} bytes`);
  if (checksumOf(bytes.subarray(8)) !== bytes.readBigUInt64LE(0)) {
    if (bytes.length < fileBytes) return bad("truncated", `${bytes.length} of ${fileBytes} bytes`);
    return bad("checksum", "the checkpoint's checksum does not match its bytes");
  }
  const version = bytes.readUInt16LE(12);
  if (version !== localVersion && version !== partialVersion) {
    return bad("version", `checkpoint version ${version}`);
  }
  const flags = bytes.readUInt16LE(14);
  if (flags !== 0) return bad("flags", `checkpoint flags ${flags}`);
  if (bytes.length !== fileBytes) return bad("fields", `${bytes.length} bytes instead of ${fileBytes}`);
  if (version === localVersion && bytes.length > localBytesMax) return bad("fields", `${bytes.length} bytes`);
  const head = { appliedLsn: readInteger(bytes, 24), batchChecksum: bytes.readBigUInt64LE(32) };
  const checkpoint = readBody(bytes, version, head);
  if (checkpoint === null) return bad("fields", "the checkpoint's body is not valid");
  const mistake = fieldMistake(checkpoint);
  return mistake === null ? checkpoint : bad("fields", mistake);
}

export function isBadCheckpoint(value: Checkpoint | BadCheckpoint): value is BadCheckpoint {
  return "fault" in value;
}

function readBody(
  bytes: Buffer,
  version: number,
  head: Pick<Checkpoint, "appliedLsn" | "batchChecksum">,
): Checkpoint | null {
  const reader = new PackedReader(bytes, headBytes, bytes.length);
  const partCount = reader.array();
  const volumeId = reader.text();
  const line = reader.text();
  const epoch = reader.number();
  const sizeBytes = reader.number();
  const residencyText = reader.text();
  const positionParts = reader.array();
  const position = positionParts === 2 ? { sequence: reader.number(), offset: reader.number() } : null;
  const stateParts = reader.array();
  const state = reader.text();
  const attached = state === "attached" && stateParts === 1;
  if (!attached && !(state === "detached" && stateParts === 5)) return null;
  const detached = attached ? null : readDetached(reader);
  if (!attached && detached === null) return null;
  if (positionParts !== 2 && positionParts !== 0) return null;
  const whole = version === localVersion;
  if (partCount !== (whole ? 7 : 8) || residencyText !== (whole ? "full" : "partial")) return null;
  const residency = whole ? "full" : readExtents(reader, bytes, sizeBytes);
  if (residency === null || !reader.ok || (whole && !reader.complete)) return null;
  return {
    volumeId,
    line: line === "" ? null : line,
    epoch,
    ...head,
    sizeBytes,
    residency,
    position,
    detached,
  };
}

function readExtents(reader: PackedReader, bytes: Buffer, sizeBytes: number): RecordedExtents | null {
  const count = reader.array();
  if (count > limits.remotePointsMax || !isVolumeSize(sizeBytes)) return null;
  const points = [];
  for (let index = 0; index < count; index += 1) {
    if (reader.array() !== 2) return null;
    points.push({ volumeId: reader.text(), lsn: reader.number() });
  }
  return reader.ok ? decodeExtents(bytes, reader.offset, points, extentsOf(sizeBytes)) : null;
}

function readDetached(reader: PackedReader): DetachedFile | null {
  const sizeBytes = reader.number();
  const mtimeNs = wideNumber(reader.text());
  const ctimeNs = wideNumber(reader.text());
  const inode = wideNumber(reader.text());
  if (mtimeNs === null || ctimeNs === null || inode === null) return null;
  return { sizeBytes, mtimeNs, ctimeNs, inode };
}

/** A decimal u64 in its one spelling; a time before 1970 is negative. */
function wideNumber(text: string): bigint | null {
  if (!/^(0|-?[1-9][0-9]{0,19})$/.test(text)) return null;
  const value = BigInt(text);
  return isWide(value) ? value : null;
}

function isWide(value: bigint): boolean {
  return value >= -(2n ** 63n) && value < 2n ** 64n;
}

/** One rule for both directions. */
function fieldMistake(checkpoint: Checkpoint): string | null {
  const { line, epoch, appliedLsn, batchChecksum, position, detached } = checkpoint;
  if (!idPattern.test(checkpoint.volumeId)) return `volume id ${JSON.stringify(checkpoint.volumeId)}`;
  if (line !== null && !idPattern.test(line)) return `line ${JSON.stringify(line)}`;
  if (!isCount(appliedLsn)) return `applied LSN ${appliedLsn}`;
  if (!isCount(epoch)) return `epoch ${epoch}`;
  if (appliedLsn === 0 && (epoch !== 0 || batchChecksum !== 0n))
    return "nothing applied, but an epoch or a batch";
  if (appliedLsn > 0 && (epoch === 0 || line === null))
    return `applied LSN ${appliedLsn} without line or epoch`;
  if (!isVolumeSize(checkpoint.sizeBytes)) return `size ${checkpoint.sizeBytes}`;
  if (position !== null && !(isCount(position.sequence) && isCount(position.offset))) return "log position";
  const extents = residencyMistake(checkpoint);
  if (extents !== null) return extents;
  if (detached === null) return null;
  const { sizeBytes, mtimeNs, ctimeNs, inode } = detached;
  const fileHolds = isCount(sizeBytes) && isWide(mtimeNs) && isWide(ctimeNs) && isWide(inode);
  return fileHolds ? null : "detached file's size, times or inode";
}

function residencyMistake({ residency, sizeBytes }: Checkpoint): string | null {
  if (residency === "full") return null;
  for (const { volumeId, lsn } of residency.points) {
    if (!idPattern.test(volumeId) || !isCount(lsn)) return `point ${JSON.stringify(volumeId)} at ${lsn}`;
  }
  return extentsMistake(residency, extentsOf(sizeBytes));
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
