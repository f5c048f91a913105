// Bases that the archiver did not take itself (exact bases of snapshots), and pins that come beside a manifest that names less: what
// the bucket lost is never believed, and nothing goes that a fact of the same manifest needs.
import { describe, expect, test } from "vitest";
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import type { BaseObjects } from "#shared/ports/archive.ts";
import { exactBaseBuilder } from "../../../services/archiver/engine/exact-base.ts";
import { HistoryTrimmer, type ServedVolume } from "../../../services/archiver/engine/history-trimmer.ts";
import type { VolumeArchiver } from "../../../services/archiver/engine/volume-archiver.ts";
import { ArchiveWorld, type Life, volumeId } from "./archive-world.ts";

const MiB = 1024 * 1024;
const settleMs = 60_000;
const lossy = { settleMs };

interface Opened extends Life {
  readonly volume: VolumeArchiver;
}

/** Some log, archived. */
async function begun(
  world: ArchiveWorld,
  options: Parameters<ArchiveWorld["open"]>[0] = lossy,
): Promise<Opened> {
  const life = await world.open(options);
  for (let count = 0; count < 6; count += 1) world.write(count * MiB, 3000, count);
  await world.clock.until(life.volume.archive(world.lastLsn));
  return life;
}

/** As the trimmer does it: objects first, then a manifest that names the base. */
async function exactBase(
  world: ArchiveWorld,
  { volume, archiver }: Opened,
  lsn: number,
): Promise<{
  readonly ref: BaseRef;
  readonly objects: BaseObjects;
}> {
  const base = await world.clock.until(builderOf(world, archiver)(served({ volume }), lsn));
  await world.clock.until(
    volume.amend((m) => ({ ...m, bases: [...m.bases, base.ref].sort((a, b) => a.s - b.s) })),
  );
  base.end();
  volume.watchBase(base.ref, base.objects);
  return base;
}

function served({ volume }: Pick<Opened, "volume">): ServedVolume {
  return { volumeId, name: "disk0", archive: volume, pointsInUse: () => [] };
}

const snapshotAt = (lsn: number) => ({ name: "monday", lsn, wallTimeMs: 0 });

function builderOf(world: ArchiveWorld, archiver: Life["archiver"]) {
  return exactBaseBuilder({
    parts: archiver.parts,
    history: async () => world.pastOfBucket(),
    isStopped: () => false,
  });
}

const names = (volume: VolumeArchiver): readonly string[] =>
  (volume.manifest()?.bases ?? []).map(({ s, e }) => `${s}-${e}`);

