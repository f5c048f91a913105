// The timeline adds up to what was written, whatever pages, tail and hot log hold it; changed ranges hold every byte that
// differs between two points, across rollbacks too, and are exact where footers are read.
import { describe, expect, it } from "vitest";
import { differingRuns, leadingRuns } from "#shared/adapters/history/changed-ranges.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import type { HistoryLimits } from "#shared/adapters/history/history-limits.ts";
import type { VolumeView } from "#shared/adapters/history/volume-view.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import type { ByteRange } from "#shared/ports/history.ts";
import { type MadeEntry, MadeVolume, randomEntry } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

interface Noted {
  readonly ms: number;
  readonly lsn: number;
  readonly entry: MadeEntry;
}

async function liveVolume(seed: number, limits: Partial<HistoryLimits> = {}) {
  const random = new SeededRandom(seed);
  const clock = new SteppedClock(seed);
  const store = new MemoryObjectStore(clock);
  const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 5 * 1024 * 1024 });
  const noted: Noted[] = [];
  for (let round = 0; round < 30; round += 1) {
    const entry = randomEntry(random, volume.disk.sizeBytes);
    noted.push({ ms: volume.wallTimeMs, lsn: volume.lastLsn + 1, entry });
    volume.append([entry]);
    if (round % 11 === 10) volume.rollback(random.between(1, volume.lastLsn));
    if (round % 5 === 4 && round < 25) await volume.seal(random.between(1, 3));
    if (round === 19) await volume.makePage(5);
  }
  await volume.publish();
  const history = new Histories({ store, clock, limits }).of(volume.subject());
  return { volume, history, noted, random, store };
}

describe("the timeline", () => {
  it.each([
    [1, 64],
    [2, 64],
    [3, 0],
  ])("adds up (seed %i, at most %i footers for borders)", async (seed, exactSegmentsMax) => {
    const { history, noted, volume } = await liveVolume(seed, { exactSegmentsMax });
    const fromMs = volume.wallTimes[1] as number;
    const toMs = volume.wallTimeMs;
    for (const count of [1, 7, 60]) {
      const intervals = await history.timeline(fromMs, toMs, count);
      expect(intervals).toHaveLength(count);
      expect(intervals[0]?.fromMs).toBe(fromMs);
      expect(intervals.at(-1)?.toMs).toBe(toMs);
      const writes = noted.filter(({ entry }) => "write" in entry);
      const written = writes.reduce((sum, { entry }) => sum + ("write" in entry ? entry.bytes.length : 0), 0);
      const zeroed = noted.reduce((sum, { entry }) => sum + ("zero" in entry ? entry.length : 0), 0);
      const sum = (of: (interval: (typeof intervals)[number]) => number) =>
        intervals.reduce((total, interval) => total + of(interval), 0);
      expect(sum(({ writes }) => writes)).toBe(writes.length);
      expect(sum(({ writeBytes }) => writeBytes)).toBe(written);
      expect(sum(({ zeroBytes }) => zeroBytes)).toBe(zeroed);
      if (exactSegmentsMax === 0) continue;
      for (const interval of intervals) {
        const inside = writes.filter(({ ms }) => ms >= interval.fromMs && ms < interval.toMs);
        expect(interval.writes).toBe(inside.length);
      }
    }
    const events = (await history.timeline(fromMs, toMs, 3)).flatMap((interval) => interval.events);
    expect(events[0]).toBe("lsn:1 opened by test (epoch 1)");
    expect(events.filter((text) => text.includes("rolled back to lsn:"))).toHaveLength(2);
    const marks = noted.filter(({ entry }) => "mark" in entry);
    for (const { lsn, entry } of marks) {
      expect(events).toContain(`lsn:${lsn} snapshot ${"mark" in entry ? entry.mark : ""}`);
    }
  });

  it("of a part of the time counts only what lies in it, and empty intervals have no LSNs", async () => {
    const { history, noted, volume } = await liveVolume(4);
    const fromMs = (volume.wallTimes[1] as number) + 5000;
    const intervals = await history.timeline(fromMs, fromMs + 10_000, 10);
    const inside = noted.filter(({ ms, entry }) => "write" in entry && ms >= fromMs && ms < fromMs + 10_000);
    expect(intervals.reduce((sum, { writes }) => sum + writes, 0)).toBe(inside.length);
    const later = await history.timeline(volume.wallTimeMs + 1000, volume.wallTimeMs + 2000, 2);
    expect(later.map(({ firstLsn, lastLsn, writes }) => [firstLsn, lastLsn, writes])).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ]);
  });

  it("refuses questions that cannot be", async () => {
    const { history } = await liveVolume(5);
    await expect(history.timeline(2, 1, 3)).rejects.toMatchObject({ kind: "Invalid" });
    await expect(history.timeline(1, 2, 0)).rejects.toMatchObject({ kind: "Invalid" });
    await expect(history.timeline(1, 2, 1e9)).rejects.toMatchObject({ kind: "Invalid" });
    await expect(history.timeline(Number.NaN, 2, 1)).rejects.toMatchObject({ kind: "Invalid" });
  });
});

