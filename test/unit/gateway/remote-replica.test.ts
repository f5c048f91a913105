// Reads from replicas on other machines: new enough, from whoever answers, never mixed with what a newer writer wrote; the overlay goes
// by what is applied. Storage nodes are played by the test on a memory bus; real ones are in test/cluster.
import { describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { replicaReadSubject, replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  type ReadRequest,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import { PendingBatch } from "../../../services/gateway/engine/pending-batch.ts";
import { RemoteAdmission, RemoteFeed } from "../../../services/gateway/engine/remote-feed.ts";
import { RemoteReplica } from "../../../services/gateway/engine/remote-replica.ts";

const volumeId = "5ca1ab1e00c0ffee";
const slab = { bytes: Buffer.alloc(4 * 1024 * 1024), address: 0 };

/** How full the log is. */
const logRoom = { share: 0 };

/** A storage node: serves one fill byte, as of an LSN. */
class PlayedNode {
  report: ReplicaReport;
  fill = 1;
  /** An entry that is being applied is among the bytes already. */
  begunLsn: number | null = null;
  silent = false;
  readonly asked: ReadRequest[] = [];
  readonly #bus: MemoryMessageBus;

  constructor(bus: MemoryMessageBus, node: string, host = node) {
    this.#bus = bus;
    this.report = {
      node,
      host,
      condition: "following",
      reason: "",
      appliedLsn: 10,
      checkpointLsn: 5,
      epoch: 3,
      sizeBytes: 2 ** 30,
      allocatedBytes: 0,
      roomBytes: 2 ** 20,
    };
    bus.serve(replicaReadSubject(volumeId, node), async (data) => this.#answer(data));
  }

  tell(change: Partial<ReplicaReport> = {}): void {
    this.report = { ...this.report, ...change };
    const message = encodeMessage({ type: "state", report: this.report });
    this.#bus.publish(replicaStateSubject(volumeId, this.report.node), message);
  }

  async #answer(data: Uint8Array): Promise<Uint8Array | null> {
    const decoded = decodeMessage(data);
    if (this.silent || isBadMessage(decoded)) return null;
    if (decoded.message.type !== "read") return encodeMessage({ type: "state", report: this.report });
    const { message } = decoded;
    this.asked.push(message);
    const { appliedLsn, epoch } = this.report;
    if (message.leastLsn > appliedLsn) {
      return encodeMessage({
        type: "refused",
        kind: "Retry",
        tag: "ReplicaBehind",
        message: "behind",
        epoch,
      });
    }
    const { bytes, payloadAt } = encodeWith(
      { type: "bytes", shownLsn: this.begunLsn ?? appliedLsn, epoch },
      message.length,
    );
    bytes.fill(this.fill, payloadAt);
    sealMessage(bytes);
    return bytes;
  }
}

/** A clock that tests put ahead. */
class AheadClock extends SystemClock {
  aheadMs = 0;

  override monotonicMs(): number {
    return super.monotonicMs() + this.aheadMs;
  }
}

function world(
  names: readonly string[],
  clock = new SystemClock(),
): {
  readonly bus: MemoryMessageBus;
  readonly nodes: readonly PlayedNode[];
  readonly replica: RemoteReplica;
  readonly fenced: VarveError[];
} {
  const bus = new MemoryMessageBus();
  const nodes = names.map((name) => new PlayedNode(bus, name));
  const fenced: VarveError[] = [];
  const replica = new RemoteReplica({
    bus,
    clock,
    volumeId,
    nodes: names,
    host: "b",
    onFenced: (error) => fenced.push(error),
    logShare: () => logRoom.share,
  });
  return { bus, nodes, replica, fenced };
}

const settled = async (): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, 5);
  });
const bytesRead = async (replica: RemoteReplica, length = 4096): Promise<number> => {
  slab.bytes.fill(0, 0, length);
  await replica.read(slab, 0, length, 8192);
  const first = slab.bytes[0] ?? 0;
  expect(slab.bytes.subarray(0, length).every((byte) => byte === first)).toBe(true);
  return first;
};

