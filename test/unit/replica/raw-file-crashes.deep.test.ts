// What a crash leaves of a raw file, and that a failed sync is never followed by a checkpoint: on the simulated disk, in every seed.
import { describe, expect, test } from "vitest";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import type { MadeBatch } from "./batch-maker.ts";
import { directory, newVolume, sizeBytes, volumeId } from "./raw-volume.ts";

/** Everything that the image may be: the fold of a prefix at or past `fromLsn`. */
function prefixes(made: readonly MadeBatch[]): FoldedDisk[] {
  const disk = new FoldedDisk(sizeBytes);
  return [disk.copy(), ...made.map(({ batch }) => (disk.applyBatch(batch), disk.copy()))];
}

function crashWorld(seed: number) {
  const clock = new SteppedClock(seed);
  const disk = new SimulatedDisk({ random: new SteppedRandom(seed + 500), schedule: clock.schedule });
  const until = <T>(promise: Promise<T>): Promise<T> => clock.until(promise);
  const power = (cut: boolean): FileStore => {
    clock.reset();
    if (cut) disk.crash();
    else disk.kill();
    return disk.store();
  };
  return { clock, disk, until, power };
}

async function bytesOf(
  image: RawFileImage,
  store: FileStore,
  until: <T>(promise: Promise<T>) => Promise<T>,
): Promise<Buffer> {
  const length = image.state().sizeBytes;
  const slab = store.allocateSlab(Math.ceil(length / 4096) * 4096);
  await until(image.read(slab, 0, length, 0));
  return Buffer.from(slab.bytes.subarray(0, length));
}

describe("crashes", () => {
  test("at any moment, replay from the checkpoint gives the fold of all batches, resizes included", async () => {
    for (let seed = 0; seed < 120; seed += 1) {
      const { clock, disk, until, power } = crashWorld(seed);
      let store = disk.store();
      const { options, maker } = await until(newVolume(store));
      const made = [maker.epoch()];
      for (let index = 0; index < 12; index += 1) {
        if (clock.random.chance(0.15)) made.push(maker.resize(512 * clock.random.integer(100, 400)));
        else made.push(maker.random());
      }
      const all = prefixes(made);
      let image = await until(RawFileImage.attach(options));
      for (let life = 0; life < 3; life += 1) {
        const from = made.findIndex(({ batch }) => batch.firstLsn === image.state().appliedLsn + 1);
        const work = (async () => {
          for (const { batch } of from === -1 ? [] : made.slice(from)) {
            await image.apply([batch]);
            // Checkpoints are taken while batches go on being applied.
            if (clock.random.chance(0.4)) image.checkpoint().catch(() => undefined);
            else if (clock.random.chance(0.2)) await image.checkpoint();
          }
          if (clock.random.chance(0.3)) await image.detach();
        })();
        work.catch(() => undefined);
        await clock.run(clock.random.integer(0, 40));
        store = power(clock.random.chance(0.6));
        image = await until(RawFileImage.attach({ store, directory, volumeId }));
        const { appliedLsn } = image.state();
        expect(appliedLsn === 0 || made.some(({ draft }) => draft.lastLsn === appliedLsn)).toBe(true);
      }
      const rest = made.filter(({ batch }) => batch.firstLsn > image.state().appliedLsn);
      await until(image.apply(rest.map(({ batch }) => batch)));
      const last = all.at(-1) ?? new FoldedDisk(sizeBytes);
      expect(image.state()).toMatchObject({ sizeBytes: last.sizeBytes, appliedLsn: last.appliedLsn });
      const disk2 = await bytesOf(image, store, until);
      expect(disk2.equals(last.read(0, last.sizeBytes))).toBe(true);
      await until(image.detach());
      // A power cut after a clean detach takes nothing and changes nothing that attach looks at.
      store = power(true);
      image = await until(RawFileImage.attach({ store, directory, volumeId }));
      expect(image.state().appliedLsn).toBe(last.appliedLsn);
      expect((await bytesOf(image, store, until)).equals(disk2)).toBe(true);
    }
  });

  test("after a failed sync: no checkpoint, no reads, no detach; a new start replays and is whole", async () => {
    for (let seed = 0; seed < 60; seed += 1) {
      const { disk, until, power } = crashWorld(seed);
      let store = disk.store();
      const { options, maker } = await until(newVolume(store));
      const made = [maker.epoch(), maker.random(), maker.random(), maker.random()];
      const model = prefixes(made).at(-1) ?? new FoldedDisk(sizeBytes);
      const image = await until(RawFileImage.attach(options));
      await until(image.apply(made.slice(0, 2).map(({ batch }) => batch)));
      const good = await until(image.checkpoint());
      await until(image.apply(made.slice(2).map(({ draft }) => draft)));
      disk.faults.syncError = 1;
      await expect(until(image.checkpoint())).rejects.toMatchObject({ _tag: "ReplicaSyncFailed" });
      disk.faults.syncError = 0;
      expect(image.state().checkpointLsn).toBe(good);
      const slab = store.allocateSlab(4096);
      expect(image.readInline(slab, 0, 100, 0)).toBe(-1);
      await expect(until(image.read(slab, 0, 100, 0))).rejects.toMatchObject({ _tag: "ReplicaSyncFailed" });
      expect(image.allocation(0, sizeBytes, 10)).toEqual([{ offset: 0, length: sizeBytes, allocated: true }]);
      await expect(until(image.checkpoint())).rejects.toMatchObject({ _tag: "ReplicaSyncFailed" });
      await expect(until(image.detach())).rejects.toMatchObject({ _tag: "ReplicaSyncFailed" });
      store = power(seed % 2 === 0);
      const again = await until(RawFileImage.attach({ store, directory, volumeId }));
      expect(again.state().appliedLsn).toBe(good);
      await until(again.apply(made.slice(2).map(({ batch }) => batch)));
      expect((await bytesOf(again, store, until)).equals(model.read(0, sizeBytes))).toBe(true);
      expect(await until(again.checkpoint())).toBe(model.appliedLsn);
    }
  });

  test("an apply that found no room is repeated as a whole once there is room", async () => {
    const { disk, until } = crashWorld(1);
    const store = disk.store();
    const { options, maker } = await until(newVolume(store));
    const image = await until(RawFileImage.attach(options));
    const made = [
      maker.epoch(),
      maker.write(0, Buffer.alloc(20_000, 1)),
      maker.write(10_000, Buffer.alloc(60_000, 2)),
    ];
    const model = prefixes(made).at(-1) ?? new FoldedDisk(sizeBytes);
    disk.quotaBytes = disk.usedBytes + 8 * 4096;
    await expect(until(image.apply(made.map(({ batch }) => batch)))).rejects.toMatchObject({ kind: "Full" });
    expect(image.state().appliedLsn).toBe(0);
    disk.quotaBytes = 2 ** 40;
    await until(image.apply(made.map(({ batch }) => batch)));
    expect(image.state().appliedLsn).toBe(model.appliedLsn);
    expect((await bytesOf(image, store, until)).equals(model.read(0, sizeBytes))).toBe(true);
  });
});
