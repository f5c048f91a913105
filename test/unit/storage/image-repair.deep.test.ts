// check, adopt and discard on a simulated disk: a change behind Varve's back is kept or thrown away as a whole, and a repair
// that a power cut or a kill stops anywhere leaves the old state or one in which it is simply run again.
import { describe, expect, it } from "vitest";
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { adoptImage } from "../../../services/storage/engine/image-adopt.ts";
import { checkImage } from "../../../services/storage/engine/image-check.ts";
import { discardImage } from "../../../services/storage/engine/image-discard.ts";
import { MiB, type OpenSession, StorageWorld, type WorldOptions } from "./storage-world.ts";

/** A volume with some content, closed in good order. */
async function makeWorld(seed: number, options: Partial<WorldOptions> = {}): Promise<StorageWorld> {
  const world = new StorageWorld(seed, { sizeBytes: 3 * MiB, ...options });
  await world.makeVolume();
  const opened = await world.open();
  await fillDisk(world, opened, 12);
  await world.close(opened);
  return world;
}

async function fillDisk(world: StorageWorld, opened: OpenSession, writes: number): Promise<void> {
  const size = world.record.sizeBytes;
  for (let index = 0; index < writes; index += 1) {
    const length = 512 * world.random(1, 300);
    const offset = 512 * world.random(0, (size - length) / 512);
    const request =
      world.random(0, 5) === 0
        ? world.trim(opened, offset, length)
        : world.write(opened, offset, world.content(length));
    expect(await world.until(request)).toBeNull();
  }
}

/** What qemu-io might do to the file. Changes at least one byte. */
async function changeBehindVarve(world: StorageWorld): Promise<void> {
  const { length: size } = await world.imageContent();
  await world.changeImage([
    { offset: 512 * world.random(0, size / 512 - 800), bytes: world.content(512 * world.random(1, 700)) },
    { offset: 4096 * world.random(0, size / 4096 - 20), bytes: 4096 * 16 },
    { offset: 512 * world.random(0, size / 512 - 1), bytes: world.content(512) },
    // A block of written zeroes: data to the file system, a zero entry to the log.
    { offset: 4096 * world.random(0, size / 4096 - 40), bytes: Buffer.alloc(128 * 1024) },
  ]);
}

/** The volume as clients would see it; the session is closed in good order. */
async function served(world: StorageWorld): Promise<Buffer> {
  const opened = await world.open();
  const size = opened.session.sizeBytes;
  const parts: Buffer[] = [];
  for (let at = 0; at < size; at += MiB) parts.push(await world.read(opened, at, Math.min(MiB, size - at)));
  await world.close(opened);
  return Buffer.concat(parts);
}

function expectSame(found: Buffer, expected: Buffer, what: string): void {
  if (found.equals(expected)) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(`${what}: ${found.length} of ${expected.length} bytes, first difference at ${at}`);
}

async function rejection(world: StorageWorld, work: Promise<unknown>): Promise<VarveError> {
  const error = await world.until(work).then(
    () => null,
    (cause: unknown) => cause,
  );
  if (!(error instanceof VarveError)) throw new Error(`expected a VarveError, got ${String(error)}`);
  return error;
}

const adopt = (world: StorageWorld) => world.until(adoptImage(world.repairSetup()));
const discard = (world: StorageWorld) => world.until(discardImage(world.repairSetup()));
const check = (world: StorageWorld) => world.until(checkImage(world.repairSetup()));

