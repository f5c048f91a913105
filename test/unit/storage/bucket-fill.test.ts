// A replica that is filled from the bucket: it goes on exactly behind what was archived, a crash or a kill anywhere included; the bucket comes
// before the others, they come when it can't, and what fits neither is told. With a real bucket, too (base, segments, the log behind).
import { describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { BucketImages } from "#shared/adapters/history/bucket-images.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { lastLsnOf } from "#shared/domain/batch.ts";
import { checkpointPathOf, fillPathOf } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { FillFromBucket } from "../../../services/storage/engine/fill-from-bucket.ts";
import { ReplicaFill } from "../../../services/storage/engine/replica-fill.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { line } from "../replica/batch-maker.ts";
import {
  contentOf,
  expectSame,
  fillOf,
  MemoryArchive,
  makeOld,
  notes,
  oldestLsn,
  paths,
  volumeId,
  world,
} from "./fill-world.ts";

const damaged = new VarveError("BucketObjectDamaged", "Corrupt", "a flipped bit");
const away = new VarveError("BucketAway", "Retry", "the bucket does not answer");

describe("a fill from the bucket", () => {
  test("is exact where the bucket ends, and the log goes on behind it; nobody else is asked", async () => {
    for (let seed = 0; seed < 6; seed += 1) {
      const made = await world(seed, ["a"]);
      const store = made.disk.store();
      await makeOld(made, store);
      // The oldest place that still joins the log, and later ones.
      const archive = await MemoryArchive.at(made.log, oldestLsn - 1 + 20 * seed);
      const exactLsn = await made.clock.until(fillOf(made, store, { archive }).run());
      const filled = await made.clock.until(made.attach(store));
      expect([exactLsn, filled.state().appliedLsn]).toEqual([archive.found?.lsn, archive.found?.lsn]);
      expect(made.peers["a"]?.copies).toBe(0);
      await expectSame(made, filled);
    }
  });

  test("killed or crashed anywhere: the old image stays until the copy is whole, and the next attempt ends well", async () => {
    const found = { old: 0, none: 0, filled: 0 };
    for (let seed = 0; seed < 36; seed += 1) {
      const made = await world(seed, ["a"]);
      const { clock, disk } = made;
      const archive = await MemoryArchive.at(made.log, 60);
      const first = disk.store();
      const old = await makeOld(made, first);
      void fillOf(made, first, { archive, alone: true })
        .run()
        .catch(() => undefined);
      await clock.run(clock.random.integer(1, 60));
      if (seed % 2 === 0) disk.kill();
      else disk.crash();
      clock.reset();
      const store = disk.store();
      const bytes = await clock.until(store.readWhole(checkpointPathOf(paths.image)));
      if (bytes === null) found.none += 1;
      else {
        const image = await clock.until(made.attach(store));
        if (image.state().appliedLsn === old.lsn) {
          found.old += 1;
          expect((await contentOf(image, clock)).equals(old.bytes)).toBe(true);
        } else {
          found.filled += 1;
          expect(await clock.until(store.facts(fillPathOf(paths.image)))).toBeNull();
          await expectSame(made, image);
        }
        await clock.until(image.abandon());
      }
      await clock.until(fillOf(made, store, { archive, alone: true }).run());
      await expectSame(made, await clock.until(made.attach(store)));
    }
    expect(Math.min(...Object.values(found))).toBeGreaterThan(0);
  });

  test("damage or a bucket without what is wanted: the others are copied; without others it is told, and the old image stays", async () => {
    const made = await world(7, ["a"]);
    const store = made.disk.store();
    const old = await makeOld(made, store);
    const archive = await MemoryArchive.at(made.log, 60);
    const place = archive.found;
    archive.beforeRead = () => {
      throw damaged;
    };
    const run = async (wish: Parameters<typeof fillOf>[2]): Promise<number> =>
      made.clock.until(fillOf(made, store, wish).run());
    await expect(run({ archive, alone: true })).rejects.toBe(damaged);
    // Each byte was asked for once: damage is not asked for again and again.
    expect(archive.reads).toBe(1);
    archive.found = { line, epoch: 1, lsn: oldestLsn - 2, checksum: 1n, pins: [] };
    await expect(run({ archive, alone: true })).rejects.toMatchObject({
      _tag: "FillBucketBehind",
      kind: "Retry",
      message: expect.stringContaining(
        `ends at LSN ${oldestLsn - 2}, and the log begins at LSN ${oldestLsn}`,
      ),
    });
    archive.found = { line: "another", epoch: 1, lsn: 60, checksum: 1n, pins: [] };
    await expect(run({ archive, alone: true })).rejects.toMatchObject({ _tag: "FillBucketBehind" });
    await expect(run({ archive, alone: true, log: null })).rejects.toMatchObject({ _tag: "FillLogGone" });
    archive.found = place;
    archive.open = async () => {
      throw away;
    };
    expect((await made.clock.until(store.readWhole(paths.image)))?.equals(old.bytes)).toBe(true);
    notes.length = 0;
    await run({ archive });
    expect(notes).toEqual(["the bucket does not answer; a is tried"]);
    expect(made.peers["a"]?.copies).toBeGreaterThan(0);
    await expectSame(made, await made.clock.until(made.attach(store)));
  });

  test("a bucket that is away for a moment is asked again; room that goes short ends it, and is given back", async () => {
    const made = await world(8, ["a"]);
    const store = made.disk.store();
    const archive = await MemoryArchive.at(made.log, 60);
    let failures = 3;
    archive.beforeRead = () => {
      failures -= 1;
      if (failures >= 0) throw away;
    };
    await expect(
      made.clock.until(fillOf(made, store, { archive, roomBytes: 4096 }).run()),
    ).rejects.toMatchObject({ _tag: "FillNoRoom", kind: "Full" });
    expect((await made.clock.until(store.facts(fillPathOf(paths.image))))?.sizeBytes).toBe(0);
    await made.clock.until(fillOf(made, store, { archive, alone: true }).run());
    expect(failures).toBeLessThan(0);
    await expectSame(made, await made.clock.until(made.attach(store)));
  });

  test("one that is stopped waits for no answer, and what comes late goes nowhere", async () => {
    const made = await world(10, ["a"]);
    const store = made.disk.store();
    const old = await makeOld(made, store);
    const archive = await MemoryArchive.at(made.log, 60);
    let answer: () => void = () => undefined;
    archive.beforeRead = () =>
      new Promise<void>((resolve) => {
        answer = resolve;
      });
    const stop = new AbortController();
    const fill = fillOf(made, store, { archive, signal: stop.signal });
    const running = fill.run();
    running.catch(() => undefined);
    await made.clock.run(200);
    expect([archive.reads, fill.progress]).toEqual([1, "0 % copied from nobody yet"]);
    stop.abort();
    await expect(made.clock.until(running)).rejects.toMatchObject({ _tag: "FillStopped" });
    answer();
    await made.clock.run(50);
    expect(made.peers["a"]?.copies).toBe(0);
    expect((await made.clock.until(store.readWhole(paths.image)))?.equals(old.bytes)).toBe(true);
    archive.beforeRead = () => undefined;
    await made.clock.until(fillOf(made, store, { archive }).run());
    await expectSame(made, await made.clock.until(made.attach(store)));
  });

  test("nothing archived yet, and a log that has everything: the replica begins empty and follows it", async () => {
    const made = await world(9, ["a"]);
    const store = made.disk.store();
    await makeOld(made, store);
    const archive = await MemoryArchive.at(made.log, 60);
    archive.found = null;
    await made.clock.until(fillOf(made, store, { archive, alone: true, log: { oldestLsn: 1, line } }).run());
    const filled = await made.clock.until(made.attach(store));
    expect(filled.state().appliedLsn).toBe(0);
    await expectSame(made, filled);
  });
});

describe("a bucket as archivers leave it", () => {
  const sizeBytes = 5 * limits.extentBytes + 12_288;

  /** A base, segments behind it, and log that was not archived. */
  async function archived(): Promise<MadeVolume> {
    const bucket = new MemoryObjectStore(new SystemClock());
    const volume = new MadeVolume(bucket, { volumeId, sizeBytes });
    const random = new SeededRandom(5);
    const write = (offset: number, length: number): void =>
      volume.write(offset, Buffer.alloc(length, random.between(1, 256)));
    write(0, 65_536);
    write(3 * limits.extentBytes - 4096, 8192);
    await volume.seal();
    await volume.takeBase(1, volume.archivedLsn, random);
    write(sizeBytes - 4096, 4096);
    volume.append([{ zero: 0, length: 32_768 }]);
    await volume.seal();
    await volume.publish();
    write(8192, 4096);
    return volume;
  }

  test("fills a replica that is the disk when the rest of the log is applied; what was never written stays a hole", async () => {
    const volume = await archived();
    const images = new BucketImages({
      place: volume.store.place,
      clock: new SystemClock(),
      openStore: async () => volume.store,
    });
    const place = await images.newest(volumeId);
    expect([place?.lsn, place?.line]).toEqual([volume.archivedLsn, volume.line]);
    const store = new MemoryFileStore();
    const { signal } = new AbortController();
    const log = { end: async () => ({ oldestLsn: volume.archivedLsn + 1, line: volume.line }) };
    const clock = new SystemClock();
    const source = new FillFromBucket({ volumeId, beginBytes: sizeBytes, images, log, signal });
    const options = { volumeId, paths, sources: [source], store, clock, roomBytes: () => 2 ** 30 };
    const fill = new ReplicaFill(
      { ...options, bytesPerSecond: null, onChange: () => undefined, onNote: () => undefined },
      signal,
    );
    expect(await fill.run()).toBe(volume.archivedLsn);
    expect(fill.progress).toBe(`100 % copied from the bucket ${volume.store.place}`);
    expect((await store.facts(paths.image))?.allocatedBytes).toBeLessThan(300 * 1024);
    const image = await RawFileImage.attach({ store, directory: paths.directory, volumeId });
    await image.apply(volume.hotLog.batches.filter((one) => lastLsnOf(one) > volume.archivedLsn));
    const content = await contentOf(image, null);
    expect(content.equals(Buffer.from(volume.disk.read(0, sizeBytes)))).toBe(true);
    await images.close();
  });

  test("is opened by so many fills at once and no more; a bucket that can't be opened is tried again", async () => {
    const volume = await archived();
    let attempts = 0;
    const images = new BucketImages({
      place: volume.store.place,
      clock: new SystemClock(),
      openStore: async () => {
        attempts += 1;
        if (attempts === 1) throw away;
        return volume.store;
      },
    });
    await expect(images.newest(volumeId)).rejects.toBe(away);
    expect(await images.newest("00000000000000aa")).toBeNull();
    const open = async () => images.open(volumeId, volume.archivedLsn);
    const opened = await Promise.all(Array.from({ length: limits.bucketFill.fillsMax }, open));
    let isThird = false;
    const third = open().then((one) => {
      isThird = true;
      return one;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isThird).toBe(false);
    await opened[0]?.close();
    await (await third).close();
    // One that can't be opened keeps no turn.
    for (let attempt = 0; attempt <= limits.bucketFill.fillsMax; attempt += 1) {
      await expect(images.open(volumeId, volume.archivedLsn + 100)).rejects.toMatchObject({
        kind: "Invalid",
      });
    }
    await images.close();
  });
});
