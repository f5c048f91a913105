// The simulated disk keeps its word: what was synced survives every crash, what was not survives in any part, names follow
// their directory's sync, and the same seed gives the same disk. Everything the simulator claims about Varve stands on this.
import { describe, expect, test } from "vitest";
import { SimulatedDisk, type SimulatedDiskOptions } from "#shared/adapters/file-store/simulated-disk.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import { SteppedClock, SteppedRandom } from "./stepped-clock.ts";

function world(seed: number, options: Partial<SimulatedDiskOptions> = {}) {
  const scheduler = new SteppedClock(seed);
  const disk = new SimulatedDisk({
    random: new SteppedRandom(seed + 1_000_000),
    schedule: scheduler.schedule,
    ...options,
  });
  const until = <T>(promise: Promise<T>): Promise<T> => scheduler.until(promise);
  const filled = (store: FileStore, value: number, bytes = 64 * 512) => {
    const slab = store.allocateSlab(Math.ceil(bytes / 4096) * 4096);
    slab.bytes.fill(value);
    return [{ slab, start: 0, length: bytes }];
  };
  const openNew = async (store: FileStore, path: string): Promise<BlockFile> => {
    await until(store.makeDirectory("/d"));
    const file = await until(store.open(path, { create: true, access: "buffered" }));
    await until(store.syncDirectory("/d"));
    return file;
  };
  const whole = async (path: string): Promise<Buffer | null> => until(disk.store().readWhole(path));
  const restart = (power: boolean): FileStore => {
    scheduler.reset();
    if (power) disk.crash();
    else disk.kill();
    return disk.store();
  };
  return { disk, scheduler, until, filled, openNew, whole, restart };
}

const seeds = Array.from({ length: 100 }, (_, index) => index);

describe("a power cut", () => {
  test("keeps what was synced or written durably, in every seed", async () => {
    for (const seed of seeds) {
      const { disk, until, filled, openNew, whole, restart } = world(seed);
      const store = disk.store();
      const file = await openNew(store, "/d/f");
      await until(file.write(filled(store, 1), 0));
      await until(file.sync());
      await until(file.write(filled(store, 2), 0));
      await until(file.writeDurable(filled(store, 3), 0));
      restart(true);
      expect((await whole("/d/f"))?.every((byte) => byte === 3)).toBe(true);
    }
  });

  test("leaves any sectors of unsynced writes: none, all, torn, and never a mix within a sector", async () => {
    const outcomes = new Set<string>();
    for (const seed of seeds) {
      const { disk, until, filled, openNew, whole, restart } = world(seed);
      const store = disk.store();
      const file = await openNew(store, "/d/f");
      await until(file.writeDurable(filled(store, 1), 0));
      await until(file.write(filled(store, 2), 0));
      await until(file.write(filled(store, 3), 0));
      restart(true);
      const bytes = await whole("/d/f");
      expect(bytes?.length).toBe(64 * 512);
      const sectors = new Set<number>();
      for (let at = 0; at < 64 * 512; at += 512) {
        const sector = bytes?.subarray(at, at + 512) ?? Buffer.alloc(0);
        expect(sector.every((byte) => byte === sector[0])).toBe(true);
        sectors.add(sector[0] ?? -1);
      }
      outcomes.add([...sectors].sort((a, b) => a - b).join());
    }
    for (const outcome of ["1", "3", "2,3", "1,2,3"]) expect([...outcomes]).toContain(outcome);
  });

  test("a write under way may be there in part, and its promise is never heard of", async () => {
    let touched = 0;
    for (const seed of seeds) {
      const { disk, scheduler, filled, openNew, whole, restart } = world(seed);
      const store = disk.store();
      const file = await openNew(store, "/d/f");
      let heard = false;
      file.writeDurable(filled(store, 7), 0).then(
        () => (heard = true),
        () => (heard = true),
      );
      restart(true);
      store.list("/d").then(
        () => (heard = true),
        () => (heard = true),
      );
      await scheduler.run(10);
      expect(heard).toBe(false);
      if ((await whole("/d/f"))?.includes(7) === true) touched += 1;
    }
    expect(touched).toBeGreaterThan(5);
    expect(touched).toBeLessThan(100);
  });

  test("names live by the sync of their directory, replacements are whole", async () => {
    const seen = new Set<string>();
    for (const seed of seeds) {
      const { disk, until, openNew, whole, restart } = world(seed);
      const store = disk.store();
      await openNew(store, "/d/old");
      await until(store.replaceWhole("/d/small", Buffer.from("first")));
      await until(store.open("/d/new", { create: true, access: "buffered" }));
      await until(store.rename("/d/old", "/d/moved"));
      void store.replaceWhole("/d/small", Buffer.from("second"));
      const after = restart(true);
      const names = await until(after.list("/d"));
      expect(names.includes("old") !== names.includes("moved")).toBe(true);
      const small = (await whole("/d/small"))?.toString();
      expect(["first", "second"]).toContain(small);
      seen
        .add(`${names.includes("new")}`)
        .add(`${names.includes("moved")}`)
        .add(small ?? "");
    }
    expect([...seen].sort()).toEqual(["false", "first", "second", "true"]);
  });

  test("keeps names whose directory was synced", async () => {
    for (const seed of seeds) {
      const { disk, until, openNew, restart } = world(seed);
      const store = disk.store();
      await openNew(store, "/d/a");
      await until(store.rename("/d/a", "/d/b"));
      await until(store.syncDirectory("/d"));
      await until(store.remove("/d/b"));
      await until(store.open("/d/c", { create: true, access: "buffered" }));
      await until(store.syncDirectory("/d"));
      expect(await until(restart(true).list("/d"))).toEqual(["c"]);
    }
  });
});