describe("reads", () => {
  test("wait for what the log says, then ask the node on this machine first", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    b.fill = 2;
    await replica.heard();
    const following = replica.follow(12, 3);
    b.tell({ appliedLsn: 12 });
    await following;
    expect(await bytesRead(replica)).toBe(2);
    expect([a.asked.length, b.asked[0]?.leastLsn]).toEqual([0, 12]);
  });

  test("begin when each node has said what it applied, so that no log may end before it", async () => {
    const { bus, nodes } = world(["a", "b"]);
    const [, b] = nodes as [PlayedNode, PlayedNode];
    b.report = { ...b.report, appliedLsn: 99 };
    bus.serve(replicaReadSubject(volumeId, "b"), async () => {
      await settled();
      return encodeMessage({ type: "state", report: b.report });
    });
    const late = new RemoteReplica({
      bus,
      clock: new SystemClock(),
      volumeId,
      nodes: ["a", "b", "gone"],
      host: "a",
      onFenced: () => undefined,
      logShare: () => 0,
    });
    await late.heard();
    expect(late.state().appliedLsn).toBe(99);
  });

  test("longer ones are split, and every piece comes to its place", async () => {
    const { nodes, replica } = world(["a"]);
    await replica.follow(10, 3);
    await bytesRead(replica, 3 * limits.replicaReadBytesMax + 1000);
    const pieces = nodes[0]?.asked.map(({ offset, length }) => [offset - 8192, length]);
    const piece = limits.replicaReadBytesMax;
    expect(pieces).toEqual([
      [0, piece],
      [piece, piece],
      [2 * piece, piece],
      [3 * piece, 1000],
    ]);
  });

  test("a node that is silent is not waited for alone", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    await replica.follow(10, 3);
    a.fill = 7;
    b.silent = true;
    const startMs = performance.now();
    expect(await bytesRead(replica)).toBe(7);
    expect(performance.now() - startMs).toBeLessThan(900);
    expect(replica.counters.hedgedReads).toBe(1);
    // It failed: the other one is asked first for a while.
    await expect.poll(() => replica.counters.failedAsks, { timeout: 3000 }).toBe(1);
    expect(await bytesRead(replica)).toBe(7);
    expect(replica.counters.hedgedReads).toBe(1);
  });

  test("a node that is behind what was dropped from the overlay is not believed", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    await replica.follow(10, 3);
    replica.dropped(20);
    a.fill = 9;
    a.tell({ appliedLsn: 20 });
    await settled();
    expect(await bytesRead(replica)).toBe(9);
    expect(b.asked.every(({ leastLsn }) => leastLsn === 20)).toBe(true);
  });

  test("what was shown before its write was acknowledged stays shown, whoever is asked then", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    await replica.follow(10, 3);
    b.fill = 2;
    b.begunLsn = 12;
    expect(await bytesRead(replica)).toBe(2);
    // The one that showed it is asked for no more than what was acknowledged: it only goes forward, and still writes.
    expect(await bytesRead(replica)).toBe(2);
    expect(b.asked.map(({ leastLsn }) => leastLsn)).toEqual([10, 10]);
    b.silent = true;
    const later = bytesRead(replica);
    await expect.poll(() => a.asked.map(({ leastLsn }) => leastLsn), { timeout: 3000 }).toContain(12);
    a.fill = 2;
    a.tell({ appliedLsn: 12 });
    expect(await later).toBe(2);
    // Back after a kill it may have lost what it showed.
    b.silent = false;
    b.asked.length = 0;
    a.tell({ condition: "halted" });
    await settled();
    expect(await bytesRead(replica)).toBe(2);
    expect(b.asked[0]?.leastLsn).toBe(12);
  });

  test("the last one to be asked is given the time to catch up while another one is silent", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    await replica.follow(10, 3);
    b.silent = true;
    await bytesRead(replica);
    const [first, last] = [b.asked[0], a.asked.at(-1)];
    // Longer than until the silent one is given up for this turn, but not longer than an answer is waited for.
    expect(last?.waitMs).toBeGreaterThan(2 * limits.replicaHedgeMs);
    expect(last?.waitMs).toBeLessThan(1000);
    expect(first?.waitMs ?? 0).toBeLessThan(limits.replicaHedgeMs);
  });

  test("a newer writer's epoch in an answer or a state ends reading for good", async () => {
    const { nodes, replica, fenced } = world(["b"]);
    const [b] = nodes as [PlayedNode];
    await replica.follow(10, 3);
    b.report = { ...b.report, epoch: 4 };
    await expect(bytesRead(replica)).rejects.toMatchObject({ kind: "Fenced" });
    await expect(bytesRead(replica)).rejects.toMatchObject({ kind: "Fenced" });
    expect(fenced).toHaveLength(1);
    const other = world(["a"]);
    await other.replica.follow(10, 3);
    other.nodes[0]?.tell({ epoch: 9 });
    await settled();
    expect(other.fenced.map(({ fields }) => fields)).toEqual([{ epoch: 9, own: 3 }]);
  });

  test("a number that the own lease gave is no newer writer's, one above it is", async () => {
    const { nodes, replica, fenced } = world(["b"]);
    const [b] = nodes as [PlayedNode];
    await replica.follow(10, 3);
    replica.raiseEpoch(6);
    b.tell({ epoch: 6 });
    await settled();
    expect(await bytesRead(replica)).toBe(1);
    expect(fenced).toEqual([]);
    b.tell({ epoch: 7 });
    await settled();
    expect(fenced.map(({ fields }) => fields)).toEqual([{ epoch: 7, own: 6 }]);
  });

  test("damaged and foreign answers are asked again", async () => {
    const { bus, nodes, replica } = world(["b"]);
    await replica.follow(10, 3);
    nodes[0]?.asked.splice(0);
    let bad = 0;
    bus.serve(replicaReadSubject(volumeId, "b"), async () => {
      bad += 1;
      const { bytes, payloadAt } = encodeWith({ type: "bytes", shownLsn: 10, epoch: 3 }, 4096);
      bytes.fill(5, payloadAt);
      sealMessage(bytes);
      if (bad === 1) bytes[payloadAt + 7] = 0;
      return bytes;
    });
    expect(await bytesRead(replica)).toBe(5);
    expect(bad).toBe(2);
  });
});

