// A replica whose volume is rolled back, on a memory file store: its bytes are the point's until it has newer ones, whether the bucket answers
// or not, over restarts and through a rollback of a rollback; who reads the image directly is stopped before; a node that does not read the
// bucket waits for one that does. docs/specs/cluster.md#rollback.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { decodeReadGrant } from "#shared/formats/read-grant.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import { ReplicaSet } from "../../../services/storage/engine/replica-set.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { MemoryArchive } from "./fill-world.ts";
import { PlayedLog } from "./played-log.ts";

const sizeBytes = 1024 * 1024;
const volumeId = "5ca1ab1e00c0ffee";
const places = ["shelf", "desk"].map((node) => ({ node, pool: "main" }));
const stores = new Map<string, MemoryFileStore>();
let bus: MemoryMessageBus;
let catalog: MemoryVolumeCatalog;
let log: PlayedLog;
let closers: (() => Promise<void>)[];
/** Before a point is opened. */
let beforePoint: () => Promise<void>;
let points: number[];

beforeEach(async () => {
  stores.clear();
  [closers, points] = [[], []];
  beforePoint = async () => undefined;
  bus = new MemoryMessageBus();
  log = new PlayedLog(sizeBytes);
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  const record = { id: volumeId, name: "v", sizeBytes, durability: "write", createdAtMs: 0 } as const;
  await catalog.put({ ...record, state: "active" });
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** A bucket that has every point of the log; a disk at one is what the log made of it by then. */
const bucket = {
  place: "memory://bucket",
  newest: async () => null,
  open: async () => {
    throw new Error("nothing is filled from the bucket here");
  },
  point: async (_id: string, lsn: number) => {
    points.push(lsn);
    await beforePoint();
    return (await MemoryArchive.at(log.batches, lsn, sizeBytes)).open();
  },
} as ArchivedImages;

async function node(name: string, archived: ArchivedImages | null): Promise<ReplicaSet> {
  const clock = new FastClock();
  const store = stores.get(name) ?? new MemoryFileStore();
  stores.set(name, store);
  await store.makeDirectory("/pool/volumes");
  const replicas = new RawReplicas({ store, clock, dataDirectory: "/pool" });
  await replicas.start();
  const set = new ReplicaSet({
    node: name,
    host: name,
    store,
    clock,
    catalog,
    bus,
    archived,
    pools: [{ name: "main", dataDirectory: "/pool", replicas, roomBytes: () => 2 ** 30 }],
    random: new SteppedRandom(7),
    map: {
      placementOf: () => ({ volumeId, beginBytes: sizeBytes, replicas: places }),
      changePlacement: async () => undefined,
    },
    logOf: () => log,
    only: null,
    fillBytesPerSecond: null,
    onNote: () => undefined,
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
  name = "shelf",
  subject = replicaReadSubject,
): Promise<ReplicaMessage & { readonly fill?: number | undefined }> {
  const data = await bus.request(subject(volumeId, name), encodeMessage(message), 5000);
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) throw new Error(decoded.detail);
  const { payload } = decoded;
  return payload.length === 0 ? decoded.message : { ...decoded.message, fill: payload[0] };
}

/** The first byte of each of four blocks, as of an LSN or later. */
async function fills(leastLsn: number, name = "shelf"): Promise<unknown> {
  const found: unknown[] = [];
  for (const offset of [0, 4096, 8192, 12_288]) {
    const read = { type: "read", offset, length: 4096, leastLsn, waitMs: 20_000 } as const;
    const answer = await ask(read, name);
    found.push(answer.fill ?? ("tag" in answer ? answer.tag : null));
  }
  return found;
}

/** 1 epoch, 2 to 4: 1, 2 and 3 in the first three blocks. */
function beginning(): void {
  log.write(0, 1);
  log.write(4096, 2);
  log.write(8192, 3);
}

describe("a replica whose volume is rolled back", () => {
  test("applies it while the bucket is away, is written to, and is the point's disk in the end, also after a restart", async () => {
    beginning();
    const first = await node("shelf", bucket);
    expect(await fills(4)).toEqual([1, 2, 3, 0]);
    beforePoint = async () => {
      throw new VarveError("BucketAway", "Retry", "the bucket does not answer");
    };
    log.rebase(2);
    log.write(12_288, 9);
    const report = () => first.reports()[0];
    await expect.poll(report).toMatchObject({ condition: "following", appliedLsn: 6, remoteExtents: 1 });
    const last = { type: "read", offset: 12_288, length: 4096, leastLsn: 6, waitMs: 1000 } as const;
    expect(await ask(last)).toMatchObject({ fill: 9 });
    const base = { type: "extent", offset: 0, length: 4096, leastLsn: 6, waitMs: 0 } as const;
    expect(await ask(base)).toMatchObject({ tag: "ExtentNotLocal" });
    await first.close();
    beforePoint = async () => undefined;
    const second = await node("shelf", bucket);
    expect(await fills(6)).toEqual([1, 0, 0, 9]);
    await expect.poll(() => second.reports()[0]?.remoteExtents).toBeUndefined();
    expect(await fills(6)).toEqual([1, 0, 0, 9]);
    expect(new Set(points)).toEqual(new Set([2]));
  });

  test("goes back and forward again before it is whole: no byte is of the rollback before", async () => {
    beginning();
    await node("shelf", bucket);
    expect(await fills(4)).toEqual([1, 2, 3, 0]);
    const { promise, resolve: answers } = Promise.withResolvers<void>();
    beforePoint = () => promise;
    log.rebase(2);
    log.write(12_288, 9);
    log.rebase(4);
    log.write(0, 7);
    const reading = fills(8);
    answers();
    expect(await reading).toEqual([7, 2, 3, 0]);
    log.rebase(3);
    expect(await fills(9)).toEqual([1, 2, 0, 0]);
  });

  test("grants no direct reads from before the entry is applied until it is whole", async () => {
    beginning();
    await node("shelf", bucket);
    await fills(4);
    await expect.poll(async () => ask({ type: "grant" })).toMatchObject({ type: "granted", epoch: 1 });
    const granted = await ask({ type: "grant" });
    const token = granted.type === "granted" ? granted.token : "";
    const note = async () => {
      const bytes = await stores.get("shelf")?.readWhole("/pool/volumes/v/disk.raw.grant");
      return decodeReadGrant(bytes ?? Buffer.alloc(0));
    };
    expect(await note()).toMatchObject({ token, appliedLsn: 4 });
    const { promise, resolve: answers } = Promise.withResolvers<void>();
    beforePoint = () => promise;
    log.rebase(2);
    await expect.poll(note).toMatchObject({ token: null });
    await expect.poll(async () => ask({ type: "ask" })).toMatchObject({ report: { appliedLsn: 5 } });
    expect(await ask({ type: "grant" })).toMatchObject({ tag: "ReadsNotGranted" });
    answers();
    await expect.poll(async () => ask({ type: "grant" })).toMatchObject({ type: "granted" });
    expect(await note()).toMatchObject({ appliedLsn: 5 });
    expect(await note()).not.toMatchObject({ token });
  });

  test("says whether it can open the point, and without a bucket is filled from one that has gone back", async () => {
    beginning();
    await node("shelf", bucket);
    const poor = await node("desk", null);
    await Promise.all([fills(4), fills(4, "desk")]);
    const reach = { type: "reach", lsn: 2 } as const;
    expect(await ask(reach, "shelf", replicaCopySubject)).toEqual({ type: "reached", lsn: 2 });
    expect(await ask(reach, "desk", replicaCopySubject)).toMatchObject({
      tag: "FillNoBucket",
      kind: "Invalid",
    });
    log.rebase(2);
    await expect.poll(async () => fills(5, "desk"), { timeout: 5000 }).toEqual([1, 0, 0, 0]);
    expect(poor.reports()[0]).toMatchObject({ condition: "following", appliedLsn: 5 });
    log.write(4096, 8);
    expect(await fills(6, "desk")).toEqual([1, 8, 0, 0]);
  });
});
