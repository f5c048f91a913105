// What every replica promises: after each run of batches it is the fold of all of them, read inline, read on a thread or
// judged by its allocation; a batch that does not continue it changes nothing. Run by replica-image.test.ts on the raw file
// over three file stores and on the memory twin.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { SteppedRandom } from "../unit/file-store/stepped-clock.ts";
import { BatchMaker, type MadeBatch } from "../unit/replica/batch-maker.ts";

export interface ReplicaBench {
  readonly image: ReplicaImage;
  readonly store: FileStore;
  dispose(): Promise<void>;
}

/** No whole number of blocks, on purpose. */
export const contractSizeBytes = 300_032;

export function replicaImageContract(name: string, setUp: () => Promise<ReplicaBench>): void {
  describe(`replica image: ${name}`, () => {
    let bench: ReplicaBench;
    let image: ReplicaImage;
    let maker: BatchMaker;
    let model: FoldedDisk;
    let slab: Slab;

    beforeEach(async () => {
      bench = await setUp();
      ({ image } = bench);
      maker = new BatchMaker(bench.store, new SteppedRandom(3), contractSizeBytes);
      model = new FoldedDisk(contractSizeBytes);
      slab = bench.store.allocateSlab(512 * 1024);
    });
    afterEach(() => bench.dispose());

    const apply = async (made: readonly MadeBatch[], asDrafts: boolean): Promise<void> => {
      for (const { batch } of made) model.applyBatch(batch);
      await image.apply(made.map(({ batch, draft }) => (asDrafts ? draft : batch)));
    };

    /** All of the disk, the way the volume session reads it. */
    const wholeDisk = async (): Promise<Buffer> => {
      const { sizeBytes } = image.state();
      slab.bytes.fill(0xee);
      for (let at = 0; at < sizeBytes; ) {
        const part = Math.min(10_007, sizeBytes - at);
        const inline = image.readInline(slab, at, part, at);
        expect(inline).toBeLessThanOrEqual(part);
        const got = Math.max(0, inline);
        if (got < part) await image.read(slab, at + got, part - got, at + got);
        at += part;
      }
      return Buffer.from(slab.bytes.subarray(0, sizeBytes));
    };

    const expectModel = async (): Promise<void> => {
      expect(image.state()).toMatchObject({ sizeBytes: model.sizeBytes, appliedLsn: model.appliedLsn });
      const disk = await wholeDisk();
      expect(disk.equals(model.read(0, model.sizeBytes))).toBe(true);
      for (const runsMax of [1000, 3]) {
        let at = 0;
        for (const run of image.allocation(0, model.sizeBytes, runsMax)) {
          expect([run.offset, run.length > 0]).toEqual([at, true]);
          at += run.length;
          if (!run.allocated) expect(disk.subarray(run.offset, at).every((byte) => byte === 0)).toBe(true);
        }
        if (runsMax === 1000) expect(at).toBe(model.sizeBytes);
      }
    };

    test("is the fold of what was applied, as drafts and as batches read back, one by one and in runs", async () => {
      await apply([maker.epoch()], false);
      for (let round = 0; round < 40; round += 1) {
        const made = Array.from({ length: 1 + (round % 4) }, () => maker.random());
        await apply(made, round % 2 === 0);
        await expectModel();
      }
      expect(await image.checkpoint()).toBe(model.appliedLsn);
      expect(image.state().checkpointLsn).toBe(model.appliedLsn);
      await apply([maker.random()], true);
      await expectModel();
    });

    test("grows and shrinks: what was cut off is zero when it comes back", async () => {
      await apply([maker.epoch(), maker.random(), maker.random()], false);
      await apply([maker.resize(100_352)], true);
      await expectModel();
      await apply([maker.random(), maker.resize(contractSizeBytes)], true);
      await expectModel();
      await apply([maker.resize(200_192), maker.resize(250_368), maker.random()], false);
      await expectModel();
    });

    test("ranges at every edge: first byte, last byte, a block's edges, all of the disk", async () => {
      const full = Buffer.alloc(contractSizeBytes, 1);
      await apply([maker.epoch()], false);
      await apply([maker.write(0, full)], true);
      for (const [from, end] of [
        [0, 1],
        [contractSizeBytes - 1, contractSizeBytes],
        [4096, 8192],
        [4095, 8193],
        [8191, 8193],
        [100_000, 200_001],
      ] as const) {
        for (const kind of [1, 2, 3] as const) {
          await apply([maker.range(kind, from, end - from)], true);
          await expectModel();
          await apply([maker.write(from, full.subarray(from, end))], true);
        }
      }
      await apply([maker.range(3, 0, contractSizeBytes)], true);
      await expectModel();
    });

    test("a batch that does not continue it is refused as Corrupt, and nothing of its run is applied", async () => {
      await apply([maker.epoch()], false);
      await apply([maker.write(0, Buffer.alloc(9000, 5))], true);
      const before = image.state();
      const good = maker.write(0, Buffer.alloc(50, 6));
      const bad = maker.write(100, Buffer.alloc(50, 7));
      const wrongs = [
        { ...bad.batch, firstLsn: bad.batch.firstLsn + 1 },
        { ...bad.batch, firstLsn: bad.batch.firstLsn - 1 },
        { ...bad.batch, previousChecksum: 1n },
        { ...bad.batch, line: "00000000000000aa" },
        { ...bad.batch, epoch: 0 },
        {
          ...bad.batch,
          entries: [{ kind: "write" as const, offset: contractSizeBytes - 10, length: 50, payloadStart: 0 }],
        },
      ];
      for (const wrong of wrongs) {
        await expect(image.apply([good.batch, wrong])).rejects.toMatchObject({ kind: "Corrupt" });
        expect(image.state()).toEqual(before);
        await expectModel();
      }
      await apply([good, bad], true);
      await expectModel();
    });
  });
}