describe("image check", () => {
  it("finds nothing after a clean stop, and changes nothing", async () => {
    const world = await makeWorld(1);
    const before = world.disk.sequence;
    const report = await check(world);
    expect(report).toMatchObject({ name: "disk0", clean: true, findings: [] });
    expect(report.fields).toMatchObject({ detached: true, discardPossible: true, logOldestLsn: 1 });
    expect(report.fields["appliedLsn"]).toBe(report.fields["logLastLsn"]);
    expect(world.disk.sequence).toBe(before);
  });

  it("tells a change, and both ways out", async () => {
    const world = await makeWorld(2);
    await changeBehindVarve(world);
    const report = await check(world);
    expect(report.clean).toBe(false);
    expect(report.findings).toHaveLength(1);
    expect(report.findings[0]).toContain("varve image adopt disk0");
    expect(report.findings[0]).toContain("varve image discard disk0");
  });

  it("tells an unclean stop, a missing image, a missing and a damaged checkpoint", async () => {
    const world = await makeWorld(3);
    const opened = await world.open();
    await fillDisk(world, opened, 3);
    world.crash();
    expect((await check(world)).findings[0]).toContain("applies the log from LSN");
    await served(world);
    const path = checkpointPathOf(world.paths.image);
    const good = await world.until(world.store.readWhole(path));
    await world.until(
      world.store.replaceWhole(path, Buffer.from("no checkpoint at all, but of some length")),
    );
    expect((await check(world)).findings[0]).toContain("is damaged");
    await world.until(world.store.remove(path));
    expect((await check(world)).findings[0]).toContain("does not exist");
    await world.until(world.store.replaceWhole(path, good ?? Buffer.alloc(0)));
    await world.until(world.store.remove(world.paths.image));
    expect((await check(world)).findings[0]).toContain("does not exist");
  });

  it("tells a log of another line, and one with missing files", async () => {
    const world = await makeWorld(4);
    const other = await makeWorld(5);
    const path = checkpointPathOf(world.paths.image);
    const foreign = await other.until(other.store.readWhole(path));
    const good = await world.until(world.store.readWhole(path));
    await world.until(world.store.replaceWhole(path, foreign ?? Buffer.alloc(0)));
    expect((await check(world)).findings.join("\n")).toContain("do not belong together");
    await world.until(world.store.replaceWhole(path, good ?? Buffer.alloc(0)));
    for (const name of await world.until(world.store.list(world.paths.log))) {
      await world.until(world.store.remove(`${world.paths.log}/${name}`));
    }
    expect((await check(world)).clean).toBe(false);
  });
});

