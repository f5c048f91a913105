/*
 * A chunk in the bucket (docs/formats/chunk.md): the 4 MiB of one extent as 16 frames, named by their SHA-256. The base builder
 * asks for the hash first (an extent that a base names already is not built again), then builds; point sources and fills
 * read the head with one GET and then the frames they need.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { bad, isZero } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import {
  type FrameCoding,
  frameCoding,
  frameMistake,
  type ObjectFrame,
  openFrame,
  packFrame,
} from "./object-frame.ts";
import { ObjectRoom } from "./object-room.ts";
import {
  type BadObject,
  digestBytes,
  digestHolds,
  isBadObject,
  sha256Hex,
  sha256HexInPieces,
  versionFault,
  writeDigests,
} from "./sealed-object.ts";

export const chunkVersion = 1;
export const chunkHeadBytes = 512;
export const chunkFrames: number = limits.extentBytes / limits.archiveFrameBytes;
const magic = "VCHK";
const tableStart = 64;
const tableRowBytes = 24;
const headChecksumAt = chunkHeadBytes - 8;

export interface ChunkHead {
  /** SHA-256 of the 4 MiB of content, 64 hex digits. */
  readonly hash: string;
  readonly objectBytes: number;
  /** 16, in order; a frame of zeroes has no bytes in the object. */
  readonly frames: readonly ObjectFrame[];
}

/**
 * The hash of an extent's content, which shorter content is zero-padded to (the end of a volume); null where all is zero:
 * such an extent has no chunk.
 */
export function chunkHashOf(raw: Buffer, beforePiece: () => void = () => undefined): string | null {
  const content = padded(raw);
  return isAllZero(content) ? null : sha256HexInPieces(content, beforePiece);
}

/** `<hash>.<generation>`, as bases name it. A name that was deleted is never used again: its next life has another generation. */
export function chunkName(hash: string, generation: number): string {
  return `${hash}.${generation}`;
}

/** The object, in `room`, and its SHA-256. `hash` is chunkHashOf(raw); level 0 stores frames as they are. */
export function buildChunk(
  raw: Buffer,
  hash: string,
  level: number,
  room: ObjectRoom = new ObjectRoom(),
): { readonly object: Buffer; readonly sha256: string } {
  const content = padded(raw);
  const frames: ObjectFrame[] = [];
  room.begin(chunkHeadBytes + content.length + digestBytes);
  room.addZeroes(chunkHeadBytes);
  for (let number = 0; number < chunkFrames; number += 1) {
    const place = number * limits.archiveFrameBytes;
    const rawBytes = limits.archiveFrameBytes;
    const piece = content.subarray(place, place + rawBytes);
    if (isAllZero(piece)) {
      frames.push({
        number,
        place,
        rawBytes,
        coding: frameCoding.zero,
        objectOffset: room.bytes,
        storedBytes: 0,
        checksum: 0n,
      });
    } else frames.push({ number, place, rawBytes, ...packFrame(room, piece, level) });
  }
  invariant(room.bytes > chunkHeadBytes, "an extent of zeroes has no chunk");
  room.addZeroes(digestBytes);
  const { object } = room;
  writeHead(object, hash, frames);
  return { object, sha256: writeDigests(object, room.beforePiece) };
}

function writeHead(object: Buffer, hash: string, frames: readonly ObjectFrame[]): void {
  object.write(magic, 0, 4, "latin1");
  object.writeUInt16LE(chunkVersion, 4);
  object.writeUInt16LE(0, 6);
  object.write(hash, 8, 32, "hex");
  object.writeUInt32LE(limits.extentBytes, 40);
  object.writeUInt32LE(limits.archiveFrameBytes, 44);
  object.writeUInt32LE(object.length, 48);
  for (const frame of frames) {
    const at = tableStart + frame.number * tableRowBytes;
    object.writeBigUInt64LE(frame.checksum, at);
    object.writeUInt32LE(frame.objectOffset, at + 8);
    object.writeUInt32LE(frame.storedBytes, at + 12);
    object.writeUInt32LE(frame.coding, at + 16);
  }
  object.writeBigUInt64LE(checksumOf(object.subarray(0, headChecksumAt)), headChecksumAt);
}

