/*
 * Taking a volume over from a bucket: what the new line names, what its files begin with, two rescues at once, a crash at each
 * request, and a rescue again and again.
 */
import { describe, expect, it } from "vitest";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { lineMarkerKey, type VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { BucketReader } from "../../../services/archiver/engine/bucket-reader.ts";
import { Rescuer } from "../../../services/archiver/engine/rescuer.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { HandClock, SmallVolume, startMs, volumeIdOf, WatchedStore } from "./small-bucket.ts";

const clock = new HandClock();
const id = volumeIdOf(1);
const rescuerOf = (store: ObjectStore, seed = 1, conditional = true): Rescuer =>
  new Rescuer({
    reader: new BucketReader(store),
    clock,
    random: new SteppedRandom(seed),
    conditionalPut: async () => conditional,
  });

async function lived(
  change: Partial<VolumeManifest> = {},
): Promise<{ store: MemoryObjectStore; volume: SmallVolume }> {
  const store = new MemoryObjectStore(clock);
  const volume = new SmallVolume(store, clock, 1);
  await volume.segment();
  await volume.base(["a", null, null, "b"]);
  await volume.publish(change);
  return { store, volume };
}

const present = async (store: ObjectStore): Promise<VolumeManifest> => {
  const reader = new BucketReader(store);
  return await reader.manifest((await reader.presentKey(id)) ?? "");
};

describe("a rescue", () => {
  it("publishes all that is named on the next line, and begins behind the archived entry", async () => {
    const { store, volume } = await lived({
      snapshots: [
        { name: "in", lsn: 5, wallTimeMs: startMs },
        { name: "lost", lsn: 11, wallTimeMs: startMs },
      ],
      pins: [
        { lsn: 4, holder: volumeIdOf(2) },
        { lsn: 5, holder: "reader" },
        { lsn: 12, holder: volumeIdOf(3) },
      ],
      resizes: [{ lsn: 3, sizeBytes: 8_388_608 }],
      sizeBytes: 16_777_216,
    });
    const old = volume.present;
    const plan = await rescuerOf(store).takeLine(id);
    const manifest = await present(store);
    expect(manifest).toMatchObject({
      lineNumber: 2,
      archiverEpoch: 1,
      number: 1,
      ancestors: [{ line: old.line, lastLsn: 10 }],
      archivedLsn: 10,
      archivedChecksum: "0000000000000000",
      sizeBytes: 8_388_608,
    });
    expect(manifest.line).not.toBe(old.line);
    expect([manifest.bases, manifest.segments]).toEqual([old.bases, old.segments]);
    expect(manifest.snapshots.map((one) => one.name)).toEqual(["in"]);
    expect(plan).toMatchObject({
      record: { id, name: "disk1", sizeBytes: 8_388_608, state: "active" },
      replica: { point: { volumeId: id, lsn: 10 }, appliedLsn: 10, line: manifest.line, epoch: 1 },
      log: { line: manifest.line, lastLsn: 10, epoch: 1 },
      reached: { lsn: 10, reachedMs: clock.wallMs, lineNumber: 2 },
      history: { archiverEpoch: 1, pins: [{ lsn: 4, holder: volumeIdOf(2) }] },
    });
    expect((await store.get(lineMarkerKey(id, 2)))?.toString()).toBe(manifest.line);
  });

  it("a disk that never reached the bucket begins empty, a clone from its origin", async () => {
    const store = new MemoryObjectStore(clock);
    const origin = { volumeId: volumeIdOf(7), name: "parent", lsn: 3 };
    await new SmallVolume(store, clock, 1).publish();
    await new SmallVolume(store, clock, 2, { origin }).publish();
    expect((await rescuerOf(store).takeLine(id)).replica).toBeNull();
    expect((await rescuerOf(store).takeLine(volumeIdOf(2))).replica).toEqual({
      point: { volumeId: origin.volumeId, lsn: 3 },
      appliedLsn: 0,
      line: null,
      epoch: 0,
    });
  });

  it("of two at once one gets the volume, with conditional puts or without", async () => {
    for (const conditional of [true, false]) {
      const { store } = await lived();
      const watched = new WatchedStore(store);
      let other: Promise<unknown> | null = null;
      watched.at = async (_, operation, key) => {
        if (other !== null || operation !== "put" || !key.includes("/lines/")) return;
        other = rescuerOf(store, 2, conditional).takeLine(id);
        await other;
      };
      const first = rescuerOf(watched, 1, conditional).takeLine(id);
      await expect(first, `conditional ${conditional}`).rejects.toMatchObject({ kind: "Fenced" });
      await expect(other).resolves.toBeDefined();
      expect((await present(store)).lineNumber).toBe(2);
    }
  });

  it("a crash at any request is followed by a rescue that works, on a line of its own", async () => {
    let crashes = 0;
    for (let request = 1; ; request += 1) {
      const { store, volume } = await lived();
      const watched = new WatchedStore(store);
      let failed = false;
      watched.at = (number) => {
        if (number !== request) return;
        failed = true;
        throw new VarveError("ObjectStoreError", "Retry", "the machine stops");
      };
      await rescuerOf(watched)
        .takeLine(id)
        .catch(() => undefined);
      if (!failed) break;
      crashes += 1;
      const plan = await rescuerOf(store, 2).takeLine(id);
      const manifest = await present(store);
      expect(manifest.line).toBe(plan.log.line);
      expect(manifest.lineNumber).toBeGreaterThan(1);
      expect(manifest.segments).toEqual(volume.present.segments);
      expect((await store.get(lineMarkerKey(id, manifest.lineNumber)))?.toString()).toBe(manifest.line);
    }
    expect(crashes).toBeGreaterThan(5);
  });

  it("what the old archiver published before it saw the marker counts", async () => {
    const { store, volume } = await lived();
    const watched = new WatchedStore(store);
    let published = false;
    watched.at = async (_, operation, key) => {
      if (published || operation !== "put" || !key.includes("/lines/")) return;
      published = true;
      await volume.segment();
      await volume.publish();
    };
    expect((await rescuerOf(watched).takeLine(id)).reached.lsn).toBe(20);
  });

  it("a deleted volume still says so on its new line, and the next take gets the line after", async () => {
    const { store, volume } = await lived();
    await volume.publish({ deletedAtMs: startMs });
    await rescuerOf(store).takeLine(id);
    expect(await present(store)).toMatchObject({ lineNumber: 2, deletedAtMs: startMs });
    expect((await rescuerOf(store).find()).deleted).toHaveLength(1);
    await rescuerOf(store, 2).takeLine(id);
    expect(await present(store)).toMatchObject({ lineNumber: 3, deletedAtMs: startMs });
  });

  it("lists what is there: live volumes, deleted ones apart, buried ones not at all", async () => {
    const { store } = await lived();
    await new SmallVolume(store, clock, 2).publish({ deletedAtMs: startMs });
    const deleted = new SmallVolume(store, clock, 3);
    await deleted.segment();
    await deleted.publish({ deletedAtMs: startMs });
    const { live, deleted: gone } = await rescuerOf(store).find();
    expect(live.map(({ manifest }) => manifest.name)).toEqual(["disk1"]);
    expect(gone.map(({ manifest }) => manifest.name)).toEqual(["disk3"]);
  });

  it("does not bring back what the collector buried meanwhile", async () => {
    const { store, volume } = await lived();
    await volume.publish({ deletedAtMs: startMs });
    const watched = new WatchedStore(store);
    let buried = false;
    watched.at = async (_, operation, key) => {
      if (buried || operation !== "put" || !key.includes("/lines/")) return;
      buried = true;
      await volume.publish({ bases: [], pages: [], segments: [], snapshots: [] });
    };
    await expect(rescuerOf(watched).takeLine(id)).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
    expect((await present(store)).lineNumber).toBe(1);
  });
});
