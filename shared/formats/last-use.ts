/*
 * When extents were last used (docs/formats/last-use.md). Written and read by the replica image for tiering.
 */
import { type BadBytes, bad } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import { VarintReader, VarintWriter } from "./varint.ts";

/** "VLUS" as bytes. */
const magic = 0x5355_4c56;
const version = 1;
const headBytes = 16;
/** More is refused unread. */
export const lastUseBytesMax = 4 * 1024 * 1024;

export interface LastUse {
  /** `hour`: hours since 1970. Neighbours differ. */
  readonly runs: readonly { readonly extents: number; readonly hour: number }[];
}

export type BadLastUse = BadBytes<"lastUse">;

export function encodeLastUse({ runs }: LastUse): Buffer {
  const numbers = new VarintWriter();
  numbers.add(runs.length);
  for (const run of runs) {
    numbers.add(run.extents);
    numbers.add(run.hour);
  }
  const head = Buffer.alloc(headBytes);
  head.writeUInt32LE(magic, 8);
  head.writeUInt16LE(version, 12);
  const bytes = Buffer.concat([head, numbers.take()]);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8)), 0);
  return bytes;
}

/** Never throws. */
export function decodeLastUse(bytes: Buffer): LastUse | BadLastUse {
  if (bytes.length < headBytes || bytes.length > lastUseBytesMax)
    return bad("lastUse", `${bytes.length} bytes`);
  if (bytes.readUInt32LE(8) !== magic) return bad("lastUse", "no file of last use");
  if (checksumOf(bytes.subarray(8)) !== bytes.readBigUInt64LE(0)) return bad("lastUse", "checksum");
  if (bytes.readUInt16LE(12) !== version || bytes.readUInt16LE(14) !== 0) return bad("lastUse", "version");
  const reader = new VarintReader(bytes, headBytes);
  const count = reader.number();
  const runs: { extents: number; hour: number }[] = [];
  for (let index = 0; index < count; index += 1) {
    const run = { extents: reader.number(), hour: reader.number() };
    const tooLarge = run.hour > 0xffff_ffff || run.extents > 0xffff_ffff;
    if (!reader.ok || run.extents < 1 || tooLarge || run.hour === runs[runs.length - 1]?.hour) break;
    runs.push(run);
  }
  return reader.complete && runs.length === count ? { runs } : bad("lastUse", "runs");
}

export function isBadLastUse(value: LastUse | BadLastUse): value is BadLastUse {
  return "fault" in value;
}
