// Reading one point: how many GETs it costs whatever the disk's size, what is shared, how much memory it may take, and that a
// slab is left alone once its read has settled.
import { describe, expect, it } from "vitest";
import { Histories, type HistoriesOptions } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import { limits } from "#shared/domain/limits.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { expectDisk, readAt, slabOf } from "./history-world.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const TiB = 2 ** 40;

/** Notes each GET; one may be held back or fail. */
class WatchedStore extends MemoryObjectStore {
  readonly gets: string[] = [];
  before: ((key: string) => Promise<void>) | null = null;

  override async get(
    key: string,
    range?: { readonly start: number; readonly length: number },
  ): Promise<Buffer | null> {
    const kind = key.startsWith("chunks/") ? "chunk" : (key.split("/")[2] ?? key);
    this.gets.push(range === undefined ? kind : `${kind} part`);
    await this.before?.(key);
    return range === undefined ? super.get(key) : super.get(key, range);
  }

  /** GETs since the last call, sorted. */
  taken(): string[] {
    return this.gets.splice(0).sort();
  }
}

function bytesOf(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) bytes[at] = Math.imul(at + seed, 2_654_435_761) >>> 24;
  return bytes;
}

/** A disk of 1 TiB: a base of three extents (of 256 pages one is there), and 17 batches since. Bytes do not compress. */
async function largeVolume(options: Partial<HistoriesOptions> = {}) {
  const clock = new SteppedClock(1);
  const store = new WatchedStore(clock);
  const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: TiB });
  volume.write(0, bytesOf(4 * MiB));
  volume.write(8 * MiB, bytesOf(4 * MiB, 77));
  await volume.seal(1, 0);
  await volume.takeBase(volume.lastLsn, volume.lastLsn, new SeededRandom(1), 0);
  for (let index = 0; index < 16; index += 1) volume.write(TiB / 2 + index * 65_536, bytesOf(65_536, index));
  volume.write(5000, Buffer.from("newer"));
  await volume.seal(18, 0);
  await volume.publish();
  const histories = new Histories({ store, clock, ...options });
  const history = await histories.fromBucket(volume.volumeId);
  store.taken();
  const source = await history.open(volume.lastLsn);
  return { clock, store, volume, histories, history, source };
}

describe("what reading a point of a 1 TiB disk costs", () => {
  it("opens by the footers since its base, reads by the frames it needs", async () => {
    const { store, source } = await largeVolume();
    expect(source.sizeBytes).toBe(TiB);
    expect(store.taken()).toEqual(["log part"]);
    // Written since the base: its frame.
    expect((await readAt(source, TiB / 2, 4096)).equals(bytesOf(65_536, 0).subarray(0, 4096))).toBe(true);
    expect(store.taken()).toEqual(["log part"]);
    expect((await readAt(source, TiB / 2 + 8192, 4096)).length).toBe(4096);
    expect(store.taken()).toEqual([]);
    // Of the base: root, page, head, frame; then a frame, then nothing.
    await readAt(source, 9 * MiB, 4096);
    expect(store.taken()).toEqual(["bases", "chunk part", "chunk part", "pages"]);
    // Never written: the base's root says so of 4 GiB at a time.
    expect((await readAt(source, TiB - 100, 100)).every((byte) => byte === 0)).toBe(true);
    expect(store.taken()).toEqual([]);
    await readAt(source, 10 * MiB, 4096);
    expect(store.taken()).toEqual(["chunk part"]);
    await readAt(source, 10 * MiB + 8192, 4096);
    // A whole extent: one GET. Its neighbour is zero: none.
    await readAt(source, 0, 8 * MiB);
    expect(store.taken()).toEqual(["chunk", "log part"]);
    const expected = bytesOf(4 * MiB);
    expected.write("newer", 5000);
    expect((await readAt(source, 0, 4 * MiB)).equals(expected)).toBe(true);
  });

  it("opens again from memory", async () => {
    const { store, history, volume, source } = await largeVolume();
    await source.close();
    store.taken();
    await (await history.open(volume.lastLsn - 3)).close();
    expect(store.taken()).toEqual([]);
  });

  it("says what is allocated without a GET, and more when the base is known", async () => {
    const { store, source } = await largeVolume();
    store.taken();
    const whole = source.allocation(0, TiB, 100);
    expect(whole.map(({ length, allocated }) => [length, allocated])).toEqual([
      // Of the base nothing is known yet.
      [TiB, true],
    ]);
    expect(store.taken()).toEqual([]);
    const extents: number[] = [];
    for await (const extent of source.extents()) extents.push(extent);
    expect(extents).toEqual([0, 2, TiB / 2 / limits.extentBytes]);
    expect(store.taken()).toEqual(["bases", "pages"]);
    const known = source.allocation(0, TiB, 100);
    expect(known.map(({ length, allocated }) => [length, allocated])).toEqual([
      [4 * MiB, true],
      [4 * MiB, false],
      [4 * MiB, true],
      [TiB / 2 - 12 * MiB, false],
      [16 * 65_536, true],
      [TiB / 2 - 16 * 65_536, false],
    ]);
    expect(source.allocation(0, TiB, 2)).toEqual(known.slice(0, 2));
    expect(source.allocation(5 * MiB, 4 * MiB, 9)).toEqual([
      { offset: 5 * MiB, length: 3 * MiB, allocated: false },
      { offset: 8 * MiB, length: 1 * MiB, allocated: true },
    ]);
    expect(store.taken()).toEqual([]);
  });

  it("a sequential reader gets what comes next before he asks, by whole chunks", async () => {
    const { store, source } = await largeVolume();
    await readAt(source, 8 * MiB, 4096);
    store.taken();
    const step = 128 * KiB;
    for (let offset = 0; offset < 4 * MiB; offset += step) {
      const found = await readAt(source, offset, step);
      const expected = bytesOf(4 * MiB).subarray(offset, offset + step);
      if (offset === 0) expected.write("newer", 5000);
      expect(found.equals(expected)).toBe(true);
    }
    const taken = store.taken();
    // 32 reads: head and frames of the first, the rest of its chunk, then the chunk after the zeroes.
    expect(taken.filter((get) => get === "chunk").length).toBeGreaterThanOrEqual(1);
    expect(taken.length).toBeLessThanOrEqual(8);
  });
});

