// How large a file may be in a pool: found by asking, to the block, on file systems with any limit and on a real one; nothing is left behind.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { greatestFileBytes } from "../../../services/storage/engine/greatest-file.ts";

async function found(limitBytes: number, code = "EFBIG"): Promise<number> {
  const left = new Set<string>();
  const file = {
    truncate: async (sizeBytes: number) => {
      if (sizeBytes > limitBytes) throw new FileStoreError("truncate", "/pool", code);
    },
    close: async () => undefined,
  };
  const store = {
    open: async (path: string) => {
      left.add(path);
      return file;
    },
    remove: async (path: string) => left.delete(path),
  } as unknown as FileStore;
  try {
    return await greatestFileBytes(store, "/pool");
  } finally {
    expect([...left]).toEqual([]);
  }
}

test("a limit is found to the block, none is as much as a volume has, and another error is told", async () => {
  for (const limitBytes of [2 ** 44 - 4096, 2 ** 34, 4096, 2 ** 43 + 4096 * 12_345])
    expect(await found(limitBytes)).toBe(limitBytes);
  expect(await found(2 ** 41 - 1)).toBe(2 ** 41 - 4096);
  expect(await found(2 ** 63)).toBe(limits.volumeBytesMax);
  await expect(found(2 ** 44, "EIO")).rejects.toMatchObject({ code: "EIO" });
});

test("a real file system is asked in no time, and keeps nothing of it", async () => {
  const directory = mkdtempSync(join(tmpdir(), "varve-greatest-"));
  const store = new NativeFileStore();
  try {
    expect(await greatestFileBytes(store, directory)).toBeGreaterThan(2 ** 30);
    expect(readdirSync(directory)).toEqual([]);
  } finally {
    await store.close();
    rmSync(directory, { recursive: true });
  }
});
