/*
 * Whole numbers in as few bytes as they need: seven bits a byte, least significant first, shortest form only, at most
 * 2^53 - 1 (docs/formats/checkpoint.md, "Extent table"). Used by extent-table.ts and last-use.ts. Reading never throws.
 */
import { invariant } from "#shared/domain/invariant.ts";

export class VarintWriter {
  private bytes = Buffer.alloc(4096);
  private length = 0;

  add(value: number): void {
    invariant(Number.isSafeInteger(value) && value >= 0, "a varint is a whole number");
    this.reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.bytes[this.length++] = (rest % 0x80) + 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.bytes[this.length++] = rest;
  }

  addBytes(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  take(): Buffer {
    return this.bytes.subarray(0, this.length);
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.bytes.length) return;
    const larger = Buffer.alloc(2 * this.bytes.length + bytes);
    larger.set(this.bytes.subarray(0, this.length));
    this.bytes = larger;
  }
}

/** Reads numbers up to the end of `source`, one after the other. After the first mistake `ok` is false for good. */
export class VarintReader {
  ok = true;
  private readonly source: Buffer;
  private position: number;

  constructor(source: Buffer, from: number) {
    this.source = source;
    this.position = from;
  }

  /** Read to the last byte without a mistake. */
  get complete(): boolean {
    return this.ok && this.position === this.source.length;
  }

  /** 0 after a mistake. */
  number(): number {
    let value = 0;
    let scale = 1;
    for (let index = 0; this.ok; index += 1) {
      const byte = this.source[this.position];
      this.position += 1;
      if (byte === undefined || index === 8) break;
      value += (byte & 0x7f) * scale;
      scale *= 0x80;
      if (byte >= 0x80) continue;
      if ((byte === 0 && index > 0) || !Number.isSafeInteger(value)) break;
      return value;
    }
    this.ok = false;
    return 0;
  }

  bytes(count: number): Uint8Array | null {
    const from = this.position;
    this.position += count;
    this.ok &&= this.position <= this.source.length;
    return this.ok ? this.source.subarray(from, this.position) : null;
  }
}
