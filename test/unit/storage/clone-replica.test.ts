// A clone's replica on a storage node, on a memory file store: its bytes are its parent's until it has its own, whether the bucket answers or
// not, and it is never an empty disk.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { ReplicaSet } from "../../../services/storage/engine/replica-set.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { MemoryArchive } from "./fill-world.ts";
import { PlayedLog } from "./played-log.ts";

const sizeBytes = 1024 * 1024;
const volumeId = "c10c10c10c10c10c";
const origin = { volumeId: "00112233aabbccdd", lsn: 3 };
/** One that was undeleted begins as its own point. */
const ownOrigin = { volumeId, lsn: 3 };
let store: FileStore;
let notes: string[];
let bus: MemoryMessageBus;
let catalog: MemoryVolumeCatalog;
let log: PlayedLog;
let closers: (() => Promise<void>)[];

beforeEach(async () => {
  store = new MemoryFileStore();
  await store.makeDirectory("/pool/volumes");
  bus = new MemoryMessageBus();
  log = new PlayedLog(sizeBytes);
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  await catalog.put({
    id: volumeId,
    name: "c",
    sizeBytes,
    durability: "write",
    createdAtMs: 0,
    state: "active",
  });
  closers = [];
  notes = [];
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** The node of that placement, reconciled. */
async function node(archived: ArchivedImages | null, begins = origin): Promise<ReplicaSet> {
  const clock = new FastClock();
  const replicas = new RawReplicas({ store, clock, dataDirectory: "/pool" });
  await replicas.start();
  const places = [{ node: "shelf", pool: "main" }];
  const set = new ReplicaSet({
    node: "shelf",
    host: "shelf",
    pools: [{ name: "main", dataDirectory: "/pool", replicas, roomBytes: () => 2 ** 30 }],
    store,
    clock,
    random: new SteppedRandom(7),
    catalog,
    map: {
      placementOf: () => ({ volumeId, beginBytes: sizeBytes, replicas: places, origin: begins }),
      changePlacement: async () => undefined,
    },
    bus,
    logOf: () => log,
    archived,
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

async function ask(
  message: ReplicaMessage,
): Promise<ReplicaMessage & { readonly fill?: number | undefined }> {
  const data = await bus.request(replicaReadSubject(volumeId, "shelf"), encodeMessage(message), 5000);
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) throw new Error(decoded.detail);
  const { payload } = decoded;
  return payload.length === 0 ? decoded.message : { ...decoded.message, fill: payload[0] };
}

const read = (leastLsn: number, offset = 0): ReplicaMessage => ({
  type: "read",
  offset,
  length: 4096,
  leastLsn,
  waitMs: 20_000,
});

describe("a clone's replica", () => {
  /** The parent's disk at LSN 3: 7 at 0, 8 at 8192. */
  async function parentAt3(): Promise<MemoryArchive> {
    const parent = new PlayedLog(sizeBytes);
    parent.write(0, 7);
    parent.write(8192, 8);
    return MemoryArchive.at(parent.batches, 3, sizeBytes);
  }
  const fills = async (leastLsn: number): Promise<unknown> => {
    const found: unknown[] = [];
    for (const offset of [0, 4096, 8192, 12_288]) {
      const answer = await ask(read(leastLsn, offset));
      found.push(answer.fill ?? ("tag" in answer ? answer.tag : null));
    }
    return found;
  };

  test("is written to while the bucket is away, read from it before it is whole, also after a restart, and whole in the end", async () => {
    const archive = await parentAt3();
    let isAway = true;
    archive.point = async () => {
      if (isAway) throw new VarveError("BucketAway", "Retry", "the bucket does not answer");
      return archive.open();
    };
    const first = await node(archive);
    log.write(4096, 9);
    const report = () => first.reports()[0];
    await expect.poll(report).toMatchObject({ condition: "following", appliedLsn: 2, remoteExtents: 1 });
    await expect
      .poll(() => report()?.reason)
      .toBe("0 of 1 extents are here, the others are read from the bucket");
    expect(await ask(read(2, 4096))).toMatchObject({ fill: 9 });
    expect(await ask({ type: "grant" })).toMatchObject({ tag: "ReadsNotGranted" });
    const base = { type: "extent", offset: 0, length: 4096, leastLsn: 2, waitMs: 0 } as const;
    expect(await ask(base)).toMatchObject({ tag: "ExtentNotLocal" });
    await first.close();
    isAway = false;
    // The filler gets nothing yet: what is read now comes from the bucket.
    const { promise, resolve: letFill } = Promise.withResolvers<void>();
    archive.beforeRead = () => promise;
    const second = await node(archive);
    log.write(12_288, 6);
    const reading = fills(3);
    await expect.poll(() => archive.reads).toBeGreaterThan(0);
    expect(second.reports()[0]).toMatchObject({ remoteExtents: 1 });
    letFill();
    expect(await reading).toEqual([7, 9, 8, 6]);
    await expect.poll(() => second.reports()[0]?.remoteExtents).toBeUndefined();
    expect(second.reports()[0]).toMatchObject({ condition: "following", reason: "" });
    await expect.poll(async () => ask({ type: "grant" })).toMatchObject({ type: "granted" });
    const { reads } = archive;
    expect(await fills(3)).toEqual([7, 9, 8, 6]);
    expect(archive.reads).toBe(reads);

    // Filled again while its own archive has nothing: its log goes on behind the parent's point.
    archive.found = null;
    const repair = encodeMessage({ type: "repair", from: "bucket" });
    await bus.request(replicaCopySubject(volumeId, "shelf"), repair, 1000);
    await expect.poll(async () => fills(3)).toEqual([7, 9, 8, 6]);
    expect(archive.reads).toBeGreaterThan(reads);
    expect(log.begun.at(-1)).toMatchObject({ line: "", appliedLsn: 0 });
  });

  test("of a volume that was undeleted begins as its own point, once its log is there, and goes on with that behind the point", async () => {
    const archive = await parentAt3();
    log = new PlayedLog(sizeBytes, 3);
    const first = await node(archive, ownOrigin);
    expect(first.reports()[0]).toMatchObject({ condition: "filling", appliedLsn: 0 });
    log.write(4096, 9);
    await expect.poll(() => first.reports()[0]).toMatchObject({ condition: "following", appliedLsn: 5 });
    expect(log.begun[0]).toMatchObject({
      appliedLsn: 3,
      checksum: 0n,
      line: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(await fills(5)).toEqual([7, 9, 8, 0]);
    await first.close();
    const second = await node(archive, ownOrigin);
    log.write(12_288, 6);
    expect(await fills(6)).toEqual([7, 9, 8, 6]);
    await expect.poll(() => second.reports()[0]?.remoteExtents).toBeUndefined();
  });

  test("is kept while a deleted volume settles", async () => {
    const set = await node(await parentAt3());
    log.write(4096, 9);
    await expect.poll(() => set.reports()[0]).toMatchObject({ appliedLsn: 2 });
    await catalog.change(volumeId, (one) => ({ ...one, state: "settling" }));
    await set.reconcile();
    log.write(4096, 10);
    await expect.poll(() => set.reports()[0]).toMatchObject({ appliedLsn: 3 });
  });

  test("is filled only from where somebody chose, also after a restart, until that is done", async () => {
    const archive = await parentAt3();
    const first = await node(archive);
    log.write(4096, 9);
    await expect.poll(async () => fills(2)).toEqual([7, 9, 8, 0]);
    const repair = async (from: "peers" | "bucket"): Promise<void> => {
      const order = encodeMessage({ type: "repair", from });
      await bus.request(replicaCopySubject(volumeId, "shelf"), order, 1000);
    };
    await repair("peers");
    // There are none.
    await expect.poll(() => first.reports()[0]?.reason).toContain("nothing can fill the replica");
    await first.close();
    const { reads } = archive;
    const second = await node(archive);
    await expect.poll(() => second.reports()[0]?.reason).toContain("nothing can fill the replica");
    expect(archive.reads).toBe(reads);
    archive.found = null;
    await repair("bucket");
    await expect.poll(async () => fills(2)).toEqual([7, 9, 8, 0]);
    await expect.poll(async () => store.facts("/pool/volumes/c/disk.raw.fill-from")).toBeNull();
  });

  test("is filled from where somebody chose, whichever change of a file's name is the last one before a kill", async () => {
    const archive = await parentAt3();
    // Its own archive has nothing.
    archive.found = null;
    const changes = new Set(["open", "replaceWhole", "rename", "remove", "syncDirectory"]);
    const often = { interval: 2, timeout: 5000 };
    let wasOrdered = 0;
    log.write(4096, 9);
    for (let kill = 1; ; kill += 1) {
      const disk = new SimulatedDisk({ random: new SteppedRandom(kill), schedule: setImmediate });
      store = disk.store();
      await store.makeDirectory("/pool/volumes");
      await node(archive);
      await expect.poll(async () => fills(2), often).toEqual([7, 9, 8, 0]);
      await Promise.all(closers.splice(0).map(async (close) => close()));
      let left = Number.POSITIVE_INFINITY;
      store = new Proxy(disk.store(), {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value !== "function") return value;
          return (...args: unknown[]): unknown => {
            if (changes.has(String(name)) && (left -= 1) === 0) disk.kill();
            return value.apply(target, args);
          };
        },
      });
      await node(archive);
      const dead = closers.splice(0);
      await expect.poll(async () => fills(2), often).toEqual([7, 9, 8, 0]);
      left = kill;
      notes = [];
      const order = encodeMessage({ type: "repair", from: "bucket" });
      let isPromised = false;
      const asking = bus.request(replicaCopySubject(volumeId, "shelf"), order, 1000).then(
        () => (isPromised = true),
        () => undefined,
      );
      await expect
        .poll(() => left <= 0 || notes.some((text) => text.endsWith("is filled")), often)
        .toBe(true);
      const isOver = left > 0;
      left = Number.POSITIVE_INFINITY;
      if (isOver) await asking;
      if (isOver) closers = dead;
      store = disk.store();
      const isDone = async (): Promise<boolean> =>
        (await store.facts("/pool/volumes/c/disk.raw.fill")) === null &&
        (await store.facts("/pool/volumes/c/disk.raw.checkpoint")) !== null;
      const isOwed = isPromised && !isOver && !(await isDone());
      wasOrdered += isOwed ? 1 : 0;
      notes = [];
      bus = new MemoryMessageBus();
      if (!isOver) await node(archive);
      if (isOwed)
        await expect.poll(() => notes.filter((text) => text.endsWith("is filled")), often).toHaveLength(1);
      if (isOwed) expect(notes.join("; "), `kill at ${kill}`).toContain("is filled from the bucket");
      if (!isOver) await expect.poll(async () => fills(2), often).toEqual([7, 9, 8, 0]);
      await Promise.all(closers.splice(0).map(async (close) => close()));
      if (isOver) break;
    }
    expect(wasOrdered).toBeGreaterThan(4);
  });

  test("is never an empty disk where the node has no bucket: it waits for others that have it", async () => {
    const set = await node(null);
    log.write(4096, 9);
    await expect.poll(() => set.reports()[0]?.reason).toContain("this node has no bucket");
    expect(set.reports()[0]).toMatchObject({ condition: "filling", remoteExtents: 1 });
    expect(await ask(read(2, 4096))).toMatchObject({ type: "refused", kind: "Retry" });
    expect(await store.facts("/pool/volumes/c/disk.raw.checkpoint")).toBeNull();
  });

  test("stays whole on a node that has no bucket, and says so to who wants something to leave it", async () => {
    const first = await node(await parentAt3());
    log.write(4096, 9);
    await expect.poll(async () => fills(2)).toEqual([7, 9, 8, 0]);
    await expect.poll(() => first.reports()[0]?.remoteExtents).toBeUndefined();
    await first.close();
    await node(null);
    await expect.poll(async () => fills(2)).toEqual([7, 9, 8, 0]);
    const evict = encodeMessage({ type: "evict", run: "now", coldAfterMs: 0 });
    const answer = decodeMessage(await bus.request(replicaCopySubject(volumeId, "shelf"), evict, 1000));
    expect(answer).toMatchObject({ message: { tag: "EvictNoBucket" } });
  });
});