describe("image adopt", { timeout: 60_000 }, () => {
  it("makes the changed content the volume, and the log its fold", async () => {
    for (let seed = 10; seed < 15; seed += 1) {
      const world = await makeWorld(seed);
      await changeBehindVarve(world);
      const changed = await world.imageContent();
      expect((await rejection(world, world.attach()))._tag).toBe("ImageChanged");
      expect((await adopt(world)).clean).toBe(true);
      expect((await check(world)).clean).toBe(true);
      expectSame(await world.imageContent(), changed, "image after adopt");
      expectSame(await served(world), changed, "volume after adopt");
      // The log alone gives the same.
      await discard(world);
      expectSame(await world.imageContent(), changed, "fold of the log after adopt");
      expectSame(await served(world), changed, "volume after adopt and discard");
    }
  });

  it("takes another size of the file as the volume's size", async () => {
    for (const sizeBytes of [5 * MiB + 512, MiB - 512]) {
      const world = await makeWorld(20);
      await world.resizeImage(sizeBytes);
      const changed = await world.imageContent();
      await adopt(world);
      expectSame(await served(world), changed, "volume after adopt");
      await discard(world);
      expectSame(await served(world), changed, "volume after adopt and discard");
    }
  });

  it("does nothing where nothing was changed", async () => {
    const world = await makeWorld(21);
    const before = world.disk.sequence;
    expect((await adopt(world)).findings[0]).toContain("nothing to adopt");
    expect(world.disk.sequence).toBe(before);
  });

  it("refuses what would lose data or is no volume, with nothing changed", async () => {
    const world = await makeWorld(22);
    await world.resizeImage(3 * MiB + 100);
    expect((await rejection(world, adoptImage(world.repairSetup())))._tag).toBe("ImageSizeInvalid");
    await world.resizeImage(3 * MiB);
    const file = await world.until(world.store.open(world.paths.image, { access: "buffered" }));
    file.lockAsImageWriter();
    expect((await rejection(world, adoptImage(world.repairSetup()))).kind).toBe("Retry");
    await world.until(file.close());
    await adopt(world);
    const opened = await world.open();
    await fillDisk(world, opened, 3);
    world.kill();
    expect((await rejection(world, adoptImage(world.repairSetup())))._tag).toBe("ImageNotDetached");
    await served(world);
    await world.until(world.store.remove(checkpointPathOf(world.paths.image)));
    expect((await rejection(world, adoptImage(world.repairSetup())))._tag).toBe("CheckpointUnusable");
  });

  it("notices who writes to the image meanwhile", async () => {
    const world = await makeWorld(23);
    await changeBehindVarve(world);
    const adopting = adoptImage(world.repairSetup());
    adopting.catch(() => undefined);
    await world.clock.run(40);
    await world.changeImage([{ offset: 0, bytes: world.content(512) }]);
    expect((await rejection(world, adopting))._tag).toBe("ImageInUse");
    const changed = await world.imageContent();
    await adopt(world);
    expectSame(await served(world), changed, "volume after the second adopt");
  });

  it("passes an image through a log that is smaller, and may stop anywhere on the way", async () => {
    for (let seed = 30; seed < 36; seed += 1) {
      const world = await makeWorld(seed, {
        sizeBytes: 12 * MiB,
        log: { logBytesMax: 6 * MiB, retainedBytes: 0, sparesMax: 0 },
      });
      for (let part = 0; part < 11; part += 1) {
        await world.changeImage([{ offset: part * MiB + 512 * part, bytes: world.content(MiB - 8192) }]);
      }
      const changed = await world.imageContent();
      const stops = seed % 3;
      for (let stop = 0; stop < stops; stop += 1)
        await stopInside(world, adoptImage(world.repairSetup()), 900);
      expectSame(await world.imageContent(), changed, "image before the last adopt");
      await adopt(world);
      const report = await check(world);
      expect(report.findings).toEqual([]);
      expect(report.fields["discardPossible"]).toBe(false);
      expectSame(await served(world), changed, "volume after adopt");
    }
  });

  it("stopped anywhere, it is run again, and no half of it is ever served or thrown away in silence", async () => {
    let unfinished = 0;
    let refusedDiscards = 0;
    let discards = 0;
    for (let seed = 100; seed < 124; seed += 1) {
      const world = await makeWorld(seed);
      const original = await world.imageContent();
      await changeBehindVarve(world);
      const changed = await world.imageContent();
      const ended = await stopInside(world, adoptImage(world.repairSetup()), 70, 25 * (seed % 3));
      expectSame(await world.imageContent(), changed, "the image is never touched");
      const tag = await attachTag(world);
      if (tag === null) {
        // The last step was done: it is the volume now.
        expectSame(await served(world), changed, "volume after an adopt that was stopped at its end");
        continue;
      }
      expect(ended).toBe(false);
      expect(tag).toBe("ImageChanged");
      unfinished += 1;
      if (seed % 2 === 0) {
        const outcome = await world
          .until(discardImage(world.repairSetup()))
          .catch((error: VarveError) => error);
        if (outcome instanceof VarveError) {
          expect(outcome._tag).toBe("AdoptUnfinished");
          expect((await check(world)).findings[0]).toContain("an adopt was begun");
          refusedDiscards += 1;
        } else {
          expectSame(await served(world), original, "volume after discard instead of adopt");
          discards += 1;
          continue;
        }
      }
      await adopt(world);
      expectSame(await served(world), changed, "volume after the second adopt");
      await discard(world);
      expectSame(await served(world), changed, "fold after the second adopt");
    }
    expect(unfinished).toBeGreaterThan(8);
    expect(refusedDiscards).toBeGreaterThan(1);
    expect(discards).toBeGreaterThan(1);
  });
});