describe("the feed", () => {
  const batch = (firstLsn: number): PendingBatch => {
    const draft = new PendingBatch({ bytes: Buffer.alloc(8192), address: 0 });
    draft.addRange(3, 0, 512);
    draft.firstLsn = firstLsn;
    return draft;
  };

  test("drops batches when a replica has them, and releases log by the least checkpoint of all", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    await replica.follow(10, 3);
    const applied: number[] = [];
    const checkpoints: number[] = [];
    const feed = new RemoteFeed(replica, {
      onApplied: (batches) => applied.push(...batches.map(({ lastLsn }) => lastLsn)),
      onHalted: () => undefined,
      onCheckpoint: (lsn) => checkpoints.push(lsn),
    });
    for (const lsn of [11, 12, 13]) feed.enqueue(batch(lsn));
    a.tell({ appliedLsn: 12, checkpointLsn: 12 });
    await settled();
    expect([applied, checkpoints]).toEqual([[11, 12], [5]]);
    const drained = feed.drain();
    b.tell({ appliedLsn: 13, checkpointLsn: 7 });
    await drained;
    expect([applied, checkpoints]).toEqual([
      [11, 12, 13],
      [5, 7],
    ]);
  });

  test("a node that was never heard of keeps the log", async () => {
    const { replica, bus } = world(["a", "b"]);
    bus.cut = (subject) => subject.includes(".b.");
    const alone = new RemoteReplica({
      bus,
      clock: new SystemClock(),
      volumeId,
      nodes: ["a", "never"],
      host: "a",
      onFenced: () => undefined,
      logShare: () => 0,
    });
    await alone.heard();
    expect(alone.state()).toMatchObject({ appliedLsn: 10, checkpointLsn: 0 });
    await replica.detach();
  });

  test("a replica that can't go on keeps the log until half of its room is used, one that fills three quarters", async () => {
    const { nodes, replica } = world(["a", "b"]);
    const [a, b] = nodes as [PlayedNode, PlayedNode];
    await replica.follow(10, 3);
    a.tell({ checkpointLsn: 9 });
    b.tell({ condition: "halted", checkpointLsn: 2 });
    await settled();
    const kept = (share: number): number => {
      logRoom.share = share;
      return replica.state().checkpointLsn;
    };
    expect([kept(0.4), kept(0.5)]).toEqual([2, 9]);
    b.tell({ condition: "filling", checkpointLsn: 0 });
    await settled();
    expect([kept(0.7), kept(0.75)]).toEqual([0, 9]);
    // Never all of them: somebody must hold the rest.
    a.tell({ condition: "halted" });
    await settled();
    expect(kept(0.99)).toBe(0);
    logRoom.share = 0;
    await replica.detach();
  });

  test("a changed placement counts at once: the new node with nothing, the one that went no more", async () => {
    const { bus, replica } = world(["a", "b"]);
    await replica.follow(10, 3);
    expect(replica.state().checkpointLsn).toBe(5);
    replica.setNodes(["a", "c"]);
    expect(replica.state().checkpointLsn).toBe(0);
    const c = new PlayedNode(bus, "c");
    c.tell({ checkpointLsn: 8 });
    await settled();
    expect(replica.state().checkpointLsn).toBe(5);
    replica.setNodes(["c"]);
    expect(replica.state().checkpointLsn).toBe(8);
    c.fill = 4;
    expect(await bytesRead(replica)).toBe(4);
    await replica.detach();
  });

  test("closing gives every batch back, applied or not", async () => {
    const { replica } = world(["a"]);
    await replica.follow(10, 3);
    const applied: number[] = [];
    const feed = new RemoteFeed(replica, {
      onApplied: (batches) => applied.push(batches.length),
      onHalted: () => undefined,
      onCheckpoint: () => undefined,
    });
    feed.enqueue(batch(11));
    await feed.close();
    expect(applied).toEqual([1]);
  });
});

