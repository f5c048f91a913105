// Objects that are missing, cut or changed, and a bucket that is away: reading the past gives the right bytes or an error that
// names the object, never anything else; the newest manifest that can't be read is never replaced by an older one.
import { describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { MadeVolume, randomEntry } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { expectDisk } from "./history-world.ts";

interface World {
  readonly clock: SteppedClock;
  readonly store: MemoryObjectStore;
  readonly parent: MadeVolume;
  readonly child: MadeVolume;
}

/** A volume with a page, a tail and two bases, and a clone of it: every kind of object is read by some point. */
async function makeWorld(seed: number): Promise<World> {
  const random = new SeededRandom(seed);
  const clock = new SteppedClock(seed);
  const store = new MemoryObjectStore(clock);
  const parent = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 700 * 1024 });
  const write = (volume: MadeVolume, batches: number): void => {
    for (let batch = 0; batch < batches; batch += 1) {
      let entry = randomEntry(random, volume.disk.sizeBytes);
      while ("resize" in entry) entry = randomEntry(random, volume.disk.sizeBytes);
      volume.append([entry]);
    }
  };
  write(parent, 12);
  await parent.seal(3);
  await parent.takeBase(6, 9, random);
  await parent.makePage(3);
  parent.rollback(8);
  write(parent, 5);
  await parent.seal(2, 0);
  await parent.takeBase(parent.lastLsn - 1, parent.lastLsn, random, 0);
  await parent.publish();
  const origin = { volume: parent, lsn: parent.lastLsn };
  const child = new MadeVolume(store, {
    volumeId: "00000000000000b2",
    sizeBytes: 800 * 1024,
    parent: origin,
  });
  write(child, 4);
  await child.seal(2);
  await child.publish();
  return { clock, store, parent, child };
}

async function keysOf(store: ObjectStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list("")) keys.push(key);
  return keys.sort();
}

/** Reads some points of both volumes; the errors that came. What is read is right, or the test fails. */
async function readAll(world: World, random: SeededRandom): Promise<VarveError[]> {
  const histories = new Histories(world);
  const errors: VarveError[] = [];
  for (const volume of [world.parent, world.child]) {
    for (const lsn of [3, 9, 11, 13, volume.lastLsn - 1, volume.lastLsn]) {
      if (lsn > volume.lastLsn) continue;
      try {
        const history = await histories.fromBucket(volume.volumeId);
        const source = await history.open(lsn);
        await expectDisk(source, volume.past[lsn] as FoldedDisk, random, `${volume.volumeId} lsn:${lsn}`);
        await source.close();
      } catch (error) {
        if (!(error instanceof VarveError)) throw error;
        errors.push(error);
      }
    }
  }
  await histories.close();
  return errors;
}

describe("damaged buckets", () => {
  it("without damage every read is right", async () => {
    expect(await readAll(await makeWorld(1), new SeededRandom(1))).toEqual([]);
  });

  it("a missing object is Corrupt and named, never zeroes", async () => {
    const random = new SeededRandom(2);
    const world = await makeWorld(2);
    const kinds = new Set<string>();
    for (const key of await keysOf(world.store)) {
      const content = (await world.store.get(key)) as Buffer;
      await world.store.remove(key);
      const errors = await readAll(world, random);
      const isManifest = key.includes("/manifests/");
      expect(errors.length, key).toBeGreaterThan(0);
      for (const error of errors) {
        expect(error.kind, `${key}: ${error.message}`).toBe(isManifest ? "Invalid" : "Corrupt");
        if (!isManifest) expect(error.message).toContain(key);
        expect(error.hint).not.toBe("");
      }
      kinds.add(key.replace(/[^/]*$/, "").replace(/[0-9a-f]{2,}\//, ""));
      await world.store.put(key, content);
    }
    // Chunks, manifests, log, index pages, bases and base pages: all were taken away once.
    expect(kinds.size).toBeGreaterThanOrEqual(6);
  });

  it.each([3, 4, 5])("any changed byte is an error or does not matter (seed %i)", async (seed) => {
    const random = new SeededRandom(seed);
    const world = await makeWorld(seed);
    let refused = 0;
    for (const key of await keysOf(world.store)) {
      const content = (await world.store.get(key)) as Buffer;
      const changed = Buffer.from(content);
      const at = random.between(0, content.length);
      changed.writeUInt8(changed.readUInt8(at) ^ (1 << random.between(0, 8)), at);
      const cut = content.subarray(0, random.between(0, content.length));
      for (const wrong of [changed, cut]) {
        await world.store.put(key, wrong);
        for (const error of await readAll(world, random)) {
          expect(error.kind, `${key}: ${error.message}`).toBe("Corrupt");
          refused += 1;
        }
      }
      await world.store.put(key, content);
    }
    expect(refused).toBeGreaterThan(20);
  });

  it("objects that are intact but not what their reference says are Corrupt", async () => {
    const random = new SeededRandom(6);
    const world = await makeWorld(6);
    const keys = await keysOf(world.store);
    for (const kind of ["log/", "bases/", "pages/", "manifests/", "chunks/"]) {
      const [one, other] = keys.filter((key) => key.includes(kind));
      if (one === undefined || other === undefined) throw new Error(`two ${kind}`);
      const content = (await world.store.get(one)) as Buffer;
      await world.store.put(one, (await world.store.get(other)) as Buffer);
      const errors = await readAll(world, random);
      expect(errors.length, kind).toBeGreaterThan(0);
      for (const error of errors) expect(error.kind, error.message).toBe("Corrupt");
      await world.store.put(one, content);
    }
  });

  it("a damaged newest manifest is an error, not the one before", async () => {
    const world = await makeWorld(7);
    const { parent, store } = world;
    const newest = `volumes/${parent.volumeId}/manifests/`;
    parent.write(0, Buffer.from("newer"));
    await parent.seal();
    await parent.publish();
    const key = (await keysOf(store)).findLast((name) => name.startsWith(newest)) as string;
    const content = (await store.get(key)) as Buffer;
    await store.put(key, content.subarray(0, content.length - 1));
    const histories = new Histories(world);
    await expect(histories.fromBucket(parent.volumeId)).rejects.toMatchObject({
      kind: "Corrupt",
      fields: { key },
    });
  });

  it("a manifest of a newer Varve is Invalid and says so", async () => {
    const world = await makeWorld(8);
    const { createHash } = await import("node:crypto");
    const key = (await keysOf(world.store)).findLast((name) => name.includes("/manifests/")) as string;
    const content = (await world.store.get(key)) as Buffer;
    content.writeUInt16LE(99, 4);
    createHash("sha256")
      .update(content.subarray(0, -32))
      .digest()
      .copy(content, content.length - 32);
    await world.store.put(key, content);
    const histories = new Histories(world);
    await expect(histories.fromBucket(world.child.volumeId)).rejects.toMatchObject({
      _tag: "BucketFormatNewer",
      kind: "Invalid",
    });
  });

  it("an unknown volume is Invalid", async () => {
    const world = await makeWorld(9);
    const histories = new Histories(world);
    await expect(histories.find("00000000000000ff")).rejects.toMatchObject({ _tag: "VolumeNotInBucket" });
  });
});
