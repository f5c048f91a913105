/*
 * The greatest file that a file system takes, by asking it: an empty file is given sizes and never a byte. ext4 of 4 KiB blocks says
 * 16 TiB less a block, XFS takes more than any volume has. Called by node-layer.ts once for each pool; the api places by it.
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";

const name = "varve.greatest-file";

/** Bytes, whole blocks; limits.volumeBytesMax where every volume fits. */
export async function greatestFileBytes(store: FileStore, directory: string): Promise<number> {
  const path = `${directory}/${name}`;
  const file = await store.open(path, { create: true, access: "buffered" });
  try {
    if (await takes(file, limits.volumeBytesMax)) return limits.volumeBytesMax;
    let [fits, not] = [0, limits.volumeBytesMax / limits.blockBytes];
    while (not - fits > 1) {
      const middle = Math.floor((fits + not) / 2);
      if (await takes(file, middle * limits.blockBytes)) fits = middle;
      else not = middle;
    }
    return fits * limits.blockBytes;
  } finally {
    await file.close();
    await store.remove(path);
  }
}

async function takes(file: BlockFile, sizeBytes: number): Promise<boolean> {
  try {
    await file.truncate(sizeBytes);
    return true;
  } catch (cause) {
    if (cause instanceof FileStoreError && cause.code === "EFBIG") return false;
    throw cause;
  }
}
