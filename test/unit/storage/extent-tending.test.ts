// The filler and tiering on a real image over the memory store with a stepped clock: what is fetched in which order and how
// fast, what waiting for the bucket and for room does, what goes cold, what comes back.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { TendingPolicy } from "#shared/ports/replica-home.ts";
import { ExtentTending } from "../../../services/storage/engine/extent-tending.ts";
import { admitEverything } from "../../tools/admit-everything.ts";
import { bucketAway } from "../../tools/memory-point-source.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import {
  extentBytes,
  firstDifference,
  PartialWorld,
  partialPath,
  patternedDisk,
  wholeDisk,
  wholePath,
} from "../replica/partial-world.ts";

const sizeBytes = 6 * extentBytes;
const hourMs = 3_600_000;
const full: TendingPolicy = {
  residency: "full",
  coldAfterMs: 24 * hourMs,
  capacity: null,
  fillBytesPerSecond: null,
};
const tiered: TendingPolicy = { ...full, residency: "tiered" };

async function setUp() {
  const clock = new SteppedClock(3);
  const store = new MemoryFileStore();
  const random = new SteppedRandom(4);
  const state = { away: false, room: true, whole: 0, notes: [] as string[], fetched: [] as number[] };
  const world = new PartialWorld(store, random, patternedDisk(sizeBytes, random), {
    fails: () => (state.away ? bucketAway() : null),
  });
  await world.create(store, true);
  const image = await world.attach(store, clock);
  await image.apply([world.record(world.maker.epoch()).batch]);
  const fill = image.extents.fill.bind(image.extents);
  image.extents.fill = (extent) => {
    state.fetched.push(extent);
    return fill(extent);
  };
  const admission = {
    ...admitEverything,
    refuse: () => (state.room ? null : new VarveError("OutOfSpaceError", "Full", "no room")),
  };
  const tend = (policy: TendingPolicy) =>
    new ExtentTending({ image, clock, admission }, image.extents, {
      policy,
      heldBase: () => ({ baseLsn: world.disk.appliedLsn, point: world.own(world.disk.appliedLsn) }),
      onWhole: () => (state.whole += 1),
      onNote: (text) => state.notes.push(text),
    });
  const passMs = async (ms: number): Promise<void> => {
    const over = new Promise<void>((resolve) => {
      clock.after(ms, resolve);
    });
    await clock.until(over);
  };
  return { clock, store, world, image, state, tend, passMs };
}

test("a full replica is fetched in ascending order, what was read first, and is whole and named so", async () => {
  const { clock, store, world, image, state, tend, passMs } = await setUp();
  const slab = store.allocateSlab(4096);
  await image.read(slab, 0, 100, 3 * extentBytes);
  const tending = tend(full);
  expect(tending.status()).toMatchObject({ remainingExtents: 6, extents: 6 });
  await passMs(3000);
  expect(state.fetched).toEqual([3, 4, 0, 1, 2, 5]);
  expect(state.whole).toBeGreaterThan(0);
  expect(tending.status()).toMatchObject({ state: "idle", remainingExtents: 0 });
  expect(await store.facts(partialPath)).toBeNull();
  expect(await store.facts(wholePath)).not.toBeNull();
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  await clock.until(tending.fill());
  await tending.close();
  expect(clock.pendingTasks).toBe(0);
  await image.detach();
});

test("the rate limit holds, pausing stops it", async () => {
  const { state, tend, passMs } = await setUp();
  const tending = tend({ ...full, fillBytesPerSecond: extentBytes });
  await passMs(2500);
  expect(state.fetched.length).toBeLessThanOrEqual(7);
  const { remainingExtents } = tending.status();
  expect(remainingExtents).toBeGreaterThanOrEqual(3);
  expect(remainingExtents).toBeLessThanOrEqual(4);
  tending.pause();
  await passMs(5000);
  expect(tending.status()).toMatchObject({ state: "paused" });
  expect(tending.status().remainingExtents).toBeGreaterThanOrEqual(remainingExtents - 4);
  tending.resume();
  await passMs(8000);
  expect(tending.status().remainingExtents).toBe(0);
  await tending.close();
});

