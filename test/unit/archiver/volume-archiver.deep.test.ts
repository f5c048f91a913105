// One volume's way into a bucket: order, ages, faults of the bucket, restarts. Every step happens when the test says.
import { describe, expect, test } from "vitest";
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { ArchiveWorld, volumeId } from "./archive-world.ts";

const MiB = 1024 * 1024;
const diskBytes = 9 * MiB;
const notDurable = { conditionalPut: true, durablePut: false };

function away(key = ""): ObjectStoreError {
  return new ObjectStoreError(
    { kind: "Retry", operation: "put", place: "memory://bucket", key },
    "no answer",
  );
}

/** Something that a request waits for until the test opens it. */
function door(): { readonly passed: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open: () => open() };
}

describe("from log to bucket", () => {
  test("a busy log becomes segments of a size, the rest a minute later; every point reads as the disk was", {
    timeout: 90_000,
  }, async () => {
    const world = new ArchiveWorld(1, diskBytes);
    const { volume } = await world.open();
    for (let count = 0; count < 40; count += 1) world.random();
    await world.pass(1000);
    const first = volume.manifest() as VolumeManifest;
    expect(first.archivedLsn).toBeGreaterThan(20);
    expect(first.archivedLsn).toBeLessThanOrEqual(world.lastLsn);
    for (const segment of first.segments) expect(segment.recordBytes).toBeGreaterThanOrEqual(64 * 1024);
    await world.pass(60_000);
    expect(volume.manifest()?.archivedLsn).toBe(world.lastLsn);
    expect(world.heldLsn).toBe(world.lastLsn);
    await world.expectNoDanglingName("at rest");
    await world.expectPoints(0, "at rest");
  });

  test("no timer and no request while nothing is written", async () => {
    const world = new ArchiveWorld(2, diskBytes);
    const { store } = await world.open();
    world.write(0, 5000, 1);
    await world.pass(61_000);
    expect(world.clock.pendingTasks).toBe(0);
    const before = store.log.length;
    const { reads } = world.log;
    await world.pass(3_600_000);
    expect(store.log.length).toBe(before);
    expect(world.log.reads).toBe(reads);
  });

  test("uploads that end out of order are published in order", async () => {
    const world = new ArchiveWorld(3, diskBytes);
    const first = door();
    const { volume, store } = await world.open();
    let isFirst = true;
    store.before = async (request, key) => {
      if (request === "put" && key.endsWith(".seg") && isFirst) {
        isFirst = false;
        await first.passed;
      }
    };
    for (let count = 0; count < 3; count += 1) world.write(0, 70_000, count);
    await world.pass(100);
    expect(store.log.filter((one) => one.startsWith("put") && one.endsWith(".seg")).length).toBe(3);
    expect(volume.manifest()).toBeNull();
    first.open();
    await world.pass(100);
    const manifest = volume.manifest() as VolumeManifest;
    expect(manifest.segments.map((segment) => segment.firstLsn)).toEqual([1, 3, 4]);
    expect(manifest.number).toBe(1);
  });

  test("several volumes' worth of segments waits for four slots", async () => {
    const world = new ArchiveWorld(4, diskBytes);
    const all = door();
    const { store } = await world.open();
    store.before = async (request, key) => {
      if (request === "put" && key.endsWith(".seg")) await all.passed;
    };
    for (let count = 0; count < 9; count += 1) world.write(0, 70_000, count);
    await world.pass(1000);
    expect(store.log.filter((one) => one.startsWith("put")).length).toBe(4);
    all.open();
    await world.pass(1000);
    expect(store.log.filter((one) => one.startsWith("put") && one.endsWith(".seg")).length).toBe(9);
  });

  test("archive(lsn) seals at once; close archives the rest, and gives up after its limit", async () => {
    const world = new ArchiveWorld(5, diskBytes);
    const { volume, store } = await world.open();
    const lsn = world.write(100, 3000, 9);
    await world.clock.until(volume.archive(lsn));
    expect(volume.manifest()?.archivedLsn).toBe(lsn);
    world.write(200, 3000, 10);
    await world.clock.until(volume.close());
    expect((await world.manifests()).at(-1)?.archivedLsn).toBe(world.lastLsn);
    expect(store.log.at(-1)).toContain("get");

    const next = await world.open();
    const last = world.write(300, 3000, 11);
    next.store.before = () => {
      throw away();
    };
    const from = world.clock.monotonicMs();
    await world.clock.until(next.volume.close());
    expect(world.clock.monotonicMs() - from).toBeGreaterThanOrEqual(10_000);
    expect((await world.manifests()).at(-1)?.archivedLsn).toBe(last - 1);
    await expect(next.volume.archive(last)).rejects.toMatchObject({ _tag: "ArchiveClosedError" });
    expect(world.clock.pendingTasks).toBe(0);
  });

  test("a full tail becomes index pages, and every point still opens", { timeout: 90_000 }, async () => {
    const world = new ArchiveWorld(6, MiB);
    const { volume } = await world.open({ segmentRecordBytes: 4096 });
    for (let count = 0; count < 600; count += 1) world.write((count * 4096) % (MiB - 4096), 1000, count);
    await world.pass(1000);
    const manifest = volume.manifest() as VolumeManifest;
    expect(manifest.archivedLsn).toBe(601);
    expect(manifest.pages.map((page) => page.segments)).toEqual([256, 256]);
    expect(manifest.segments.length).toBe(601 - 512);
    await world.expectNoDanglingName("pages");
    await world.expectPoints(590, "pages");
  });

  test("facts and changes of others go out in order, a refused change harms nobody", async () => {
    const world = new ArchiveWorld(7, diskBytes);
    const { volume } = await world.open();
    const lsn = world.write(0, 100, 1);
    world.facts = { ...world.facts, snapshots: [{ name: "early", lsn, wallTimeMs: 5 }] };
    await world.clock.until(volume.factsChanged());
    expect(volume.manifest()?.snapshots).toEqual([]);
    const archived = volume.archive(lsn);
    const refused = volume.amend(() => {
      throw new Error("no");
    });
    const amended = volume.amend((manifest) => ({ ...manifest, retainedFromLsn: manifest.archivedLsn }));
    await expect(world.clock.until(refused)).rejects.toThrow("no");
    await world.clock.until(Promise.all([archived, amended]));
    await world.clock.until(volume.factsChanged());
    expect(volume.manifest()?.snapshots).toEqual([{ name: "early", lsn, wallTimeMs: 5 }]);
    expect(volume.status().state).toBe("running");
  });

  test("resizes are in the manifest, and its size is the one at its archived entry", async () => {
    const world = new ArchiveWorld(8, diskBytes);
    const { volume } = await world.open();
    world.write(8 * MiB, 5000, 1);
    world.append([{ kind: "resize", sizeBytes: 5 * MiB }]);
    await world.clock.until(volume.archive(world.lastLsn));
    expect(volume.manifest()).toMatchObject({
      sizeBytes: 5 * MiB,
      resizes: [{ lsn: 3, sizeBytes: 5 * MiB }],
    });
    world.append([{ kind: "resize", sizeBytes: 9 * MiB }]);
    world.write(8 * MiB, 10, 3);
    await world.clock.until(volume.archive(world.lastLsn));
    expect(volume.manifest()?.sizeBytes).toBe(9 * MiB);
    await world.expectPoints(0, "resized");
  });
});

