// Scrub of storage nodes' replicas, two nodes on one bus with real images and a bucket in memory: bytes that change behind a node are found at
// their place and put right from the bucket, or from the other node by their checksum; nothing newer is overwritten, nothing is taken over that
// another replica speaks against, and what can't be scrubbed says why.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { ReplicaScrubReport } from "#shared/ports/bucket-administration.ts";
import { runScrub } from "../../../services/archiver/scrub-layer.ts";
import { ReplicaSet } from "../../../services/storage/engine/replica-set.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { MemoryArchive, volumeId } from "./fill-world.ts";
import { PlayedLog } from "./played-log.ts";

const { extentBytes } = limits;
const sizeBytes = 2 * extentBytes + 8192;
const image = "/pool/volumes/t/disk.raw";
let bus: MemoryMessageBus;
let catalog: MemoryVolumeCatalog;
let log: PlayedLog;
let past: KeyTablePastRecords;
let stores: Record<string, MemoryFileStore>;
let sets: Record<string, ReplicaSet>;
let closers: (() => Promise<void>)[];
/** Of the bucket; false: no archiver publishes what is pinned. */
let isPublished: boolean;
let runs: number;

beforeEach(async () => {
  bus = new MemoryMessageBus();
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  await catalog.put({
    ...({
      id: volumeId,
      name: "t",
      sizeBytes,
      durability: "write",
      createdAtMs: 0,
      state: "active",
    } as const),
  });
  past = new KeyTablePastRecords(new MemoryKeyTable());
  await past.ready();
  await past.changeHistory(volumeId, () => newHistoryRecord(volumeId, sizeBytes));
  log = new PlayedLog(sizeBytes);
  log.write(4096, 7);
  log.write(extentBytes, 8);
  log.write(2 * extentBytes, 9);
  [stores, sets, closers, isPublished, runs] = [{}, {}, [], true, 0];
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  past.close();
});

/** The bucket of one node: it has whatever is pinned, as soon as it is asked. */
async function bucket(): Promise<MemoryArchive> {
  const archive = await MemoryArchive.at(log.batches, 1, sizeBytes);
  archive.newest = async () => {
    const pins = isPublished ? (past.historyOf(volumeId)?.pins ?? []) : [];
    return archive.found === null ? null : { ...archive.found, lsn: 2 ** 40, pins };
  };
  archive.point = async () => {
    const lsn = Math.max(...(past.historyOf(volumeId)?.pins ?? []).map((pin) => pin.lsn));
    return (await MemoryArchive.at(log.batches, lsn, sizeBytes)).open();
  };
  return archive;
}

async function node(name: string, archived: MemoryArchive | null): Promise<ReplicaSet> {
  const store = (stores[name] ??= new MemoryFileStore());
  await store.makeDirectory("/pool/volumes");
  const clock = new FastClock();
  const replicas = new RawReplicas({ store, clock, dataDirectory: "/pool" });
  await replicas.start();
  const places = ["shelf", "attic"].map((one) => ({ node: one, pool: "main" }));
  const set = new ReplicaSet({
    node: name,
    host: name,
    store,
    clock,
    random: new SteppedRandom(7),
    catalog,
    bus,
    past,
    archived,
    pools: [
      {
        name: "main",
        dataDirectory: "/pool",
        replicas,
        roomBytes: () => 2 ** 30,
      },
    ],
    map: {
      placementOf: () => ({
        volumeId,
        beginBytes: sizeBytes,
        replicas: places,
      }),
      changePlacement: async () => undefined,
    },
    logOf: () => log,
    only: null,
    fillBytesPerSecond: null,
    onNote: () => undefined,
    scrub: runScrub,
  });
  sets[name] = set;
  closers.push(async () => {
    await set.close();
    await replicas.close();
  });
  await set.reconcile();
  await expect.poll(() => set.reports()[0]?.condition).toBe("following");
  return set;
}

