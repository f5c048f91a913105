// Random histories (overlapping writes, zeroes, trims, resizes, rollbacks, clones of clones, rescues, fuzzy bases, index
// pages, a tail that only the hot log has): each LSN opens to exactly the oracle's bytes, here and by the bucket alone.
import { describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import { limits } from "#shared/domain/limits.ts";
import type { PointSource } from "#shared/ports/history.ts";
import { MadeVolume, randomEntry } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { expectDisk } from "./history-world.ts";

/** Seed and the largest disk's sectors: the last ones have two extents. */
const seeds = [
  [1, 1200],
  [2, 1200],
  [3, 1200],
  [4, 3000],
  [5, 9000],
] as const;

/** A volume that lived for some rounds of writes, seals, bases, rollbacks; what is archived is published. */
async function live(volume: MadeVolume, random: SeededRandom, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    for (let batches = random.between(1, 5); batches > 0; batches -= 1) appendRandom(volume, random);
    const step = random.weighted({ nothing: 3, seal: 4, base: 3, page: 2, rollback: 2, rescue: 1 });
    if (step === "nothing") continue;
    if (step === "rollback" && volume.lastLsn > 4) volume.rollback(random.between(1, volume.lastLsn));
    await volume.seal(random.between(1, 4), random.chance(0.3) ? 0 : 1);
    if (step === "base") await takeRandomBase(volume, random);
    if (step === "page") await volume.makePage(random.between(1, 6));
    await volume.publish();
    if (step === "rescue") {
      appendRandom(volume, random);
      await volume.rescue(random.uint32().toString(16).padStart(16, "a"));
    }
    if (random.chance(0.3)) volume.hotLog.release(random.between(1, volume.archivedLsn + 2));
  }
}

function appendRandom(volume: MadeVolume, random: SeededRandom): void {
  const entries = [randomEntry(random, volume.disk.sizeBytes)];
  // Entries behind a resize have to fit the new size: one batch ends there.
  while (!("resize" in (entries.at(-1) ?? {})) && random.chance(0.6) && entries.length < 6) {
    entries.push(randomEntry(random, volume.disk.sizeBytes));
  }
  volume.append(entries);
}

async function takeRandomBase(volume: MadeVolume, random: SeededRandom): Promise<void> {
  const newest = volume.manifest?.bases.at(-1)?.s ?? -1;
  const s = random.between(Math.max(0, newest + 1, volume.archivedLsn - 12), volume.archivedLsn + 1);
  const e = Math.min(random.between(s, volume.archivedLsn + 1), volume.rebaseAfter(s) - 1);
  if (s > newest && volume.past[s]?.sizeBytes !== undefined) await volume.takeBase(s, Math.max(s, e), random);
}

async function expectEveryLsn(
  open: (lsn: number) => Promise<PointSource>,
  volume: MadeVolume,
  lastLsn: number,
  random: SeededRandom,
  what: string,
): Promise<void> {
  for (let lsn = 0; lsn <= lastLsn; lsn += 1) {
    const disk = volume.past[lsn] as FoldedDisk;
    const source = await open(lsn);
    await expectDisk(source, disk, random, `${what} lsn:${lsn}`);
    await expectAllocation(source, disk, `${what} lsn:${lsn}`);
    await source.close();
  }
}

/** What is said to be zero is zero: by allocation() and by extents(). */
async function expectAllocation(source: PointSource, disk: FoldedDisk, what: string): Promise<void> {
  let next = 0;
  for (const run of source.allocation(0, disk.sizeBytes, 1_000_000)) {
    expect(run.offset).toBe(next);
    next += run.length;
    if (run.allocated) continue;
    const bytes = disk.read(run.offset, run.length);
    expect(isZero(bytes), `${what}: hole at ${run.offset}`).toBe(true);
  }
  expect(next).toBe(disk.sizeBytes);
  const named = new Set<number>();
  for await (const extent of source.extents()) named.add(extent);
  for (let extent = 0; extent * limits.extentBytes < disk.sizeBytes; extent += 1) {
    if (named.has(extent)) continue;
    const start = extent * limits.extentBytes;
    const bytes = disk.read(start, Math.min(limits.extentBytes, disk.sizeBytes - start));
    expect(isZero(bytes), `${what}: extent ${extent}`).toBe(true);
  }
}

function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, Buffer.alloc(bytes.length)) === 0;
}

describe("every LSN of random histories", () => {
  it.each(seeds)("seed %i", { timeout: 120_000 }, async (seed, sectorsMax) => {
    const random = new SeededRandom(seed);
    const clock = new SteppedClock(seed);
    const store = new MemoryObjectStore(clock);
    const size = 512 * random.between(sectorsMax / 2, sectorsMax);
    const root = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: size });
    await live(root, random, 12);
    const child = new MadeVolume(store, {
      volumeId: "00000000000000b2",
      sizeBytes: size + 512 * random.between(-300, 300),
      parent: { volume: root, lsn: random.between(1, root.lastLsn + 1) },
    });
    await live(child, random, 8);
    await child.seal();
    await child.publish();
    const grandchild = new MadeVolume(store, {
      volumeId: "00000000000000c3",
      sizeBytes: size,
      parent: { volume: child, lsn: random.between(1, child.lastLsn + 1) },
    });
    await live(grandchild, random, 6);

    const served = new Histories({ store, clock });
    for (const volume of [root, child, grandchild]) {
      served.serve(volume.subject());
      const history = served.of(volume.subject());
      await expectEveryLsn((lsn) => history.open(lsn), volume, volume.lastLsn, random, "served");
      expect([...volume.hotLog.pins]).toEqual([]);
    }
    await served.close();

    // By the bucket alone: parents are archived up to the origins of what is archived.
    for (const volume of [root, child, grandchild]) {
      await volume.seal();
      await volume.publish();
    }
    const foreign = new Histories({ store, clock });
    for (const volume of [root, child, grandchild]) {
      const history = await foreign.fromBucket(volume.volumeId);
      await expectEveryLsn((lsn) => history.open(lsn), volume, volume.lastLsn, random, "bucket");
    }
    await foreign.close();
  });
});
