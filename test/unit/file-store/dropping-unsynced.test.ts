// The decorator that loses what was not synced: the process sees every write, the store below only what was synced, and a
// killed process's successor finds exactly that. Random operations against two plain arrays: what is seen, what survives.
import { describe, expect, test } from "vitest";
import { DroppingUnsyncedStore } from "#shared/adapters/decorators/dropping-unsynced.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import { SteppedRandom } from "./stepped-clock.ts";

const sizeBytes = 3 * 1024 * 1024;

async function setUp() {
  const below = new MemoryFileStore();
  const store = new DroppingUnsyncedStore(below, "/hidden");
  await store.makeDirectory("/d");
  const file = await store.open("/d/f", { create: true, access: "buffered" });
  await file.truncate(sizeBytes);
  await file.sync();
  await store.syncDirectory("/d");
  return { below, store, file };
}

/** What a new process finds: a decorator of its own over the same files. */
async function survivor(below: FileStore, path: string): Promise<Buffer | null> {
  return new DroppingUnsyncedStore(below, "/hidden").readWhole(path);
}

test("bytes: seen at once, below only after a sync, in every order of operations", async () => {
  for (let seed = 1; seed <= 8; seed += 1) {
    const random = new SteppedRandom(seed);
    const { below, store, file } = await setUp();
    const seen = Buffer.alloc(sizeBytes);
    const synced = Buffer.alloc(sizeBytes);
    const slab = store.allocateSlab(64 * 1024);
    const into = store.allocateSlab(sizeBytes);
    for (let step = 0; step < 120; step += 1) {
      await oneStep(random, file, slab, seen, synced);
      if (step % 20 !== 19) continue;
      await file.read(into, 0, sizeBytes, 0);
      expect(into.bytes.equals(seen)).toBe(true);
      const at = random.integer(0, sizeBytes - 10_000);
      into.bytes.fill(1);
      expect(file.readInline(into, 0, 10_000, at)).toBe(10_000);
      expect(into.bytes.subarray(0, 10_000).equals(seen.subarray(at, at + 10_000))).toBe(true);
      expectHolesAreZero(file, seen);
      expect((await store.readWhole("/d/f"))?.equals(seen)).toBe(true);
      expect((await survivor(below, "/d/f"))?.equals(synced)).toBe(true);
    }
    await file.syncWithTimes();
    expect((await survivor(below, "/d/f"))?.equals(seen)).toBe(true);
  }
});

async function oneStep(
  random: SteppedRandom,
  file: BlockFile,
  slab: { readonly bytes: Buffer; readonly address: number },
  seen: Buffer,
  synced: Buffer,
): Promise<void> {
  const offset = random.integer(0, sizeBytes - 65_536);
  const length = random.integer(1, random.chance(0.3) ? 65_536 : 5000);
  const value = random.integer(1, 256);
  const piece = { slab, start: 0, length };
  slab.bytes.fill(value);
  const choice = random.next();
  if (choice < 0.35) await file.applyAll([{ kind: "write", piece, offset }]);
  else if (choice < 0.5) file.writeInline([piece], offset);
  else if (choice < 0.6) {
    file.writeDurableInline([piece], offset);
    synced.fill(value, offset, offset + length);
  } else if (choice < 0.65) {
    await file.writeDurable([piece], offset);
    seen.fill(value, offset, offset + length);
    // Everything older goes down with it, or it alone.
    seen.copy(synced);
    await file.sync();
    return;
  } else if (choice < 0.8) {
    const wide = random.chance(0.2);
    const range = wide ? { offset: 100, length: 2 * 1024 * 1024 } : { offset, length };
    await file.applyAll([{ kind: random.chance(0.5) ? "punch" : "zero", ...range }]);
    seen.fill(0, range.offset, range.offset + range.length);
    return;
  } else if (choice < 0.85) {
    const shorter = random.integer(1, sizeBytes);
    await file.applyAll([
      { kind: "truncate", sizeBytes: shorter },
      { kind: "truncate", sizeBytes },
    ]);
    seen.fill(0, shorter);
    return;
  } else {
    await file.sync();
    seen.copy(synced);
    return;
  }
  seen.fill(value, offset, offset + length);
}

function expectHolesAreZero(file: BlockFile, seen: Buffer): void {
  for (let at = 0; at < sizeBytes; ) {
    const data = file.nextData(at);
    const end = data === -1 ? sizeBytes : data;
    expect(seen.subarray(at, end).every((byte) => byte === 0)).toBe(true);
    at = end === sizeBytes ? end : file.nextHole(end);
    expect(at).toBeGreaterThan(end === sizeBytes ? 0 : end);
  }
}

test("a failed sync keeps the bytes for the next one", async () => {
  const { below, store, file } = await setUp();
  const slab = store.allocateSlab(4096);
  slab.bytes.fill(5);
  await file.write([{ slab, start: 0, length: 4096 }], 0);
  await file.close();
  await expect(file.sync()).rejects.toMatchObject({ code: "EBADF" });
  const again = await store.open("/d/f", { access: "buffered" });
  expect((await survivor(below, "/d/f"))?.[0]).toBe(0);
  await again.sync();
  expect((await survivor(below, "/d/f"))?.[0]).toBe(5);
});

describe("names", () => {
  test("a new file, a rename and a remove are the process's own until the directory is synced", async () => {
    const { below, store } = await setUp();
    const names = async (): Promise<readonly string[]> =>
      new DroppingUnsyncedStore(below, "/hidden").list("/d");
    const fresh = await store.open("/d/new", { create: true, access: "buffered" });
    const slab = store.allocateSlab(4096);
    slab.bytes.fill(7);
    await fresh.writeDurable([{ slab, start: 0, length: 4096 }], 0);
    await store.rename("/d/f", "/d/g");
    expect(await store.list("/d")).toEqual(["g", "new"]);
    expect(await names()).toEqual(["f"]);
    await store.rename("/d/new", "/d/newer");
    expect((await store.readWhole("/d/newer"))?.[0]).toBe(7);
    expect(await store.facts("/d/new")).toBeNull();
    await expect(store.open("/d/new", { access: "buffered" })).rejects.toMatchObject({ code: "ENOENT" });
    await store.syncDirectory("/d");
    expect(await names()).toEqual(["g", "newer"]);
    expect((await survivor(below, "/d/newer"))?.[0]).toBe(7);
    await store.remove("/d/g");
    await store.rename("/d/newer", "/d/g");
    expect(await store.list("/d")).toEqual(["g"]);
    expect(await names()).toEqual(["g", "newer"]);
    await store.syncDirectory("/d");
    expect(await names()).toEqual(["g"]);
    expect((await survivor(below, "/d/g"))?.[0]).toBe(7);
  });

  test("a name that is made, dropped and made again is the last one", async () => {
    const { below, store } = await setUp();
    await (await store.open("/d/x", { create: true, access: "buffered" })).close();
    await store.remove("/d/x");
    await expect(store.remove("/d/x")).rejects.toMatchObject({ code: "ENOENT" });
    const last = await store.open("/d/x", { create: true, access: "buffered" });
    await last.truncate(77);
    await last.sync();
    await store.syncDirectory("/d");
    expect((await survivor(below, "/d/x"))?.length).toBe(77);
    expect(await store.list("/d")).toEqual(["f", "x"]);
    await store.replaceWhole("/d/x", Buffer.from("small"));
    expect((await survivor(below, "/d/x"))?.toString()).toBe("small");
    await store.close();
    expect(await below.list("/hidden")).toEqual([]);
  });
});
