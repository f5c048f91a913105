// The present manifest of a volume that is served elsewhere: the greatest key, found by one LIST, though the collector takes
// superseded ones away meanwhile; asked for again after a while, not for every question.
import { describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { latestManifest } from "#shared/adapters/history/latest-manifest.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { manifestKey, manifestPrefix } from "#shared/domain/archive.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

async function volumeInStore() {
  const clock = new SteppedClock(1);
  const store = new MemoryObjectStore(clock);
  const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 64 * 1024 });
  await volume.seal();
  return { clock, store, volume };
}

describe("the latest manifest", () => {
  it("is that of the greatest line number, then epoch, then number, whatever the store lists first", async () => {
    const { store, volume } = await volumeInStore();
    const base = await volume.publish();
    const variants = [
      { ...base, number: 10 },
      { ...base, archiverEpoch: 2, number: 1 },
      { ...base, lineNumber: 2, line: "0000000000000001", number: 1 },
      { ...base, archiverEpoch: 99, number: 99 },
    ];
    for (const manifest of variants) await store.put(manifestKey(manifest), encodeManifest(manifest));
    const found = await latestManifest(store, volume.volumeId);
    expect(found?.manifest).toEqual(variants[2]);
    expect(found?.key).toBe(manifestKey(variants[2] as typeof base));
  });

  it("is null where the bucket has none", async () => {
    const { store } = await volumeInStore();
    expect(await latestManifest(store, "00000000000000ff")).toBeNull();
  });

  it("is listed again when the one that was found has gone since", async () => {
    const { store, volume } = await volumeInStore();
    const old = await volume.publish();
    let gets = 0;
    const get = store.get.bind(store);
    store.get = async (key, range) => {
      gets += 1;
      if (gets === 1) {
        await volume.publish();
        await store.remove(manifestKey(old));
      }
      return get(key, range);
    };
    expect((await latestManifest(store, volume.volumeId))?.manifest.number).toBe(2);
    // One that goes each time it is listed is an error.
    store.get = async () => null;
    await expect(latestManifest(store, volume.volumeId)).rejects.toMatchObject({
      _tag: "BucketObjectMissing",
    });
  });

  it("under another manifest's key is damage", async () => {
    const { store, volume } = await volumeInStore();
    const manifest = await volume.publish();
    await store.put(manifestKey({ ...manifest, number: 7 }), encodeManifest(manifest));
    await expect(latestManifest(store, volume.volumeId)).rejects.toMatchObject({ kind: "Corrupt" });
  });

  it("is asked for again after a while, by one LIST for all who ask", async () => {
    const { clock, store, volume } = await volumeInStore();
    await volume.publish();
    const histories = new Histories({ store, clock });
    const history = await histories.fromBucket(volume.volumeId);
    for (let count = 0; count < 5; count += 1) expect((await history.range()).toLsn).toBe(1);
    expect(store.counters.list).toBe(1);
    volume.write(0, Buffer.from("x"));
    await volume.seal();
    await volume.publish();
    clock.after(10_000, () => undefined);
    await clock.step();
    const ranges = await Promise.all([history.range(), history.range(), histories.find(volume.volumeId)]);
    expect(ranges[0].toLsn).toBe(2);
    expect(store.counters.list).toBe(2);
    expect(manifestPrefix(volume.volumeId)).toContain(volume.volumeId);
  });
});
