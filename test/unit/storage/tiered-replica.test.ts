// A tiered volume's replica on a storage node, on a memory file store with real history records: nothing leaves its file before the bucket
// keeps what it would be read from, nobody reads the file beside the node, and what left is there again when somebody wants it.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord, replicaPinHolder } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeReadGrant } from "#shared/formats/read-grant.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import { ReplicaSet } from "../../../services/storage/engine/replica-set.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { line } from "../replica/batch-maker.ts";
import { MemoryArchive, volumeId } from "./fill-world.ts";
import { PlayedLog } from "./played-log.ts";

const { extentBytes } = limits;
const sizeBytes = 2 * extentBytes;
const image = "/pool/volumes/t/disk.raw";
let store: MemoryFileStore;
let bus: MemoryMessageBus;
let catalog: MemoryVolumeCatalog;
let log: PlayedLog;
let past: KeyTablePastRecords;
let archive: MemoryArchive;
/** Whether an archiver puts pins into manifests. */
let isPublished: boolean;
let notes: string[];
let closers: (() => Promise<void>)[];

beforeEach(async () => {
  store = new MemoryFileStore();
  await store.makeDirectory("/pool/volumes");
  bus = new MemoryMessageBus();
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  await catalog.put({
    id: volumeId,
    name: "t",
    sizeBytes,
    durability: "write",
    createdAtMs: 0,
    state: "active",
  });
  past = new KeyTablePastRecords(new MemoryKeyTable());
  await past.ready();
  log = new PlayedLog(sizeBytes);
  log.write(0, 7);
  log.write(extentBytes, 8);
  archive = await MemoryArchive.at(log.batches, 3, sizeBytes);
  isPublished = true;
  archive.newest = async () => {
    const pins = isPublished ? (past.historyOf(volumeId)?.pins ?? []) : [];
    return archive.found === null ? null : { ...archive.found, pins };
  };
  notes = [];
  closers = [];
  await setResidency("tiered");
  await past.putArchive(volumeId, {
    ...({ archiver: "keeper", archiverEpoch: 1, line, archivedLsn: 3, heldLsn: 3, lastBaseLsn: 3 } as const),
    ...({ state: "running", error: "", heldBase: { s: 3, e: 3 } } as const),
  });
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  past.close();
});

/** A minute in a third of a second. */
class HastyClock extends SystemClock {
  override monotonicMs(): number {
    return 200 * super.monotonicMs();
  }

  override after(delayMs: number, task: () => void): Timer {
    return super.after(delayMs / 200, task);
  }
}

async function setResidency(residency: "full" | "tiered"): Promise<void> {
  await past.changeHistory(volumeId, (present) => ({
    ...(present ?? newHistoryRecord(volumeId, sizeBytes)),
    residency,
  }));
}

async function node(clock: Clock = new HastyClock()): Promise<ReplicaSet> {
  const replicas = new RawReplicas({ store, clock, dataDirectory: "/pool" });
  await replicas.start();
  const places = [{ node: "shelf", pool: "main" }];
  const set = new ReplicaSet({
    ...({
      node: "shelf",
      host: "shelf",
      store,
      clock,
      random: new SteppedRandom(7),
      catalog,
      bus,
      past,
    } as const),
    pools: [{ name: "main", dataDirectory: "/pool", replicas, roomBytes: () => 2 ** 30 }],
    map: {
      placementOf: () => ({ volumeId, beginBytes: sizeBytes, replicas: places }),
      changePlacement: async () => undefined,
    },
    logOf: () => log,
    archived: archive,
    only: null,
    fillBytesPerSecond: null,
    onNote: (text) => notes.push(text),
  });
  closers.push(async () => {
    await set.close();
    await replicas.close();
  });
  await set.reconcile();
  return set;
}

async function ask(subject: string, message: ReplicaMessage): Promise<ReplicaMessage & { fill?: number }> {
  const decoded = decodeMessage(await bus.request(subject, encodeMessage(message), 5000));
  if (isBadMessage(decoded)) throw new Error(decoded.detail);
  const [fill] = decoded.payload;
  return fill === undefined ? decoded.message : { ...decoded.message, fill };
}
const copies = (message: ReplicaMessage) => ask(replicaCopySubject(volumeId, "shelf"), message);
const reads = (message: ReplicaMessage) => ask(replicaReadSubject(volumeId, "shelf"), message);
const read = (offset: number, leastLsn = 3) =>
  reads({ type: "read", offset, length: 4096, leastLsn, waitMs: 20_000 });
const evict = (run: string) => copies({ type: "evict", run, coldAfterMs: 0 });
const pins = () => past.historyOf(volumeId)?.pins ?? [];
const pin = { lsn: 3, holder: replicaPinHolder("shelf") };

/** Both extents are in the bucket only. */
async function evicted(set: ReplicaSet, run = "all"): Promise<void> {
  await expect.poll(() => set.reports()[0]?.condition).toBe("following");
  await expect.poll(async () => evict(run)).toMatchObject({ type: "evicted", isDone: true, extents: 2 });
}

