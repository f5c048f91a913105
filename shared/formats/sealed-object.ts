/*
 * The envelope of metadata objects in the bucket (docs/formats/bucket.md#sealed-objects): magic, version, flags, JSON under
 * zstd, a SHA-256 of all of it. Called by manifest-object.ts, base-object.ts and index-page.ts; segments and chunks have
 * their own bytes and take the faults from here. Reading trusts nothing: each field is checked, garbage never throws.
 */
import { createHash, hash } from "node:crypto";
import { constants, zstdCompressSync, zstdDecompress, zstdDecompressSync } from "node:zlib";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { type BadBytes, bad } from "./binary-fields.ts";
import type { Shape } from "./json-shape.ts";

/**
 * Why bytes are no object. notThisKind: other magic. truncated, surplus: fewer or more bytes than it says. checksum: the
 * bytes changed. version, flags: intact, but written by something newer, or encrypted. lengths, compression, fields: intact, but
 * not what any Varve writes.
 */
export type ObjectFault =
  | "notThisKind"
  | "truncated"
  | "surplus"
  | "checksum"
  | "version"
  | "flags"
  | "lengths"
  | "compression"
  | "fields";

export type BadObject = BadBytes<ObjectFault>;

export function isBadObject(value: object): value is BadObject {
  return "fault" in value && "detail" in value;
}

/** What tells one kind of metadata object from another. */
export interface ObjectKind<T> {
  /** Four ASCII characters. */
  readonly magic: string;
  readonly version: number;
  /** For people. */
  readonly name: string;
  /** The one rule for both directions: what the content looks like. */
  readonly shape: Shape;
  /** What fields must be to each other; a sentence or null. Asked only where the shape holds. */
  readonly mistake: (content: T) => string | null;
}

export const sealedHeadBytes = 16;
export const digestBytes = 32;
/** Flag bit 0: encrypted on the client's side. Nothing writes it yet; readers refuse it with a sentence of its own. */
export const flagEncrypted = 1;
const zstdLevelDefault = 3;
/** Far above the size of Node's pool. */
const discardedBytesMin = 131_072;

/** The object's bytes. The content is one that the kind takes: everything else is our own mistake. */
export function sealObject<T>(kind: ObjectKind<T>, content: T, level = zstdLevelDefault): Buffer {
  const mistake = kind.shape(content, kind.name) ?? kind.mistake(content);
  invariant(mistake === null, `a ${kind.name} is valid: ${mistake}`);
  const raw = Buffer.from(JSON.stringify(content));
  invariant(raw.length <= limits.metadataBytesMax, `a ${kind.name} fits: ${raw.length} bytes`);
  const packed = compress(raw, level);
  const object = Buffer.alloc(sealedHeadBytes + packed.length + digestBytes);
  object.write(kind.magic, 0, 4, "latin1");
  object.writeUInt16LE(kind.version, 4);
  object.writeUInt16LE(0, 6);
  object.writeUInt32LE(packed.length, 8);
  object.writeUInt32LE(raw.length, 12);
  packed.copy(object, sealedHeadBytes);
  writeDigest(object);
  return object;
}

/** The content of a whole object, checked. The version is judged only after the checksum, as in log records. */
export function openObject<T>(kind: ObjectKind<T>, object: Buffer): T | BadObject {
  const least = sealedHeadBytes + digestBytes;
  if (object.length < least) return bad("truncated", `${object.length} of at least ${least} bytes`);
  if (object.toString("latin1", 0, 4) !== kind.magic) return bad("notThisKind", `this is no ${kind.name}`);
  const packedBytes = object.readUInt32LE(8);
  const rawBytes = object.readUInt32LE(12);
  const expected = least + packedBytes;
  if (!digestHolds(object)) {
    if (object.length < expected) return bad("truncated", `${object.length} of ${expected} bytes`);
    return bad("checksum", "the object's SHA-256 does not match its bytes");
  }
  const newer = versionFault(object, 4, kind.version, kind.name);
  if (newer !== null) return newer;
  if (object.length !== expected || rawBytes < 2 || rawBytes > limits.metadataBytesMax) {
    return bad("lengths", `${object.length} bytes instead of ${expected}, ${rawBytes} inside`);
  }
  const raw = decompress(object.subarray(sealedHeadBytes, sealedHeadBytes + packedBytes), rawBytes);
  if (raw === null) return bad("compression", `the ${kind.name} does not decompress to ${rawBytes} bytes`);
  let content: unknown;
  try {
    content = JSON.parse(raw.toString("utf8"));
  } catch {
    return bad("fields", `the ${kind.name} is no JSON`);
  }
  const mistake = kind.shape(content, kind.name) ?? kind.mistake(content as T);
  return mistake === null ? (content as T) : bad("fields", mistake);
}

