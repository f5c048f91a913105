/*
 * The ranges of a peek, behind its header (docs/formats/replica-message.md): 12 bytes each. The gateway writes them
 * (gathered-reads.ts), the storage node reads them (replica-peek.ts). Reading trusts nothing and never throws.
 */
import { limits } from "#shared/domain/limits.ts";

export interface PeekRange {
  readonly offset: number;
  readonly length: number;
}

export const peekRangeBytes = 12;

/** Writes them one after the other from `at` on. */
export function writePeekRanges(ranges: readonly PeekRange[], bytes: Buffer, at: number): void {
  for (const [index, { offset, length }] of ranges.entries()) {
    const place = at + index * peekRangeBytes;
    bytes.writeBigUInt64LE(BigInt(offset), place);
    bytes.writeUInt32LE(length, place + 8);
  }
}

/** Null: none, too many, cut off, or one that no gateway asks for. */
export function readPeekRanges(payload: Buffer): readonly PeekRange[] | null {
  const count = payload.length / peekRangeBytes;
  if (!Number.isInteger(count) || count < 1 || count > limits.replicaPeek.rangesMax) return null;
  const ranges: PeekRange[] = [];
  for (let place = 0; place < payload.length; place += peekRangeBytes) {
    const offset = Number(payload.readBigUInt64LE(place));
    const length = payload.readUInt32LE(place + 8);
    const isRange = length >= 1 && length <= limits.replicaPeek.readBytesMax;
    if (!isRange || offset + length > limits.volumeBytesMax) return null;
    ranges.push({ offset, length });
  }
  return ranges;
}
