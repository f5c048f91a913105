// The api's part of a move into a cluster: one volume comes of it, whichever of its writes was the last before a crash; and who else
// wants its name, or comes with another size, changes nothing.
import { beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { Arrivals } from "../../../services/api/engine/arrivals.ts";
import { ClusterVolumes } from "../../../services/api/engine/cluster-volumes.ts";
import { FastClock } from "../../tools/fast-clock.ts";

const from = "00112233aabbccdd";
const volume = {
  name: "disk0",
  sizeBytes: 2 ** 20,
  reads: "strict",
  replicas: 1,
  from,
  place: "a:/srv",
} as const;
const pool = { name: "main", capacityBytes: 2 ** 40, freeBytes: 2 ** 39, quotaBytes: null, tags: [] };
let catalog: MemoryVolumeCatalog;
let map: KeyTableMap;
let past: KeyTablePastRecords;
/** Writes until the process "dies": nothing of what comes then is stored. */
let left = Number.MAX_SAFE_INTEGER;

/** Every method that stores counts. */
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

const parts = () => ({
  catalog: dying(catalog, ["put", "change", "remove"]),
  map: dying(map, ["changePlacement"]),
  past: dying(past, ["changeHistory"]),
  clock: new FastClock(),
  random: new SystemRandom(),
  archived: true,
});

function volumes(): ClusterVolumes {
  const common = parts();
  const leases = new KeyTableLeases({ ...common, table: new MemoryKeyTable(new MemoryKeys()) });
  return new ClusterVolumes({
    ...common,
    leases,
    bus: new MemoryMessageBus(),
    removeLog: async () => {},
    shrink: async () => {},
  });
}

function arrivals(): Arrivals {
  return new Arrivals({
    ...parts(),
    ground: () => ({ nodes: map.nodes().map(({ record }) => record), placements: [], sizeOf: () => 0 }),
  });
}

beforeEach(async () => {
  left = Number.MAX_SAFE_INTEGER;
  const table = new MemoryKeyTable(new MemoryKeys());
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  map = new KeyTableMap(table, new SystemClock());
  past = new KeyTablePastRecords(table);
  await past.ready();
  await map.putNode({ name: "a", host: "a", version: "0", pools: [pool], renewal: 1 });
});

const only = (): VolumeRecord => {
  expect(catalog.list()).toHaveLength(1);
  return catalog.list()[0] as VolumeRecord;
};

describe("an arriving volume", () => {
  for (const writes of [0, 1, 2, 3]) {
    test(`is one, with all that it needs, after a crash behind ${writes} of its writes`, async () => {
      left = writes;
      await expect(arrivals().arrive(volume)).rejects.toThrow("the process died");
      left = Number.MAX_SAFE_INTEGER;
      const { volumeId, fresh } = await arrivals().arrive(volume);
      expect(fresh).toBe(writes === 0);
      expect(await arrivals().arrive(volume)).toEqual({ volumeId, fresh: false });
      expect(only()).toMatchObject({
        id: volumeId,
        state: "arriving",
        reads: "strict",
        move: { volumeId: from },
      });
      expect(map.placementOf(volumeId)?.replicas).toEqual([{ node: "a", pool: "main" }]);
      expect(past.historyOf(volumeId)).not.toBeNull();
      left = 0;
      await expect(arrivals().arrived("disk0", volumeId)).rejects.toThrow("the process died");
      expect(only().state).toBe("arriving");
      left = Number.MAX_SAFE_INTEGER;
      await arrivals().arrived("disk0", volumeId);
      await arrivals().arrived("disk0", volumeId);
      expect(only()).toMatchObject({ id: volumeId, state: "active" });
      expect(only().move).toBeUndefined();
    });
  }

  test("is not taken for another one, nor another one for it", async () => {
    const { volumeId } = await arrivals().arrive(volume);
    const tag = (_tag: string): unknown => expect.objectContaining({ _tag });
    await expect(arrivals().arrive({ ...volume, from: "f".repeat(16) })).rejects.toEqual(
      tag("VolumeExistsError"),
    );
    await expect(arrivals().arrive({ ...volume, sizeBytes: 2 ** 21 })).rejects.toEqual(
      tag("ArrivalDiffersError"),
    );
    await expect(arrivals().arrived("disk0", "f".repeat(16))).rejects.toEqual(tag("UnknownVolumeError"));
    await arrivals().arrived("disk0", volumeId);
    await expect(arrivals().arrive(volume)).rejects.toEqual(tag("VolumeExistsError"));
    await expect(arrivals().arrive({ ...volume, name: "two", replicas: 9 })).rejects.toEqual(
      tag("ReplicaCountError"),
    );
    expect(only()).toMatchObject({ id: volumeId, state: "active" });
  });
});

describe("a volume that was begun and never ended", () => {
  const disk = { name: "disk0", sizeBytes: 2 ** 20, durability: "write" } as const;
  const begin = {
    arrive: async () => arrivals().arrive(volume),
    create: async () => volumes().create(disk),
  };

  /** What its nodes and its archiver do for one that is to go. */
  const letGo = async (): Promise<void> => {
    for (const { id, state } of catalog.list()) {
      if (state !== "deleting") continue;
      await map.changePlacement(id, (present) => (present === null ? null : { ...present, replicas: [] }));
      await past.forget(id);
    }
  };
  const expectNothing = (id: string): void => {
    expect([catalog.list(), map.placementOf(id), past.historyOf(id)]).toEqual([[], null, null]);
  };

  for (const how of ["arrive", "create"] as const) {
    test.each([1, 2, 3])(
      `is seen, refused and deleted: ${how}, killed behind %i of its writes`,
      async (writes) => {
        left = writes;
        await expect(begin[how]()).rejects.toThrow("the process died");
        left = Number.MAX_SAFE_INTEGER;
        const { id } = only();
        expect(volumes().list()).toMatchObject([{ name: "disk0", condition: "busy" }]);
        // Only what the same move began is not in its way.
        expect(volumes().show("disk0").arrivesFrom).toBe(how === "arrive" ? from : undefined);
        await expect(volumes().setReads("disk0", "strict")).rejects.toMatchObject({
          _tag: how === "arrive" ? "VolumeArrivingError" : "VolumeUnfinishedError",
          kind: "Retry",
          hint: expect.stringContaining("varve volume delete"),
        });
        await expect(volumes().create(disk)).rejects.toMatchObject({ _tag: "VolumeExistsError" });
        const deletion = volumes().delete("disk0");
        await expect.poll(() => catalog.find("disk0")?.state).not.toBe("creating");
        await letGo();
        await deletion;
        expectNothing(id);
        expect(await volumes().create(disk)).toMatchObject({ name: "disk0", condition: "closed" });
      },
    );

    test(`leaves nothing where it is deleted while it is made: ${how}`, async () => {
      const change = past.changeHistory.bind(past);
      past.changeHistory = async (id, edit) => {
        const changed = await change(id, edit);
        await catalog.change(id, (one) => ({ ...one, state: "deleting" }));
        await letGo();
        await volumes().finishDeletions();
        return changed;
      };
      await expect(begin[how]()).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
      expect([catalog.list(), map.placements()]).toEqual([[], []]);
    });
  }
});