describe("exact bases", () => {
  test("are held when the settle time is over and all of them is there, not before", async () => {
    const world = new ArchiveWorld(1, 8 * MiB);
    const life = await begun(world);
    const { ref } = await exactBase(world, life, 4);
    await world.pass(settleMs / 2);
    expect(life.volume.isBaseHeld(ref.key)).toBe(false);
    await world.pass(settleMs);
    expect(life.volume.isBaseHeld(ref.key)).toBe(true);
  });

  test("one that lost a chunk of its own leaves the manifest with those that took its names over, and is never held", async () => {
    const world = new ArchiveWorld(2, 8 * MiB);
    const life = await begun(world);
    const first = await exactBase(world, life, 4);
    await exactBase(world, life, 6);
    expect(names(life.volume)).toEqual(["4-4", "6-6"]);
    const chunk = first.objects.stored.find(({ key }) => key.startsWith("chunks/"));
    await world.bucket.remove(chunk?.key ?? "");
    await world.pass(3 * settleMs);
    expect(names(life.volume)).toEqual([]);
    expect(life.volume.isBaseHeld(first.ref.key)).toBe(false);
    await world.expectNoDanglingName("after the loss");
    await world.expectPoints(0, "after the loss");
  });

  test("one whose borrowed chunk was lost is never held", async () => {
    const world = new ArchiveWorld(3, 8 * MiB);
    const life = await begun(world);
    await world.clock.until(life.volume.takeBase());
    const { ref, objects } = await exactBase(world, life, world.lastLsn - 1);
    const [borrowed = ""] = objects.borrowedKeys;
    expect(borrowed).toMatch(/^chunks\//);
    await world.bucket.remove(borrowed);
    await world.pass(3 * settleMs);
    expect(life.volume.isBaseHeld(ref.key)).toBe(false);
    expect(life.volume.manifest()?.bases).toEqual([]);
  });

  test("one that was lost is made again under another name while the process runs; the collector's next run asks for it", async () => {
    const world = new ArchiveWorld(4, 8 * MiB);
    const life = await begun(world);
    const trimmer = new HistoryTrimmer({
      served: () => [served(life)],
      exactBase: builderOf(world, life.archiver),
    });
    world.facts = { ...world.facts, historyMs: 0, snapshots: [snapshotAt(4)] };
    world.write(0, 3000, 9);
    await world.clock.until(life.volume.archive(world.lastLsn));
    // The newest point needs no log: the snapshot alone keeps some.
    await world.clock.until(life.volume.takeBase());
    await world.pass(2 * settleMs);
    const newest = `${world.lastLsn}-${world.lastLsn}`;
    const run = () =>
      world.clock.until(
        trimmer.trim({ nowMs: world.clock.wallTimeMs() + 3_600_000, dryRun: false, manifests: [] }),
      );
    await run();
    const [first] = life.volume.manifest()?.bases ?? [];
    expect(names(life.volume)).toEqual(["4-4", newest]);
    await world.bucket.remove(first?.key ?? "");
    await world.pass(3 * settleMs);
    expect(names(life.volume)).toEqual([newest]);
    await run();
    const [again] = life.volume.manifest()?.bases ?? [];
    expect(names(life.volume)).toEqual(["4-4", newest]);
    expect(again?.key).not.toBe(first?.key);
    await world.pass(3 * settleMs);
    expect(life.volume.isBaseHeld(again?.key ?? "")).toBe(true);
    await run();
    // On its word the log before the window went, and the snapshot still opens.
    expect(life.volume.manifest()).toMatchObject({ retainedFromLsn: world.lastLsn, segments: [] });
    const point = await (await world.pastOfBucket()).open(4);
    const bytes = Buffer.alloc(8 * MiB);
    await point.read({ bytes, address: 0 }, 0, bytes.length, 0);
    expect(bytes.equals(Buffer.from(world.history[4]?.read(0, bytes.length) ?? []))).toBe(true);
    await point.close();
  });
});

describe("bases of the archiver", () => {
  test("one that lost a chunk is never held, whatever is published under its name later", async () => {
    const world = new ArchiveWorld(5, 8 * MiB);
    const { volume } = await begun(world);
    await world.clock.until(volume.takeBase());
    const [base] = volume.manifest()?.bases ?? [];
    for (const key of await world.keys("chunks/")) await world.bucket.remove(key);
    await world.pass(3 * settleMs);
    expect(volume.manifest()?.bases).toEqual([]);
    expect(volume.isBaseHeld(base?.key ?? "")).toBe(false);
  });

  test("one that was lost is taken again, although no entry came since", async () => {
    const world = new ArchiveWorld(8, 8 * MiB);
    const { volume } = await begun(world);
    const wanted = await world.clock.until(volume.takeBase());
    const [first] = volume.manifest()?.bases ?? [];
    for (const key of await world.keys("chunks/")) await world.bucket.remove(key);
    await world.pass(3 * settleMs);
    expect(names(volume)).toEqual([]);
    expect(await world.clock.until(volume.takeBase())).toEqual(wanted);
    const [again] = volume.manifest()?.bases ?? [];
    expect(again?.key).not.toBe(first?.key);
    await world.pass(3 * settleMs);
    expect([volume.isBaseHeld(again?.key ?? ""), volume.heldBase()?.key]).toEqual([true, again?.key]);
    await world.expectNoDanglingName("after the second base");
    await world.expectPoints(0, "after the second base");
  });
});

describe("facts and changes of one manifest", () => {
  test("a change is made with the pins and snapshots that are published beside it", async () => {
    const world = new ArchiveWorld(6, 8 * MiB);
    const { volume } = await begun(world, {});
    const seen: VolumeManifest[] = [];
    // A clone pins its point in the very turn in which the trimmer asks for a manifest that names less.
    world.facts = { ...world.facts, pins: [{ lsn: 3, holder: "clone" }] };
    const published = await world.clock.until(
      volume.amend((manifest) => {
        seen.push(manifest);
        return manifest;
      }),
    );
    expect(seen[0]?.pins).toEqual([{ lsn: 3, holder: "clone" }]);
    expect(published.pins).toEqual(seen[0]?.pins);
  });

  test("a pin that comes while a manifest is on its way waits for the next one", async () => {
    const world = new ArchiveWorld(7, 8 * MiB);
    const { volume, store } = await begun(world, {});
    const late = [{ lsn: 3, holder: "clone" }];
    let seen: VolumeManifest["pins"] = [];
    store.before = (request) => {
      if (request === "head") world.facts = { ...world.facts, pins: late };
    };
    const first = await world.clock.until(
      volume.amend((manifest) => {
        seen = manifest.pins;
        return manifest;
      }),
    );
    expect([seen, first.pins]).toEqual([[], []]);
    expect((await world.clock.until(volume.amend((manifest) => manifest))).pins).toEqual(late);
  });
});
