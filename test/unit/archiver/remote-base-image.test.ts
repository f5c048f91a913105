// Bases read from replicas on other machines: whatever node answers, what was read is at least as new as the base's `s`, and its `e` is
// the greatest LSN that any of them had begun to apply. The nodes are played; the messages are real.
import { beforeEach, describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { replicaReadSubject, replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import { RemoteBaseImage } from "../../../services/archiver/engine/remote-base-image.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

const volumeId = "00000000000000a1";
const { extentBytes } = limits;
const sizeBytes = 20 * extentBytes;

/** Says where it stands, has these extents, and fills what is read with one value. */
class PlayedNode {
  appliedLsn = 0;
  begunLsn = 0;
  extents = new Set<number>();
  asked = 0;
  isLocal = true;
  readonly #bus: MemoryMessageBus;
  readonly #name: string;
  readonly #value: number;

  constructor(bus: MemoryMessageBus, name: string, value: number) {
    this.#bus = bus;
    this.#name = name;
    this.#value = value;
    bus.serve(replicaReadSubject(volumeId, name), async (data) => this.#answer(data));
  }

  tell(): void {
    const report = {
      ...({ node: this.#name, host: "h", condition: "following", reason: "", epoch: 1 } as const),
      appliedLsn: this.appliedLsn,
      checkpointLsn: 0,
      sizeBytes,
      allocatedBytes: 0,
      roomBytes: 0,
    };
    this.#bus.publish(replicaStateSubject(volumeId, this.#name), encodeMessage({ type: "state", report }));
  }

  #answer(data: Uint8Array): Uint8Array | null {
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded)) return null;
    const { message } = decoded;
    if (message.type !== "extent" && message.type !== "survey") return null;
    this.asked += 1;
    if (message.type === "extent" && !this.isLocal) {
      const refusal = { kind: "Retry", tag: "ExtentNotLocal", message: "in the bucket", epoch: 1 } as const;
      return encodeMessage({ type: "refused", ...refusal });
    }
    const { appliedLsn, begunLsn } = this;
    const type = message.type === "extent" ? "extentBytes" : "surveyed";
    const length = message.type === "extent" ? message.length : Math.ceil(message.count / 8);
    const { bytes, payloadAt } = encodeWith({ type, appliedLsn, begunLsn }, length);
    bytes.fill(message.type === "extent" ? this.#value : 0, payloadAt);
    if (message.type === "survey") {
      for (const extent of this.extents) {
        const at = payloadAt + Math.floor(extent / 8);
        bytes.writeUInt8(bytes.readUInt8(at) | (1 << (extent % 8)), at);
      }
    }
    sealMessage(bytes);
    return bytes;
  }
}

describe("a base image on other machines", () => {
  let bus: MemoryMessageBus;
  let image: RemoteBaseImage;
  let one: PlayedNode;
  let two: PlayedNode;
  const slab = new MemoryFileStore().allocateSlab(extentBytes);

  beforeEach(() => {
    bus = new MemoryMessageBus();
    const clock = new SteppedClock(1);
    image = new RemoteBaseImage({ bus, clock, volumeId, nodes: () => ["one", "two"], sizeBytes });
    one = new PlayedNode(bus, "one", 1);
    two = new PlayedNode(bus, "two", 2);
  });

  const told = async (): Promise<void> => {
    one.tell();
    two.tell();
    await new Promise((resolve) => setImmediate(resolve));
  };

  test("holes are those of the survey; what the disk has behind it may hold bytes", async () => {
    one.appliedLsn = 9;
    one.extents = new Set([0, 3, 4, 19]);
    await told();
    await image.survey(9);
    const runs: [number, number, boolean][] = [];
    for (let offset = 0; offset < sizeBytes; ) {
      const [run] = image.allocation(offset, sizeBytes - offset);
      if (run === undefined) break;
      runs.push([offset / extentBytes, run.length / extentBytes, run.allocated]);
      offset += run.length;
    }
    expect(runs).toEqual([
      [0, 1, true],
      [1, 2, false],
      [3, 2, true],
      [5, 14, false],
      [19, 1, true],
    ]);
    expect(image.allocation(24 * extentBytes, extentBytes)[0]?.allocated).toBe(true);
  });

  test("`e` is the greatest LSN that any answer had begun, survey and reads of every node", async () => {
    Object.assign(one, { appliedLsn: 9, begunLsn: 30 });
    Object.assign(two, { appliedLsn: 8, begunLsn: 20 });
    await told();
    await image.survey(7);
    expect(image.state()).toMatchObject({ appliedLsn: 9, begunLsn: 30 });
    Object.assign(two, { appliedLsn: 12, begunLsn: 44 });
    await told();
    await image.read(slab, 0, extentBytes, 0);
    expect(slab.bytes.every((byte) => byte === 2)).toBe(true);
    expect(image.state()).toMatchObject({ appliedLsn: 12, begunLsn: 44 });
    // The next base begins anew.
    Object.assign(one, { appliedLsn: 50, begunLsn: 50 });
    await told();
    await image.survey(46);
    expect(image.state().begunLsn).toBe(50);
  });

  test("an answer from before `s`, or of bytes that are in the bucket only, is no answer: the next node is asked", async () => {
    Object.assign(one, { appliedLsn: 9, begunLsn: 9 });
    Object.assign(two, { appliedLsn: 8, begunLsn: 8 });
    await told();
    await image.survey(8);
    one.isLocal = false;
    await image.read(slab, 0, extentBytes, 0);
    expect(slab.bytes.every((byte) => byte === 2)).toBe(true);
    two.isLocal = false;
    await expect(image.read(slab, 0, extentBytes, 0)).rejects.toMatchObject({ kind: "Retry" });
    [one, two].forEach((node) => Object.assign(node, { isLocal: true, appliedLsn: 7 }));
    await expect(image.read(slab, 0, extentBytes, 0)).rejects.toMatchObject({ kind: "Retry" });
  });

  test("without a node that is heard of there is no base", async () => {
    await expect(image.survey(1)).rejects.toMatchObject({ _tag: "NoReplicaForBase", kind: "Retry" });
    expect(one.asked + two.asked).toBe(0);
  });
});
