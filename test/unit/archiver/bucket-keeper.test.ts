/*
 * The keeper: collects by the clock, one job of a kind at a time, keeps the last reports, lists and brings back deleted
 * volumes, stops at close.
 */
import { beforeEach, describe, expect, it } from "vitest";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { ownDisks } from "#shared/domain/bucket-prices.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Timer } from "#shared/ports/clock.ts";
import type { JobHandle, JobView } from "#shared/ports/past-administration.ts";
import { BucketKeeper } from "../../../services/archiver/engine/bucket-keeper.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { HandClock, hour, SmallVolume, startMs, volumeIdOf, WatchedStore } from "./small-bucket.ts";

/** Runs tasks when the test lets time pass. */
class TimedClock extends HandClock {
  private tasks: { readonly dueMs: number; readonly task: () => void }[] = [];
  override after(delayMs = 0, task: () => void = () => undefined): Timer {
    const one = { dueMs: this.monotonic + delayMs, task };
    this.tasks.push(one);
    return { cancel: () => this.tasks.splice(this.tasks.indexOf(one), 1) };
  }
  get pending(): number {
    return this.tasks.length;
  }
  async let(ms: number): Promise<void> {
    this.pass(ms);
    for (const one of this.tasks.filter(({ dueMs }) => dueMs <= this.monotonic)) {
      this.tasks.splice(this.tasks.indexOf(one), 1);
      one.task();
    }
    await settled();
  }
}

const settled = async (): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, 5);
  });

let clock: TimedClock;
let store: WatchedStore;
let jobs: { kind: string; state: string; note: string }[];
let notes: string[];
let keeper: BucketKeeper;
let broughtBack: string[];
let isCollector: boolean;
let isKnown: (volumeId: string) => Promise<boolean>;

beforeEach(() => {
  clock = new TimedClock();
  store = new WatchedStore(new MemoryObjectStore(clock));
  jobs = [];
  notes = [];
  broughtBack = [];
  isCollector = true;
  isKnown = async () => false;
  keeper = new BucketKeeper({
    store,
    clock,
    random: new SteppedRandom(1),
    who: "test",
    conditionalPut: async () => true,
    prices: ownDisks,
    exactBase: async () => {
      throw new Error("none here");
    },
    isCollector: () => isCollector,
    isKnown: async (volumeId) => isKnown(volumeId),
    kept: () => [],
    uploadsInFlight: () => [],
    pointsInUse: () => [],
    startJob,
    allocateSlab: (bytes) => ({ bytes: Buffer.alloc(bytes), address: 0 }),
    bringBack: async (record, takeLine) => {
      broughtBack.push(record.name);
      return (await takeLine()).reached;
    },
    onNote: (text) => notes.push(text),
    bucketBytesMax: null,
  });
});

function startJob(kind: string): JobHandle {
  const job = { kind, state: "running", note: "" };
  jobs.push(job);
  const end = (state: string) => (note: string) => Object.assign(job, { state, note });
  const id = String(jobs.length - 1);
  return {
    id,
    progress: () => undefined,
    done: end("done"),
    stopped: end("stopped"),
    failed: (cause) => end("failed")(String(cause)),
    view: () => ({ id, kind, state: job.state }) as unknown as JobView,
  };
}

const leases = async (): Promise<number> => {
  let count = 0;
  for await (const _ of store.inner.list("collector/lease/")) count += 1;
  return count;
};

