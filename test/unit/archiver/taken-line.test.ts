/*
 * A line that a rescue took, and a bucket that loses what it had stored of it: any part of it, after any request. Who took it goes on
 * with every entry; whoever can't be sure that nobody else has the volume is refused, and changes nothing.
 */
import { describe, expect, test } from "vitest";
import { lineMarkerKey, manifestKey, type VolumeManifest } from "#shared/domain/archive.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { BucketReader } from "../../../services/archiver/engine/bucket-reader.ts";
import { Rescuer } from "../../../services/archiver/engine/rescuer.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { ArchiveWorld, volumeId, WatchedStore, WorldLog } from "./archive-world.ts";

const diskBytes = 512 * 1024;

const rescuerOn = (world: ArchiveWorld, store: WatchedStore, seed: number): Rescuer =>
  new Rescuer({
    reader: new BucketReader(store),
    clock: world.clock,
    random: new SteppedRandom(seed),
    conditionalPut: async () => true,
  });

/** A machine archived a volume and was lost. */
async function lostMachine(seed: number): Promise<ArchiveWorld> {
  const world = new ArchiveWorld(seed, diskBytes);
  const { volume, store } = await world.open();
  for (let count = 0; count < 3; count += 1) world.write(count * 50_000, 70_000, count);
  await world.clock.until(volume.archive(world.lastLsn));
  store.left = 0;
  return world;
}

/** Another one takes its volume over. `stopped` where its requests ended at `left`. */
async function rescue(
  world: ArchiveWorld,
  seed: number,
  left = Number.POSITIVE_INFINITY,
): Promise<"taken" | "stopped"> {
  const store = new WatchedStore(world.bucket);
  store.left = left;
  let plan: Awaited<ReturnType<Rescuer["takeLine"]>> | null = null;
  rescuerOn(world, store, seed)
    .takeLine(volumeId)
    .then((made) => {
      plan = made;
    })
    .catch(() => undefined);
  await world.pass(100);
  const made = plan as Awaited<ReturnType<Rescuer["takeLine"]>> | null;
  if (made === null) return "stopped";
  expect(made.reached.lsn).toBe(world.lastLsn);
  world.log = new WorldLog(made.log.line, made.log.lastLsn);
  world.log.made.epoch = made.log.epoch + 1;
  world.taken = made.history.line;
  world.archiverEpoch = made.history.archiverEpoch;
  world.append([{ kind: "epoch", writer: "second" }]);
  return "taken";
}

async function keysSince(world: ArchiveWorld, before: readonly string[]): Promise<string[]> {
  return (await world.keys()).filter((key) => !before.includes(key));
}

async function refusal(world: ArchiveWorld): Promise<VarveError | null> {
  const before = await world.keys();
  const life = world.start();
  const error = await world.clock.until(life.opened).then(
    () => null,
    (cause: unknown) => cause as VarveError,
  );
  expect(await world.keys()).toEqual(before);
  life.store.left = 0;
  return error;
}

async function expectGoesOn(world: ArchiveWorld, what: string): Promise<void> {
  const life = await world.open();
  await world.pass(1000);
  const latest = (await world.manifests()).at(-1) as VolumeManifest;
  expect(latest.line, what).toBe(world.log.line);
  expect(latest.lineNumber, what).toBe(world.taken?.number);
  expect(latest.ancestors.at(-1)?.lastLsn, what).toBeGreaterThan(0);
  world.write(0, 9000, 77);
  await world.clock.until(life.volume.archive(world.lastLsn));
  await world.pass(700_000);
  const marker = await world.bucket.get(lineMarkerKey(volumeId, world.taken?.number ?? 0));
  expect(marker?.toString(), what).toBe(world.log.line);
  expect(world.heldLsn, what).toBe(world.lastLsn);
  expect(life.volume.manifest()?.gaps, what).toEqual([]);
  await world.expectNoDanglingName(what);
  await world.expectPoints(0, what);
}

const lossy = { settleMs: 5000 };

