// The api's part of a clone in a cluster: what is written in which order, so that a crash behind any of it leaves a volume that can be
// deleted and a pin that goes; who is refused, and when a parent may go.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { type HistoryRecord, newHistoryRecord, withPin } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { encodeMessage } from "#shared/formats/replica-message.ts";
import type { ArchivedImages, ArchivedPlace } from "#shared/ports/archived-images.ts";
import type { PointSource, VolumeHistory } from "#shared/ports/history.ts";
import type { JobView, NewFromPoint } from "#shared/ports/past-administration.ts";
import type { ApiJob } from "../../../services/api/engine/cluster-bucket.ts";
import { ClusterClones } from "../../../services/api/engine/cluster-clones.ts";
import { ClusterVolumes } from "../../../services/api/engine/cluster-volumes.ts";
import { FastClock } from "../../tools/fast-clock.ts";

/** A second lasts a millisecond. */
class HastyClock extends FastClock {
  override monotonicMs(): number {
    return super.monotonicMs() * 1000;
  }
}

const parentId = "00112233aabbccdd";
const lsn = 5;
const wanted: NewFromPoint = {
  name: "copy",
  parent: "disk0",
  point: "lsn:5",
  durability: null,
  sizeBytes: null,
  policy: {},
};
const pool = { name: "main", capacityBytes: 2 ** 40, freeBytes: 2 ** 39, quotaBytes: null, tags: [] };
let catalog: MemoryVolumeCatalog;
let map: KeyTableMap;
let past: KeyTablePastRecords;
let bus: MemoryMessageBus;
let volumes: ClusterVolumes;
/** Writes until the process "dies": nothing of what comes then is stored. */
let left: number;
let archivedLsn: number;
let pointsOpened: string[];
let jobs: string[];
const begun: ClusterClones[] = [];
/** Before each look into the bucket. */
let beforeLook: () => Promise<void>;

function dying<T extends object>(real: T, writes: readonly (keyof T)[]): T {
  return new Proxy(real, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      return (...args: readonly unknown[]): unknown => {
        if (writes.includes(name as keyof T)) {
          left -= 1;
          if (left < 0) throw new Error("the process died");
        }
        return Reflect.apply(value, target, args);
      };
    },
  });
}

/** An archiver that works: the bucket has what the history record pins. */
const images: Pick<ArchivedImages, "newest" | "point"> = {
  newest: async (): Promise<ArchivedPlace> => {
    await beforeLook();
    const pins = (past.historyOf(parentId)?.pins ?? []).filter((pin) => pin.lsn <= archivedLsn);
    return { line: "a".repeat(16), epoch: 1, lsn: archivedLsn, checksum: 1n, pins };
  },
  point: async (id, at) => {
    pointsOpened.push(`${id}@${at}`);
    return { close: async () => undefined } as PointSource;
  },
};

const job = {
  id: "1",
  view: () =>
    ({
      id: "1",
      volume: "copy",
    }) as JobView,
  progress: (done: number, all: number) => jobs.push(`${done}/${all}`),
  done: (note: string) => jobs.push(note),
  failed: (cause: unknown) => jobs.push((cause as VarveError)._tag),
} as unknown as ApiJob;

function clones(parts: Partial<ConstructorParameters<typeof ClusterClones>[0]> = {}): ClusterClones {
  const made = new ClusterClones({
    catalog: dying(catalog, ["put", "change", "remove"]),
    map: dying(map, ["changePlacement"]),
    past: dying(past, ["changeHistory", "forget"]),
    clock: new HastyClock(),
    random: new SystemRandom(),
    require: (name) => volumes.require(name),
    show: (name) => volumes.show(name),
    replicasOf: (record) => volumes.replicasOf(record),
    ground: () => volumes.ground(),
    historyOf: () =>
      ({
        resolve: async () => ({ lsn, wallTimeMs: 9 }),
        sizeAt: async () => 2 ** 23,
      }) as unknown as VolumeHistory,
    images,
    jobs: { start: () => job },
    ...parts,
  });
  begun.push(made);
  return made;
}

const tagOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (cause: unknown) => (cause instanceof VarveError ? cause._tag : (cause as Error).message),
  );
const found = (): VolumeRecord | null => catalog.find("copy");
const pins = (): readonly unknown[] => past.historyOf(parentId)?.pins ?? [];
const archive = async (id: string, heldLsn: number, archivedLsn = heldLsn): Promise<void> =>
  past.putArchive(id, {
    archiver: "keeper",
    archiverEpoch: 1,
    line: "a".repeat(16),
    archivedLsn,
    heldLsn,
    lastBaseLsn: 0,
    state: "running",
    error: "",
  });
