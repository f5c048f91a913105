// A deleted volume of a cluster comes back: what the api writes in which order, so that its process may die behind any of it and leave the
// volume deleted or back; who else brings it back, collects the bucket or deletes it meanwhile. docs/specs/cluster.md#undelete.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { MemoryWriteLog } from "#shared/adapters/write-log/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { RescuedVolume } from "#shared/ports/bucket-administration.ts";
import { type UndeleteStep, undeleteSteps } from "#shared/ports/failpoint.ts";
import type { Lease } from "#shared/ports/lease.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import {
  ClusterUndelete,
  type ClusterUndeleteOptions,
} from "../../../services/api/engine/cluster-undelete.ts";
import { BucketDeletedVolumes } from "../../../services/archiver/engine/deleted-volumes.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { HandClock, SmallVolume, volumeIdOf } from "../archiver/small-bucket.ts";

const id = volumeIdOf(1);
const lease = `volume.${id}`;
/** What the bucket has of it. */
const archivedLsn = 10;
const pool = { name: "main", capacityBytes: 2 ** 40, freeBytes: 2 ** 39, quotaBytes: null, tags: [] };
let keys: Record<"catalog" | "past" | "map" | "leases", MemoryKeys>;
let store: MemoryObjectStore;
let volume: SmallVolume;
let log: MemoryWriteLog;
/** Writes until the process "dies": nothing of what comes then is stored. */
let left: number;
let closers: (() => void)[];

function dying<T extends object>(real: T, writes: readonly (keyof T)[]): T {
  return new Proxy(real, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      return (...args: readonly unknown[]): unknown => {
        if (writes.includes(name as keyof T)) {
          left -= 1;
          if (left < 0) return Promise.reject(new VarveError("Died", "Internal", "the process died"));
        }
        return Reflect.apply(value, target, args);
      };
    },
  });
}

/** One process of the api, with all that it knows. */
async function api(parts: Partial<ClusterUndeleteOptions> = {}) {
  const clock = new SystemClock();
  const catalog = new KeyTableCatalog(new MemoryKeyTable(keys.catalog));
  await catalog.load();
  const past = new KeyTablePastRecords(new MemoryKeyTable(keys.past));
  await past.ready();
  const map = new KeyTableMap(new MemoryKeyTable(keys.map), clock);
  await map.ready();
  const table = new MemoryKeyTable(keys.leases);
  const leases = new KeyTableLeases({ table, clock, random: new SystemRandom(), leaseMs: 100 });
  await leases.ready();
  closers.push(() => leases.close());
  const node = { name: "shelf", host: "h", version: "1", pools: [pool], renewal: 1 };
  const undelete = new ClusterUndelete({
    writer: "api",
    catalog: dying(catalog, ["put", "change", "remove"]),
    map: dying(map, ["changePlacement"]),
    past: dying(past, ["changeHistory"]),
    leases,
    clock: new FastClock(),
    bucket: new BucketDeletedVolumes({
      store: dying(store, ["put"]),
      clock,
      random: new SystemRandom(),
      who: "api",
      conditionalPut: async () => true,
    }),
    lastMs: async () => 9,
    ground: () => ({ nodes: [node], unfit: new Map(), placements: [], sizeOf: () => 0 }),
    replicasOf: () => [{ report: { appliedLsn: archivedLsn + 1 } as ReplicaReport }],
    logOf: () => ({ end: async () => endOf(log) }),
    newLog: () => dying(log, ["open"]),
    ...parts,
  });
  return { undelete, catalog, past, map, leases };
}

const endOf = ({ lastLsn, line, records }: MemoryWriteLog): LogEnd | null =>
  records.length === 0 ? null : ({ lastLsn, line } as LogEnd);

const tagOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (cause: unknown) => (cause instanceof VarveError ? cause._tag : (cause as Error).message),
  );

