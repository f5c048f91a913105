// Points that are open: one source for all who read it, kept a while after the last, bounded, and opened anew for holders when
// their volume was closed under them.
import { beforeEach, describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { PointSource } from "#shared/ports/history.ts";
import { PointSources } from "../../../services/gateway/engine/point-sources.ts";

class FakeSource implements PointSource {
  readonly volumeId: string;
  readonly lsn: number;
  readonly sizeBytes = 4096;
  closed = false;

  constructor(volumeId: string, lsn: number) {
    this.volumeId = volumeId;
    this.lsn = lsn;
  }

  async read(): Promise<void> {}

  allocation(): [] {
    return [];
  }

  async *extents(): AsyncGenerator<number> {}

  async close(): Promise<void> {
    this.closed = true;
  }
}

let nowMs = 0;
let timers: { atMs: number; task: () => void }[] = [];
let opened: FakeSource[] = [];
let points: PointSources;

beforeEach(() => {
  nowMs = 0;
  timers = [];
  opened = [];
  points = new PointSources({
    wallTimeMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: (delayMs, task) => {
      const timer = { atMs: nowMs + delayMs, task };
      timers.push(timer);
      return {
        cancel: () => {
          timers = timers.filter((one) => one !== timer);
        },
      };
    },
    soon: (task) => task(),
  });
});

/** Time goes on; what is due runs. */
async function pass(ms: number): Promise<void> {
  nowMs += ms;
  for (const timer of timers.filter((one) => one.atMs <= nowMs)) {
    timers = timers.filter((one) => one !== timer);
    timer.task();
  }
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
}

const hold = async (volumeId: string, lsn: number) =>
  points.hold(volumeId, lsn, async () => {
    const source = new FakeSource(volumeId, lsn);
    opened.push(source);
    return source;
  });

describe("point sources", () => {
  test("one source serves all holders of a point; another point has its own", async () => {
    const [one, two, other] = await Promise.all([hold("a", 1), hold("a", 1), hold("a", 2)]);
    expect(await one.source()).toBe(await two.source());
    expect(await other.source()).not.toBe(await one.source());
    expect(opened).toHaveLength(2);
    expect(points.inUse()).toEqual([
      { volumeId: "a", lsn: 1 },
      { volumeId: "a", lsn: 2 },
    ]);
  });

  test("a source stays for a while after its last holder, then it is closed", async () => {
    const one = await hold("a", 1);
    one.release();
    one.release();
    await pass(limits.idlePointMs - 1);
    const again = await hold("a", 1);
    expect(opened).toHaveLength(1);
    await pass(10 * limits.idlePointMs);
    expect(opened[0]?.closed).toBe(false);
    again.release();
    await pass(limits.idlePointMs);
    expect(opened[0]?.closed).toBe(true);
    expect(points.inUse()).toEqual([]);
  });

  test("a point that does not open is held by nobody, and may open later", async () => {
    const refuse = async (): Promise<PointSource> => {
      throw new VarveError("PointNotThere", "Invalid", "no");
    };
    await expect(points.hold("a", 1, refuse)).rejects.toThrow("no");
    expect(points.inUse()).toEqual([]);
    await hold("a", 1);
    expect(opened).toHaveLength(1);
  });

  test("a volume that is closed takes its sources along; a holder's next read opens anew", async () => {
    const [mine, other] = await Promise.all([hold("a", 1), hold("b", 1)]);
    await points.closeVolume("a");
    expect(opened.map((one) => one.closed)).toEqual([true, false]);
    expect(points.inUse()).toHaveLength(2);
    expect(await mine.source()).toBe(opened[2]);
    expect(await other.source()).toBe(opened[1]);
    mine.release();
    await pass(limits.idlePointMs);
    expect(opened[2]?.closed).toBe(true);
  });

  test("at most so many are open: the longest idle one gives way, and where none is idle the next is refused", async () => {
    const holds = [];
    for (let lsn = 1; lsn <= limits.openPointsMax; lsn += 1) holds.push(await hold("a", lsn));
    await expect(hold("a", 1000)).rejects.toMatchObject({ kind: "Retry", _tag: "PointsFullError" });
    nowMs = 5;
    holds[3]?.release();
    nowMs = 9;
    holds[2]?.release();
    await hold("a", 1000);
    await pass(0);
    expect(opened[3]?.closed).toBe(true);
    expect(opened[2]?.closed).toBe(false);
  });

  test("closing closes all and opens no more", async () => {
    await hold("a", 1);
    await points.close();
    expect(opened[0]?.closed).toBe(true);
    await expect(hold("a", 2)).rejects.toMatchObject({ _tag: "HostClosingError" });
  });
});
