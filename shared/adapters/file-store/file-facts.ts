/*
 * A file's facts from a stat call: what attach compares after a clean detach. Used by native.ts and native-file.ts.
 * Times and inode stay BigInt, since they do not fit a double.
 */
import type { BigIntStats } from "node:fs";
import type { FileFacts } from "#shared/ports/file-store.ts";

export function factsOf(stats: BigIntStats): FileFacts {
  return {
    sizeBytes: Number(stats.size),
    allocatedBytes: Number(stats.blocks) * 512,
    inode: stats.ino,
    mtimeNs: stats.mtimeNs,
    ctimeNs: stats.ctimeNs,
  };
}