/** It is back: everything that makes it the disk behind what the bucket has. */
async function expectBack(name: string, reached: RescuedVolume | null = null): Promise<void> {
  const { catalog, past, map, leases, undelete } = await api();
  expect(catalog.list()).toMatchObject([{ id, name, state: "active", durability: "write" }]);
  const history = past.historyOf(id);
  expect(history).toMatchObject({ line: { number: 2, id: log.line }, historyMs: volume.present.historyMs });
  expect(history?.pins).toEqual([{ lsn: archivedLsn, holder: "rebase" }]);
  expect(map.placementOf(id)).toMatchObject({
    replicas: [{ node: "shelf", pool: "main" }],
    origin: { volumeId: id, lsn: archivedLsn },
  });
  expect([log.records[0]?.firstLsn, log.records.length]).toEqual([archivedLsn + 1, 1]);
  await expect.poll(() => leases.view(lease)?.state).toBe("released");
  // The bucket says so when its archiver has opened it.
  expect(await undelete.list()).toEqual([]);
  const bucket = new BucketDeletedVolumes({
    store,
    clock: new SystemClock(),
    random: new SystemRandom(),
    who: "test",
    conditionalPut: async () => true,
  });
  expect(await bucket.find()).toMatchObject([{ lineNumber: 2, line: log.line, archivedLsn }]);
  if (reached !== null)
    expect(reached).toMatchObject({ name, volumeId: id, lsn: archivedLsn, lineNumber: 2 });
}

/** A bucket that has a deleted volume, and a cluster that has nothing. */
async function begin(): Promise<void> {
  [left, closers] = [Number.MAX_SAFE_INTEGER, []];
  keys = {
    catalog: new MemoryKeys(),
    past: new MemoryKeys(),
    map: new MemoryKeys(),
    leases: new MemoryKeys(),
  };
  const clock = new HandClock();
  store = new MemoryObjectStore(clock);
  volume = new SmallVolume(store, clock, 1);
  await volume.segment();
  await volume.base(["a", null, null, "b"]);
  await volume.publish({ deletedAtMs: clock.wallTimeMs() });
  log = new MemoryWriteLog({ clock: new SystemClock(), random: new SystemRandom() });
}

beforeEach(begin);

afterEach(() => {
  for (const close of closers) close();
});

