// `varve scrub` of a cluster over a memory bus: each node compares with its bucket, whoever has none is compared with the others at one LSN, and
// only what is proven right mends anybody; what was passed over is told with why.
import { describe, expect, test } from "vitest";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaCondition, ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  type ReplicaMessage,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import type { ReplicaScrubReport, ScrubReport } from "#shared/ports/bucket-administration.ts";
import { ClusterScrub } from "../../../services/api/engine/cluster-scrub.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";

const id = "5ca1ab1e00c0ffee";
const extents = 3;
const sizeBytes = extents * limits.extentBytes;
const record: VolumeRecord = {
  ...({ id, name: "t", sizeBytes, durability: "write", createdAtMs: 0, state: "active" } as const),
};
const options = { repair: false, bytesPerSecond: 2 ** 40 };

function withPayload(message: ReplicaMessage, payload: Buffer): Buffer {
  const { bytes, payloadAt } = encodeWith(message, payload.length);
  payload.copy(bytes, payloadAt);
  sealMessage(bytes);
  return bytes;
}

/** A node with sums for its extents; 0: not in its file. */
class Node {
  condition: ReplicaCondition = "following";
  hasBucket = true;
  sums: number[] = [1, 2, 3];
  report: Partial<ReplicaScrubReport> = {};
  /** What the bucket says of single extents. */
  readonly wrong = new Map<number, number>();
  readonly asked: ReplicaMessage[] = [];
  /** Before an answer: what it says instead, so many times. */
  refusals: { readonly tag: string; times: number } | null = null;

  answer(message: ReplicaMessage): Buffer | null {
    this.asked.push(message);
    const refuse = (tag: string): Buffer =>
      encodeMessage({ type: "refused", kind: "Retry", tag, message: `it says ${tag}`, epoch: 0 });
    if (message.type === "hold") return encodeMessage({ type: "held", appliedLsn: 40 });
    if (message.type === "hash") {
      const payload = Buffer.alloc(8 * message.extents);
      const first = message.offset / limits.extentBytes;
      for (let at = 0; at < message.extents; at += 1)
        payload.writeBigUInt64LE(BigInt(this.sums[first + at] ?? 0), at * 8);
      return withPayload({ type: "hashes", appliedLsn: 40 }, payload);
    }
    if (message.type === "mend") {
      this.sums[message.extent] = Number.parseInt(message.sum, 16);
      return encodeMessage({ type: "mended", isMended: true });
    }
    if (message.type !== "scrub") return null;
    if (!this.hasBucket) return refuse("ScrubNoBucket");
    if (this.refusals !== null && this.refusals.times-- > 0) return refuse(this.refusals.tag);
    const { first, count } = message;
    const counts = { lsn: 30, extents, compared: extents, bytes: sizeBytes, remote: 0, busy: 0 };
    const one = { extent: first, firstOffset: first * limits.extentBytes, repaired: false };
    const found: ReplicaScrubReport =
      count === 0
        ? { ...counts, damaged: [], busyExtents: [], ...this.report }
        : { ...counts, compared: 1, damaged: [], busyExtents: [] };
    const right = count === 1 ? this.wrong.get(first) : undefined;
    if (right !== undefined)
      Object.assign(found, { damaged: [one], rightSum: right.toString(16).padStart(16, "0") });
    const isDone = this.asked.filter(({ type }) => type === "scrub").length > 1;
    const progress = { isDone, doneBytes: sizeBytes / 2, totalBytes: sizeBytes };
    return withPayload({ type: "scrubbed", ...progress }, Buffer.from(isDone ? JSON.stringify(found) : ""));
  }
}

function setUp(nodes: Readonly<Record<string, Node>>) {
  const bus = new MemoryMessageBus();
  for (const [name, node] of Object.entries(nodes))
    bus.serve(replicaCopySubject(id, name), async (data) => {
      const decoded = decodeMessage(data);
      return isBadMessage(decoded) ? null : node.answer(decoded.message);
    });
  const report = (node: string, { condition }: Node): ReplicaReport => ({
    node,
    host: node,
    condition,
    reason: condition === "following" ? "" : "it is not that far",
    appliedLsn: 1,
    checkpointLsn: 1,
    epoch: 1,
    sizeBytes,
    allocatedBytes: 0,
    roomBytes: 0,
  });
  const scrubs = new ClusterScrub({
    require: () => record,
    replicasOf: () =>
      Object.entries(nodes).map(([node, one]) => ({
        node,
        report: report(node, one),
      })),
    bus,
    clock: new FastClock(),
    random: new SteppedRandom(3),
  });
  const progress: number[] = [];
  const run = async (more: object = {}): Promise<ScrubReport> =>
    scrubs.prepare("t", { ...options, ...more })((done, total) => progress.push(done / total));
  return { scrubs, run, progress };
}

const mends = ({ asked }: Node) => asked.filter(({ type }) => type === "mend");