/** The frame table from the object's first 512 bytes. */
export function readChunkHead(bytes: Buffer): ChunkHead | BadObject {
  if (bytes.length < chunkHeadBytes) return bad("truncated", `${bytes.length} of ${chunkHeadBytes} bytes`);
  if (bytes.toString("latin1", 0, 4) !== magic) return bad("notThisKind", "no chunk starts here");
  if (checksumOf(bytes.subarray(0, headChecksumAt)) !== bytes.readBigUInt64LE(headChecksumAt)) {
    return bad("checksum", "the head's checksum does not match its bytes");
  }
  const newer = versionFault(bytes, 4, chunkVersion, "chunk");
  if (newer !== null) return newer;
  const objectBytes = bytes.readUInt32LE(48);
  const lengthsHold =
    bytes.readUInt32LE(40) === limits.extentBytes &&
    bytes.readUInt32LE(44) === limits.archiveFrameBytes &&
    isZero(bytes, 52, tableStart) &&
    isZero(bytes, tableStart + chunkFrames * tableRowBytes, headChecksumAt);
  if (!lengthsHold) return bad("lengths", "not an extent of 4 MiB in frames of 256 KiB");
  const frames: ObjectFrame[] = [];
  let next = chunkHeadBytes;
  for (let number = 0; number < chunkFrames; number += 1) {
    const at = tableStart + number * tableRowBytes;
    const frame: ObjectFrame = {
      number,
      place: number * limits.archiveFrameBytes,
      rawBytes: limits.archiveFrameBytes,
      coding: bytes.readUInt32LE(at + 16) as FrameCoding,
      objectOffset: bytes.readUInt32LE(at + 8),
      storedBytes: bytes.readUInt32LE(at + 12),
      checksum: bytes.readBigUInt64LE(at),
    };
    const mistake = frameMistake(frame);
    if (mistake !== null) return bad("fields", mistake);
    if (frame.objectOffset !== next || bytes.readUInt32LE(at + 20) !== 0) {
      return bad("fields", `frame ${number} at ${frame.objectOffset}, not at ${next}`);
    }
    next += frame.storedBytes;
    frames.push(frame);
  }
  if (next === chunkHeadBytes) return bad("fields", "a chunk of zeroes");
  if (next + digestBytes !== objectBytes)
    return bad("lengths", `${objectBytes} bytes for frames up to ${next}`);
  return { hash: bytes.toString("hex", 8, 40), objectBytes, frames };
}

/** Checks a whole object: SHA-256, head, frames, and that the content is what its hash says. */
export function openChunk(object: Buffer): { readonly hash: string; readonly content: Buffer } | BadObject {
  const head = readChunkHead(object);
  if (isBadObject(head)) return head;
  if (object.length < head.objectBytes) {
    return bad("truncated", `${object.length} of ${head.objectBytes} bytes`);
  }
  if (object.length > head.objectBytes) return bad("surplus", `${object.length} bytes`);
  if (!digestHolds(object)) return bad("checksum", "the object's SHA-256 does not match its bytes");
  const content = Buffer.alloc(limits.extentBytes);
  for (const frame of head.frames) {
    if (frame.coding === frameCoding.zero) continue;
    const raw = openFrame(object.subarray(frame.objectOffset, frame.objectOffset + frame.storedBytes), frame);
    if (isBadObject(raw)) return raw;
    raw.copy(content, frame.place);
  }
  if (sha256Hex(content) !== head.hash)
    return bad("checksum", "the content's SHA-256 is not the chunk's name");
  return { hash: head.hash, content };
}

function padded(raw: Buffer): Buffer {
  invariant(raw.length <= limits.extentBytes, `an extent has at most ${limits.extentBytes} bytes`);
  return raw.length === limits.extentBytes ? raw : Buffer.concat([raw], limits.extentBytes);
}

const zeroes = Buffer.alloc(limits.archiveFrameBytes);

/** By memcmp, a frame at a time: ends at the first frame with anything in it. */
function isAllZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += zeroes.length) {
    const end = Math.min(at + zeroes.length, bytes.length);
    if (bytes.compare(zeroes, 0, end - at, at, end) !== 0) return false;
  }
  return true;
}