async function damage(name: string, offset: number, length = 1, value = 0xee): Promise<void> {
  const store = stores[name] as MemoryFileStore;
  const file = await store.open(image, { access: "buffered" });
  const slab = store.allocateSlab(4096);
  slab.bytes.fill(value);
  await file.write([{ slab, start: 0, length }], offset);
  await file.close();
}

async function byteAt(name: string, offset: number): Promise<number | undefined> {
  return (await (stores[name] as MemoryFileStore).readWhole(image))?.[offset];
}

async function ask(name: string, message: ReplicaMessage) {
  const decoded = decodeMessage(
    await bus.request(replicaCopySubject(volumeId, name), encodeMessage(message), 5000),
  );
  if (isBadMessage(decoded)) throw new Error(decoded.detail);
  return decoded;
}

async function scrub(name: string, isRepair = false, range = { first: 0, count: 0 }) {
  runs += 1;
  const request = { type: "scrub", run: `run${runs}`, isRepair, bytesPerSecond: 2 ** 40, ...range } as const;
  for (;;) {
    const { message, payload } = await ask(name, request);
    if (message.type !== "scrubbed") return message;
    if (message.isDone) return JSON.parse(payload.toString("utf8")) as ReplicaScrubReport;
    await new Promise((resolve) => {
      setTimeout(resolve, 5);
    });
  }
}

async function sumOf(name: string, extent: number): Promise<string> {
  const { payload } = await ask(name, { type: "hash", offset: extent * extentBytes, extents: 1 });
  return payload.readBigUInt64LE(0).toString(16).padStart(16, "0");
}

describe("a replica whose node has the bucket", () => {
  test("is right when nobody changed it; changed bytes are found at their place and put right, the other replica is untouched", async () => {
    const shelf = await node("shelf", await bucket());
    await node("attic", null);
    expect(await scrub("shelf")).toMatchObject({ extents: 3, compared: 3, remote: 0, busy: 0, damaged: [] });
    await damage("shelf", 4100, 50);
    await damage("shelf", extentBytes + 70_000);
    const other = await (stores["attic"] as MemoryFileStore).readWhole(image);
    const found = [
      { extent: 0, firstOffset: 4100, repaired: false },
      { extent: 1, firstOffset: extentBytes + 70_000, repaired: false },
    ];
    expect(await scrub("shelf")).toMatchObject({ damaged: found });
    expect(await byteAt("shelf", 4100)).toBe(0xee);
    expect(await scrub("shelf", false, { first: 1, count: 1 })).toMatchObject({
      compared: 1,
      damaged: [found[1]],
      rightSum: await sumOf("attic", 1),
    });
    expect(await scrub("shelf", true)).toMatchObject({
      damaged: found.map((one) => ({ ...one, repaired: true })),
    });
    expect([await byteAt("shelf", 4100), await byteAt("shelf", extentBytes + 70_000)]).toEqual([7, 0]);
    expect((await (stores["attic"] as MemoryFileStore).readWhole(image))?.equals(other as Buffer)).toBe(true);
    expect(await scrub("shelf")).toMatchObject({ compared: 3, damaged: [] });
    // It is on the disk: whoever opens it again finds nothing.
    await shelf.close();
    await node("shelf", await bucket());
    expect(await scrub("shelf")).toMatchObject({ compared: 3, damaged: [] });
  });

  test("is not made like the bucket where another replica has the same bytes", async () => {
    await node("shelf", await bucket());
    await node("attic", null);
    await damage("shelf", 4100);
    await damage("attic", 4100);
    expect(await scrub("shelf", true)).toMatchObject({
      damaged: [{ extent: 0, repaired: false, why: expect.stringContaining("attic has the same bytes") }],
    });
    expect(await byteAt("shelf", 4100)).toBe(0xee);
  });

  test("an extent that is written to is looked at behind a newer point, one that never stands still is busy", async () => {
    await node("shelf", await bucket());
    const scrubbing = scrub("shelf", true);
    log.write(4096, 33);
    expect(await scrubbing).toMatchObject({ compared: 3, busy: 0, damaged: [] });
    const archive = await bucket();
    const { point } = archive;
    let value = 34;
    archive.point = async () => {
      const source = await point();
      log.write(4096, (value += 1), 512);
      await expect.poll(() => sets["attic"]?.reports()[0]?.appliedLsn).toBe((await log.end())?.lastLsn);
      return source;
    };
    await node("attic", archive);
    await damage("attic", extentBytes + 5);
    expect(await scrub("attic", true)).toMatchObject({
      compared: 2,
      busy: 1,
      busyExtents: [0],
      damaged: [{ extent: 1, firstOffset: extentBytes + 5, repaired: true }],
    });
  });

  test("what keeps it from being scrubbed is said: no bucket, no archiver, a bucket that is away, a replica that halted", async () => {
    const archive = await bucket();
    await node("shelf", archive);
    await node("attic", null);
    expect(await scrub("attic")).toMatchObject({ type: "refused", tag: "ScrubNoBucket" });
    archive.point = async () => Promise.reject(new VarveError("BucketAway", "Retry", "it is away"));
    expect(await scrub("shelf")).toMatchObject({ type: "refused", tag: "BucketAway" });
    log.failure = new VarveError("LogBroken", "Corrupt", "it is broken");
    log.write(0, 1);
    await expect.poll(() => sets["shelf"]?.reports()[0]?.condition).toBe("halted");
    expect(await scrub("shelf")).toMatchObject({ type: "refused", tag: "ReplicaHalted" });
  });

  test("a run that is under way is the only one, and ends where nobody asks about it any more", async () => {
    const archive = await bucket();
    await node("shelf", archive);
    const slow = { type: "scrub", isRepair: false, bytesPerSecond: 1, first: 0, count: 0 } as const;
    expect((await ask("shelf", { ...slow, run: "a" })).message).toMatchObject({
      isDone: false,
      totalBytes: sizeBytes,
    });
    expect((await ask("shelf", { ...slow, run: "b" })).message).toMatchObject({ tag: "AlreadyRunningError" });
    await sets["shelf"]?.close();
    expect(await byteAt("shelf", 4096)).toBe(7);
  });
});

