// What a self-describing block looks like, and what a block that is not as expected turns out to be.
// Callers: block-ledger.ts, to fill payloads and to judge what was read. Pure.
//
// A unit of 512 or 4096 bytes, all fields little-endian:
//   0 magic "VARVEBLK" · 8 volume tag u64 · 16 unit number u64 · 24 sequence u64 · 32 filler from (tag, unit, sequence)
//   last 4: crc32 of all before. The filler makes every byte depend on the sequence, so a slice tells its write too.

import { crc32 } from "node:zlib";

const magicLow = 0x56524156; // "VARV"
const magicHigh = 0x4b4c4245; // "EBLK"
const headerBytes = 32;

export interface UnitHeader {
  readonly tag: bigint;
  readonly unit: number;
  readonly sequence: number;
}

export type UnitVerdict =
  | { readonly kind: "zeros" }
  | { readonly kind: "intact" | "torn"; readonly sequence: number; readonly differsAt: number }
  | { readonly kind: "misplaced"; readonly unit: number; readonly sequence: number }
  | { readonly kind: "foreign"; readonly tag: bigint; readonly unit: number; readonly sequence: number }
  | { readonly kind: "garbage" };

/** Makes unit images in one scratch buffer: the view that image() returns holds until the next call. */
export class BlockImages {
  readonly tag: bigint;
  readonly unitBytes: number;
  private readonly words: Uint32Array;
  private readonly bytes: Buffer;

  constructor(tag: bigint, unitBytes: number) {
    this.tag = tag;
    this.unitBytes = unitBytes;
    const memory = new ArrayBuffer(unitBytes);
    this.words = new Uint32Array(memory);
    this.bytes = Buffer.from(memory);
  }

  image(unit: number, sequence: number): Buffer {
    const { words, bytes, unitBytes } = this;
    words[0] = magicLow;
    words[1] = magicHigh;
    bytes.writeBigUInt64LE(this.tag, 8);
    bytes.writeBigUInt64LE(BigInt(unit), 16);
    bytes.writeBigUInt64LE(BigInt(sequence), 24);
    let state =
      (Math.imul(unit + 1, 0x9e3779b1) ^
        Math.imul(sequence + 1, 0x85ebca6b) ^
        Number(this.tag & 0xffffffffn)) |
      1;
    const end = unitBytes / 4 - 1;
    for (let index = headerBytes / 4; index < end; index += 1) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[index] = state;
    }
    words[end] = crc32(bytes.subarray(0, unitBytes - 4));
    return bytes;
  }

  /** Says what a whole unit holds that was read where `unit` should be. */
  judge(unit: number, found: Buffer): UnitVerdict {
    if (isZero(found)) return { kind: "zeros" };
    if (found.readUInt32LE(0) !== magicLow || found.readUInt32LE(4) !== magicHigh) return { kind: "garbage" };
    const header = readHeader(found);
    if (header.tag !== this.tag) return { kind: "foreign", ...header };
    if (header.unit !== unit) return { kind: "misplaced", unit: header.unit, sequence: header.sequence };
    const whole = this.image(unit, header.sequence);
    const differsAt = firstDifference(whole, found);
    return { kind: differsAt < 0 ? "intact" : "torn", sequence: header.sequence, differsAt };
  }
}

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

function readHeader(found: Buffer): UnitHeader {
  return {
    tag: found.readBigUInt64LE(8),
    unit: Number(found.readBigUInt64LE(16)),
    sequence: Number(found.readBigUInt64LE(24)),
  };
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let at = 0; at < a.length; at += 1) if (a[at] !== b[at]) return at;
  return -1;
}