describe("sharing and memory", () => {
  it("readers of one frame at once share its GET", async () => {
    const { store, source, history, volume } = await largeVolume();
    const other = await history.open(volume.lastLsn - 1);
    store.taken();
    await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        readAt(index % 2 === 0 ? source : other, 9 * MiB + index, 999),
      ),
    );
    expect(store.taken()).toEqual(["bases", "chunk part", "chunk part", "pages"]);
  });

  it("caches and fetches stay within their limits, and every byte is right all the same", async () => {
    const small = {
      frameCacheBytes: 300 * KiB,
      pageCacheBytes: 4 * KiB,
      headCacheBytes: 4 * KiB,
      indexCacheBytes: 4 * KiB,
      fetchBytesMax: 9 * MiB,
      fetchesMax: 3,
      bulkReadBytes: 2 * MiB,
    };
    const { histories, source, volume } = await largeVolume({ limits: small });
    const before = volume.past[3] as FoldedDisk;
    const random = new SeededRandom(3);
    let worst = 0;
    await Promise.all(
      Array.from({ length: 60 }, async () => {
        const length = random.logUniform(100, 3 * MiB);
        const offset = random.between(6000, 12 * MiB - length);
        const found = await readAt(source, offset, length);
        expect(found.equals(Buffer.from(before.read(offset, length)))).toBe(true);
        const { frames, pages, heads, indexes, fetches } = histories.statistics();
        expect(frames.bytes).toBeLessThanOrEqual(small.frameCacheBytes);
        expect(pages.bytes).toBeLessThanOrEqual(small.pageCacheBytes);
        expect(heads.bytes).toBeLessThanOrEqual(small.headCacheBytes);
        expect(indexes.bytes).toBeLessThanOrEqual(small.indexCacheBytes);
        expect(fetches.count).toBeLessThanOrEqual(small.fetchesMax);
        worst = Math.max(worst, fetches.peakBytes);
      }),
    );
    expect(worst).toBeGreaterThan(0);
    expect(worst).toBeLessThanOrEqual(small.fetchBytesMax);
    while (histories.statistics().fetches.count > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(histories.statistics().fetches).toMatchObject({ bytes: 0, count: 0, waiting: 0 });
  });

  it("of a long read, frames of which it wanted little stay: the log's neighbours are not the disk's", async () => {
    const clock = new SteppedClock(1);
    const store = new WatchedStore(clock);
    const volume = new MadeVolume(store, { volumeId: "00000000000000a2", sizeBytes: 64 * MiB });
    // Written in turns to both halves, so that each frame of the segment holds pieces of both.
    for (let index = 0; index < 32; index += 1) {
      volume.write((index % 2) * 32 * MiB + Math.floor(index / 2) * 65_536, bytesOf(65_536, index));
    }
    for (let index = 0; index < 4; index += 1)
      volume.write(8 * MiB + index * 4 * MiB, bytesOf(4 * MiB, index));
    await volume.seal(36, 0);
    await volume.publish();
    const histories = new Histories({ store, clock });
    const source = await (await histories.fromBucket(volume.volumeId)).open(volume.lastLsn);
    const disk = volume.past[volume.lastLsn] as FoldedDisk;
    const read = async (offset: number): Promise<void> => {
      const found = await readAt(source, offset, MiB);
      expect(found.equals(Buffer.from(disk.read(offset, MiB)))).toBe(true);
    };
    store.taken();
    await read(0);
    expect(store.taken().length).toBeGreaterThan(0);
    await read(32 * MiB);
    expect(store.taken()).toEqual([]);
    await read(9 * MiB);
    const framesBytes = histories.statistics().frames.bytes;
    await read(13 * MiB);
    expect(histories.statistics().frames.bytes).toBeLessThanOrEqual(
      framesBytes + 2 * limits.archiveFrameBytes,
    );
  });

  it("a map beyond its limit is refused with what to do", async () => {
    const { history, histories } = await largeVolume({ limits: { mapRangesMax: 5 } }).catch((error) => ({
      history: null,
      histories: error,
    }));
    expect(history).toBeNull();
    expect(histories).toMatchObject({ _tag: "HistoryTooLong", kind: "Full" });
    expect(histories.hint).not.toBe("");
  });
});