describe("a line that the bucket lost before it was held", () => {
  test("any part of it: who took it goes on, with every entry", async () => {
    const objects = 4; // marker, the line's first manifest, a segment and the manifest that names it
    for (let lost = 0; lost < 1 << objects; lost += 1) {
      const world = await lostMachine(61);
      const before = await world.keys();
      expect(await rescue(world, 1)).toBe("taken");
      const { volume, store } = await world.open(lossy);
      world.write(20_000, 30_000, 9);
      await world.clock.until(volume.archive(world.lastLsn));
      store.left = 0;
      const made = await keysSince(world, before);
      expect(made.length).toBe(objects);
      for (const [at, key] of made.entries()) if ((lost >> at) % 2 === 1) await world.bucket.remove(key);
      await expectGoesOn(world, `lost ${lost.toString(2)}`);
    }
  });

  test("a rescue that stops at any request, all of it lost: the next one takes a line that can be lost, too", async () => {
    for (let left = 0; ; left += 1) {
      const world = await lostMachine(62);
      const before = await world.keys();
      const ended = await rescue(world, 1, left);
      for (const key of await keysSince(world, before)) await world.bucket.remove(key);
      if (ended === "stopped") {
        expect(await rescue(world, 2)).toBe("taken");
        for (const key of await keysSince(world, before)) await world.bucket.remove(key);
      }
      await expectGoesOn(world, `stopped after ${left}`);
      if (ended === "taken") {
        expect(left).toBeGreaterThan(5);
        break;
      }
    }
  });

  test("lost while its archiver runs: marker and manifest come again, before any log goes", async () => {
    const world = await lostMachine(63);
    world.releases = true;
    expect(await rescue(world, 1)).toBe("taken");
    const before = world.lastLsn;
    const { volume } = await world.open(lossy);
    world.write(20_000, 30_000, 9);
    await world.clock.until(volume.archive(world.lastLsn));
    await world.bucket.remove(lineMarkerKey(volumeId, 2));
    await world.pass(6000);
    expect(world.log.state().oldestLsn).toBe(before);
    await world.pass(20_000);
    expect(world.log.state().oldestLsn).toBe(world.lastLsn + 1);
    expect((await world.bucket.get(lineMarkerKey(volumeId, 2)))?.toString()).toBe(world.log.line);
  });

  test("without knowing the line's number, its marker tells; where that is lost, too, it is refused", async () => {
    const world = await lostMachine(64);
    const before = await world.keys();
    await rescue(world, 1);
    const { taken } = world;
    const marker = lineMarkerKey(volumeId, 2);
    for (const key of await keysSince(world, before)) if (key !== marker) await world.bucket.remove(key);
    await world.bucket.remove(marker);
    world.taken = undefined;
    expect(await refusal(world)).toMatchObject({ kind: "Fenced", _tag: "RescuedElsewhereError" });
    await world.bucket.put(marker, Buffer.from(world.log.line));
    const life = await world.open();
    expect(life.volume.manifest()).toMatchObject({ lineNumber: 2, line: world.log.line });
    world.taken = taken;
    life.store.left = 0;
    await expectGoesOn(world, "by its marker");
  });

  test("somebody else took the volume meanwhile: refused, whatever of that is there", async () => {
    for (const there of ["marker", "manifest", "both", "next marker", "next manifest"] as const) {
      const world = await lostMachine(65);
      const before = await world.keys();
      await rescue(world, 1);
      const manifests = (await world.manifests()).at(-1) as VolumeManifest;
      for (const key of await keysSince(world, before)) await world.bucket.remove(key);
      const lineNumber = there.startsWith("next") ? 3 : 2;
      const other = { ...manifests, lineNumber, line: "ffffffffffffffff" };
      if (there !== "manifest" && there !== "next manifest")
        await world.bucket.put(lineMarkerKey(volumeId, lineNumber), Buffer.from(other.line));
      if (there === "manifest" || there === "both" || there === "next manifest")
        await world.bucket.put(manifestKey(other), encodeManifest(other));
      expect(await refusal(world), there).toMatchObject({ kind: "Fenced", _tag: "RescuedElsewhereError" });
    }
  });

  test("somebody else marks the same line at the same moment: one of the two gets it, and nothing is published by the other", async () => {
    for (const conditionalPut of [true, false]) {
      const world = await lostMachine(68);
      const before = await world.keys();
      await rescue(world, 1);
      for (const key of await keysSince(world, before)) await world.bucket.remove(key);
      const marker = lineMarkerKey(volumeId, 2);
      const other = Buffer.from("ffffffffffffffff");
      const late = conditionalPut ? "before" : "after";
      const { opened } = world.start({}, (store) => {
        store.capabilities = { conditionalPut, durablePut: true };
        store[late] = async (request, key) => {
          if (request === "put" && key === marker) await world.bucket.put(marker, other);
        };
      });
      await expect(world.clock.until(opened), late).rejects.toMatchObject({ _tag: "RescuedElsewhereError" });
      expect(await keysSince(world, before), late).toEqual([marker]);
      expect(await world.bucket.get(marker), late).toEqual(other);
    }
  });

  test("its marker is there before its manifest: no moment without a sign for others", async () => {
    const world = await lostMachine(69);
    const before = await world.keys();
    await rescue(world, 1);
    for (const key of await keysSince(world, before)) await world.bucket.remove(key);
    const { store } = await world.open();
    await world.pass(1000);
    const puts = store.log.filter((request) => request.startsWith("put volumes/"));
    expect(puts.slice(0, 2)).toEqual([
      `put ${lineMarkerKey(volumeId, 2)}`,
      expect.stringContaining("/manifests/000002."),
    ]);
  });

  test("the machine before went on, because no marker stopped it: refused", async () => {
    const world = await lostMachine(66);
    const before = await world.keys();
    const old = (await world.manifests()).at(-1) as VolumeManifest;
    await rescue(world, 1);
    const marker = lineMarkerKey(volumeId, 2);
    const lines = await keysSince(world, before);
    for (const key of lines) await world.bucket.remove(key);
    const gap = { fromLsn: old.archivedLsn + 1, toLsn: old.archivedLsn + 6 };
    const late = { ...old, number: old.number + 1, archivedLsn: old.archivedLsn + 5, gaps: [gap] };
    await world.bucket.put(manifestKey(late), encodeManifest(late));
    expect(await refusal(world)).toMatchObject({ kind: "Fenced", _tag: "RescuedElsewhereError" });
    // With the marker it was late only: our line goes on behind what was there when it was taken.
    await world.bucket.put(marker, Buffer.from(world.log.line));
    await expectGoesOn(world, "a late manifest of the line before");
  });

  test("log that went on the strength of what was lost is missed, not passed over", async () => {
    const world = await lostMachine(67);
    const before = await world.keys();
    await rescue(world, 1);
    world.write(20_000, 30_000, 9);
    world.write(20_000, 30_000, 10);
    world.log.release(world.lastLsn - 1);
    for (const key of await keysSince(world, before)) await world.bucket.remove(key);
    const error = await refusal(world);
    expect(error).toMatchObject({ kind: "Corrupt", _tag: "OtherBucketError" });
    expect(error?.message).toContain(`the log here begins at ${world.log.state().oldestLsn}`);
  });
});
