// The raw file's life: what attach refuses and says, what detach records, what a crash leaves, and that a failed sync is
// never followed by a checkpoint. On the memory store for single steps, on the simulated disk for crashes in every seed.
import { describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { isVarveError } from "#shared/domain/errors.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import { decodeCheckpoint, encodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker, type MadeBatch } from "./batch-maker.ts";

const volumeId = "5ca1ab1e00c0ffee";
const directory = "/volume";
const imagePath = "/volume/disk.raw";
const checkpointPath = "/volume/disk.raw.checkpoint";
const sizeBytes = 128 * 1024;

async function newVolume(store: FileStore = new MemoryFileStore()) {
  await store.makeDirectory(directory);
  const options = { store, directory, volumeId };
  await RawFileImage.create({ ...options, sizeBytes });
  const maker = new BatchMaker(store, new SteppedRandom(1), sizeBytes);
  return { store, options, maker };
}

async function checkpointOf(store: FileStore) {
  const checkpoint = decodeCheckpoint((await store.readWhole(checkpointPath)) ?? Buffer.alloc(0));
  if (isBadCheckpoint(checkpoint)) throw new Error(checkpoint.detail);
  return checkpoint;
}

async function refusal(promise: Promise<unknown>): Promise<{ tag: string; kind: string; hint: string }> {
  try {
    await promise;
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return { tag: error._tag, kind: error.kind, hint: error.hint };
  }
  throw new Error("was not refused");
}

describe("attach and detach", () => {
  test("a new image is thin, detached, and says attached while it is held", async () => {
    const { store, options } = await newVolume();
    expect(await checkpointOf(store)).toMatchObject({ appliedLsn: 0, line: null, sizeBytes });
    expect((await checkpointOf(store)).detached).not.toBeNull();
    const image = await RawFileImage.attach(options);
    expect((await checkpointOf(store)).detached).toBeNull();
    expect(image.state()).toMatchObject({ sizeBytes, appliedLsn: 0, allocatedBytes: 0 });
    expect(await refusal(RawFileImage.attach(options))).toMatchObject({
      tag: "FileStoreError",
      kind: "Retry",
    });
    await image.detach();
    await image.detach();
    expect((await checkpointOf(store)).detached).not.toBeNull();
  });

  test("detach records what the next attach goes on from", async () => {
    const { store, options, maker } = await newVolume();
    const image = await RawFileImage.attach(options);
    const made = [maker.epoch(), maker.write(100, Buffer.alloc(10_000, 4))];
    await image.apply(made.map(({ batch }) => batch));
    expect(image.state().dirtyBytes).toBe(10_000);
    await image.detach();
    const checkpoint = await checkpointOf(store);
    expect(checkpoint).toMatchObject({
      appliedLsn: 2,
      epoch: 1,
      batchChecksum: made[1]?.batch.checksum,
      line: made[0]?.batch.line,
    });
    const again = await RawFileImage.attach(options);
    expect(again.state()).toMatchObject({ appliedLsn: 2, checkpointLsn: 2, dirtyBytes: 0 });
    await again.apply([maker.write(0, Buffer.alloc(5, 1)).draft]);
    expect(await again.checkpoint()).toBe(3);
    expect((await checkpointOf(store)).detached).toBeNull();
    await again.abandon();
    expect((await RawFileImage.attach(options).then((image) => image.state())).appliedLsn).toBe(3);
  });

  test("an image that was attached in vain is as cleanly detached as before", async () => {
    const { store, options, maker } = await newVolume();
    const image = await RawFileImage.attach(options);
    await image.apply([maker.epoch().batch, maker.write(0, Buffer.alloc(100, 7)).batch]);
    await image.detach();
    const before = await checkpointOf(store);
    const inVain = await RawFileImage.attach(options);
    expect((await checkpointOf(store)).detached).toBeNull();
    await inVain.abandon();
    expect(await checkpointOf(store)).toEqual(before);
    const used = await RawFileImage.attach(options);
    await used.apply([maker.write(0, Buffer.alloc(100, 8)).draft]);
    await used.abandon();
    expect((await checkpointOf(store)).detached).toBeNull();
  });

  test("a file that was changed, replaced or resized meanwhile is refused with both ways out, and stays as it is", async () => {
    const changes: ((store: FileStore) => Promise<void>)[] = [
      async (store) => {
        const file = await store.open(imagePath, { access: "buffered" });
        const slab = store.allocateSlab(4096);
        file.writeInline([{ slab, start: 0, length: 1 }], 0);
        await file.close();
      },
      async (store) => {
        const file = await store.open(imagePath, { access: "buffered" });
        await file.truncate(sizeBytes + 512);
        await file.close();
      },
      async (store) => store.replaceWhole(imagePath, Buffer.alloc(sizeBytes)),
    ];
    for (const change of changes) {
      const { store, options } = await newVolume();
      await change(store);
      const before = await store.facts(imagePath);
      const error = await refusal(RawFileImage.attach(options));
      expect(error).toMatchObject({ tag: "ImageChanged", kind: "Invalid" });
      expect(error.hint).toContain("varve image adopt");
      expect(error.hint).toContain("varve image discard");
      expect(await store.facts(imagePath)).toEqual(before);
      expect((await checkpointOf(store)).detached).not.toBeNull();
      // The refusal gave the lock back.
      expect(await refusal(RawFileImage.attach(options))).toMatchObject({ tag: "ImageChanged" });
    }
  });

  test("a missing or damaged checkpoint, a foreign one and a missing image are told apart", async () => {
    const damage: [string, string, (store: FileStore) => Promise<void>][] = [
      ["CheckpointMissing", "Corrupt", async (store) => store.remove(checkpointPath)],
      [
        "CheckpointDamaged",
        "Corrupt",
        async (store) => {
          const bytes = (await store.readWhole(checkpointPath)) ?? Buffer.alloc(0);
          bytes.writeUInt8(bytes.readUInt8(30) ^ 1, 30);
          await store.replaceWhole(checkpointPath, bytes);
        },
      ],
      [
        "CheckpointOfOtherVolume",
        "Invalid",
        async (store) => {
          const checkpoint = { ...(await checkpointOf(store)), volumeId: "00000000000000aa" };
          await store.replaceWhole(checkpointPath, encodeCheckpoint(checkpoint));
        },
      ],
      ["ImageMissing", "Invalid", async (store) => store.remove(imagePath)],
    ];
    for (const [tag, kind, change] of damage) {
      const { store, options } = await newVolume();
      await change(store);
      expect(await refusal(RawFileImage.attach(options))).toMatchObject({ tag, kind });
    }
  });

  test("the first batch must come from the log: a draft tells no line", async () => {
    const { options, maker } = await newVolume();
    const image = await RawFileImage.attach(options);
    await expect(image.apply([maker.epoch().draft])).rejects.toThrow("invariant");
    expect(image.state().appliedLsn).toBe(0);
  });
});

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