describe("failures of a read", () => {
  it("a slab is not touched after its read was rejected", async () => {
    const { store, source } = await largeVolume();
    await readAt(source, 8 * MiB, 100);
    // The first GET fails at once; those after it come late.
    const late: (() => void)[] = [];
    let isFirst = true;
    store.before = async (key) => {
      if (!isFirst) return new Promise((resolve) => void late.push(resolve));
      isFirst = false;
      throw new ObjectStoreError({ kind: "Retry", operation: "get", place: "b", key }, "no answer");
    };
    const slab = slabOf(12 * MiB);
    let settled = false;
    const read = source.read(slab, 0, 12 * MiB, 0).finally(() => {
      settled = true;
    });
    read.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(late.length).toBeGreaterThan(0);
    // One part failed, another still waits for its bytes: not settled yet.
    expect(settled).toBe(false);
    store.before = null;
    for (const answer of late) answer();
    await expect(read).rejects.toMatchObject({ kind: "Retry" });
    slab.bytes.fill(0xcc);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(slab.bytes.every((byte) => byte === 0xcc)).toBe(true);
    // And the next read is right: nothing of the failure is kept.
    expect((await readAt(source, 8 * MiB, 4 * MiB)).equals(bytesOf(4 * MiB, 77))).toBe(true);
  });

  it("an open point goes over to what the present manifest names when its objects are collected", async () => {
    const clock = new SteppedClock(1);
    const store = new WatchedStore(clock);
    const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 300 * KiB });
    for (let index = 0; index < 6; index += 1) volume.write(index * 40_000, bytesOf(50_000, index));
    await volume.seal(2);
    await volume.publish();
    const histories = new Histories({ store, clock, limits: { manifestMs: 0, frameCacheBytes: 0 } });
    const source = await (await histories.fromBucket(volume.volumeId)).open(5);
    await expectDisk(source, volume.past[5] as FoldedDisk, new SeededRandom(1), "before");
    // The snapshot got an exact base, and the log is gone.
    await volume.takeBase(5, 5, new SeededRandom(1));
    const manifest = await volume.publish((all) => ({ ...all, retainedFromLsn: 7, segments: [] }));
    expect(manifest.bases).toHaveLength(1);
    for await (const { key } of store.list(`volumes/${volume.volumeId}/log/`)) await store.remove(key);
    await expectDisk(source, volume.past[5] as FoldedDisk, new SeededRandom(2), "after");
    // One whose objects are gone for good says so, again and again.
    const lost = await (await histories.fromBucket(volume.volumeId)).open(5);
    for await (const { key } of store.list("chunks/")) await store.remove(key);
    for (let count = 0; count < 3; count += 1) {
      await expect(readAt(lost, 0, 100)).rejects.toMatchObject({
        _tag: "BucketObjectMissing",
        kind: "Corrupt",
      });
    }
  });
});
