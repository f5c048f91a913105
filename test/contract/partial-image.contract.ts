// What every replica with remote extents promises, whatever store its file is on: reads, allocation, fills, evictions, CACHE,
// sizes and rollbacks leave exactly the fold; closed in good order and opened again it is the same. Run by
// partial-image.test.ts on three file stores.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { bucketAway } from "../tools/memory-point-source.ts";
import { SteppedRandom } from "../unit/file-store/stepped-clock.ts";
import type { MadeBatch } from "../unit/replica/batch-maker.ts";
import {
  extentBytes,
  firstDifference,
  PartialWorld,
  patternedDisk,
  wholeDisk,
} from "../unit/replica/partial-world.ts";

export interface PartialBench {
  readonly store: FileStore;
  readonly directory: string;
  dispose(): Promise<void>;
}

const sizeBytes = 3 * extentBytes + 300_032;

const zeroes = Buffer.alloc(4 * extentBytes);

/** By memcmp: a callback for each byte of such disks took half of this suite's time. */
function expectZeroes(bytes: Buffer): void {
  expect(bytes.equals(zeroes.subarray(0, bytes.length))).toBe(true);
}

/** Disks of 12 MiB are compared as a whole, often. */
const minuteMs = 60_000;

export function partialImageContract(name: string, setUp: () => Promise<PartialBench>): void {
  describe(`partial image: ${name}`, { timeout: minuteMs }, () => {
    let bench: PartialBench;
    let store: FileStore;
    let world: PartialWorld;
    let image: RawFileImage;
    let fails: "nothing" | "reads" = "nothing";

    beforeEach(async () => {
      bench = await setUp();
      ({ store } = bench);
      fails = "nothing";
      const random = new SteppedRandom(6);
      world = new PartialWorld(
        store,
        random,
        patternedDisk(sizeBytes, random),
        { fails: (what) => (fails === "reads" && what === "read" ? bucketAway() : null) },
        bench.directory,
      );
      await world.create(store, true);
      image = await world.attach(store);
      await apply(world.maker.epoch());
    });
    afterEach(async () => {
      await image.abandon();
      await bench.dispose();
    });

    const apply = async (...made: MadeBatch[]): Promise<void> => {
      await image.apply(made.map((one) => world.record(one).batch));
    };
    const expectFold = async (): Promise<void> => {
      const disk = await wholeDisk(image, store);
      expect(firstDifference(disk, world.disk)).toBe(-1);
      let at = 0;
      for (const run of image.allocation(0, disk.length, 10_000)) {
        expect([run.offset, run.length > 0]).toEqual([at, true]);
        at += run.length;
        if (!run.allocated) expectZeroes(disk.subarray(run.offset, at));
      }
      expect(at).toBe(disk.length);
    };
    const reopen = async (): Promise<void> => {
      await image.detach();
      image = await world.attach(store);
      await expectFold();
    };

    test("writes, zeroes and trims before anything is fetched, then fills between them", async () => {
      await expectFold();
      for (let round = 0; round < 12; round += 1) {
        await apply(world.maker.random());
        if (round % 3 === 2) await image.extents.fill(round % 4);
        await expectFold();
      }
      await reopen();
      await image.extents.cache(0, sizeBytes);
      expect(image.extents.nextRemote(0)).toBe(-1);
      await expectFold();
      await reopen();
      expect(image.extents.residency()).toMatchObject({ localExtents: 4, points: [] });
    });

    test("an extent that is written or zeroed as a whole is local and asks nobody", async () => {
      await apply(world.maker.write(extentBytes, Buffer.alloc(extentBytes, 5)));
      await apply(world.maker.range(1, 2 * extentBytes - 10, extentBytes + 10));
      const { reads } = world.points.counters;
      expect([image.extents.isLocal(1), image.extents.isLocal(2)]).toEqual([true, true]);
      expect(await image.extents.fill(1)).toBe(0);
      expect(world.points.counters.reads).toBe(reads);
      await expectFold();
    });

    test("evicted, written in parts, filled again", async () => {
      await image.extents.cache(0, sizeBytes);
      const baseLsn = world.disk.appliedLsn;
      const request = { point: world.own(baseLsn), baseLsn, extents: [0, 1, 2, 3] };
      await apply(world.maker.write(2 * extentBytes, Buffer.alloc(1, 1)));
      expect(await image.extents.evict(request)).toBe(3);
      expect(image.extents.isLocal(2)).toBe(true);
      await expectFold();
      await apply(
        world.maker.write(100, Buffer.alloc(9000, 4)),
        world.maker.range(3, extentBytes + 77, 100_001),
      );
      await expectFold();
      await reopen();
      await image.extents.cache(0, sizeBytes);
      await expectFold();
      await expect(image.extents.evict({ ...request, point: world.parent })).rejects.toMatchObject({
        _tag: "EvictPointError",
      });
    });

    test("shrink, then grow: what was cut off is zero, fetched or not", async () => {
      await apply(world.maker.resize(extentBytes + 1_000_448));
      await expectFold();
      await apply(world.maker.resize(sizeBytes));
      await expectFold();
      await image.extents.fill(1);
      await expectFold();
      await apply(world.maker.resize(512), world.maker.resize(2 * extentBytes));
      await reopen();
      await image.extents.cache(0, 2 * extentBytes);
      await expectFold();
    });

    test("rollback, forward again, and a rollback of a rollback", async () => {
      await apply(world.maker.write(50, Buffer.alloc(100, 1)), world.maker.resize(2 * extentBytes));
      const first = world.disk.appliedLsn;
      await apply(world.maker.resize(sizeBytes), world.maker.random(), world.maker.random());
      const second = world.disk.appliedLsn;
      await apply(world.maker.rebase(first, 2 * extentBytes));
      await expectFold();
      await apply(world.maker.write(extentBytes + 9, Buffer.alloc(99, 2)));
      const third = world.disk.appliedLsn;
      await apply(world.maker.rebase(second, sizeBytes));
      await expectFold();
      await reopen();
      await image.extents.fill(0);
      await apply(world.maker.rebase(third, 2 * extentBytes), world.maker.random());
      await expectFold();
      await reopen();
      await image.extents.cache(0, sizeBytes);
      await reopen();
      expect(image.extents.residency().points).toEqual([]);
    });

    test("with the bucket away local reads and writes go on, remote ones say Retry and change nothing", async () => {
      await image.extents.fill(1);
      fails = "reads";
      const slab = store.allocateSlab(8192);
      await expect(image.read(slab, 0, 100, 0)).rejects.toMatchObject({ kind: "Retry" });
      await expect(image.extents.fill(0)).rejects.toMatchObject({ kind: "Retry" });
      await expect(image.extents.cache(0, sizeBytes)).rejects.toMatchObject({ kind: "Retry" });
      await image.read(slab, 0, 4096, extentBytes);
      expect(slab.bytes.subarray(0, 4096).equals(world.disk.read(extentBytes, 4096))).toBe(true);
      await apply(world.maker.write(3, Buffer.alloc(2000, 8)));
      await image.read(slab, 0, 2000, 3);
      expect(slab.bytes.subarray(0, 2000).equals(Buffer.alloc(2000, 8))).toBe(true);
      expect(image.readInline(slab, 0, 10, 0)).toBe(-1);
      await image.checkpoint();
      fails = "nothing";
      await expectFold();
    });
  });
}