function report(id: string, remoteExtents: number): void {
  const report = {
    node: "a",
    host: "a",
    condition: "following",
    reason: "",
    appliedLsn: 1,
    checkpointLsn: 1,
    epoch: 1,
    sizeBytes: 2 ** 23,
    allocatedBytes: 0,
    roomBytes: 0,
    ...(remoteExtents === 0 ? {} : { remoteExtents }),
  } as const;
  bus.publish(replicaStateSubject(id, "a"), encodeMessage({ type: "state", report }));
}

beforeEach(async () => {
  left = Number.MAX_SAFE_INTEGER;
  archivedLsn = lsn;
  [pointsOpened, jobs] = [[], []];
  beforeLook = async () => undefined;
  const table = new MemoryKeyTable(new MemoryKeys());
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  map = new KeyTableMap(table, new SystemClock());
  past = new KeyTablePastRecords(table);
  await past.ready();
  bus = new MemoryMessageBus();
  const leases = new KeyTableLeases({
    table: new MemoryKeyTable(new MemoryKeys()),
    clock: new SystemClock(),
    random: new SystemRandom(),
  });
  const parts = { catalog, map, past, leases, bus, archived: true, clock: new FastClock() };
  volumes = new ClusterVolumes({
    ...parts,
    random: new SystemRandom(),
    removeLog: async () => {},
    shrink: async () => {},
  });
  await map.putNode({ name: "a", host: "a", version: "0", pools: [pool], renewal: 1 });
  const size = { sizeBytes: 2 ** 23, durability: "write", createdAtMs: 0 } as const;
  await catalog.put({ id: parentId, name: "disk0", ...size, state: "active", reads: "strict" });
  await map.changePlacement(parentId, () => ({
    volumeId: parentId,
    beginBytes: 2 ** 23,
    replicas: [
      {
        node: "a",
        pool: "main",
      },
    ],
  }));
  await past.changeHistory(parentId, () => ({ ...newHistoryRecord(parentId, 2 ** 23), historyMs: 77 }));
});

afterEach(() => {
  for (const one of begun.splice(0)) one.close();
});

