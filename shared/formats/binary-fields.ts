/*
 * What all fixed binary heads of this folder share: safe integers as u64, ids as bytes, zero padding, and the typed result
 * that reading gives instead of throwing. Called by log-record.ts, log-segment.ts and checkpoint.ts.
 */

/** Bytes that are not what they should be. `fault` is for programs, `detail` for people. */
export interface BadBytes<Fault extends string> {
  readonly kind: "bad";
  readonly fault: Fault;
  readonly detail: string;
}

export function bad<Fault extends string>(fault: Fault, detail: string): BadBytes<Fault> {
  return { kind: "bad", fault, detail };
}

/** Writes a safe integer as u64, little endian. */
export function writeInteger(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 0x1_0000_0000, at);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}

/** Reads a u64 as number. From 2^53 on the result is no safe integer, which the caller refuses. */
export function readInteger(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

/** Line and volume ids: 16 lower-case hex digits in text, the same 8 bytes in that order in binary. */
export const idPattern = /^[0-9a-f]{16}$/;

const zeroes = Buffer.alloc(4096);

/** Whether padding [from, to), at most a block, is zero. By memcmp: a loop over 4 KiB costs 4 µs. */
export function isZero(bytes: Buffer, from: number, to: number): boolean {
  return bytes.compare(zeroes, 0, to - from, from, to) === 0;
}

export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
