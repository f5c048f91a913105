// Images with remote extents, step by step: what a clone reads, what stays of a write before and after a fill, eviction and
// its record, names, rollbacks. On the memory store; random orders with crashes are in partial-image-crashes.deep.test.ts.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { limits } from "#shared/domain/limits.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import {
  extentBytes,
  firstDifference,
  PartialWorld,
  partialPath,
  patternedDisk,
  volumeId,
  wholeDisk,
  wholePath,
} from "./partial-world.ts";

const sizeBytes = 5 * extentBytes + 1_000_448;

async function clone(seed = 1) {
  const store = new MemoryFileStore();
  const random = new SteppedRandom(seed);
  const world = new PartialWorld(store, random, patternedDisk(sizeBytes, random));
  await world.create(store, true);
  const image = await world.attach(store);
  return { store, world, image, random };
}

test("a clone reads its parent, takes writes before anything is fetched, and is whole after the fill", async () => {
  const { store, world, image } = await clone();
  expect(image.extents.residency()).toMatchObject({ extents: 6, remoteExtents: 5, partialExtents: 1 });
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  const made = [world.maker.epoch(), world.maker.write(extentBytes - 100, Buffer.alloc(5000, 9))];
  for (let index = 0; index < 10; index += 1) made.push(world.maker.random());
  for (const one of made) await image.apply([world.record(one).batch]);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  expect(await store.facts(wholePath)).toBeNull();
  for (let extent = 0; extent < 6; extent += 1) await image.extents.fill(extent);
  expect(image.extents.nextRemote(0)).toBe(-1);
  const reads = world.points.counters.reads;
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  expect(world.points.counters.reads).toBe(reads);
  await image.checkpoint();
  expect(image.extents.residency().points).toEqual([]);
  expect(await store.facts(partialPath)).toBeNull();
  await image.detach();
  expect(world.points.counters.open).toBe(0);
  const again = await world.attach(store);
  expect(firstDifference(await wholeDisk(again, store), world.disk)).toBe(-1);
});

test("cold extents go, are read from the bucket, come back", async () => {
  const { store, world, image } = await clone(2);
  await image.apply([world.record(world.maker.epoch()).batch]);
  for (let extent = 0; extent < 6; extent += 1) await image.extents.fill(extent);
  await image.checkpoint();
  const base = world.disk.appliedLsn;
  await image.apply([world.record(world.maker.write(10, Buffer.alloc(10, 7))).draft]);
  expect(await image.extents.evict({ point: world.own(base), baseLsn: base, extents: [0, 1, 2, 5, 9] })).toBe(
    3,
  );
  expect(image.extents.isLocal(0)).toBe(true);
  expect(image.extents.residency()).toMatchObject({ path: partialPath, points: [{ volumeId, lsn: base }] });
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  await image.detach();
  const again = await world.attach(store);
  expect(again.extents.residency()).toMatchObject({ remoteExtents: 2, partialExtents: 1 });
  expect(firstDifference(await wholeDisk(again, store), world.disk)).toBe(-1);
  await again.extents.cache(0, sizeBytes);
  await again.checkpoint();
  expect(again.extents.residency()).toMatchObject({ path: wholePath, localExtents: 6, points: [] });
});

test("a rollback of which the changed extents are known leaves the others alone, and their later eviction too", async () => {
  const { store, world, image } = await clone(3);
  await image.apply([world.record(world.maker.epoch()).batch]);
  await image.extents.cache(0, sizeBytes);
  await image.apply([world.record(world.maker.write(7, Buffer.alloc(50, 1))).batch]);
  const toLsn = world.disk.appliedLsn;
  await image.apply([world.record(world.maker.write(extentBytes + 7, Buffer.alloc(50, 2))).batch]);
  const before = world.disk.appliedLsn;
  world.points.changedExtents = () => [{ first: 1, count: 1 }];
  await image.apply([world.record(world.maker.rebase(toLsn, sizeBytes)).batch]);
  expect([0, 1, 2].map((extent) => image.extents.isLocal(extent))).toEqual([true, false, true]);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  // A base from before the rollback still holds extent 2, but not what the rollback changed.
  expect(await image.extents.evict({ point: world.own(before), baseLsn: before, extents: [1, 2] })).toBe(1);
  expect(image.extents.residency().points).toEqual([
    { volumeId, lsn: toLsn },
    { volumeId, lsn: before },
  ]);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
});