describe("an extent that is mended from another replica", () => {
  test("gets the bytes of that checksum, also where its node has no bucket", async () => {
    await node("shelf", null);
    await node("attic", null);
    const lsn = (await log.end())?.lastLsn ?? 0;
    const sum = await sumOf("attic", 2);
    await damage("shelf", 2 * extentBytes + 5000, 100);
    expect(await sumOf("shelf", 2)).not.toBe(sum);
    const mend = { type: "mend", extent: 2, lsn, sum, peer: "attic" } as const;
    expect((await ask("shelf", mend)).message).toEqual({ type: "mended", isMended: true });
    expect(await sumOf("shelf", 2)).toBe(sum);
    expect(await byteAt("shelf", 2 * extentBytes + 5000)).toBe(0);
  });

  test("stays as it is where the peer has other bytes, where an entry touched it since, and where the peer is away", async () => {
    await node("shelf", null);
    const attic = await node("attic", null);
    const lsn = (await log.end())?.lastLsn ?? 0;
    const sum = await sumOf("attic", 0);
    await damage("shelf", 100);
    await damage("attic", 200);
    const mend = { type: "mend", extent: 0, lsn, sum, peer: "attic" } as const;
    expect((await ask("shelf", mend)).message).toMatchObject({ isMended: false });
    expect(await byteAt("shelf", 100)).toBe(0xee);
    await damage("attic", 200, 1, 0);
    log.write(50_000, 5);
    await expect.poll(() => sets["shelf"]?.reports()[0]?.appliedLsn).toBe(lsn + 1);
    expect((await ask("shelf", mend)).message).toMatchObject({ isMended: false });
    expect([await byteAt("shelf", 100), await byteAt("shelf", 50_000)]).toEqual([0xee, 5]);
    await attic.close();
    const present = { ...mend, lsn: lsn + 1 };
    expect((await ask("shelf", present)).message).toMatchObject({ type: "refused", kind: "Retry" });
  });
});
