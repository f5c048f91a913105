// What only a directory can do wrong: it goes away and comes back, another process cleans up, a file stands in the way, the
// rights are missing, temporary files are left. The promises of every store are in test/contract; kill -9 in test/crash.
import { mkdir, mkdtemp, readdir, rename, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemRandom } from "#shared/adapters/clock/system.ts";
import { DirectoryObjectStore } from "#shared/adapters/object-store/directory.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";

let parent: string;
let root: string;
let store: DirectoryObjectStore;
const open = (): Promise<DirectoryObjectStore> =>
  DirectoryObjectStore.open(root, { random: new SystemRandom(), create: true });

beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), "varve-directory-"));
  root = join(parent, "bucket");
  store = await open();
});
afterEach(() => rm(parent, { recursive: true, force: true }));

async function kindOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(ObjectStoreError);
    return (error as ObjectStoreError).kind;
  }
  return "no error";
}

async function keys(of: ObjectStore, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of of.list(prefix)) found.push(key);
  return found;
}

describe("a bucket that is away", () => {
  test("is Retry for every request, never an empty bucket, and nothing is made in its place", async () => {
    await store.put("a/b", Buffer.from("x"));
    await rename(root, join(parent, "elsewhere"));
    const all = async (): Promise<void> => {
      expect(await kindOf(store.put("a/c", Buffer.from("y")))).toBe("Retry");
      expect(await kindOf(store.put("a/c", Buffer.from("y"), { onlyNew: true }))).toBe("Retry");
      expect(await kindOf(store.get("a/b"))).toBe("Retry");
      expect(await kindOf(store.head("a/b"))).toBe("Retry");
      expect(await kindOf(store.remove("a/b"))).toBe("Retry");
      expect(await kindOf(keys(store))).toBe("Retry");
      expect(await kindOf(keys(store, "a/"))).toBe("Retry");
    };
    await all();
    expect(await readdir(parent)).toEqual(["elsewhere"]);
    // The mount point without its disk.
    await mkdir(root);
    await all();
    expect(await readdir(root)).toEqual([]);
    await rm(root, { recursive: true });
    await rename(join(parent, "elsewhere"), root);
    expect(String(await store.get("a/b"))).toBe("x");
    await store.put("a/c", Buffer.from("y"));
    expect(await keys(store)).toEqual(["a/b", "a/c"]);
  });
});

describe("others in the same directory", () => {
  test("what a killed process left is removed at the next start", async () => {
    await store.put("a", Buffer.from("x"));
    await writeFile(join(root, "~tmp", "0123456789abcdef"), "half an obj");
    const next = await open();
    expect(await readdir(join(root, "~tmp"))).toEqual([]);
    expect(await keys(next)).toEqual(["a"]);
  });

  test("a process that starts takes temporary files away: puts under way write theirs again", async () => {
    const content = Buffer.alloc(200_000, 5);
    const left = { puts: 200 };
    const cleaning = (async () => {
      while (left.puts > 0) {
        await open();
        await new Promise((resolve) => {
          setTimeout(resolve, 15);
        });
      }
    })();
    const put = async (index: number): Promise<void> => {
      const key = `busy/${index}`;
      for (;;) {
        const answer = await store.put(key, content, { onlyNew: index % 2 === 0 }).catch((error: unknown) => {
          // Three times in a row is possible, here only.
          expect(error).toMatchObject({ kind: "Retry" });
          return null;
        });
        if (answer !== null) break;
      }
      expect((await store.get(key))?.equals(content)).toBe(true);
      left.puts -= 1;
    };
    for (let at = 0; at < 200; at += 8)
      await Promise.all(Array.from({ length: 8 }, (_, index) => put(at + index)));
    await cleaning;
    expect(await keys(store)).toHaveLength(200);
    expect(store.counters.retries).toBeGreaterThan(0);
  });

  test("empty directories may be taken away, and foreign files are no objects", async () => {
    await store.put("log/1/a", Buffer.from("x"));
    await store.remove("log/1/a");
    await rm(join(root, "log"), { recursive: true });
    await store.put("log/1/b", Buffer.from("y"));
    await writeFile(join(root, "log", "notes (old).txt"), "by hand");
    await symlink("/nowhere", join(root, "log", "dangling"));
    expect(await keys(store)).toEqual(["log/1/b"]);
  });
});

describe("what stands in the way", () => {
  test("a key that is a directory of other keys, or below another key", async () => {
    await store.put("a/b", Buffer.from("x"));
    expect(await kindOf(store.put("a", Buffer.from("y")))).toBe("Invalid");
    expect(await kindOf(store.put("a/b/c", Buffer.from("y")))).toBe("Invalid");
    expect(await store.get("a")).toBeNull();
    expect(await store.head("a")).toBeNull();
    expect(await store.get("a/b/c")).toBeNull();
    expect(await store.head("a/b/c")).toBeNull();
    await store.remove("a");
    await store.remove("a/b/c");
    expect(String(await store.get("a/b"))).toBe("x");
    expect(await readdir(join(root, "~tmp"))).toEqual([]);
    await unlink(join(root, "a", "b"));
    await store.put("a/b/c", Buffer.from("z"));
    expect(await keys(store)).toEqual(["a/b/c"]);
  });

  test("a file where the bucket should be, and an object that is too large to be ours", async () => {
    await writeFile(join(parent, "file"), "");
    expect(
      await kindOf(
        DirectoryObjectStore.open(join(parent, "file"), { random: new SystemRandom(), create: true }),
      ),
    ).toBe("Invalid");
    await writeFile(join(root, "huge"), Buffer.alloc(33 * 1024 * 1024));
    expect(await kindOf(store.get("huge"))).toBe("Corrupt");
    expect((await store.get("huge", { start: 5, length: 10 }))?.length).toBe(10);
  });
});