/** Whether all bytes that differ are in the ranges; sizes may differ. */
function expectCovered(a: FoldedDisk, b: FoldedDisk, ranges: readonly ByteRange[], what: string): void {
  const size = Math.max(a.sizeBytes, b.sizeBytes);
  const same = Buffer.alloc(size);
  const other = Buffer.alloc(size);
  same.set(a.read(0, a.sizeBytes));
  other.set(b.read(0, b.sizeBytes));
  let last = -1;
  for (const { offset, length } of ranges) {
    expect(offset, `${what}: ascending and merged`).toBeGreaterThan(last);
    last = offset + length;
    other.set(same.subarray(offset, last), offset);
  }
  expect(last).toBeLessThanOrEqual(size);
  expect(same.equals(other), what).toBe(true);
}

describe("changed ranges", () => {
  it.each([
    [11, 64],
    [12, 64],
    [13, 2],
    [14, 0],
  ])("hold all that differs (seed %i, at most %i footers)", async (seed, exactSegmentsMax) => {
    const { history, volume, random } = await liveVolume(seed, { exactSegmentsMax });
    for (let round = 0; round < 16; round += 1) {
      const a = random.between(0, volume.lastLsn + 1);
      const b = random.between(0, volume.lastLsn + 1);
      const ranges = await history.changes(a, b);
      expectCovered(
        volume.past[a] as FoldedDisk,
        volume.past[b] as FoldedDisk,
        ranges,
        `lsn:${a} to lsn:${b}`,
      );
      if (a === b) expect(ranges).toEqual([]);
    }
  });

  it("are exact, neighbours joined, and follow a rollback", async () => {
    const clock = new SteppedClock(1);
    const store = new MemoryObjectStore(clock);
    const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 8 * 1024 * 1024 });
    volume.write(1000, Buffer.alloc(24, 1)); // 2
    volume.append([{ zero: 1024, length: 76 }]); // 3
    volume.write(5_000_000, Buffer.alloc(10, 1)); // 4
    volume.rollback(2); // 5
    volume.write(7_000_000, Buffer.alloc(10, 1)); // 6
    await volume.seal(1);
    await volume.publish();
    const { history } = { history: new Histories({ store, clock }).of(volume.subject()) };
    expect(await history.changes(1, 3)).toEqual([{ offset: 1000, length: 100 }]);
    expect(await history.changes(3, 1)).toEqual([{ offset: 1000, length: 100 }]);
    expect(await history.changes(2, 5)).toEqual([]);
    expect(await history.changes(4, 5)).toEqual([
      { offset: 1024, length: 76 },
      { offset: 5_000_000, length: 10 },
    ]);
    expect(await history.changes(4, 6)).toEqual([
      { offset: 1024, length: 76 },
      { offset: 5_000_000, length: 10 },
      { offset: 7_000_000, length: 10 },
    ]);
    await expect(history.changes(1, 7)).rejects.toMatchObject({ _tag: "PointNotThere" });
  });

  it("hold what a shrink took and a growth brought back as zeroes", async () => {
    const clock = new SteppedClock(1);
    const store = new MemoryObjectStore(clock);
    const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 64 * 1024 });
    volume.write(40_000, Buffer.alloc(1000, 1)); // 2
    volume.append([{ resize: 32 * 1024 }]); // 3
    volume.append([{ resize: 128 * 1024 }]); // 4
    volume.append([{ resize: 64 * 1024 }]); // 5
    const history = new Histories({ store, clock }).of(volume.subject());
    expect(await history.changes(2, 5)).toEqual([{ offset: 32 * 1024, length: 32 * 1024 }]);
    expect(await history.changes(2, 3)).toEqual([{ offset: 32 * 1024, length: 32 * 1024 }]);
    expect(await history.changes(3, 4)).toEqual([{ offset: 32 * 1024, length: 96 * 1024 }]);
    expect(await history.changes(4, 5)).toEqual([{ offset: 64 * 1024, length: 64 * 1024 }]);
    expect(await Promise.all([2, 3, 4, 5].map((lsn) => history.sizeAt(lsn)))).toEqual([
      64 * 1024,
      32 * 1024,
      128 * 1024,
      64 * 1024,
    ]);
  });

  it("of runs: what both points share changes nothing", () => {
    const view = {
      rebases: [
        { lsn: 20, toLsn: 5 },
        { lsn: 30, toLsn: 12 },
      ],
    } as unknown as VolumeView;
    const runs = (lsn: number) => leadingRuns(view, lsn).map(({ afterLsn, toLsn }) => [afterLsn, toLsn]);
    expect(runs(19)).toEqual([[0, 19]]);
    expect(runs(20)).toEqual([[0, 5]]);
    expect(runs(25)).toEqual([
      [0, 5],
      [20, 25],
    ]);
    expect(runs(31)).toEqual([
      [0, 12],
      [30, 31],
    ]);
    const differing = (a: number, b: number) =>
      differingRuns(leadingRuns(view, a), leadingRuns(view, b)).map(({ afterLsn, toLsn }) => [
        afterLsn,
        toLsn,
      ]);
    expect(differing(25, 31)).toEqual([
      [5, 12],
      [20, 25],
      [30, 31],
    ]);
    expect(differing(8, 31)).toEqual([
      [8, 12],
      [30, 31],
    ]);
    expect(differing(7, 7)).toEqual([]);
  });
});