describe("faults", () => {
  test("a failed sync loses pages that a later good sync does not bring back", async () => {
    let lost = 0;
    for (const seed of seeds) {
      const { disk, until, filled, openNew, whole, restart } = world(seed);
      const store = disk.store();
      const file = await openNew(store, "/d/f");
      await until(file.writeDurable(filled(store, 1), 0));
      await until(file.write(filled(store, 2), 0));
      disk.faults.syncError = 1;
      await expect(until(file.sync())).rejects.toMatchObject({ code: "EIO" });
      disk.faults.syncError = 0;
      await until(file.sync());
      restart(true);
      if ((await whole("/d/f"))?.includes(1) === true) lost += 1;
    }
    expect(lost).toBeGreaterThan(10);
  });

  test("a full disk refuses with ENOSPC, keeps its quota and frees by punching", async () => {
    const { disk, until, filled, openNew } = world(1, { quotaBytes: 64 * 4096 });
    const store = disk.store();
    const file = await openNew(store, "/d/f");
    await until(file.write(filled(store, 1, 60 * 4096), 0));
    await expect(until(file.write(filled(store, 2, 8 * 4096), 60 * 4096))).rejects.toMatchObject({
      code: "ENOSPC",
      kind: "Full",
    });
    expect(disk.usedBytes).toBeLessThanOrEqual(64 * 4096);
    await until(file.applyAll([{ kind: "punch", offset: 0, length: 32 * 4096 }]));
    await until(file.write(filled(store, 2, 8 * 4096), 60 * 4096));
    expect((await until(store.freeSpace("/d"))).totalBytes).toBe(64 * 4096);
  });

  test("a write error may leave a part, a read error is one call's", async () => {
    const { disk, until, filled, openNew } = world(3);
    const store = disk.store();
    const file = await openNew(store, "/d/f");
    disk.faults.writeError = 1;
    await expect(until(file.write(filled(store, 1), 0))).rejects.toMatchObject({ code: "EIO" });
    disk.faults.writeError = 0;
    await until(file.write(filled(store, 1), 0));
    disk.faults.readError = 1;
    const slab = store.allocateSlab(4096);
    await expect(until(file.read(slab, 0, 4096, 0))).rejects.toMatchObject({ code: "EIO" });
    disk.faults.readError = 0;
    await until(file.read(slab, 0, 4096, 0));
    expect(slab.bytes.every((byte) => byte === 1)).toBe(true);
  });

  test("a flipped bit is there for the process and after a crash", async () => {
    const { disk, until, filled, openNew, whole, restart } = world(4);
    const store = disk.store();
    const file = await openNew(store, "/d/f");
    await until(file.writeDurable(filled(store, 1), 0));
    expect(disk.flipBit("/d/f", 100, 3)).toBe(true);
    expect(disk.flipBit("/d/none", 0, 0)).toBe(false);
    expect((await whole("/d/f"))?.[100]).toBe(9);
    restart(true);
    expect((await whole("/d/f"))?.[100]).toBe(9);
  });
});

test("a killed process leaves its finished writes in the cache and its locks free", async () => {
  for (const seed of seeds) {
    const { disk, until, filled, openNew, whole, restart } = world(seed);
    const store = disk.store();
    const file = await openNew(store, "/d/f");
    file.lockAsImageWriter();
    await until(store.lockDirectory("/d"));
    await until(file.write(filled(store, 5), 0));
    const after = restart(false);
    expect(() => file.nextData(0)).toThrowError(expect.objectContaining({ code: "EBADF" }));
    await until(after.lockDirectory("/d"));
    const again = await until(after.open("/d/f", { access: "buffered" }));
    again.lockAsImageWriter();
    expect((await whole("/d/f"))?.every((byte) => byte === 5)).toBe(true);
  }
});

test("one seed gives one disk", async () => {
  const run = async (seed: number): Promise<string> => {
    const { disk, until, filled, openNew, whole, restart } = world(seed, { faults: { writeError: 0.2 } });
    const store = disk.store();
    const file = await openNew(store, "/d/f");
    for (let value = 1; value < 20; value += 1) {
      await until(file.write(filled(store, value, 20 * 512), value * 700)).catch(() => undefined);
    }
    restart(true);
    return (await whole("/d/f"))?.toString("base64") ?? "";
  };
  expect(await run(11)).toBe(await run(11));
  expect(await run(11)).not.toBe(await run(12));
});
