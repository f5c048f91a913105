// Bases read while the disk is written to: at every step of every read, entries are appended, begun, half applied or applied. What
// the base then says is held against the oracle at every entry from its `e` on, from each base alone.
import { describe, expect, test } from "vitest";
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { baseToBuildOn, isBaseDue, isBaseMissing } from "#shared/domain/base-plan.ts";
import { decodeBase, decodeBasePage } from "#shared/formats/base-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { DirtyExtents } from "../../../services/archiver/engine/dirty-extents.ts";
import { ArchiveWorld, volumeId } from "./archive-world.ts";

const MiB = 1024 * 1024;

async function chunkNames(
  world: ArchiveWorld,
  manifest: VolumeManifest,
  index: number,
): Promise<(string | null)[]> {
  const base = decodeBase((await world.bucket.get(manifest.bases[index]?.key ?? "")) as Buffer);
  if (isBadObject(base)) throw new Error(base.detail);
  const names: (string | null)[] = [];
  for (const key of base.pages) {
    if (key === null) continue;
    const page = decodeBasePage((await world.bucket.get(key)) as Buffer, key);
    if (isBadObject(page)) throw new Error(page.detail);
    names.push(...page.chunks);
  }
  return names;
}

/** Points at and after each base's `e`, from that base and no other. */
async function expectEachBase(world: ArchiveWorld, what: string): Promise<void> {
  const bases = (await world.manifests()).at(-1)?.bases ?? [];
  expect(bases.length, what).toBeGreaterThan(0);
  for (const base of bases) {
    await world.expectPoints(base.e, `${what}, base ${base.s}-${base.e}`, (manifest) => ({
      ...manifest,
      bases: [base],
    }));
  }
}