describe("a clone", () => {
  test("is placed with its origin, keeps its parent's point, and its job ends when every replica has all of it", async () => {
    const made = await clones().createFrom({ ...wanted, sizeBytes: 2 ** 24 });
    const { id, state, reads } = found() as VolumeRecord;
    expect([state, reads, made.point.lsn]).toEqual(["active", "strict", lsn]);
    expect(map.placementOf(id)).toEqual({
      volumeId: id,
      beginBytes: 2 ** 24,
      replicas: [
        {
          node: "a",
          pool: "main",
        },
      ],
      origin: {
        volumeId: parentId,
        lsn,
      },
    });
    expect(past.historyOf(id)).toMatchObject({
      historyMs: 77,
      beginBytes: 2 ** 24,
      origin: {
        volumeId: parentId,
        name: "disk0",
        lsn,
      },
    });
    expect([pins(), pointsOpened]).toEqual([[{ lsn, holder: id }], [`${parentId}@${lsn}`]]);
    // Nothing was heard of its replica.
    expect(jobs).toEqual([`0/${2 ** 24}`]);
    expect(volumes.show("copy").past?.extents).toEqual({ total: 4, local: 0, remote: 4, partial: 0 });
    report(id, 1);
    await expect.poll(() => jobs.at(-1)).toBe(`${3 * 2 ** 22}/${2 ** 24}`);
    report(id, 0);
    await expect.poll(() => jobs.at(-1)).toBe("every extent is on its storage nodes");
    expect(volumes.show("copy").past?.extents).toMatchObject({ local: 4, remote: 0 });
    // A pin of a volume that is there stays, and that of a replica that is placed.
    const [placed, gone] = ["replica:a", "replica:gone"];
    await past.changeHistory(parentId, (one) =>
      [placed, gone].reduce((record, holder) => withPin(record as HistoryRecord, { lsn: 1, holder }), one),
    );
    const others = clones();
    await others.tend();
    expect(pins()).toHaveLength(3);
    await new Promise((resolve) => setTimeout(resolve, 70));
    await others.tend();
    expect(pins()).toEqual([
      { lsn: 1, holder: placed },
      { lsn, holder: id },
    ]);
  });

  for (const writes of [0, 1, 2, 3, 4]) {
    test(`that died behind ${writes} of its writes is deleted, its pin goes, and its name is free`, async () => {
      left = writes;
      expect(await tagOf(clones().createFrom(wanted))).toBe("the process died");
      left = Number.MAX_SAFE_INTEGER;
      const half = found();
      expect(half?.state).toBe(writes === 0 ? undefined : "creating");
      expect(pins()).toHaveLength(writes < 3 ? 0 : 1);
      if (half !== null) {
        // Its history comes before its pin: from then on the parent stays.
        if (writes > 1) expect(await tagOf(volumes.delete("disk0"))).toBe("VolumeNeededError");
        // What its node and its archiver do: there are no files, and no log.
        const deleted = volumes.delete("copy");
        await expect.poll(() => found()?.state).not.toBe("creating");
        await map.changePlacement(half.id, (present) => present && { ...present, replicas: [] });
        await past.forget(half.id);
        await deleted;
      }
      expect(found()).toBeNull();
      const keeper = clones();
      await keeper.tend();
      // Whoever begins a clone now may have been seen half.
      expect(pins()).toHaveLength(writes < 3 ? 0 : 1);
      await new Promise((resolve) => setTimeout(resolve, 70));
      await keeper.tend();
      expect(pins()).toEqual([]);
      await clones().createFrom(wanted);
      expect(found()?.state).toBe("active");
    });
  }

  test("whose parent is not archived in time, or is deleted meanwhile, is not made, and nothing of it stays", async () => {
    archivedLsn = lsn - 1;
    expect(await tagOf(clones().createFrom(wanted))).toBe("PointNotArchived");
    archivedLsn = lsn;
    beforeLook = async () => {
      throw new VarveError("BucketAway", "Retry", "the bucket does not answer");
    };
    await expect(clones().createFrom(wanted)).rejects.toMatchObject({
      _tag: "PointNotArchived",
      kind: "Retry",
      message: expect.stringContaining("does not answer"),
    });
    beforeLook = async () => {
      throw new VarveError("BucketObjectDamaged", "Corrupt", "a flipped bit");
    };
    expect(await tagOf(clones().createFrom(wanted))).toBe("BucketObjectDamaged");
    beforeLook = async () => catalog.change(parentId, (one) => ({ ...one, state: "deleting" }));
    expect(await tagOf(clones().createFrom(wanted))).toBe("UnknownVolumeError");
    expect([found(), pins(), map.placements().length]).toEqual([null, [], 1]);
  });

  test("is refused before anything is written", async () => {
    const tag = async (change: Partial<NewFromPoint>, made = clones()): Promise<string> =>
      tagOf(made.createFrom({ ...wanted, ...change }));
    left = 0;
    expect(await tag({}, clones({ images: null }))).toBe("NoHistoryInCluster");
    expect(await tag({ sizeBytes: 2 ** 20 })).toBe("CloneTooSmallError");
    expect(await tag({ durability: "flush" })).toBe("FlushVolumeRefused");
    expect(await tag({ replicas: 9 })).toBe("ReplicaCountError");
    expect(await tag({ replicas: 2 })).toBe("PlacementError");
    expect(await tag({ parent: "none" })).toBe("UnknownVolumeError");
  });

  test("of a clone that was never opened is refused with the point that it began with", async () => {
    const away = new VarveError("BucketAway", "Retry", "away");
    const none = new VarveError("PointNotThere", "Invalid", "there is no point lsn:1");
    let ranges: VarveError = away;
    const historyOf = () =>
      ({
        resolve: async () => {
          throw none;
        },
        range: async () => {
          throw ranges;
        },
      }) as unknown as VolumeHistory;
    await clones().createFrom(wanted);
    const made = clones({ historyOf });
    expect(await tagOf(made.createFrom({ ...wanted, name: "again", parent: "copy" }))).toBe("PointNotThere");
    ranges = none;
    await expect(made.createFrom({ ...wanted, name: "again", parent: "copy" })).rejects.toMatchObject({
      _tag: "NothingWritten",
      message: "volume copy was never opened: it has no past",
      hint: expect.stringContaining("--from disk0@lsn:5"),
    });
    await expect(made.createFrom({ ...wanted, name: "again" })).rejects.toMatchObject({
      _tag: "NothingWritten",
      hint: "Connect to it first.",
    });
  });
});

test("a parent goes when its clones are whole, have something of their own in the bucket, and the bucket holds what they need", async () => {
  await clones().createFrom(wanted);
  const { id } = found() as VolumeRecord;
  const deletion = async (): Promise<string> => tagOf(volumes.delete("disk0"));
  const refused = async (why: RegExp): Promise<void> =>
    expect(volumes.delete("disk0")).rejects.toMatchObject({
      _tag: "VolumeNeededError",
      hint: expect.stringMatching(why),
    });
  await refused(/misses \d+ extents/);
  report(id, 0);
  await refused(/copy has no entry of its own in the bucket/);
  await archive(id, 0, 1);
  await refused(/copy is archived/);
  await archive(id, 1);
  report(id, 2);
  await refused(/misses 2 extents/);
  report(id, 0);
  await archive(parentId, lsn - 1);
  expect(await deletion()).toBe("VolumeNotHeldError");
  expect(catalog.get(parentId)?.state).toBe("active");
  await archive(parentId, lsn);
  const deleted = deletion();
  await expect.poll(() => catalog.get(parentId)?.state).toBe("settling");
  // Its archiver says that the bucket holds it.
  await catalog.change(parentId, (one) => ({ ...one, state: "deleting" }));
  await map.changePlacement(parentId, (present) => present && { ...present, replicas: [] });
  await past.forget(parentId);
  expect(await deleted).toBe("none");
  expect(catalog.get(parentId)).toBeNull();
});