test("with the bucket away it waits and gives nothing up; a disk without room is asked again", async () => {
  const { image, state, tend, passMs } = await setUp();
  state.away = true;
  const tending = tend(full);
  await passMs(120_000);
  expect(tending.status()).toMatchObject({ state: "waiting", remainingExtents: 6 });
  expect(tending.status().error?.kind).toBe("Retry");
  expect(state.notes.length).toBe(1);
  state.away = false;
  state.room = false;
  await passMs(60_000);
  expect(tending.status().remainingExtents).toBeGreaterThan(0);
  state.room = true;
  await passMs(60_000);
  expect(tending.status()).toMatchObject({ state: "idle", remainingExtents: 0 });
  expect(image.extents.residency().counters.filledExtents).toBe(6);
  await tending.close();
});

test("closing while the bucket is away is quick, and fill() says that it did not end", async () => {
  const { image, state, tend, passMs } = await setUp();
  state.away = true;
  const tending = tend(tiered);
  const fill = tending.fill();
  fill.catch(() => undefined);
  await passMs(1000);
  await tending.close();
  await expect(fill).rejects.toMatchObject({ _tag: "FillStopped" });
  await image.detach();
});

test("a tiered replica fetches what is read, gives back what is cold, and remembers use across a restart", async () => {
  const { clock, store, world, image, state, tend, passMs } = await setUp();
  let tending = tend(tiered);
  await passMs(3000);
  expect(state.fetched).toEqual([]);
  await clock.until(tending.fill());
  expect(image.extents.nextRemote(0)).toBe(-1);
  await passMs(1000);
  expect(state.whole).toBe(1);
  await passMs(20 * hourMs);
  const slab = store.allocateSlab(4096);
  await image.read(slab, 0, 100, 0);
  await image.apply([world.record(world.maker.write(5 * extentBytes, Buffer.alloc(100, 1))).draft]);
  await passMs(8 * hourMs);
  // 28 hours after the fill, 8 after the read of 0 and the write of 5.
  expect(image.extents.isLocal(0) && image.extents.isLocal(5)).toBe(true);
  const { evictedExtents } = image.extents.residency().counters;
  expect(evictedExtents).toBeGreaterThan(1);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  await tending.close();
  await image.detach();

  const again = await world.attach(store, clock);
  tending = new ExtentTending({ image: again, clock, admission: admitEverything }, again.extents, {
    policy: tiered,
    heldBase: () => ({ baseLsn: world.disk.appliedLsn, point: world.own(world.disk.appliedLsn) }),
  });
  expect(firstDifference(await wholeDisk(again, store), world.disk)).toBe(-1);
  await tending.close();
  await again.detach();
});

test("above the high mark the coldest go until the low mark is reached; nothing without a held base", async () => {
  const { clock, image, state, tend, passMs, world, store } = await setUp();
  const tending = tend(tiered);
  await clock.until(tending.fill());
  await image.checkpoint();
  const before = image.state().allocatedBytes;
  await passMs(2 * hourMs);
  tending.setPolicy({ ...tiered, capacity: { highBytes: before - 1, lowBytes: before - extentBytes } });
  await passMs(3 * 60_000);
  expect(image.extents.residency().counters.evictedExtents).toBeGreaterThan(0);
  expect(state.notes).toEqual([]);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  await tending.close();
});

test("giving back what is cold ends under readers, who bring back each extent as it leaves", async () => {
  const { clock, store, world, image, tend } = await setUp();
  const tending = tend(full);
  await clock.until(tending.fill());
  tending.setPolicy(tiered);
  const evict = image.extents.evict.bind(image.extents);
  let turns = 0;
  image.extents.evict = async (request) => {
    const gone = await evict(request);
    turns += 1;
    if (turns === 5) throw new Error("it goes on and on");
    await image.extents.cache(0, sizeBytes);
    return gone;
  };
  const hourAhead = clock.wallTimeMs() + hourMs;
  expect(await clock.until(tending.evictCold(hourAhead))).toBe(6);
  expect(turns).toBe(1);
  expect(firstDifference(await wholeDisk(image, store), world.disk)).toBe(-1);
  await tending.close();
  await image.detach();
});
