// Where replicas may go, judged on the placement that is replaced, with nodes that the test plays on a memory bus: what is refused
// changes nothing, a move ends only when all that stay follow, and replicas are compared at one LSN or not at all.
import { beforeEach, describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import type { FillOrigin, ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  type ReplicaRefusal,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import { ReplicaPlacing } from "../../../services/api/engine/replica-placing.ts";

const id = "5ca1ab1e00c0ffee";
const record: VolumeRecord = {
  id,
  name: "disk0",
  sizeBytes: 8 * 2 ** 20,
  durability: "write",
  createdAtMs: 0,
  state: "active",
};
let map: KeyTableMap;
let bus: MemoryMessageBus;
let nodes: Map<string, PlayedNode>;
let placing: ReplicaPlacing;
let notes: string[];

/** Says where it stands, holds, and gives checksums of one byte's worth. */
class PlayedNode {
  condition: ReplicaReport["condition"] = "following";
  lsn = 10;
  sum = 1n;
  /** Applies on, whatever it is told. */
  restless = false;
  /** Fills that it was told to begin, and from where. */
  readonly fills: (FillOrigin | null)[] = [];
  /** What it says to that. */
  fillRefusal: ReplicaRefusal | null = null;
  readonly name: string;

  constructor(name: string) {
    this.name = name;
    bus.serve(replicaReadSubject(id, name), async () =>
      encodeMessage({ type: "state", report: this.report }),
    );
    bus.serve(replicaCopySubject(id, name), async (data) => this.#answer(data));
  }

  get report(): ReplicaReport {
    const { name: node, condition, lsn } = this;
    const place = { appliedLsn: lsn, checkpointLsn: lsn, epoch: 1, sizeBytes: record.sizeBytes };
    return { node, host: node, condition, reason: "", ...place, allocatedBytes: 0, roomBytes: 0 };
  }

  #answer(data: Uint8Array): Uint8Array | null {
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded)) return null;
    const { message } = decoded;
    if (this.restless) this.lsn += 1;
    if (message.type === "hold") {
      this.lsn = Math.max(this.lsn, message.lsn);
      return encodeMessage({ type: "held", appliedLsn: this.lsn });
    }
    if (message.type === "repair") {
      this.fills.push(message.from);
      return encodeMessage(this.fillRefusal ?? { type: "state", report: this.report });
    }
    if (message.type !== "hash") return null;
    const { bytes, payloadAt } = encodeWith({ type: "hashes", appliedLsn: this.lsn }, 8 * message.extents);
    for (let index = 0; index < message.extents; index += 1) {
      bytes.writeBigUInt64LE(index === 1 ? this.sum : 7n, payloadAt + index * 8);
    }
    sealMessage(bytes);
    return bytes;
  }
}

const places = (): readonly string[] =>
  (map.placementOf(id)?.replicas ?? []).map(({ node, leaving }) =>
    leaving === true ? `${node} leaving` : node,
  );
const tagOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (cause: unknown) => (cause as { readonly _tag: string })._tag,
  );

beforeEach(async () => {
  bus = new MemoryMessageBus();
  const clock = new SystemClock();
  map = new KeyTableMap(new MemoryKeyTable(new MemoryKeys()), clock);
  await map.ready();
  nodes = new Map();
  notes = [];
  for (const [index, name] of ["a", "b", "c", "d"].entries()) {
    nodes.set(name, new PlayedNode(name));
    const pool = { name: "main", capacityBytes: 2 ** 40, freeBytes: 2 ** 39, quotaBytes: null, tags: [] };
    await map.putNode({ name, host: name, version: "0", pools: [pool], renewal: index });
  }
  const pool = "main";
  await map.changePlacement(id, () => ({
    volumeId: id,
    beginBytes: record.sizeBytes,
    replicas: [
      { node: "a", pool },
      { node: "b", pool },
    ],
  }));
  placing = new ReplicaPlacing({
    map,
    bus,
    clock,
    require: () => record,
    replicas: () =>
      (map.placementOf(id)?.replicas ?? []).map(({ node, pool: name, leaving }) => ({
        volume: "disk0",
        node,
        pool: name,
        leaving: leaving === true,
        report: nodes.get(node)?.report ?? null,
      })),
    ground: () => ({
      nodes: map.nodes().flatMap((one) => (one.drained ? [] : [one.record])),
      placements: map.placements(),
      sizeOf: () => record.sizeBytes,
    }),
    volumes: () => [record],
    onNote: (text) => notes.push(text),
  });
});

const played = (name: string): PlayedNode => nodes.get(name) as PlayedNode;

