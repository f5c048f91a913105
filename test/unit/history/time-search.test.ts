// Times to LSNs: the last batch at or before the time, and every candidate where the clock went back, against the definition
// in docs/specs/history.md applied to all batches one by one.
import { describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

/** Eleven days before the test clock's now. */
const start = 1_699_000_000_000;

/** One mark per batch, at these times (seconds after the start). */
async function volumeAt(seconds: readonly number[], random: SeededRandom, hotBatches: number) {
  const clock = new SteppedClock(1);
  const store = new MemoryObjectStore(clock);
  const volume = new MadeVolume(store, {
    volumeId: "00000000000000a1",
    sizeBytes: 64 * 1024,
    wallTimeMs: start,
  });
  const times = [volume.wallTimes[1] as number];
  for (const [index, second] of seconds.entries()) {
    if (index === seconds.length - hotBatches) {
      await volume.seal(random.between(1, 4));
      await volume.makePage(random.between(0, 4));
      await volume.makePage(random.between(0, 3));
    }
    volume.wallTimeMs = start + second * 1000;
    times.push(volume.wallTimeMs);
    volume.write(index, Buffer.from("x"));
  }
  if (hotBatches === 0) await volume.seal(random.between(1, 4));
  await volume.publish();
  const history = new Histories({ store, clock }).of(volume.subject());
  // Batch i is LSN i + 1.
  return { volume, history, times, clock };
}

/** The definition: stretches, and in each the last batch at or before the time. */
function candidatesOf(times: readonly number[], wallTimeMs: number, nowMs: number): number[] {
  const stretches: { lsn: number; ms: number }[][] = [];
  for (const [index, ms] of times.entries()) {
    if (index === 0 || ms < (times[index - 1] as number)) stretches.push([]);
    stretches.at(-1)?.push({ lsn: index + 1, ms });
  }
  return stretches.flatMap((stretch, index) => {
    const first = stretch[0]?.ms ?? 0;
    const last = stretch.at(-1)?.ms ?? 0;
    const end = index === stretches.length - 1 ? Math.max(last, nowMs) : last;
    const isIn = first <= wallTimeMs && wallTimeMs <= end;
    return isIn ? [stretch.findLast(({ ms }) => ms <= wallTimeMs)?.lsn ?? -1] : [];
  });
}

async function resolved(history: { resolve: Function }, wallTimeMs: number): Promise<number[] | string> {
  try {
    return [(await history.resolve({ kind: "time", wallTimeMs })).lsn];
  } catch (error) {
    if (!(error instanceof VarveError)) throw error;
    expect(error.kind).toBe("Invalid");
    if (error._tag !== "PointTimeAmbiguous") return error._tag;
    const listed = String(error.fields["candidates"]).split(", ");
    for (const candidate of listed) expect(error.message).toContain(candidate);
    return listed.map((candidate) => Number(candidate.slice(4))).reverse();
  }
}

describe("the LSN of a time", () => {
  it("is the last batch at or before it", async () => {
    const { history } = await volumeAt([10, 20, 20, 30], new SeededRandom(1), 0);
    const at = (seconds: number) => resolved(history, start + seconds * 1000);
    expect(await at(10)).toEqual([2]);
    expect(await at(19.999)).toEqual([2]);
    expect(await at(20)).toEqual([4]);
    expect(await at(29)).toEqual([4]);
    expect(await at(30)).toEqual([5]);
    expect(await at(-1)).toBe("PointNotThere");
  });

  it("between the last batch and now it is the last batch; later it is in the future", async () => {
    const { history, clock } = await volumeAt([5, 6], new SeededRandom(1), 1);
    expect(await resolved(history, clock.wallTimeMs())).toEqual([3]);
    expect(await resolved(history, clock.wallTimeMs() + 1)).toBe("PointNotThere");
    await expect(history.resolve({ kind: "time", wallTimeMs: clock.wallTimeMs() + 1 })).rejects.toThrow(
      /future/,
    );
  });

  it("a clock that jumped to 2040 and back gives candidates, newest first, and 2040 itself opens", async () => {
    const y2040 = 500_000_000;
    const { history } = await volumeAt([10, y2040, y2040 + 5, 20, 30], new SeededRandom(2), 2);
    const at = (seconds: number) => resolved(history, start + seconds * 1000);
    expect(await at(y2040 + 1)).toEqual([3]);
    expect(await at(y2040 + 5)).toEqual([4]);
    expect(await at(y2040 + 6)).toBe("PointNotThere");
    expect(await at(15)).toEqual([2]);
    expect(await at(25)).toEqual([2, 5]);
    expect(await at(100)).toEqual([2, 6]);
    await expect(history.resolve({ kind: "time", wallTimeMs: start + 25_000 })).rejects.toThrow(
      /lsn:5, lsn:2/,
    );
  });

  it("a clock that jumped to 1970 and back", async () => {
    const { history } = await volumeAt([10, -1_698_999_000, 30, 40], new SeededRandom(3), 0);
    expect(await resolved(history, 500_000)).toBe("PointNotThere");
    expect(await resolved(history, 1_000_000)).toEqual([3]);
    expect(await resolved(history, start + 5_000)).toEqual([1, 3]);
    expect(await resolved(history, start + 10_000)).toEqual([2, 3]);
    expect(await resolved(history, start + 20_000)).toEqual([3]);
  });

  it.each([11, 12, 13, 14, 15, 16])("agrees with the definition on random clocks (seed %i)", async (seed) => {
    const random = new SeededRandom(seed);
    let second = 0;
    const seconds = Array.from({ length: 30 }, () => {
      second += random.chance(0.15) ? -random.between(1, 30) : random.between(0, 6);
      return second;
    });
    const { history, times, clock } = await volumeAt(seconds, random, random.between(0, 6));
    for (let ms = Math.min(...times) - 1000; ms <= Math.max(...times) + 2000; ms += 500) {
      const expected = candidatesOf(times, ms, clock.wallTimeMs());
      expect(await resolved(history, ms), `${(ms - start) / 1000} s`).toEqual(
        expected.length === 0 ? "PointNotThere" : expected,
      );
    }
  });

  it("lists at most 16 candidates, the newest", async () => {
    const seconds = Array.from({ length: 40 }, (_, index) => (index % 2 === 0 ? 10 : 50));
    const { history } = await volumeAt(seconds, new SeededRandom(5), 3);
    const found = (await resolved(history, start + 20_000)) as number[];
    expect(found).toHaveLength(16);
    expect(found.at(-1)).toBe(40);
  });

  it("names and LSNs resolve with the time of their batch", async () => {
    const { history, volume } = await volumeAt([10, 20], new SeededRandom(6), 0);
    volume.append([{ mark: "before-upgrade" }]);
    const mark = await history.resolve({ kind: "mark", name: "before-upgrade" });
    expect(mark).toEqual({ volumeId: volume.volumeId, lsn: 4, wallTimeMs: volume.wallTimes[4] });
    for (const lsn of [1, 3, 4]) {
      const found = await history.resolve({ kind: "lsn", lsn });
      expect(found).toEqual({ volumeId: volume.volumeId, lsn, wallTimeMs: volume.wallTimes[lsn] });
    }
    expect(await history.range()).toEqual({
      fromLsn: 1,
      toLsn: 4,
      fromMs: volume.wallTimes[1],
      toMs: volume.wallTimes[4],
    });
  });
});