describe("held", () => {
  test("nothing is held before the settle time, all of it after", async () => {
    const world = new ArchiveWorld(11, diskBytes);
    const { volume } = await world.open({}, (store) => (store.capabilities = notDurable));
    const lsn = world.write(0, 70_000, 1);
    await world.pass(1000);
    expect(volume.manifest()?.archivedLsn).toBe(lsn);
    await world.pass(290_000);
    expect(world.heldLsn).toBe(0);
    await world.pass(20_000);
    expect(world.heldLsn).toBe(lsn);
  });

  test("what was lost or damaged before it was held is stored again, then held", async () => {
    const world = new ArchiveWorld(12, diskBytes);
    world.releases = true;
    const { volume } = await world.open({}, (store) => (store.capabilities = notDurable));
    for (let count = 0; count < 6; count += 1) world.write(0, 70_000, count);
    await world.pass(2000);
    const { segments } = volume.manifest() as VolumeManifest;
    await world.bucket.remove(segments[1]?.key ?? "");
    const damaged = (await world.bucket.get(segments[3]?.key ?? "")) as Buffer;
    await world.bucket.put(segments[3]?.key ?? "", damaged.subarray(0, damaged.length - 9));
    for (const key of await world.keys(`volumes/${volumeId}/manifests/`)) await world.bucket.remove(key);
    await world.pass(310_000);
    expect(world.heldLsn).toBeLessThan(world.lastLsn);
    expect(volume.status().counters["objectsRestored"]).toBeGreaterThanOrEqual(3);
    await world.pass(310_000);
    expect(world.heldLsn).toBe(world.lastLsn);
    expect(world.log.batches).toEqual([]);
    await world.expectNoDanglingName("restored");
    await world.expectPoints(0, "restored");
  });

  test("an index page that was lost before it was held is stored again", { timeout: 90_000 }, async () => {
    const world = new ArchiveWorld(13, MiB);
    const { volume } = await world.open(
      { segmentRecordBytes: 4096 },
      (store) => (store.capabilities = notDurable),
    );
    for (let count = 0; count < 300; count += 1) world.write(count * 100, 50, count);
    await world.pass(1000);
    const key = volume.manifest()?.pages[0]?.key ?? "";
    await world.bucket.remove(key);
    await world.pass(650_000);
    expect(world.heldLsn).toBe(world.lastLsn);
    expect(await world.bucket.head(key)).not.toBeNull();
    await world.expectPoints(290, "page restored");
  });

  test("a store that loses its last seconds while nobody runs: the log is still there and fills the bucket again", async () => {
    for (let lost = 1; lost <= 6; lost += 1) {
      const world = new ArchiveWorld(14, diskBytes);
      world.releases = true;
      const before = await world.open({}, (store) => (store.capabilities = notDurable));
      for (let count = 0; count < 3; count += 1) world.write(0, 70_000, count);
      await world.pass(400_000);
      const held = world.heldLsn;
      expect(held).toBe(world.lastLsn);
      for (let count = 0; count < 3; count += 1) {
        world.write(0, 70_000, count + 50);
        await world.pass(1500);
      }
      before.store.left = 0;
      const puts = before.store.log.filter((one) => one.startsWith("put volumes")).slice(-lost);
      for (const one of puts) await world.bucket.remove(one.slice(4));
      const { volume } = await world.open({}, (store) => (store.capabilities = notDurable));
      await world.pass(1_300_000);
      expect(volume.status(), `lost ${lost}`).toMatchObject({ state: "running", archivedLsn: world.lastLsn });
      expect(world.heldLsn, `lost ${lost}`).toBe(world.lastLsn);
      const latest = (await world.manifests()).at(-1) as VolumeManifest;
      for (const { key } of latest.segments) expect(await world.bucket.head(key), key).not.toBeNull();
      await world.expectPoints(0, `lost ${lost}`);
    }
  });

  test("after a restart, what the log still has is looked at again before it goes", async () => {
    const world = new ArchiveWorld(15, diskBytes);
    const before = await world.open({}, (store) => (store.capabilities = notDurable));
    for (let count = 0; count < 3; count += 1) world.write(0, 70_000, count);
    await world.pass(1000);
    const { segments } = before.volume.manifest() as VolumeManifest;
    before.store.left = 0;
    const damaged = Buffer.from((await world.bucket.get(segments[1]?.key ?? "")) as Buffer);
    damaged.fill(0, damaged.length - 300);
    await world.bucket.put(segments[1]?.key ?? "", damaged);
    await world.open({}, (store) => (store.capabilities = notDurable));
    await world.pass(301_000);
    expect(world.heldLsn).toBe(0);
    await world.pass(301_000);
    expect(world.heldLsn).toBe(world.lastLsn);
    await world.expectPoints(0, "looked at again");
  });
});