describe("bases beside writes", () => {
  test("entries at every step of every read: random orders of append, begin, half apply, apply", async () => {
    for (let seed = 1; seed <= 4; seed += 1) {
      const world = new ArchiveWorld(seed, 8 * MiB + 512);
      const { random } = world.clock;
      const { volume } = await world.open();
      world.appliesAtOnce = false;
      const halves: (() => void)[] = [];
      const settle = (): void => {
        for (const finish of halves.splice(0)) finish();
      };
      const stir = (): void => {
        const choice = random.next();
        if (halves.length > 0) settle();
        else if (choice < 0.4) world.random();
        else if (choice < 0.7) halves.push(world.image.applyHalf());
        else world.image.apply(random.integer(1, 4));
      };
      world.image.onRead = () => {
        if (world.lastLsn < 70) for (let count = random.integer(0, 4); count > 0; count -= 1) stir();
      };
      for (let round = 0; round < 6; round += 1) {
        for (let count = 0; count < 4; count += 1) world.random();
        stir();
        const base = volume.takeBase();
        await world.pass(60);
        settle();
        world.image.apply();
        await world.clock.until(base);
      }
      settle();
      world.image.apply();
      await world.clock.until(volume.archive(world.lastLsn));
      await world.pass(100);
      expect(volume.status().counters["bases"], `seed ${seed}`).toBeGreaterThan(1);
      const bases = volume.manifest()?.bases ?? [];
      expect(bases.some((base) => base.e > base.s)).toBe(true);
      for (const [index, base] of bases.entries()) {
        expect(base.s).toBeGreaterThanOrEqual(bases[index - 1]?.e ?? 0);
      }
      await world.expectNoDanglingName(`seed ${seed}`);
      await expectEachBase(world, `seed ${seed}`);
    }
  }, 120_000);

  test("a base that is asked for has all that was durable then, although the image is behind", async () => {
    const world = new ArchiveWorld(10, 8 * MiB);
    const { volume } = await world.open();
    world.write(0, 4096, 1);
    await world.clock.until(volume.takeBase());
    world.appliesAtOnce = false;
    world.write(4 * MiB, 4096, 2);
    const durableLsn = world.lastLsn;
    expect(world.image.state().appliedLsn).toBeLessThan(durableLsn);
    const asked = volume.takeBase();
    await world.pass(200);
    world.image.apply();
    expect((await world.clock.until(asked)).s).toBe(durableLsn);
    await expectEachBase(world, "asked for while behind");
  });

  test("shrink, then grow, while extents at the end are read", async () => {
    const world = new ArchiveWorld(11, 17 * MiB);
    const { volume } = await world.open();
    for (let extent = 0; extent < 4; extent += 1) world.write(extent * 4 * MiB + 100, 50_000, extent + 1);
    world.write(16 * MiB + 5, 1000, 9);
    const first = await world.clock.until(volume.takeBase());
    world.append([{ kind: "resize", sizeBytes: 9 * MiB }]);
    world.write(8 * MiB, 3000, 20);
    world.image.onRead = (extent) => {
      if (extent !== 2) return;
      world.image.onRead = () => undefined;
      world.append([{ kind: "resize", sizeBytes: 17 * MiB }]);
      world.write(12 * MiB, 500, 21);
      world.append([{ kind: "resize", sizeBytes: 8 * MiB + 512 }]);
      world.append([{ kind: "resize", sizeBytes: 20 * MiB }]);
      world.write(19 * MiB, 700, 22);
    };
    const second = await world.clock.until(volume.takeBase());
    expect(second.e).toBeGreaterThan(second.s);
    const third = await world.clock.until(volume.takeBase());
    expect(third.s).toBeGreaterThan(first.e);
    await expectEachBase(world, "shrunk and grown");
  });

  test("only touched extents are read, unchanged content and zeroes cost nothing, names are never used twice", async () => {
    const world = new ArchiveWorld(12, 40 * MiB);
    const { volume, store } = await world.open();
    for (let extent = 0; extent < 9; extent += 1)
      world.write(extent * 4 * MiB, 5000, extent < 4 ? 77 : extent);
    await world.clock.until(volume.takeBase());
    expect(volume.status().counters).toMatchObject({ extentsRead: 9, chunksNew: 6 });
    // Extents 0 to 3 are equal: one chunk.
    const names = await chunkNames(world, volume.manifest() as VolumeManifest, 0);
    expect(new Set(names.slice(0, 4)).size).toBe(1);

    const readsBefore = world.image.reads;
    world.append([{ kind: "trim", offset: 4 * MiB, length: 4 * MiB }]);
    world.write(8 * MiB, 5000, 77);
    world.write(12 * MiB + 77, 10, 99);
    await world.clock.until(volume.takeBase());
    // Extent 1 is a hole, 2 has what it had, 3 is new.
    expect(world.image.reads - readsBefore).toBe(2);
    expect(volume.status().counters["chunksNew"]).toBe(7);
    const later = await chunkNames(world, volume.manifest() as VolumeManifest, 1);
    expect(later[0]).toBe(names[0]);
    expect(later[1]).toBeNull();
    expect(later[2]).toBe(names[2]);
    expect(later[3]).not.toBe(names[3]);
    const puts = store.log.filter((one) => one.startsWith("put "));
    expect(new Set(puts).size).toBe(puts.length);
    await expectEachBase(world, "touched");
  });

  test("a hung DELETE that lands after the same bytes were uploaded again hits nothing", async () => {
    const world = new ArchiveWorld(21, 8 * MiB);
    const { volume } = await world.open();
    world.write(0, 5000, 1);
    await world.clock.until(volume.takeBase());
    const first = [...(await world.keys("chunks/")), ...(await world.keys(`volumes/${volumeId}/pages/`))];
    expect(first).toHaveLength(2);
    world.write(0, 5000, 2);
    await world.clock.until(volume.takeBase());
    // Nothing names them any more: a collector asks for their DELETE, which hangs in a proxy.
    await world.clock.until(volume.amend((manifest) => ({ ...manifest, bases: manifest.bases.slice(1) })));
    world.write(0, 5000, 1);
    await world.clock.until(volume.takeBase());
    for (const key of first) await world.bucket.remove(key);
    expect(volume.manifest()?.bases).toHaveLength(2);
    await expectEachBase(world, "after the DELETE");
  });

  test("the same log is not taken into a base twice, and a base that is there is given", async () => {
    const world = new ArchiveWorld(13, 9 * MiB);
    const { volume } = await world.open();
    world.write(0, 100, 1);
    const first = await world.clock.until(volume.takeBase());
    expect(await world.clock.until(volume.takeBase())).toEqual(first);
    expect(volume.status().counters["bases"]).toBe(1);
  });

  test("after a restart the next base reads what was touched since the last, from footers and index pages", async () => {
    const world = new ArchiveWorld(14, 17 * MiB);
    const before = await world.open({ segmentRecordBytes: 4096 });
    for (let extent = 0; extent < 4; extent += 1) world.write(extent * 4 * MiB, 1000, extent + 1);
    await world.clock.until(before.volume.takeBase());
    for (let count = 0; count < 270; count += 1) world.write(4 * MiB + count * 10, 50, count);
    await world.pass(1000);
    expect(before.volume.manifest()?.pages.length).toBe(1);
    before.store.left = 0;
    world.write(12 * MiB, 60, 8);
    const { volume } = await world.open({ segmentRecordBytes: 4096 });
    const readsBefore = world.image.reads;
    const base = await world.clock.until(volume.takeBase());
    expect(world.image.reads - readsBefore).toBe(2);
    world.write(4 * MiB, 5000, 1);
    await world.clock.until(volume.archive(world.lastLsn));
    const manifest = (one: VolumeManifest): VolumeManifest => ({ ...one, bases: one.bases.slice(-1) });
    await world.expectPoints(base.e, "after a restart", manifest);
  });

  test("an extent that is not on this machine is never read: untouched keeps its name, touched postpones the base", async () => {
    const world = new ArchiveWorld(15, 17 * MiB);
    const { volume } = await world.open();
    for (let extent = 0; extent < 4; extent += 1) world.write(extent * 4 * MiB, 1000, extent + 1);
    await world.clock.until(volume.takeBase());
    world.image.remote.add(2);
    world.write(0, 1000, 9);
    await world.clock.until(volume.takeBase());
    const names = await chunkNames(world, volume.manifest() as VolumeManifest, 1);
    expect(names[2]).toBe((await chunkNames(world, volume.manifest() as VolumeManifest, 0))[2]);
    world.write(8 * MiB, 10, 9);
    await expect(world.clock.until(volume.takeBase())).rejects.toMatchObject({
      kind: "Retry",
      _tag: "BaseGivenUp",
    });
    world.image.remote.clear();
    world.write(8 * MiB, 10, 10);
    await world.clock.until(volume.takeBase());
    await expectEachBase(world, "remote");
  });

  test("a rollback while extents are read: the base is given up", async () => {
    const world = new ArchiveWorld(16, 9 * MiB);
    const { volume } = await world.open();
    const back = world.write(0, 1000, 1);
    world.write(0, 1000, 2);
    world.image.onRead = () => {
      world.image.onRead = () => undefined;
      // Durable; its apply does not matter here.
      world.log.append([{ kind: "rebase", lsn: back }], 1);
    };
    await expect(world.clock.until(volume.takeBase())).rejects.toMatchObject({ _tag: "BaseGivenUp" });
    expect(volume.manifest()?.bases).toEqual([]);
  });

  test("a base before that went away, or a shared chunk that went away: nothing is published on their word", async () => {
    const world = new ArchiveWorld(17, 9 * MiB);
    const { volume } = await world.open();
    world.write(0, 1000, 1);
    world.write(5 * MiB, 1000, 2);
    await world.clock.until(volume.takeBase());
    world.write(0, 1000, 3);
    world.image.onRead = async () => {
      world.image.onRead = () => undefined;
      await volume.amend((manifest) => ({ ...manifest, bases: [] }));
    };
    await expect(world.clock.until(volume.takeBase())).rejects.toMatchObject({ _tag: "BaseGivenUp" });
    expect(volume.manifest()?.bases).toEqual([]);
    world.write(0, 1000, 4);
    await world.clock.until(volume.takeBase());
    await expectEachBase(world, "again");
  });

  test("a damaged base before: the next but one is made without it", async () => {
    const world = new ArchiveWorld(18, 9 * MiB);
    const { volume } = await world.open();
    world.write(0, 1000, 1);
    world.write(5 * MiB, 1000, 2);
    await world.clock.until(volume.takeBase());
    const key = volume.manifest()?.bases[0]?.key ?? "";
    await world.bucket.put(key, Buffer.alloc(40));
    world.write(0, 1000, 3);
    await expect(world.clock.until(volume.takeBase())).rejects.toMatchObject({ kind: "Corrupt" });
    world.write(0, 1000, 4);
    const base = await world.clock.until(volume.takeBase());
    await world.expectPoints(base.e, "without", (manifest) => ({
      ...manifest,
      bases: manifest.bases.slice(-1),
    }));
  });

  test("the rate is kept: 64 MiB/s is 16 extents a second", async () => {
    const world = new ArchiveWorld(19, 40 * MiB);
    const { volume } = await world.open({ baseReadBytesPerSecond: 64 * MiB });
    for (let extent = 0; extent < 10; extent += 1) world.write(extent * 4 * MiB, 10, extent + 1);
    await world.clock.until(volume.archive(world.lastLsn));
    const fromMs = world.clock.monotonicMs();
    await world.clock.until(volume.takeBase());
    const tookMs = world.clock.monotonicMs() - fromMs;
    expect(tookMs).toBeGreaterThanOrEqual(400);
    expect(tookMs).toBeLessThan(1000);
  });

  test("while the image is written to it is a quarter of that", async () => {
    const world = new ArchiveWorld(19, 40 * MiB);
    const { volume } = await world.open({ baseReadBytesPerSecond: 64 * MiB });
    for (let extent = 0; extent < 10; extent += 1) world.write(extent * 4 * MiB, 10, extent + 1);
    await world.clock.until(volume.archive(world.lastLsn));
    const fromMs = world.clock.monotonicMs();
    let isTaken = false;
    const write = (): void => {
      for (let count = 0; count < 2; count += 1) world.write(0, 10, 99);
      if (!isTaken) world.clock.after(10, write);
    };
    world.clock.after(1, write);
    await world.clock.until(volume.takeBase());
    isTaken = true;
    expect(world.clock.monotonicMs() - fromMs).toBeGreaterThanOrEqual(1900);
  });

  test("in the bucket of two volumes equal extents are one chunk, for as long as the other names it", async () => {
    const world = new ArchiveWorld(20, 9 * MiB);
    const { volume } = await world.open();
    world.write(0, 1000, 1);
    await world.clock.until(volume.takeBase());
    expect(volume.status().counters["chunksNew"]).toBe(1);
    world.append([{ kind: "trim", offset: 0, length: 4 * MiB }]);
    world.write(4 * MiB, 1000, 1);
    await world.clock.until(volume.takeBase());
    // The same content in another place of the same volume's last base but one.
    expect(volume.status().counters["chunksNew"]).toBe(1);
    await expectEachBase(world, "shared");
  });
});