describe("placing", () => {
  test("adds where there is room, one per node, three at most", async () => {
    expect(await tagOf(placing.add("disk0", "a"))).toBe("ReplicaThere");
    expect(await tagOf(placing.add("disk0", "nowhere"))).toBe("UnknownNodeError");
    await map.setDrained("c", true);
    expect(await tagOf(placing.add("disk0", "c"))).toBe("NodeDrained");
    expect(await placing.add("disk0", null)).toEqual({ node: "d", pool: "main" });
    expect(await tagOf(placing.add("disk0", null))).toBe("ReplicaCountError");
    expect(places()).toEqual(["a", "b", "d"]);
  });

  test("repairs from where it was told; the only one that follows only from the bucket, one that does not from nowhere else", async () => {
    const { fills } = played("a");
    await placing.repair("disk0", "a");
    await placing.repair("disk0", "a", "peers");
    played("b").condition = "halted";
    expect(await tagOf(placing.repair("disk0", "a"))).toBe("ReplicaLast");
    await placing.repair("disk0", "a", "bucket");
    played("a").condition = "halted";
    expect(await tagOf(placing.repair("disk0", "a", "peers"))).toBe("ReplicaLast");
    await placing.repair("disk0", "a");
    expect(fills).toEqual([null, "peers", "bucket", "bucket"]);
    const refused = { type: "refused", kind: "Invalid", message: "none", epoch: 0 } as const;
    played("a").fillRefusal = { ...refused, tag: "FillNoBucket" };
    expect(await tagOf(placing.repair("disk0", "a"))).toBe("FillNoBucket");
  });

  test("a new replica is told where it is filled from as soon as its node has heard of it", async () => {
    let cuts = 2;
    bus.cut = (subject) => subject === replicaCopySubject(id, "c") && (cuts -= 1) >= 0;
    expect(await placing.add("disk0", "c", "peers")).toEqual({ node: "c", pool: "main" });
    expect([cuts < 0, played("c").fills]).toEqual([true, ["peers"]]);
  });

  test("removes nothing unless another one says now that it follows", async () => {
    played("b").condition = "filling";
    expect(await tagOf(placing.remove("disk0", "a"))).toBe("ReplicaLast");
    played("b").condition = "following";
    bus.cut = (subject) => subject.includes(".b.");
    expect(await tagOf(placing.remove("disk0", "a"))).toBe("ReplicaLast");
    bus.cut = () => false;
    expect(await tagOf(placing.remove("disk0", "c"))).toBe("ReplicaMissing");
    // Two at once: each is judged on what the other left.
    const both = await Promise.all([
      tagOf(placing.remove("disk0", "a")),
      tagOf(placing.remove("disk0", "b")),
    ]);
    expect(both.sort()).toEqual(["ReplicaLast", "done"]);
    expect(places()).toHaveLength(1);
  });

  test("a move ends when all that stay follow, and one is under way at a time", async () => {
    played("c").condition = "filling";
    await placing.move("disk0", "a", "c");
    expect(await tagOf(placing.move("disk0", "b", "d"))).toBe("ReplicaMoving");
    await placing.tend();
    expect(places()).toEqual(["a leaving", "c", "b"]);
    played("c").condition = "following";
    played("b").condition = "lagging";
    await placing.tend();
    expect(places()).toEqual(["a leaving", "c", "b"]);
    played("b").condition = "following";
    await placing.tend();
    expect(places()).toEqual(["c", "b"]);
  });

  test("a drained node is emptied by whoever comes by; without another one it keeps what it has, and that is told once", async () => {
    for (const name of ["c", "d"]) await map.setDrained(name, true);
    await placing.drain("a");
    await placing.tend();
    expect(places()).toEqual(["a", "b"]);
    expect(notes).toHaveLength(1);
    await placing.undrain("d");
    await placing.tend();
    expect(places()).toEqual(["a leaving", "d", "b"]);
    await placing.tend();
    expect(places()).toEqual(["d", "b"]);
  });
});

describe("undraining", () => {
  test("undoes a move whose new replica does not follow yet: all is as before the drain", async () => {
    await map.setDrained("d", true);
    played("c").condition = "filling";
    await placing.drain("a");
    // Added since: not what the move made.
    await placing.undrain("d");
    await placing.add("disk0", "d");
    expect([...places()].sort()).toEqual(["a leaving", "b", "c", "d"]);
    await placing.undrain("a");
    expect(places()).toEqual(["a", "b", "d"]);
    await placing.tend();
    expect(places()).toEqual(["a", "b", "d"]);
  });

  test("lets a move end whose new replica follows, and leaves moves of other nodes alone", async () => {
    played("b").condition = "lagging";
    await placing.drain("a");
    expect(places()).toEqual(["a leaving", "c", "b"]);
    await placing.undrain("b");
    await placing.undrain("a");
    expect(places()).toEqual(["a leaving", "c", "b"]);
    played("b").condition = "following";
    await placing.tend();
    expect(places()).toEqual(["c", "b"]);
  });
});

describe("comparing", () => {
  test("brings all to the furthest LSN, and tells what differs there", async () => {
    played("b").lsn = 17;
    const same = await placing.verify("disk0", 0, null);
    expect(same).toMatchObject({ lsn: 17, nextOffset: null, differing: [] });
    expect(played("a").lsn).toBe(17);
    played("b").sum = 2n;
    const { differing } = await placing.verify("disk0", 0, null);
    const sums = [
      { node: "a", sum: "0000000000000001" },
      { node: "b", sum: "0000000000000002" },
    ];
    expect(differing).toEqual([{ offset: 4 * 2 ** 20, sums }]);
  });

  test("says nothing about replicas that did not stay, or that are alone", async () => {
    played("b").restless = true;
    played("b").sum = 2n;
    expect(await tagOf(placing.verify("disk0", 0, null))).toBe("ReplicaNotHeld");
    played("b").condition = "halted";
    expect(await tagOf(placing.verify("disk0", 0, null))).toBe("NothingToCompare");
  });
});
