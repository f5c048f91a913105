/*
 * msgpack headers of log records and checkpoints (docs/formats/log-record.md): msgpackr writes them; the reader accepts
 * exactly the bytes that it would have written (shortest form, ASCII text), so that a header has one encoding only.
 * The reader never allocates by a length that the bytes claim, and never throws: msgpackr's own unpack would reserve an
 * array of 2^32 elements because five bytes said so.
 */
import { Packr, RESET_BUFFER_MODE, REUSE_BUFFER_MODE } from "msgpackr";

export type PackedValue = string | number | readonly PackedValue[];

const packr = new Packr({ useRecords: false });

/**
 * Packs a value into `target` at `at` and returns the bytes written. Text must be ASCII, numbers non-negative safe integers.
 * No allocation: msgpackr's own buffer is used again by the next call. The caller knows that the value fits.
 */
export function packInto(target: Buffer, at: number, value: PackedValue): number {
  const packed = packr.pack(value, REUSE_BUFFER_MODE | RESET_BUFFER_MODE) as Buffer & {
    start: number;
    end: number;
  };
  return packed.copy(target, at, packed.start, packed.end);
}

/** Reads packed values one after the other from bytes [from, to). After the first mistake `ok` is false for good. */
export class PackedReader {
  ok = true;
  private readonly bytes: Buffer;
  private position: number;
  private readonly end: number;

  constructor(bytes: Buffer, from: number, to: number) {
    this.bytes = bytes;
    this.position = from;
    this.end = to;
  }

  /** True when everything was read without a mistake and nothing is left. */
  get complete(): boolean {
    return this.ok && this.position === this.end;
  }

  /** Where the next value starts. */
  get offset(): number {
    return this.position;
  }

  /** The element count of an array; its elements follow. -1 for anything else. */
  array(): number {
    const token = this.take(1);
    if (token >= 0x90 && token <= 0x9f) return token - 0x90;
    if (token === 0xdc) {
      const count = this.take(2);
      if (count > 0xf) return count;
    }
    return this.fail(-1);
  }

  /** A non-negative safe integer; 0 after a mistake. */
  number(): number {
    const token = this.take(1);
    if (token >= 0 && token < 0x80) return token;
    if (token === 0xcc) return this.atLeast(0x80, this.take(1));
    if (token === 0xcd) return this.atLeast(0x100, this.take(2));
    if (token === 0xce) return this.atLeast(0x1_0000, this.take(4));
    if (token === 0xcb && this.position + 8 <= this.end) {
      const value = this.bytes.readDoubleBE(this.position);
      this.position += 8;
      return Number.isSafeInteger(value) ? this.atLeast(0x1_0000_0000, value) : this.fail(0);
    }
    return this.fail(0);
  }

  /** ASCII text of at most 255 characters; "" after a mistake. */
  text(): string {
    const token = this.take(1);
    let length = -1;
    if (token >= 0xa0 && token <= 0xbf) length = token - 0xa0;
    else if (token === 0xd9) length = this.atLeast(0x20, this.take(1));
    const from = this.position;
    if (!this.ok || length < 0 || from + length > this.end) return this.fail("");
    this.position += length;
    for (let index = from; index < this.position; index += 1) {
      if ((this.bytes[index] ?? 0x80) >= 0x80) return this.fail("");
    }
    return this.bytes.toString("latin1", from, this.position);
  }

  /** A big-endian integer of so many bytes, or -1 where they are not there. */
  private take(byteCount: number): number {
    if (!this.ok || this.position + byteCount > this.end) return this.fail(-1);
    const value = this.bytes.readUIntBE(this.position, byteCount);
    this.position += byteCount;
    return value;
  }

  /** A value in a longer form than it needs is a mistake. */
  private atLeast(least: number, value: number): number {
    return value >= least ? value : this.fail(0);
  }

  private fail<T>(result: T): T {
    this.ok = false;
    return result;
  }
}