describe("a scrub of a cluster's volume", () => {
  test("is that of each node with its bucket, added up, with progress over all", async () => {
    const [shelf, attic] = [new Node(), new Node()];
    const found = { extent: 1, firstOffset: 5_000_000, repaired: true };
    attic.report = { damaged: [found], remote: 1, compared: 2 };
    attic.refusals = { tag: "ReplicaFilling", times: 2 };
    const { run, progress } = setUp({ shelf, attic });
    expect(await run({ repair: true })).toEqual({
      volume: "t",
      lsn: 30,
      extents: 6,
      compared: 5,
      bytes: 2 * sizeBytes,
      remote: 1,
      busy: 0,
      damaged: [
        {
          ...found,
          node: "attic",
        },
      ],
      replicas: [
        {
          node: "shelf",
          against: "bucket",
          compared: 3,
          remote: 0,
          busy: 0,
          reason: "",
        },
        {
          node: "attic",
          against: "bucket",
          compared: 2,
          remote: 1,
          busy: 0,
          reason: "",
        },
      ],
    });
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect([progress[0], progress.at(-1)]).toEqual([0.25, 1]);
    // Each under one name, and nothing was compared beside that.
    const names = shelf.asked.map((one) => (one.type === "scrub" ? one.run : one.type));
    expect([new Set(names).size, shelf.asked.length]).toEqual([1, 2]);
    expect((await run({ node: "attic" })).replicas?.map(({ node }) => node)).toEqual(["attic"]);
  });

  test("passes over what fills or halted, with why, and is refused where nothing else is left", async () => {
    const [shelf, attic] = [new Node(), new Node()];
    attic.condition = "filling";
    const { scrubs, run } = setUp({ shelf, attic });
    expect((await run()).replicas?.[1]).toMatchObject({
      against: null,
      reason: "its replica is filling: it is not that far",
    });
    expect(attic.asked).toEqual([]);
    const named = { ...options, node: "attic" };
    expect(() => scrubs.prepare("t", named)).toThrow("can't be scrubbed on attic: its replica is filling");
    expect(() => scrubs.prepare("t", { ...options, node: "nowhere" })).toThrow("has no replica on nowhere");
    // One that halts on its way is passed over, too.
    shelf.refusals = { tag: "ReplicaHalted", times: 9 };
    expect((await run()).replicas?.[0]).toMatchObject({
      against: null,
      reason: "it says ReplicaHalted; no other replica follows to compare with",
    });
  });

  test("without a bucket, what two of three have is right and mends the third, from either of them", async () => {
    const nodes = { shelf: new Node(), attic: new Node(), cellar: new Node() };
    for (const node of Object.values(nodes)) node.hasBucket = false;
    nodes.attic.sums = [1, 9, 3];
    const { run } = setUp(nodes);
    const damaged = { extent: 1, firstOffset: limits.extentBytes, node: "attic" };
    expect(await run()).toMatchObject({ damaged: [{ ...damaged, repaired: false }], compared: 9, lsn: 40 });
    expect(mends(nodes.attic)).toEqual([]);
    const report = await run({ repair: true });
    expect(report.damaged).toEqual([{ ...damaged, repaired: true }]);
    expect(report.replicas?.map(({ against }) => against)).toEqual(["replicas", "replicas", "replicas"]);
    expect(mends(nodes.attic)).toEqual([
      { type: "mend", extent: 1, lsn: 40, sum: "0000000000000002", peer: "shelf" },
    ]);
    expect([mends(nodes.shelf), mends(nodes.cellar)]).toEqual([[], []]);
    expect((await run()).damaged).toEqual([]);
  });

  test("of two that differ only what the bucket proves counts; else nobody is changed", async () => {
    const [shelf, attic] = [new Node(), new Node()];
    attic.hasBucket = false;
    attic.sums = [7, 2, 0];
    const { run } = setUp({ shelf, attic });
    // It has another one than both: it was written to since.
    shelf.wrong.set(0, 99);
    const unproven = { extent: 0, firstOffset: 0, node: "attic", repaired: false };
    const why = "the replicas differ, and nothing proves which one is right";
    expect(await run({ repair: true })).toMatchObject({ damaged: [{ ...unproven, why }] });
    expect(mends(attic)).toEqual([]);
    shelf.wrong.set(0, 7);
    expect((await run({ node: "attic" })).damaged).toEqual([]);
    shelf.wrong.clear();
    const report = await run({ repair: true });
    expect(report.damaged).toEqual([{ extent: 0, firstOffset: 0, node: "attic", repaired: true }]);
    // What a node has in the bucket only is compared nowhere.
    expect(report.replicas?.[1]).toMatchObject({ against: "replicas", compared: 2, remote: 1 });
    expect(mends(attic)).toMatchObject([{ sum: "0000000000000001", peer: "shelf" }]);
    shelf.hasBucket = false;
    attic.sums[0] = 7;
    expect((await run({ repair: true })).damaged.map((one) => [one.node, one.repaired])).toEqual([
      ["shelf", false],
      ["attic", false],
    ]);
  });

  test("what was written to at each look is compared at one LSN", async () => {
    const [shelf, attic] = [new Node(), new Node()];
    shelf.report = { busy: 2, compared: 1, busyExtents: [0, 2] };
    const { run } = setUp({ shelf, attic });
    expect((await run()).replicas?.[0]).toMatchObject({ against: "bucket", compared: 3, busy: 0 });
    attic.sums[2] = 0;
    expect((await run()).replicas?.[0]).toMatchObject({ compared: 2, busy: 1 });
  });
});