describe("when a base is due", () => {
  const sizes = { logBytesMin: 256 * MiB, logBytesMax: 1024 * MiB };

  test("by the sums of the specification", () => {
    const due = (logBytes: number, dirtyBytes: number, bases = 1): boolean =>
      isBaseDue({ logBytes: logBytes * MiB, dirtyBytes: dirtyBytes * MiB, bases, ...sizes });
    expect(due(63, 1)).toBe(false);
    expect(due(64, 16)).toBe(true);
    expect(due(64, 17)).toBe(false);
    expect(due(255, 64)).toBe(false);
    expect(due(256, 64)).toBe(true);
    expect(due(255, 100)).toBe(false);
    expect(due(256, 128)).toBe(true);
    expect(due(256, 129)).toBe(false);
    expect(due(1023, 10_000)).toBe(false);
    expect(due(1024, 10_000)).toBe(true);
    expect(due(1024, 40_000)).toBe(false);
    expect(due(2500, 40_000)).toBe(true);
    expect(due(4096, 1_000_000)).toBe(true);
    // Many bases: less often, with the same end.
    expect(due(64, 1, 1024)).toBe(true);
    expect(due(127, 1, 2048)).toBe(false);
    expect(due(128, 1, 2048)).toBe(true);
    expect(due(511, 1, 8191)).toBe(false);
    expect(due(512, 1, 8191)).toBe(true);
    expect(due(2047, 128, 8191)).toBe(false);
    expect(due(2048, 128, 8191)).toBe(true);
    expect(due(4095, 10_000, 8191)).toBe(false);
    expect(due(4096, 10_000, 8191)).toBe(true);
    expect(due(1_000_000, 1, 15_360)).toBe(false);
  });

  test("what it may build on: no rebase behind its end, no gap after it", () => {
    const base = (s: number, e: number) => ({ key: `${s}`, s, e, sizeBytes: 512, newChunkBytes: 0 });
    const bases = [base(10, 12), base(20, 25), base(30, 31)];
    expect(baseToBuildOn({ bases, rebases: [], gaps: [] })?.s).toBe(30);
    expect(baseToBuildOn({ bases, rebases: [{ lsn: 40, toLsn: 26 }], gaps: [] })?.s).toBe(20);
    expect(baseToBuildOn({ bases, rebases: [{ lsn: 40, toLsn: 24 }], gaps: [] })?.s).toBe(10);
    expect(baseToBuildOn({ bases, rebases: [{ lsn: 15, toLsn: 3 }], gaps: [] })?.s).toBe(30);
    expect(baseToBuildOn({ bases, rebases: [], gaps: [{ fromLsn: 33, toLsn: 35 }] })).toBeNull();
    expect(isBaseMissing({ bases, rebases: [], gaps: [{ fromLsn: 33, toLsn: 35 }] })).toBe(true);
    expect(isBaseMissing({ bases, rebases: [], gaps: [{ fromLsn: 26, toLsn: 31 }] })).toBe(false);
  });

  test("touched extents: short runs and runs of a whole disk, joined and cut at the disk's end", () => {
    const dirty = new DirtyExtents();
    dirty.add([
      { first: 5, count: 2 },
      { first: 1023, count: 3 },
    ]);
    dirty.add([
      { first: 7, count: 1 },
      { first: 5000, count: 2 ** 28 - 5000 },
    ]);
    expect(dirty.bytes).toBe(6 * 4 * MiB);
    expect(dirty.runs(6000)).toEqual([
      { first: 5, count: 3 },
      { first: 1023, count: 3 },
      { first: 5000, count: 1000 },
    ]);
    expect(dirty.runs(1024)).toEqual([
      { first: 5, count: 3 },
      { first: 1023, count: 1 },
    ]);
    const other = new DirtyExtents();
    other.addAll(dirty);
    expect(other.runs(2 ** 28)).toEqual(dirty.runs(2 ** 28));
  });
});