describe("image discard", { timeout: 60_000 }, () => {
  it("brings the volume back as the log has it", async () => {
    for (let seed = 200; seed < 205; seed += 1) {
      const world = await makeWorld(seed);
      const original = await world.imageContent();
      await changeBehindVarve(world);
      await discard(world);
      expect((await check(world)).findings).toEqual([]);
      expectSame(await served(world), original, "volume after discard");
    }
  });

  it("builds a missing image, a cut one, and one whose checkpoint is gone or damaged", async () => {
    const world = await makeWorld(210);
    const original = await world.imageContent();
    const path = checkpointPathOf(world.paths.image);
    await world.until(world.store.remove(world.paths.image));
    await discard(world);
    expectSame(await served(world), original, "missing image");
    await world.resizeImage(4096);
    await discard(world);
    expectSame(await served(world), original, "cut image");
    await world.until(world.store.remove(path));
    await discard(world);
    expectSame(await served(world), original, "missing checkpoint");
    await world.until(world.store.replaceWhole(path, Buffer.alloc(100, 7)));
    await discard(world);
    expectSame(await served(world), original, "damaged checkpoint");
  });

  it("follows resizes", async () => {
    const world = await makeWorld(211);
    const opened = await world.open();
    await world.until(opened.session.resize(MiB));
    await world.until(opened.session.resize(2 * MiB));
    world.record = { ...world.record, sizeBytes: 2 * MiB };
    await world.close(opened);
    const original = await served(world);
    expect(original.length).toBe(2 * MiB);
    await changeBehindVarve(world);
    await discard(world);
    expectSame(await served(world), original, "volume after discard");
  });

  it("refuses a log that no longer reaches back, and says what to do", async () => {
    const world = await makeWorld(212, { log: { retainedBytes: 0, logBytesMax: 16 * MiB } });
    const opened = await world.open();
    await fillDisk(world, opened, 120);
    await world.until(opened.session.checkpoint());
    await world.close(opened);
    expect((await check(world)).fields["discardPossible"]).toBe(false);
    await changeBehindVarve(world);
    const changed = await world.imageContent();
    const error = await rejection(world, discardImage(world.repairSetup()));
    expect(error._tag).toBe("LogTooShort");
    expect(error.hint).toContain("varve image adopt disk0");
    await world.until(world.store.remove(checkpointPathOf(world.paths.image)));
    expect((await rejection(world, discardImage(world.repairSetup())))._tag).toBe("LogTooShort");
    expectSame(await world.imageContent(), changed, "image after refusals");
  });

  it("without room for a second image changes nothing", async () => {
    const world = await makeWorld(213, { quotaBytes: 40 * MiB });
    await changeBehindVarve(world);
    const changed = await world.imageContent();
    await world.foreignFile(40 * MiB - world.disk.usedBytes - 64 * 1024);
    const error = await rejection(world, discardImage(world.repairSetup()));
    expect(error).toMatchObject({ _tag: "RebuildSpaceError", kind: "Full" });
    expectSame(await world.imageContent(), changed, "image after the refusal");
    expect((await check(world)).findings).toHaveLength(1);
  });

  it("stopped anywhere leaves the change refused or the volume as it was", async () => {
    let old = 0;
    let done = 0;
    for (let seed = 300; seed < 322; seed += 1) {
      const world = await makeWorld(seed);
      const original = await world.imageContent();
      await changeBehindVarve(world);
      await stopInside(world, discardImage(world.repairSetup()), 110);
      const tag = await attachTag(world);
      if (tag === null) {
        expectSame(await served(world), original, "volume after a discard that was stopped at its end");
        done += 1;
        continue;
      }
      expect(tag).toBe("ImageChanged");
      old += 1;
      await discard(world);
      expectSame(await served(world), original, "volume after the second discard");
      expect(await world.until(world.store.list(world.paths.directory))).toEqual([
        "disk.raw",
        "disk.raw.checkpoint",
        "log",
      ]);
    }
    expect(old).toBeGreaterThan(5);
    expect(done).toBeGreaterThan(0);
  });

  it("of an image that was not closed in good order may stop anywhere, too", async () => {
    for (let seed = 400; seed < 415; seed += 1) {
      const world = await makeWorld(seed);
      const opened = await world.open();
      await fillDisk(world, opened, 8);
      // All of it is acknowledged; what the image has of it is chance.
      const expected = await readAll(world, opened);
      world.crash();
      await stopInside(world, discardImage(world.repairSetup()), 140);
      expectSame(await served(world), expected, "volume after a stopped discard of a crashed image");
    }
  });
});

async function readAll(world: StorageWorld, opened: OpenSession): Promise<Buffer> {
  const parts: Buffer[] = [];
  const size = opened.session.sizeBytes;
  for (let at = 0; at < size; at += MiB) parts.push(await world.read(opened, at, Math.min(MiB, size - at)));
  return Buffer.concat(parts);
}

/** Runs some steps of a repair, then the power fails or the process is killed. True where it had ended before. */
async function stopInside(
  world: StorageWorld,
  repair: Promise<unknown>,
  stepsMax: number,
  stepsMin = 1,
): Promise<boolean> {
  let ended = false;
  repair.then(
    () => {
      ended = true;
    },
    (cause: unknown) => {
      throw cause;
    },
  );
  await world.clock.run(world.random(stepsMin, stepsMax));
  if (world.random(0, 3) === 0) world.kill();
  else world.crash();
  return ended;
}

/** Null: the image is taken. It is left attached, as by a process that died. */
async function attachTag(world: StorageWorld): Promise<string | null> {
  try {
    await world.until(world.attach());
  } catch (error) {
    if (error instanceof VarveError) return error._tag;
    throw error;
  }
  world.kill();
  return null;
}
