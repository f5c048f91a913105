// A storage node's replicas on a memory file store, with logs that the test makes: they follow, answer reads as new as asked, halt alone,
// go on from their checkpoint, and go when their volume is deleted, whatever fails in between.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeReadGrant } from "#shared/formats/read-grant.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import { noRoom } from "../../../services/storage/engine/fill-source.ts";
import { ReplicaSet } from "../../../services/storage/engine/replica-set.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { line } from "../replica/batch-maker.ts";
import { MemoryArchive } from "./fill-world.ts";
import { PlayedLog } from "./played-log.ts";

const sizeBytes = 1024 * 1024;
const record = (name: string): VolumeRecord => ({
  id: Buffer.from(name.padEnd(8, "0")).toString("hex").slice(0, 16),
  name,
  sizeBytes,
  durability: "write",
  createdAtMs: 0,
  state: "active",
});

let store: MemoryFileStore;
let keys: MemoryKeys;
let bus: MemoryMessageBus;
let catalog: MemoryVolumeCatalog;
let logs: Map<string, PlayedLog>;
let closers: (() => Promise<void>)[];

beforeEach(async () => {
  store = new MemoryFileStore();
  await store.makeDirectory("/pool/volumes");
  keys = new MemoryKeys();
  bus = new MemoryMessageBus();
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  logs = new Map();
  closers = [];
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

interface Node {
  readonly set: ReplicaSet;
  readonly map: KeyTableMap;
  readonly table: MemoryKeyTable;
  readonly notes: string[];
}

async function node(only: string | null = null, archived: ArchivedImages | null = null): Promise<Node> {
  const clock = new FastClock();
  const table = new MemoryKeyTable(keys);
  const map = new KeyTableMap(table, clock);
  await map.ready();
  const replicas = new RawReplicas({ store, clock, dataDirectory: "/pool" });
  await replicas.start();
  const notes: string[] = [];
  const pool = { name: "main", dataDirectory: "/pool", replicas, roomBytes: () => 2 ** 30 };
  const set = new ReplicaSet({
    node: "shelf",
    host: "shelf",
    pools: [pool],
    store,
    clock,
    random: new SteppedRandom(7),
    catalog,
    map,
    bus,
    logOf: (id) => logOf(id),
    archived,
    only,
    fillBytesPerSecond: null,
    onNote: (text) => notes.push(text),
  });
  closers.push(async () => {
    await set.close();
    map.close();
    await replicas.close();
  });
  return { set, map, table, notes };
}

function logOf(id: string): PlayedLog {
  const log = logs.get(id) ?? new PlayedLog(sizeBytes);
  logs.set(id, log);
  return log;
}

async function place(map: KeyTableMap, name: string): Promise<PlayedLog> {
  const volume = record(name);
  const placement = {
    volumeId: volume.id,
    beginBytes: sizeBytes,
    replicas: [{ node: "shelf", pool: "main" }],
  };
  await map.changePlacement(volume.id, () => placement);
  await catalog.put(volume);
  return logOf(volume.id);
}

async function ask(
  name: string,
  message: ReplicaMessage,
): Promise<ReplicaMessage & { readonly fill?: number | undefined }> {
  const subject = replicaReadSubject(record(name).id, "shelf");
  const decoded = decodeMessage(await bus.request(subject, encodeMessage(message), 5000));
  if (isBadMessage(decoded)) throw new Error(decoded.detail);
  const { payload } = decoded;
  return payload.length === 0 ? decoded.message : { ...decoded.message, fill: payload[0] };
}
const read = (leastLsn: number, offset = 0, waitMs = 20_000): ReplicaMessage => ({
  type: "read",
  offset,
  length: 4096,
  leastLsn,
  waitMs,
});

describe("replicas of a node", () => {
  test("are made where they are placed, follow their logs, and answer as new as asked", async () => {
    const { set, map } = await node();
    const log = await place(map, "a");
    await set.reconcile();
    expect(set.reports()).toMatchObject([{ volume: "a", condition: "filling", appliedLsn: 0 }]);
    const early = ask("a", read(2));
    log.write(0, 7);
    expect(await early).toMatchObject({ type: "bytes", fill: 7, shownLsn: 2, epoch: 1 });
    expect(await ask("a", read(3, 0, 200))).toMatchObject({
      type: "refused",
      tag: "ReplicaBehind",
      kind: "Retry",
    });
    await expect
      .poll(async () => ask("a", { type: "ask" }))
      .toMatchObject({ report: { condition: "following" } });
  });

  test("go on behind their checkpoint, from the message that held it", async () => {
    const first = await node();
    const log = await place(first.map, "a");
    log.write(0, 7);
    await first.set.reconcile();
    await ask("a", read(2));
    await closers.pop()?.();
    const second = await node();
    log.write(4096, 8);
    await second.set.reconcile();
    expect(await ask("a", read(3, 4096))).toMatchObject({ fill: 8, shownLsn: 3 });
    expect(log.begun).toMatchObject([
      { line: "", appliedLsn: 0, sequence: 0 },
      { line, appliedLsn: 2, sequence: 102 },
    ]);
  });

  test("one that can't go on halts, says why, and leaves the others alone", async () => {
    const { set, map } = await node();
    const [bad, good] = [await place(map, "a"), await place(map, "b")];
    await set.reconcile();
    bad.write(0, 1);
    await ask("a", read(2));
    bad.failure = new VarveError("LogDamaged", "Corrupt", "a flipped bit");
    bad.write(0, 2);
    good.write(0, 3);
    expect(await ask("b", read(2))).toMatchObject({ fill: 3 });
    await expect.poll(() => set.reports()[0]).toMatchObject({ condition: "halted", reason: "a flipped bit" });
    expect(await ask("a", read(1))).toMatchObject({ type: "refused", tag: "ReplicaHalted" });
    good.write(0, 4);
    expect(await ask("b", read(3))).toMatchObject({ fill: 4 });
  });

  test("a damaged checkpoint keeps one replica closed, and its files as they are", async () => {
    const first = await node();
    await place(first.map, "a");
    const good = await place(first.map, "b");
    await first.set.reconcile();
    await closers.pop()?.();
    const path = "/pool/volumes/a/disk.raw.checkpoint";
    const bytes = (await store.readWhole(path)) ?? Buffer.alloc(0);
    bytes[20] = (bytes[20] ?? 0) ^ 1;
    await store.replaceWhole(path, bytes);
    const second = await node();
    await second.set.reconcile();
    expect(second.set.failures()).toMatchObject([{ error: { kind: "Corrupt" } }]);
    expect((await store.readWhole(path))?.equals(bytes)).toBe(true);
    good.write(0, 5);
    expect(await ask("b", read(2))).toMatchObject({ fill: 5 });
  });

  test("the only one, whose log has gone on without it, is filled from the bucket; what keeps it from that is told", async () => {
    const made = new PlayedLog(sizeBytes);
    for (let value = 1; value <= 6; value += 1) made.write(0, value);
    const archive = await MemoryArchive.at(made.batches, 4, sizeBytes);
    archive.beforeRead = () => {
      throw new VarveError("BucketObjectDamaged", "Corrupt", "a flipped bit");
    };
    const { set, map, notes } = await node(null, archive);
    logs.set(record("a").id, made);
    made.oldestLsn = 5;
    await place(map, "a");
    await set.reconcile();
    await expect.poll(() => set.reports()[0]).toMatchObject({ condition: "halted", reason: "a flipped bit" });
    expect(await ask("a", read(7, 0, 20))).toMatchObject({ type: "refused", kind: "Retry" });
    // One that hears nothing more begins again where somebody says so.
    archive.beforeRead = () => new Promise<void>(() => undefined);
    const repair = async (from: "bucket" | null) =>
      bus.request(replicaCopySubject(record("a").id, "shelf"), encodeMessage({ type: "repair", from }), 1000);
    const { reads } = archive;
    await repair(null);
    await expect.poll(() => archive.reads).toBe(reads + 1);
    archive.beforeRead = () => undefined;
    await repair("bucket");
    await expect.poll(async () => ask("a", read(7))).toMatchObject({ fill: 6 });
    expect(notes).toContainEqual("the replica of a is filled from the bucket memory://bucket");
    expect(made.begun.at(-1)).toMatchObject({ line, appliedLsn: 4, sequence: 0 });
  });

  test("a full disk is told once, whatever the figures of later attempts are", async () => {
    const made = new PlayedLog(sizeBytes);
    for (const value of [1, 2, 3, 4]) made.write(0, value);
    const archive = await MemoryArchive.at(made.batches, 4, sizeBytes);
    archive.beforeRead = async () => Promise.reject(noRoom(4096, archive.reads));
    const { set, map, notes } = await node(null, archive);
    logs.set(record("a").id, Object.assign(made, { oldestLsn: 5 }));
    await place(map, "a");
    await set.reconcile();
    await expect.poll(() => archive.reads).toBeGreaterThan(3);
    expect(notes.filter((text) => text.includes("is not filled"))).toHaveLength(1);
  });

  test("only one volume is touched where the node was started for one", async () => {
    const { set, map } = await node("b");
    await place(map, "a");
    const log = await place(map, "b");
    await set.reconcile();
    log.write(0, 6);
    expect(await ask("b", read(2))).toMatchObject({ fill: 6 });
    expect(await store.list("/pool/volumes")).toEqual(["b"]);
  });
});

test("who asks for a newer writer's bytes hears of its epoch with them, also before they count as applied", async () => {
  const open = store.open.bind(store);
  let applied = Promise.resolve();
  store.open = async (...args) => {
    const file = await open(...args);
    const applyAll = file.applyAll.bind(file);
    file.applyAll = async (operations) => applyAll(operations).then(async () => applied);
    return file;
  };
  const { set, map } = await node();
  const log = await place(map, "a");
  await set.reconcile();
  log.write(0, 7);
  expect(await ask("a", read(2))).toMatchObject({ fill: 7, epoch: 1 });
  const { promise, resolve: release } = Promise.withResolvers<void>();
  applied = promise;
  const { batch: newer } = log.maker.epoch(2);
  log.batches.push(newer, { ...log.maker.write(0, Buffer.alloc(4096, 9)).batch, epoch: 2 });
  await expect.poll(async () => ask("a", read(2))).toMatchObject({ fill: 9 });
  expect(await ask("a", read(2))).toMatchObject({ fill: 9, shownLsn: 4, epoch: 2 });
  release();
});

describe("direct reads", () => {
  const note = async () =>
    decodeReadGrant((await store.readWhole("/pool/volumes/a/disk.raw.grant")) ?? Buffer.alloc(0));
  const granted = async (): Promise<ReplicaMessage> => {
    await expect.poll(async () => ask("a", { type: "grant" })).toMatchObject({ type: "granted" });
    return ask("a", { type: "grant" });
  };

  test("are granted when the replica follows, and the note tells what is applied", async () => {
    const { set, map } = await node();
    const log = await place(map, "a");
    await set.reconcile();
    expect(await ask("a", { type: "grant" })).toMatchObject({ type: "refused", tag: "ReadsNotGranted" });
    log.write(0, 7);
    const grant = await granted();
    expect(grant).toMatchObject({ imagePath: "/pool/volumes/a/disk.raw", epoch: 1 });
    log.write(0, 8);
    await ask("a", read(3));
    expect(await note()).toEqual({ token: "token" in grant ? grant.token : "", appliedLsn: 3 });
  });

  test("are revoked before a newer writer's bytes come into the image, and given again for its epoch", async () => {
    const { set, map } = await node();
    const log = await place(map, "a");
    await set.reconcile();
    log.write(0, 7);
    const before = await granted();
    // Whenever a byte of the newer epoch can be seen in the image, the token can't.
    const open = store.open.bind(store);
    const image = await open("/pool/volumes/a/disk.raw", { readOnly: true, access: "buffered" });
    const slab = store.allocateSlab(4096);
    const { batch: newer } = log.maker.epoch(2);
    log.batches.push(newer, { ...log.maker.write(0, Buffer.alloc(4096, 9)).batch, epoch: 2 });
    for (let seen = 0; seen !== 9; await new Promise((resolve) => setImmediate(resolve))) {
      image.readInline(slab, 0, 4096, 0);
      seen = slab.bytes[0] ?? 0;
      const shown = await note();
      if (seen === 9) expect(shown).not.toMatchObject({ token: "token" in before ? before.token : "" });
    }
    const after = await granted();
    expect(after).toMatchObject({ epoch: 2 });
    expect("token" in after && "token" in before && after.token !== before.token).toBe(true);
  });

  test("end with a halt, with the node's life, and before what a crash left is replayed", async () => {
    const { set, map } = await node();
    const log = await place(map, "a");
    await set.reconcile();
    log.write(0, 7);
    await granted();
    log.failure = new VarveError("LogDamaged", "Corrupt", "a flipped bit");
    await expect.poll(note).toEqual({ token: null, appliedLsn: 0 });
    expect(await ask("a", { type: "grant" })).toMatchObject({ tag: "ReadsNotGranted" });
    log.failure = null;
    await closers.pop()?.();
    const second = await node();
    await second.set.reconcile();
    await granted();
    await closers.pop()?.();
    expect(await note()).toEqual({ token: null, appliedLsn: 0 });
  });
});

describe("a deleted volume", () => {
  test("goes from the node with its files, then its place; others stay", async () => {
    const { set, map } = await node();
    await place(map, "a");
    await place(map, "b");
    await set.reconcile();
    await catalog.put({ ...record("a"), state: "deleting" });
    await set.reconcile();
    expect(await store.list("/pool/volumes")).toEqual(["b"]);
    expect(map.placementOf(record("a").id)?.replicas).toEqual([]);
    expect(set.reports()).toMatchObject([{ volume: "b" }]);
  });

  test("whose place could not be given up, or whose files could not be removed, is finished by the next life", async () => {
    for (const broken of ["table", "files"] as const) {
      const { set, map, table, notes } = await node();
      await place(map, "a");
      await set.reconcile();
      await catalog.put({ ...record("a"), state: "deleting" });
      const removeTree = store.removeTree.bind(store);
      if (broken === "table") table.state = "away";
      else
        store.removeTree = async () => Promise.reject(new VarveError("Broken", "Internal", "no such luck"));
      await set.reconcile();
      expect([broken, set.failures().length, notes.length]).toEqual([broken, 1, 1]);
      // Never the place before the files: as long as a node keeps any, the placement says so.
      expect(keys.rows.get(`placement.${record("a").id}`)?.value).toBeTruthy();
      table.heal();
      store.removeTree = removeTree;
      await closers.pop()?.();
      const next = await node();
      await next.set.reconcile();
      expect(await store.list("/pool/volumes")).toEqual([]);
      expect(next.map.placementOf(record("a").id)?.replicas).toEqual([]);
      await catalog.remove(record("a").id);
    }
  });

  test("that is placed elsewhere is none of its business", async () => {
    const { set, map } = await node();
    await place(map, "a");
    await set.reconcile();
    await map.changePlacement(record("a").id, (present) =>
      present === null ? null : { ...present, replicas: [{ node: "attic", pool: "main" }] },
    );
    await catalog.put({ ...record("a"), state: "deleting" });
    await set.reconcile();
    expect(await store.list("/pool/volumes")).toEqual(["a"]);
  });
});

describe("a replica that is placed here no more", () => {
  const elsewhere = async (map: KeyTableMap): Promise<void> =>
    await map.changePlacement(record("a").id, (present) =>
      present === null ? null : { ...present, replicas: [{ node: "attic", pool: "main" }] },
    );

  /** The other node says where it stands. */
  const attic = (condition: "following" | "filling", appliedLsn: number): void => {
    const report = {
      node: "attic",
      host: "attic",
      condition,
      reason: "",
      appliedLsn,
      checkpointLsn: 0,
      epoch: 1,
      sizeBytes,
      allocatedBytes: 0,
      roomBytes: 0,
    };
    bus.serve(replicaReadSubject(record("a").id, "attic"), async () =>
      encodeMessage({ type: "state", report }),
    );
  };

  test("keeps its files until another node is proved to have what is in them", async () => {
    const { set, map, notes } = await node();
    const log = await place(map, "a");
    await place(map, "b");
    await set.reconcile();
    log.write(0, 7);
    await ask("a", read(2));
    await elsewhere(map);
    for (const prepare of [() => undefined, () => attic("following", 1), () => attic("filling", 9)]) {
      prepare();
      await set.reconcile();
      expect(await store.list("/pool/volumes")).toEqual(["a", "b"]);
    }
    expect(set.reports()).toMatchObject([{ volume: "b" }]);
    expect(notes.filter((text) => text.includes("files of a stay"))).toHaveLength(1);
    attic("following", 2);
    await set.reconcile();
    expect(await store.list("/pool/volumes")).toEqual(["b"]);
  });

  test("whose removal ends in the middle is never opened again as what it was", async () => {
    const { set, map } = await node();
    const log = await place(map, "a");
    await set.reconcile();
    log.write(0, 7);
    await ask("a", read(2));
    await elsewhere(map);
    attic("following", 2);
    const removeTree = store.removeTree.bind(store);
    store.removeTree = async () => Promise.reject(new VarveError("Broken", "Internal", "killed here"));
    await set.reconcile();
    expect(await store.list("/pool/volumes/a")).toEqual(["disk.raw", "disk.raw.grant"]);
    store.removeTree = removeTree;
    // Placed here again before it went on: it begins with the log.
    await map.changePlacement(record("a").id, (present) =>
      present === null ? null : { ...present, replicas: [{ node: "shelf", pool: "main" }] },
    );
    await set.reconcile();
    expect(log.begun.at(-1)).toMatchObject({ line: "", appliedLsn: 0 });
    expect(await ask("a", read(2))).toMatchObject({ fill: 7 });
  });

  test("of another volume of that name is left alone", async () => {
    const { set, map } = await node();
    await place(map, "a");
    await set.reconcile();
    await closers.pop()?.();
    const next = await node();
    const other = { ...record("a"), id: "00c0ffee00c0ffee" };
    await catalog.remove(record("a").id);
    await catalog.put(other);
    const replicas = [{ node: "attic", pool: "main" }];
    await next.map.changePlacement(other.id, () => ({ volumeId: other.id, beginBytes: sizeBytes, replicas }));
    await next.set.reconcile();
    expect(await store.list("/pool/volumes")).toEqual(["a"]);
  });
});

describe("a replica whose log was released", () => {
  test("halts where nobody can be copied, and is filled as soon as somebody can", async () => {
    const { set, map } = await node();
    const log = await place(map, "a");
    log.write(0, 7);
    log.failure = new VarveError("LogReleased", "Invalid", "LSN 1 is no longer in the log");
    await set.reconcile();
    await expect.poll(() => set.reports()[0]).toMatchObject({ condition: "halted" });
    await map.changePlacement(record("a").id, (present) =>
      present === null
        ? null
        : { ...present, replicas: [...present.replicas, { node: "attic", pool: "main" }] },
    );
    await expect
      .poll(() => set.reports()[0], { timeout: 8000 })
      .toMatchObject({ condition: "filling", reason: expect.stringContaining("attic") });
    expect(await store.list("/pool/volumes/a")).toContain("disk.raw.fill");
    expect(await ask("a", read(1))).toMatchObject({ type: "refused", kind: "Retry" });
  });
});