describe("the keeper", () => {
  it("collects by the clock: ten minutes after the start, then each hour, the whole bucket twice a day", async () => {
    const lists: string[] = [];
    store.at = (_, operation, key) => {
      if (operation === "list" && key === "chunks/") lists.push(key);
    };
    keeper.start();
    expect(await leases()).toBe(0);
    await clock.let(10 * 60_000);
    expect(await leases()).toBe(3);
    expect(lists).toHaveLength(1);
    for (let hours = 0; hours < 11; hours += 1) await clock.let(hour);
    expect(lists).toHaveLength(1);
    await clock.let(hour);
    expect(lists).toHaveLength(2);
    await keeper.close();
    expect(clock.pending).toBe(0);
  });

  it("while another process collects: takes no lease, lists nothing, deletes nothing; collects when the turn is its own", async () => {
    const calls: string[] = [];
    store.at = (_, operation, key) => {
      if (operation !== "get") calls.push(`${operation} ${key}`);
    };
    isCollector = false;
    keeper.start();
    await clock.let(10 * 60_000);
    expect([await leases(), calls.filter((one) => !one.startsWith("list collector/"))]).toEqual([0, []]);
    isCollector = true;
    await clock.let(hour);
    expect([await leases(), calls.includes("list chunks/")]).toEqual([3, true]);
    await keeper.close();
  });

  it("a bucket that is away is asked again; what is wrong with it is told", async () => {
    keeper.start();
    await new SmallVolume(store.inner, clock, 1).publish();
    for await (const { key } of store.inner.list("volumes/")) await store.inner.put(key, Buffer.alloc(200));
    await clock.let(10 * 60_000);
    expect(notes.join()).toContain("the bucket is not collected");
    for await (const { key } of store.inner.list("volumes/")) await store.inner.remove(key);
    await clock.let(limits.collectorLeaseMs);
    expect(await leases()).toBeGreaterThan(0);
  });

  it("buries no volume that the cluster's catalogue knows, and none where nobody can say", async () => {
    const volume = new SmallVolume(store.inner, clock, 1);
    await volume.segment();
    await volume.publish({ deletedAtMs: clock.wallTimeMs() });
    const collect = async () => keeper.collectNow({ dryRun: false, acceptClock: true });
    await collect();
    clock.pass(9 * 24 * hour);
    isKnown = async () => true;
    expect((await collect()).findings).toEqual([]);
    isKnown = async () => {
      throw new VarveError("LogAway", "Retry", "nobody answers");
    };
    await expect(collect()).rejects.toMatchObject({ _tag: "LogAway" });
    expect(await keeper.deletedVolumes()).toMatchObject([{ name: "disk1", goesInMs: 0 }]);
    clock.pass(hour);
    isKnown = async () => false;
    expect((await collect()).findings).toMatchObject([{ key: "volume disk1" }]);
  });

  it("runs one job of a kind at a time and keeps its report", async () => {
    const job = keeper.check({ quick: false });
    expect(() => keeper.check({ quick: true })).toThrow("under way");
    expect(() => keeper.report(job.id)).toThrow("no report");
    await settled();
    expect(jobs[0]).toMatchObject({ kind: "check", state: "done", note: "0 problems in 0 objects" });
    expect(keeper.report(job.id)).toMatchObject({ kind: "check", report: { problems: 0 } });
    const collected = keeper.collect({ dryRun: true, acceptClock: false });
    await settled();
    expect(keeper.report(collected.id)).toMatchObject({ kind: "collect", report: { dryRun: true } });
    for (let more = 0; more < limits.bucketReportsMax; more += 1) {
      keeper.check({ quick: true });
      await settled();
    }
    expect(() => keeper.report(job.id)).toThrow("no report");
    expect(() => keeper.scrub("disk9", { repair: false, bytesPerSecond: 1 })).toThrow("no served volume");
  });

  it("a job that fails says so, and the next may begin", async () => {
    store.at = () => {
      throw new Error("away");
    };
    keeper.check({ quick: false });
    await settled();
    expect(jobs[0]).toMatchObject({ state: "failed" });
    store.at = null;
    keeper.check({ quick: false });
    await settled();
    expect(jobs[1]).toMatchObject({ state: "done" });
  });

  it("tells in the bucket's usage when retention time is far behind the wall clock", async () => {
    const volume = new SmallVolume(store.inner, clock, 1);
    await volume.segment();
    await volume.publish();
    for (const [passed, told] of [
      [6 * 24, false],
      [2 * 24, true],
    ] as const) {
      clock.wallMs += passed * hour;
      await volume.publish();
      keeper.collect({ dryRun: false, acceptClock: false });
      await settled();
      const { notes: alarms } = await keeper.usage();
      expect(alarms.some((text) => text.includes("--accept-clock") && text.includes("behind"))).toBe(told);
    }
  });

  it("lists deleted volumes and brings one back, by name or id", async () => {
    for (const number of [1, 2]) {
      const volume = new SmallVolume(store.inner, clock, number, { name: "same" });
      await volume.segment();
      await volume.publish({ deletedAtMs: startMs });
    }
    keeper.collect({ dryRun: false, acceptClock: false });
    await settled();
    clock.pass(2 * hour);
    const listed = await keeper.deletedVolumes();
    expect(listed.map(({ volumeId, name, archivedLsn }) => [volumeId, name, archivedLsn])).toEqual([
      [volumeIdOf(1), "same", 10],
      [volumeIdOf(2), "same", 10],
    ]);
    expect(listed[0]?.goesInMs).toBe(limits.deletedVolumeMs - 2 * hour);
    await expect(keeper.undelete("other")).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
    await expect(keeper.undelete("same")).rejects.toMatchObject({ _tag: "AmbiguousVolumeError" });
    expect(await keeper.undelete(volumeIdOf(2))).toMatchObject({ name: "same", lsn: 10, lineNumber: 2 });
    expect(broughtBack).toEqual(["same"]);
    expect(await keeper.undelete(volumeIdOf(2), "other-name")).toMatchObject({
      name: "other-name",
      lineNumber: 3,
    });
    expect(broughtBack).toEqual(["same", "other-name"]);
    // Until its archiver publishes it could come back again; it is not buried meanwhile.
    expect(await keeper.deletedVolumes()).toHaveLength(2);
    for (const wait of [0, limits.deletedVolumeMs + hour]) {
      clock.pass(wait);
      keeper.collect({ dryRun: false, acceptClock: true });
      await settled();
    }
    const left = await keeper.deletedVolumes();
    expect(left.map(({ volumeId }) => volumeId)).toEqual([volumeIdOf(2)]);
  });

  it("close stops a run before its next delete", async () => {
    const volume = new SmallVolume(store.inner, clock, 1);
    for (let number = 0; number < 30; number += 1) await volume.publish();
    keeper.collect({ dryRun: false, acceptClock: false });
    await settled();
    clock.pass(2 * hour);
    let deletes = 0;
    store.at = (_, operation, key) => {
      if (operation !== "delete" || !key.includes("/manifests/")) return;
      deletes += 1;
      keeper.close().catch(() => undefined);
    };
    keeper.collect({ dryRun: false, acceptClock: false });
    await settled();
    expect(deletes).toBeGreaterThan(0);
    expect(deletes).toBeLessThanOrEqual(limits.collectorDeletesMax);
    expect(jobs[1]?.state).toBe("stopped");
  });
});