describe("the bucket is away", () => {
  test("it is told once, retried, told when it is back, and everything is archived", async () => {
    const world = new ArchiveWorld(21, diskBytes);
    const { volume, store } = await world.open();
    store.before = () => {
      throw away();
    };
    for (let count = 0; count < 10; count += 1) world.write(0, 70_000, count);
    await world.pass(200_000);
    expect(volume.status()).toMatchObject({ state: "waiting for the bucket", archivedLsn: 0 });
    expect(world.notes.length).toBe(1);
    const tries = store.log.length;
    expect(tries).toBeLessThan(60);
    store.before = () => undefined;
    await world.pass(61_000);
    expect(volume.status()).toMatchObject({ state: "running", archivedLsn: world.lastLsn, error: null });
    expect(world.notes.length).toBe(2);
    expect(world.notes[1]).toMatch(/is back after \d+ s/);
    await world.expectPoints(0, "back");
  });

  test("away at the start: open() waits, then goes on", async () => {
    const world = new ArchiveWorld(22, diskBytes);
    const life = world.start({}, (store) => {
      store.before = () => {
        throw away();
      };
    });
    world.write(0, 70_000, 1);
    await world.pass(100_000);
    life.store.before = () => undefined;
    const volume = await world.clock.until(life.opened);
    await world.pass(61_000);
    expect(volume.manifest()?.archivedLsn).toBe(world.lastLsn);
  });

  test("every request that was answered with an error although it succeeded ends in the same bucket", async () => {
    for (let which = 1; which <= 12; which += 1) {
      const world = new ArchiveWorld(23, diskBytes);
      let count = 0;
      const { volume } = await world.open({}, (store) => {
        store.after = () => {
          count += 1;
          if (count === which) throw away();
        };
      });
      for (let write = 0; write < 3; write += 1) world.write(0, 70_000, write);
      await world.pass(5000);
      expect(volume.manifest()?.archivedLsn, `request ${which}`).toBe(world.lastLsn);
      expect(world.heldLsn).toBe(world.lastLsn);
      await world.expectNoDanglingName(`request ${which}`);
      await world.expectPoints(world.lastLsn, `request ${which}`);
    }
  });

  test("stop: notes at 50, 75 and 90 %, and nothing is given up", async () => {
    const world = new ArchiveWorld(24, diskBytes);
    world.log.limitBytes = MiB;
    const { store } = await world.open();
    store.before = () => {
      throw away();
    };
    world.write(0, 70_000, 0);
    await world.pass(1000);
    for (let count = 0; count < 38; count += 1) world.write(0, 20_000, count);
    await world.pass(1000);
    const told = world.notes.filter((note) => note.includes("% of its room"));
    expect(
      told.map((note) => /(\d+) %/.exec(note)?.[1]).map((text) => Math.floor(Number(text) / 5) * 5),
    ).toEqual([50, 75, 90]);
    for (const note of told) expect(note).toContain("writes are refused");
    expect(world.heldLsn).toBe(0);
  });

  test("drop history: the log goes, writes go on, the past has a gap and then a base", async () => {
    const world = new ArchiveWorld(25, diskBytes);
    world.releases = true;
    world.facts = { ...world.facts, bucketAway: "drop history" };
    world.log.limitBytes = MiB;
    const { volume, store } = await world.open();
    for (let count = 0; count < 3; count += 1) world.random();
    await world.clock.until(volume.archive(world.lastLsn));
    const archived = world.lastLsn;
    store.before = () => {
      throw away();
    };
    for (let count = 0; count < 60; count += 1) {
      world.random();
      world.write(count * 1000, 30_000, count);
      await world.pass(100);
    }
    expect(world.heldLsn).toBeGreaterThan(archived + 20);
    expect(world.log.room().diskBytes).toBeLessThan(MiB);
    expect(world.notes.filter((note) => note.includes("given up")).length).toBeGreaterThan(0);
    store.before = () => undefined;
    await world.pass(200_000);
    const manifest = volume.manifest() as VolumeManifest;
    expect(manifest.archivedLsn).toBe(world.lastLsn);
    expect(manifest.gaps.length).toBe(1);
    expect(manifest.gaps[0]?.fromLsn).toBe(archived + 1);
    const base = manifest.bases.at(-1);
    expect(base?.s).toBeGreaterThanOrEqual((manifest.gaps[0]?.toLsn ?? 0) - 1);
    for (let count = 0; count < 3; count += 1) world.random();
    await world.clock.until(volume.archive(world.lastLsn));
    await world.expectPoints(base?.e ?? 0, "behind the gap");
  });

  test("drop history, then a crash before the gap was published: the next start finds it", async () => {
    const world = new ArchiveWorld(26, diskBytes);
    const { volume, store } = await world.open();
    world.random();
    await world.clock.until(volume.archive(world.lastLsn));
    const archived = world.lastLsn;
    store.left = 0;
    for (let count = 0; count < 5; count += 1) world.random();
    world.log.release(world.lastLsn - 1);
    const { oldestLsn } = world.log.state();
    world.facts = { ...world.facts, bucketAway: "drop history" };
    const next = await world.open();
    await world.pass(61_000);
    expect(next.volume.manifest()).toMatchObject({
      archivedLsn: world.lastLsn,
      gaps: [{ fromLsn: archived + 1, toLsn: oldestLsn }],
    });
    const base = next.volume.manifest()?.bases.at(-1);
    await world.expectPoints(base?.e ?? 0, "found gap");
  });
});
