// Images with remote extents, step by step: what a clone reads, what stays of a write before and after a fill, eviction and
// its record, names, rollbacks. On the memory store; random orders with crashes are in partial-image-crashes.test.ts.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
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
