// Objects' files in slices: the bytes are right whatever the size, files take turns slice by slice, and a slice that could not go to the
// disk fails the write, because the sync that follows would not say so again.
import { type FileHandle, mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PacedWrites } from "#shared/adapters/object-store/paced-write.ts";
import { limits } from "#shared/domain/limits.ts";

const slice = limits.bucketDirectorySliceBytes;
let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "varve-paced-"));
});
afterAll(() => rm(directory, { recursive: true }));

const bytesOf = (length: number, seed: number): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) bytes[at] = (at * 7 + (at >> 9) + seed) % 251;
  return bytes;
};

test("files of any length, several at once", async () => {
  const writes = new PacedWrites();
  const lengths = [0, 1, slice - 1, slice, slice + 1, 3 * slice, 4 * slice + 4096];
  const files = lengths.map(async (length, index) => {
    const path = join(directory, `file-${index}`);
    const file = await open(path, "wx");
    await writes.write(file, bytesOf(length, index));
    await file.close();
    expect((await readFile(path)).equals(bytesOf(length, index))).toBe(true);
  });
  await Promise.all(files);
});

test("one slice of all files at a time", async () => {
  const writes = new PacedWrites();
  const order: string[] = [];
  const [a, b] = [await open(join(directory, "a"), "wx"), await open(join(directory, "b"), "wx")];
  const watched = async (name: string, file: FileHandle): Promise<void> => {
    const seen = new Proxy(file, {
      get: (target, key) => {
        if (key !== "write") return Reflect.get(target, key, target) as unknown;
        return async (...args: Parameters<FileHandle["write"]>) => {
          order.push(name);
          return await target.write(...args);
        };
      },
    });
    await writes.write(seen, bytesOf(3 * slice, 1));
    await file.close();
  };
  await Promise.all([watched("a", a), watched("b", b)]);
  expect(order).toEqual(["a", "b", "a", "b", "a", "b"]);
});

test("a slice that the disk did not take fails the write, and no other file's", async () => {
  const writes = new PacedWrites();
  const sound = await open(join(directory, "sound"), "wx");
  // Takes every byte, and can't be synced: its number is no open file's.
  const broken = {
    fd: 1_000_000,
    write: async (_bytes: Buffer, _at: number, length: number) => ({ bytesWritten: length }),
  };
  const failed = writes.write(broken as unknown as FileHandle, bytesOf(2 * slice, 1));
  const written = writes.write(sound, bytesOf(2 * slice, 2));
  await expect(failed).rejects.toMatchObject({ code: "EBADF" });
  await written;
  await sound.close();
  expect((await readFile(join(directory, "sound"))).equals(bytesOf(2 * slice, 2))).toBe(true);
});