describe("a volume that only the bucket has", () => {
  test("comes back behind its last entry, on the next line, under its own name or another", async () => {
    const { undelete } = await api();
    expect(await undelete.list()).toMatchObject([
      { name: "disk1", volumeId: id, archivedLsn, goesInMs: null },
    ]);
    await expectBack("other", await undelete.undelete("disk1", "other"));
  });

  test("begins its log above every epoch that is archived", async () => {
    const { undelete, leases } = await api();
    await volume.publish({ archivedEpoch: 41 });
    await undelete.undelete(id);
    expect(leases.view(lease)?.epoch).toBe(42);
    await expectBack("disk1");
  });

  test("is deleted or back behind each write of a process that died, and comes back when somebody asks again", async () => {
    const seen: string[] = [];
    for (let writes = 0; ; writes += 1) {
      const begun = await api();
      left = writes;
      const died = await tagOf(begun.undelete.undelete("disk1"));
      left = Number.MAX_SAFE_INTEGER;
      const { catalog, undelete, past } = await api();
      seen.push(`${catalog.get(id)?.state ?? "none"} ${past.historyOf(id)?.line?.number ?? 0} ${died}`);
      if (died !== "none") {
        expect(await undelete.list()).toMatchObject([{ volumeId: id }]);
        expect(await tagOf(undelete.undelete("disk1"))).toBe("none");
      }
      await expectBack("disk1");
      if (died === "none") break;
      for (const close of closers.splice(0)) close();
      await begin();
    }
    expect(seen).toEqual([
      "none 0 Died",
      // The record stays where nobody could take it away any more.
      "creating 0 Died",
      "creating 2 Died",
      "creating 2 Died",
      "creating 2 Died",
      "creating 2 Died",
      "creating 2 Died",
      "active 2 none",
    ]);
  });

  /** A process that sleeps behind that step, for longer than its lease: it never hears that it lost it. */
  async function sleepyApi(step: UndeleteStep) {
    let wake = (): void => undefined;
    let isAsleep = false;
    const sleep = async (): Promise<void> => {
      isAsleep = true;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    };
    const sleepBehind = <T extends object>(real: T, name: keyof T, at: UndeleteStep): T =>
      new Proxy(real, {
        get: (target, key) => {
          const value: unknown = Reflect.get(target, key);
          if (typeof value !== "function") return value;
          return (...args: readonly unknown[]): unknown => {
            const result: unknown = Reflect.apply(value, target, args);
            if (key !== name || at !== step || isAsleep) return result;
            return Promise.resolve(result).then(async (made) => sleep().then(() => made));
          };
        },
      });
    const { catalog, past, map } = await api();
    const bucket = new BucketDeletedVolumes({
      store,
      clock: new SystemClock(),
      random: new SystemRandom(),
      who: "sleepy",
      conditionalPut: async () => true,
    });
    const lost = { epoch: 2, raiseEpoch: async () => 2, release: async () => undefined } as unknown as Lease;
    const { undelete } = await api({
      catalog: sleepBehind(sleepBehind(catalog, "put", "undelete-record"), "change", "undelete-active"),
      past: sleepBehind(past, "changeHistory", "undelete-line"),
      bucket: sleepBehind(bucket, "takeLine", "undelete-taken"),
      newLog: () => sleepBehind(log, "open", "undelete-log"),
      map: sleepBehind(map, "changePlacement", "undelete-placed"),
      leases: { take: async () => lost },
    });
    return { undelete, isAsleep: () => isAsleep, wake: () => wake() };
  }

  test.each(undeleteSteps)(
    "a process that sleeps behind %s until another has brought it back changes nothing",
    async (step) => {
      const sleepy = await sleepyApi(step);
      const sleeping = tagOf(sleepy.undelete.undelete("disk1"));
      await expect.poll(() => sleepy.isAsleep()).toBe(true);
      const quick = await tagOf((await api()).undelete.undelete("disk1"));
      expect(quick).toBe(step === "undelete-active" ? "UnknownVolumeError" : "none");
      sleepy.wake();
      await sleeping;
      const { catalog, past } = await api();
      expect(catalog.get(id)?.state).toBe("active");
      expect(past.historyOf(id)?.line).toEqual({ number: 2, id: log.line });
      const lines: string[] = [];
      for await (const { key } of store.list(`volumes/${id}/lines/`)) lines.push(key);
      expect(lines).toHaveLength(1);
    },
  );

  test("is refused where its name is taken, and by what still goes", async () => {
    const { undelete, catalog, leases } = await api();
    const other: VolumeRecord = {
      id: volumeIdOf(9),
      name: "disk1",
      sizeBytes: 4096,
      durability: "write",
      createdAtMs: 0,
      state: "active",
    };
    await catalog.put(other);
    await expect(undelete.undelete("disk1")).rejects.toMatchObject({
      _tag: "VolumeExistsError",
      hint: expect.stringContaining("varve volume undelete disk1 --as OTHER"),
    });
    await expect(undelete.undelete("disk1", "no/name")).rejects.toMatchObject({ _tag: "VolumeNameError" });
    await expect(undelete.undelete("disk7")).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
    expect(catalog.list()).toEqual([other]);
    await catalog.remove(other.id);
    await catalog.put({ ...other, id, state: "deleting" });
    await expect(undelete.undelete("disk1")).rejects.toMatchObject({
      _tag: "VolumeSettlingError",
      kind: "Retry",
    });
    expect(leases.view(lease)?.state).toBe("released");
  });

  test("is not there any more when the collector was quicker, and nothing is left of the attempt but a record to delete", async () => {
    const { undelete, catalog } = await api();
    await volume.publish({ bases: [], segments: [], pages: [], snapshots: [] });
    await expect(undelete.undelete("disk1")).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
    expect(catalog.list()).toEqual([]);
  });
});

describe("a volume that settles", () => {
  const record: VolumeRecord = {
    id,
    name: "disk1",
    sizeBytes: 4096,
    durability: "write",
    createdAtMs: 0,
    state: "settling",
  };

  test("is taken back as it is, under its own name only", async () => {
    const { undelete, catalog, past } = await api();
    await catalog.put(record);
    await past.changeHistory(id, () => newHistoryRecord(id, 4096));
    await expect(undelete.undelete("disk1", "other")).rejects.toMatchObject({ _tag: "VolumeSettlingError" });
    expect(await undelete.undelete("disk1")).toMatchObject({
      name: "disk1",
      volumeId: id,
      reachedMs: 9,
      lineNumber: 1,
    });
    expect(catalog.list()).toEqual([{ ...record, state: "active" }]);
    expect(log.records).toEqual([]);
  });

  test("comes from the bucket where its archiver was quicker", async () => {
    const { undelete, catalog } = await api();
    await catalog.put(record);
    const archiver = await api();
    // This process has not heard of it yet.
    const isStale = { now: true };
    const list = catalog.list.bind(catalog);
    catalog.list = () => (isStale.now ? [record] : list());
    await archiver.catalog.change(id, (one) => ({ ...one, state: "deleting" }));
    expect(await tagOf(undelete.undelete("disk1"))).toBe("VolumeSettlingError");
    await archiver.catalog.remove(id);
    expect(await tagOf(undelete.undelete("disk1"))).toBe("none");
    isStale.now = false;
    await expectBack("disk1");
  });
});
