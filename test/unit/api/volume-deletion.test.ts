// A volume that is deleted while a gateway takes it, in each order: either the deletion is refused and the gateway serves it on, or it goes
// and no gateway serves it. By the real lease over one table, as two processes see it.
import { beforeEach, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import { ClusterVolumes } from "../../../services/api/engine/cluster-volumes.ts";
import { ClusterVolume, type ClusterVolumeSetting } from "../../../services/gateway/engine/cluster-volume.ts";
import { FastClock } from "../../tools/fast-clock.ts";

const record: VolumeRecord = {
  id: "00112233aabbccdd",
  name: "disk0",
  sizeBytes: 2 ** 20,
  durability: "write",
  createdAtMs: 0,
  state: "active",
};
const clock = new SystemClock();
/** A second of its waits lasts a millisecond. */
class HastyClock extends FastClock {
  override monotonicMs(): number {
    return super.monotonicMs() * 1000;
  }
}
const opened = { name: "disk0" } as BlockExport;
let keys: { readonly catalog: MemoryKeys; readonly leases: MemoryKeys };
let catalog: KeyTableCatalog;
let volumes: ClusterVolumes;
let past: KeyTablePastRecords;

const leasesOf = (leaseMs = 400): KeyTableLeases =>
  new KeyTableLeases({
    table: new MemoryKeyTable(keys.leases),
    clock,
    random: new SystemRandom(),
    leaseMs,
  });

/** A gateway whose catalogue is as old as its start. */
async function gateway(): Promise<ClusterVolume> {
  const ownCatalog = new KeyTableCatalog(new MemoryKeyTable(keys.catalog));
  await ownCatalog.load();
  const session = { openExport: () => opened, attachedClients: 0, close: async () => undefined };
  const setting = {
    gateway: "gate",
    address: "g:1",
    clock,
    leases: leasesOf(),
    catalog: ownCatalog,
    openSession: async () => session,
    isStrict: () => false,
    disconnect: () => undefined,
    onNote: () => undefined,
  } as unknown as ClusterVolumeSetting;
  return new ClusterVolume(record, setting, () => undefined);
}

beforeEach(async () => {
  keys = { catalog: new MemoryKeys(), leases: new MemoryKeys() };
  const table = new MemoryKeyTable(keys.catalog);
  catalog = new KeyTableCatalog(table);
  await catalog.load();
  await catalog.put(record);
  past = new KeyTablePastRecords(table);
  await past.ready();
  volumes = new ClusterVolumes({
    catalog,
    map: new KeyTableMap(table, clock),
    past,
    clock: new HastyClock(),
    random: new SystemRandom(),
    archived: true,
    leases: leasesOf(),
    bus: new MemoryMessageBus(),
    removeLog: async () => undefined,
    shrink: async () => undefined,
  });
});

test("a gateway that has it keeps it, and nothing is changed", async () => {
  const gate = await gateway();
  expect(await gate.open()).toBe(opened);
  await expect(volumes.delete("disk0")).rejects.toMatchObject({
    _tag: "VolumeAttachedError",
    kind: "Retry",
    hint: expect.stringContaining("g:1"),
  });
  expect(catalog.find("disk0")?.state).toBe("active");
  await gate.close();
  await volumes.delete("disk0");
  expect(catalog.list()).toEqual([]);
});

test("a new size that a pool's file system does not take is refused before anything is asked", async () => {
  const map = new KeyTableMap(new MemoryKeyTable(keys.catalog), clock);
  const pool = { name: "main", capacityBytes: 2 ** 50, freeBytes: 2 ** 49, quotaBytes: null, tags: [] };
  await map.putNode({ name: "one", host: "one", version: "0", pools: [pool], renewal: 1 });
  await map.putFileLimits({ node: "one", pools: [{ name: "main", fileBytesMax: 2 ** 44 - 4096 }] });
  const placement = { volumeId: record.id, beginBytes: 2 ** 20, replicas: [{ node: "one", pool: "main" }] };
  await map.changePlacement(record.id, () => placement);
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  await expect(volumes.resize("disk0", 2 ** 44)).rejects.toMatchObject({
    _tag: "VolumeTooLargeForPool",
    kind: "Full",
    message: expect.stringContaining("one/main holds no file larger than"),
  });
  await expect(volumes.resize("disk0", 2 ** 44 - 4096)).rejects.not.toMatchObject({ kind: "Full" });
  const large = { name: "large", sizeBytes: 2 ** 44, durability: "write" } as const;
  await expect(volumes.create(large)).rejects.toThrow("one/main holds no file larger than");
});

test("a gateway that wants it while the deletion is written does not get it", async () => {
  const gate = await gateway();
  const change = catalog.change.bind(catalog);
  const tried: Promise<unknown>[] = [];
  catalog.change = async (id, edit) => {
    tried.push(gate.open().catch((cause: unknown) => cause));
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
    await change(id, edit);
  };
  await volumes.delete("disk0");
  expect(catalog.list()).toEqual([]);
  expect(await tried[0]).toMatchObject({ _tag: expect.stringMatching(/UnknownVolumeError|ServedElsewhere/) });
});

test("a gateway that has not heard of the deletion does not serve it, and lets the lease go", async () => {
  const gate = await gateway();
  await volumes.delete("disk0");
  await expect(gate.open()).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
  const leases = leasesOf();
  await leases.ready();
  expect(leases.view(`volume.${record.id}`)?.state).toBe("released");
});

test("a gateway that died is waited for until its lease has run out", async () => {
  const dead = leasesOf(200);
  await dead.take(`volume.${record.id}`, { holder: "gate", address: "g:1" });
  dead.close();
  await volumes.delete("disk0");
  expect(catalog.list()).toEqual([]);
});

const archived = (state: "running" | "stopped") =>
  ({
    archiver: "keeper",
    archiverEpoch: 1,
    line: "a".repeat(16),
    archivedLsn: 1,
    heldLsn: 1,
    lastBaseLsn: 0,
    state,
    error: "",
  }) as const;

test("one with a history settles: it is listed as deleted, and nobody else gets its name, until its archiver says that the bucket holds it", async () => {
  await past.changeHistory(record.id, () => newHistoryRecord(record.id, record.sizeBytes));
  await past.putArchive(record.id, archived("running"));
  await volumes.delete("disk0");
  expect(volumes.list()).toMatchObject([{ name: "disk0", condition: "deleting", failure: null }]);
  expect(volumes.show("disk0")).toMatchObject({ condition: "deleting" });
  const refusal = {
    _tag: "VolumeSettlingError",
    kind: "Retry",
    hint: expect.stringContaining("varve volume undelete disk0"),
  };
  const same = { name: "disk0", sizeBytes: 4096, durability: "write" } as const;
  for (const refused of [
    volumes.create(same),
    volumes.setReads("disk0", "strict"),
    volumes.delete("disk0"),
  ]) {
    await expect(refused).rejects.toMatchObject(refusal);
  }
  const gate = await gateway();
  await expect(gate.open()).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
  await catalog.change(record.id, (one) => ({ ...one, state: "deleting" }));
  await past.forget(record.id);
  await volumes.finishDeletions();
  expect(catalog.list()).toEqual([]);
});

test("one that settles without an archive that could go on is gone when it is deleted once more", async () => {
  await past.changeHistory(record.id, () => newHistoryRecord(record.id, record.sizeBytes));
  await volumes.delete("disk0");
  await past.putArchive(record.id, archived("stopped"));
  await volumes.delete("disk0");
  expect([catalog.list(), past.historyOf(record.id)]).toEqual([[], null]);
});

test("one whose history is gone while it settles goes", async () => {
  await past.changeHistory(record.id, () => newHistoryRecord(record.id, record.sizeBytes));
  await volumes.delete("disk0");
  await past.forget(record.id);
  await volumes.finishDeletions();
  await volumes.finishDeletions();
  expect(catalog.list()).toEqual([]);
});
