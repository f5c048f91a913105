/*
 * `bucket check` on a bucket of real objects: nothing wrong is found in a good one; each object that is missing, cut, changed or
 * swapped for another is named, and nothing is written.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { manifestKey } from "#shared/domain/archive.ts";
import { bucketKeyOf } from "#shared/domain/bucket-keys.ts";
import { ownDisks, requestCost, s3Standard, storageCost } from "#shared/domain/bucket-prices.ts";
import { limits } from "#shared/domain/limits.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { checkBucket } from "../../../services/archiver/engine/bucket-check.ts";
import { BucketReader } from "../../../services/archiver/engine/bucket-reader.ts";
import { bucketUsage } from "../../../services/archiver/engine/bucket-usage.ts";
import { MadeVolume, randomEntry } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { HandClock, WatchedStore } from "./small-bucket.ts";

const clock = new HandClock();
const objects = new Map<string, Buffer>();

async function storeOf(content: ReadonlyMap<string, Buffer>): Promise<MemoryObjectStore> {
  const store = new MemoryObjectStore(clock);
  for (const [key, object] of content) await store.put(key, object);
  return store;
}

beforeAll(async () => {
  const store = new MemoryObjectStore(clock);
  const random = new SeededRandom(3);
  for (const volumeId of ["00000000000000a1", "00000000000000b2"]) {
    const volume = new MadeVolume(store, { volumeId, sizeBytes: limits.extentBytes + 4096 });
    for (let batch = 0; batch < 8; batch += 1) {
      // Sizes stay: both extents hold something.
      const entry = randomEntry(random, volume.disk.sizeBytes);
      volume.append(["resize" in entry ? { mark: `m${batch}` } : entry]);
    }
    await volume.seal(2);
    await volume.makePage(2);
    await volume.takeBase(3, 4, random);
    await volume.publish();
  }
  for await (const { key } of store.list("")) objects.set(key, (await store.get(key)) ?? Buffer.alloc(0));
});

const check = async (content: ReadonlyMap<string, Buffer>, quick = false) =>
  await checkBucket(new BucketReader(await storeOf(content)), { quick });

describe("bucket check", () => {
  it("finds nothing in a good bucket, and counts what nothing names", async () => {
    expect(await check(objects)).toMatchObject({
      problems: 0,
      findings: [],
      volumes: 2,
      objects: objects.size,
      unnamedObjects: 0,
    });
    const more = new Map(objects).set(`chunks/ab/ab${"0".repeat(62)}.1`, Buffer.from("leftover"));
    expect(await check(more)).toMatchObject({ problems: 0, unnamedObjects: 1 });
  });

  it("beside a collector: a manifest that was followed by another and went is no damage, whenever it goes", async () => {
    let went = 0;
    for (const request of [2, 3, 4, 5, 6, 7, 8]) {
      const memory = await storeOf(objects);
      const store = new WatchedStore(memory);
      const reader = new BucketReader(memory);
      const key = (await reader.presentKey("00000000000000a1")) ?? "";
      const before = await reader.manifest(key);
      const next = { ...before, number: before.number + 1 };
      store.at = async (number) => {
        if (number !== request) return;
        went += 1;
        await memory.put(manifestKey(next), encodeManifest(next));
        await memory.remove(key);
      };
      expect(await checkBucket(new BucketReader(store), { quick: true }), `request ${request}`).toMatchObject(
        {
          problems: 0,
          findings: [],
        },
      );
    }
    expect(went).toBeGreaterThan(3);
  });

  it("names each object that is missing, quickly too", async () => {
    for (const key of objects.keys()) {
      if (bucketKeyOf(key).kind === "manifest") continue;
      for (const quick of [false, true]) {
        const { findings } = await check(new Map([...objects].filter(([one]) => one !== key)), quick);
        expect(findings[0], key).toEqual({ key, problem: "is named, but not in the bucket" });
      }
    }
  });

  it("names each object that is changed or cut", async () => {
    for (const [key, object] of objects) {
      const changed = Buffer.from(object);
      changed[changed.length >> 1] = (changed[changed.length >> 1] ?? 0) ^ 1;
      for (const bytes of [changed, object.subarray(0, -1)]) {
        const { findings } = await check(new Map(objects).set(key, bytes));
        expect(
          findings.map((one) => one.key),
          key,
        ).toContain(key);
      }
    }
  });

  it("names each object that is another one of its kind", async () => {
    let swapped = 0;
    for (const [key, object] of objects) {
      const { kind } = bucketKeyOf(key);
      const other = [...objects].find(
        ([one, content]) => one !== key && bucketKeyOf(one).kind === kind && !content.equals(object),
      );
      if (other === undefined) continue;
      swapped += 1;
      const { findings } = await check(new Map(objects).set(key, other[1]));
      expect(
        findings.map((one) => one.key),
        key,
      ).toContain(key);
    }
    expect(swapped).toBeGreaterThan(10);
  });

  it("writes nothing", async () => {
    const store = await storeOf(objects);
    const { put } = store.counters;
    await checkBucket(new BucketReader(store), { quick: false });
    expect(store.counters).toMatchObject({ put, delete: 0 });
  });

  it("a bucket that can't be asked is an error, not a finding", async () => {
    const store = await storeOf(objects);
    store.get = async () => {
      throw new Error("away");
    };
    await expect(checkBucket(new BucketReader(store), { quick: false })).rejects.toThrow("away");
  });
});

describe("bucket usage", () => {
  it("sums bytes by volume and kind, and all of them", async () => {
    const report = await bucketUsage(new BucketReader(await storeOf(objects)), s3Standard, ["a note"], null);
    const bytes = [...objects.values()].reduce((sum, object) => sum + object.length, 0);
    expect(report).toMatchObject({ objects: objects.size, bytes, notes: ["a note"] });
    expect(report.rows.reduce((sum, row) => sum + row.bytes, 0)).toBe(bytes);
    expect(report.rows.map((row) => `${row.volume} ${row.kind}`)).toEqual([
      "(shared) chunk",
      "volume-a1 metadata",
      "volume-a1 segment",
      "volume-b2 metadata",
      "volume-b2 segment",
    ]);
    expect(report.volumes.map(({ volume, historyMs }) => [volume, historyMs > 0])).toEqual([
      ["volume-a1", true],
      ["volume-b2", true],
    ]);
    expect(report.requests["put"]).toBe(objects.size);
  });

  it("costs what the table says", () => {
    expect(storageCost(s3Standard, 100 * 1024 ** 3)).toBeCloseTo(2.3);
    expect(requestCost(s3Standard, { put: 1000, list: 1000, get: 10_000, head: 0, delete: 5 })).toBeCloseTo(
      0.014,
    );
    expect(storageCost(ownDisks, 1e15)).toBe(0);
  });
});