test("a full node that is gone, and a copy on its way to a full disk, stop nobody's writes", async () => {
  const clock = new AheadClock();
  const { nodes, replica } = world(["a", "b", "c"], clock);
  const [a, b, c] = nodes as [PlayedNode, PlayedNode, PlayedNode];
  await replica.heard();
  const room = async (node: PlayedNode, change: Partial<ReplicaReport>): Promise<number> => {
    node.tell(change);
    await settled();
    return replica.roomBytes();
  };
  expect(await room(c, { condition: "filling", roomBytes: 0 })).toBe(2 ** 20);
  expect(await room(b, { roomBytes: 0 })).toBe(0);
  clock.aheadMs = 61_000;
  expect(await room(a, {})).toBe(2 ** 20);
  expect(await room(b, {})).toBe(0);
  // Somebody must have room for what is acknowledged.
  expect(await room(b, { condition: "halted" })).toBe(2 ** 20);
  expect(await room(a, { condition: "halted" })).toBe(0);
  await replica.detach();
});

test("writes are admitted by the room of the fullest node, minus what is under way", () => {
  const admission = new RemoteAdmission(() => 10_000);
  expect(admission.refuse(10_000)).toBeNull();
  admission.admit(8000);
  expect(admission.refuse(3000)).toMatchObject({ kind: "Full", _tag: "NodesFullError" });
  expect(admission.refuse(0)).toBeNull();
  admission.settle(5000);
  admission.withdraw(3000);
  expect(admission.refuse(10_000)).toBeNull();
});