describe("a tiered replica", () => {
  test("gives nothing back before a manifest keeps what it is read from, and grants nobody reads of its file", async () => {
    await setResidency("full");
    const set = await node();
    await expect.poll(async () => reads({ type: "grant" })).toMatchObject({ type: "granted" });
    const note = async () => decodeReadGrant((await store.readWhole(`${image}.grant`)) as Buffer);
    expect(await note()).toMatchObject({ token: expect.stringMatching(/^[0-9a-f]{32}$/) });
    expect(await evict("full")).toMatchObject({ tag: "ReplicaNotTiered" });
    isPublished = false;
    await setResidency("tiered");
    expect(await reads({ type: "grant" })).toMatchObject({ tag: "ReadsNotGranted" });
    await expect.poll(async () => evict("early")).toMatchObject({ tag: "PinNotPublished" });
    // Its pin may be published any moment: the extents are where they were.
    expect(pins()).toEqual([pin]);
    expect(set.reports()[0]).not.toHaveProperty("remoteExtents");
    isPublished = true;
    // A policy that comes while the file is being written for the last time stops nothing: who reads it beside the node would read holes.
    const { promise, resolve: goOn } = Promise.withResolvers<void>();
    const replaceWhole = store.replaceWhole.bind(store);
    let isHeldUp = false;
    store.replaceWhole = async (path, bytes) => {
      if (path.endsWith(".checkpoint")) {
        isHeldUp = true;
        await promise;
      }
      return replaceWhole(path, bytes);
    };
    await evict("all");
    await expect.poll(() => isHeldUp).toBe(true);
    await setResidency("full");
    expect(await reads({ type: "grant" })).toMatchObject({ tag: "ReadsNotGranted" });
    await setResidency("tiered");
    goOn();
    await evicted(set);
    expect(await note()).toMatchObject({ token: null });
    expect(set.reports()[0]).toMatchObject({ remoteExtents: 2, allocatedBytes: 0 });
    expect(await store.facts(image)).toBeNull();
    expect(await copies({ type: "hash", offset: 0, extents: 2 })).toMatchObject({ type: "hashes", fill: 0 });
  });

  test("is written to and read where it is local while the bucket is away, and waits for it elsewhere", async () => {
    const set = await node(new FastClock());
    const record = past.archiveOf(volumeId) as ArchiveRecord;
    const { heldBase: _none, ...withoutBase } = record;
    await past.putArchive(volumeId, withoutBase);
    await expect.poll(async () => evict("early")).toMatchObject({ tag: "NoHeldBase" });
    await past.putArchive(volumeId, record);
    await evicted(set);
    archive.beforeRead = () => {
      throw new VarveError("BucketAway", "Retry", "the bucket does not answer");
    };
    log.write(8192, 9);
    expect(await read(8192, 4)).toMatchObject({ fill: 9 });
    const waiting = read(0);
    log.write(12_288, 6);
    expect(await read(12_288, 5)).toMatchObject({ fill: 6 });
    archive.beforeRead = () => undefined;
    expect(await waiting).toMatchObject({ fill: 7 });
    // For a base the rest of an extent is fetched that somebody wrote a part of.
    const base = { type: "extent", offset: extentBytes, length: 4096, leastLsn: 5, waitMs: 0 } as const;
    expect(await reads(base)).toMatchObject({ type: "extentBytes", fill: 8 });
  });

  test("knows after a restart what left, keeps its pin, and lets it go when everything is back", async () => {
    await evicted(await node());
    await closers.pop()?.();
    const set = await node();
    expect(set.reports()[0]).toMatchObject({ remoteExtents: 2 });
    expect(await read(extentBytes)).toMatchObject({ fill: 8 });
    expect(pins()).toEqual([pin]);
    expect(await copies({ type: "fill" })).toMatchObject({ type: "state" });
    await expect.poll(() => set.reports()[0]?.remoteExtents).toBeUndefined();
    await setResidency("full");
    await expect.poll(pins).toEqual([]);
    expect(await read(0)).toMatchObject({ fill: 7 });
    await expect.poll(async () => reads({ type: "grant" })).toMatchObject({ type: "granted" });
  });

  test("goes back while nothing of it is in its file: all of it is the point's, which is pinned in place of the base's", async () => {
    archive.point = async (_id, lsn = 0) => (await MemoryArchive.at(log.batches, lsn, sizeBytes)).open();
    await evicted(await node());
    expect(pins()).toEqual([pin]);
    log.rebase(2);
    log.write(8192, 9);
    await expect.poll(pins).toEqual([{ ...pin, lsn: 2 }]);
    await closers.pop()?.();
    const set = await node();
    expect(set.reports()[0]).toMatchObject({ remoteExtents: 2 });
    expect(await read(extentBytes, 5)).toMatchObject({ fill: 0 });
    expect(await read(0, 5)).toMatchObject({ fill: 7 });
    expect(await read(8192, 5)).toMatchObject({ fill: 9 });
    // What it went back behind is no base of what it is now: nothing leaves to it.
    expect(await copies({ type: "fill" })).toMatchObject({ type: "state" });
    await expect.poll(() => set.reports()[0]?.remoteExtents).toBeUndefined();
    await expect.poll(async () => evict("again")).toMatchObject({ isDone: true, extents: 0 });
    expect(await read(0, 5)).toMatchObject({ fill: 7 });
  });

  test("is filled again where what it reads from is gone", async () => {
    await evicted(await node());
    await closers.pop()?.();
    await past.changeHistory(volumeId, (present) => (present === null ? null : { ...present, pins: [] }));
    archive.point = async () => {
      throw new VarveError("PointGoneError", "Invalid", "it left history");
    };
    const set = await node();
    await expect.poll(() => notes.join("\n")).toContain("it is filled again: it left history");
    await expect.poll(() => set.reports()[0]).toMatchObject({ condition: "following", reason: "" });
    expect(set.reports()[0]).not.toHaveProperty("remoteExtents");
    expect(await read(0)).toMatchObject({ fill: 7 });
  });
});