/** Judges version (u16) and flags (u16) at `at` of intact bytes. */
export function versionFault(bytes: Buffer, at: number, known: number, name: string): BadObject | null {
  const version = bytes.readUInt16LE(at);
  if (version !== known) return bad("version", `${name} version ${version}, this Varve knows ${known}`);
  const flags = bytes.readUInt16LE(at + 2);
  if ((flags & flagEncrypted) !== 0)
    return bad("flags", `the ${name} is encrypted, and this Varve has no key`);
  return flags === 0 ? null : bad("flags", `${name} flags ${flags}`);
}

/** Puts the SHA-256 of everything before them into the last 32 bytes. */
export function writeDigest(object: Buffer): void {
  const end = object.length - digestBytes;
  hash("sha256", object.subarray(0, end), "buffer").copy(object, end);
}

/** The same, and the SHA-256 of the whole object as 64 hex digits, in one pass. `beforePiece` as ObjectRoom's. */
export function writeDigests(object: Buffer, beforePiece: () => void): string {
  const end = object.length - digestBytes;
  const state = sha256Of(object.subarray(0, end), beforePiece);
  state.copy().digest().copy(object, end);
  return state.update(object.subarray(end)).digest("hex");
}

/** Whether the last 32 bytes are the SHA-256 of everything before them. */
export function digestHolds(object: Buffer): boolean {
  const end = object.length - digestBytes;
  return end >= 0 && hash("sha256", object.subarray(0, end), "buffer").equals(object.subarray(end));
}

export function sha256Hex(bytes: Uint8Array): string {
  return hash("sha256", bytes, "hex");
}

/** The same in pieces, for threads that others wait for. */
export function sha256HexInPieces(bytes: Uint8Array, beforePiece: () => void): string {
  return sha256Of(bytes, beforePiece).digest("hex");
}

function sha256Of(bytes: Uint8Array, beforePiece: () => void): ReturnType<typeof createHash> {
  const state = createHash("sha256");
  for (let at = 0; at < bytes.length; at += limits.archiveFrameBytes) {
    beforePiece();
    state.update(bytes.subarray(at, at + limits.archiveFrameBytes));
  }
  return state;
}

/** A zstd frame. Two calls with the same bytes give the same frame only with the same version of the library. */
export function compress(raw: Uint8Array, level: number): Buffer {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return zstdCompressSync(raw, { chunkSize: frameBytesMax(raw.length), params });
}

/**
 * Frees what compress() gave, which nobody may read from now on. Its room is that of the raw bytes, and freed only by a collection of the
 * whole heap otherwise: twice a second at 100 MB/s, whose marking threads hold up writes (ADR 008). Small results stay, as they may share
 * Node's pool with others.
 */
export function discard({ buffer }: Buffer): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= discardedBytesMin) buffer.transfer(0);
}

/** Exactly `rawBytes` bytes, or null. Never allocates more, whatever the frame says of itself. */
export function decompress(packed: Uint8Array, rawBytes: number): Buffer | null {
  try {
    const raw = zstdDecompressSync(packed, decompressOptions(rawBytes));
    return raw.length === rawBytes ? raw : null;
  } catch {
    return null;
  }
}

/** The same on the thread pool, for callers on the event loop. */
export function decompressLater(packed: Uint8Array, rawBytes: number): Promise<Buffer | null> {
  return new Promise((resolve) => {
    zstdDecompress(packed, decompressOptions(rawBytes), (error, raw) => {
      resolve(error === null && raw.length === rawBytes ? raw : null);
    });
  });
}

function decompressOptions(rawBytes: number) {
  return {
    chunkSize: wholeOutput(rawBytes),
    maxOutputLength: Math.max(1, rawBytes),
    params: { [constants.ZSTD_d_windowLogMax]: zstdWindowLogMax },
  };
}

/**
 * Room for the whole result at once: by the library's default of 16 KiB a frame of 256 KiB comes in 16 steps, each a turn of the
 * thread pool (measured: 1.2 ms of processor time instead of 0.3).
 */
function wholeOutput(rawBytes: number): number {
  return rawBytes + 64;
}

/**
 * What zstd may need for bytes that do not compress (ZSTD_compressBound, and 64). With less room it copies its input into buffers of its own
 * first, which are new memory each time: 560 instead of 380 µs for 256 KiB, half of it in the kernel.
 */
export function frameBytesMax(rawBytes: number): number {
  return wholeOutput(rawBytes + (rawBytes >>> 8) + Math.max(0, (128 * 1024 - rawBytes) >> 11));
}

/** 32 MiB: what a frame may ask for as window; every level up to 19 stays below for objects of our sizes. */
const zstdWindowLogMax = 25;