test("a rescue goes on behind an LSN, on a new line, with a chain that begins again", async () => {
  const store = new MemoryFileStore();
  const random = new SteppedRandom(9);
  const world = new PartialWorld(store, random, patternedDisk(sizeBytes, random));
  for (const made of [world.maker.epoch(), world.maker.random(), world.maker.random()]) world.record(made);
  const lsn = world.disk.appliedLsn;
  await store.makeDirectory("/volume");
  await RawFileImage.create({
    store,
    directory: "/volume",
    volumeId,
    sizeBytes,
    remote: world.own(lsn),
    appliedLsn: lsn,
    line: "00000000000000cc",
    epoch: 1,
  });
  const image = await world.attach(store);
  expect(image.state()).toMatchObject({ appliedLsn: lsn, checkpointLsn: lsn });
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  const { batch } = world.record(world.maker.random());
  await expect(image.apply([{ ...batch, line: "00000000000000cc" }])).rejects.toMatchObject({
    kind: "Corrupt",
  });
  await image.apply([{ ...batch, line: "00000000000000cc", previousChecksum: 0n }]);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
});

test("without sources remote bytes say that a bucket is missing; local ones are served", async () => {
  const { store, world, image } = await clone(4);
  await image.apply([world.record(world.maker.epoch()).batch]);
  await image.extents.fill(0);
  await image.detach();
  // The clock stands still: nobody waits.
  const clock = new SteppedClock(1);
  const alone = await RawFileImage.attach({ store, clock, directory: "/volume", volumeId });
  const slab = store.allocateSlab(4096);
  await alone.read(slab, 0, 4096, 0);
  await expect(alone.read(slab, 0, 4096, extentBytes)).rejects.toMatchObject({
    _tag: "RemoteSourceMissing",
    kind: "Retry",
  });
  await alone.detach();
});

test("two images in one directory, and a partial one that somebody changed, are refused", async () => {
  const { store, image, world } = await clone(5);
  await image.detach();
  const changed = await store.open(partialPath, { access: "buffered" });
  await changed.truncate(sizeBytes);
  await changed.close();
  await expect(world.attach(store)).rejects.toMatchObject({ _tag: "ImageChanged" });
  await store.replaceWhole(wholePath, Buffer.alloc(4096));
  await expect(world.attach(store)).rejects.toMatchObject({ _tag: "ImageAmbiguous" });
});

test("a read that gives up leaves the memory of later requests alone", async () => {
  const store = new MemoryFileStore();
  const clock = new SteppedClock(1);
  const random = new SteppedRandom(2);
  let answer: () => void = () => undefined;
  const world = new PartialWorld(store, random, patternedDisk(sizeBytes, random), {
    delay: () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
  });
  await world.create(store, true);
  const image = await world.attach(store, clock);
  const slab = store.allocateSlab(4096);
  const read = image.read(slab, 0, 4096, 0);
  await expect(clock.until(read)).rejects.toMatchObject({ _tag: "BucketWaitError", kind: "Retry" });
  expect(clock.monotonicMs()).toBe(limits.bucketWaitMs);
  slab.bytes.fill(0x55);
  answer();
  await new Promise((resolve) => setImmediate(resolve));
  answer();
  await new Promise((resolve) => setImmediate(resolve));
  expect(slab.bytes.every((byte) => byte === 0x55)).toBe(true);
  await image.detach();
});

test("a read that finds no memory because others wait for the bucket is refused in time, too", async () => {
  const store = new MemoryFileStore();
  const clock = new SteppedClock(1);
  const random = new SteppedRandom(2);
  const answers: (() => void)[] = [];
  const world = new PartialWorld(store, random, patternedDisk(sizeBytes, random), {
    delay: () => new Promise((resolve) => answers.push(resolve)),
  });
  await world.create(store, true);
  const image = await world.attach(store, clock);
  const slab = store.allocateSlab(4096);
  const refused: number[] = [];
  const reads = Array.from({ length: limits.remoteReadsMax + 3 }, () =>
    image.read(slab, 0, 4096, 0).catch((error: unknown) => {
      expect(error).toMatchObject({ _tag: "BucketWaitError" });
      refused.push(clock.monotonicMs());
    }),
  );
  await clock.until(Promise.all(reads));
  expect(refused).toEqual(reads.map(() => limits.bucketWaitMs));
  for (let round = 0; round < 3; round += 1) {
    for (const answer of answers.splice(0)) answer();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const late = image.read(slab, 0, 4096, 0);
  await new Promise((resolve) => setImmediate(resolve));
  for (const answer of answers.splice(0)) answer();
  await clock.until(late);
  expect(slab.bytes.equals(world.disk.read(0, 4096))).toBe(true);
  await image.detach();
});
