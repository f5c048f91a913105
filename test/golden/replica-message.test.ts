// The messages of docs/formats/replica-message.md, byte for byte in both directions; every flipped bit, every cut and every foreign
// header is refused. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import { peekRangeBytes, readPeekRanges, writePeekRanges } from "#shared/formats/peek-ranges.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  type ReplicaMessage,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const messages: readonly ReplicaMessage[] = [
  { type: "read", offset: 2 ** 50 - 4096, length: 4096, leastLsn: 2 ** 40, waitMs: 250 },
  { type: "bytes", shownLsn: 4711, epoch: 3 },
  { type: "peek", leastLsn: 2 ** 40 },
  { type: "peeked", shownLsn: 4711, epoch: 3, found: 2 ** 16 - 1 },
  { type: "ask" },
  { type: "grant" },
  {
    type: "granted",
    imagePath: "/srv/varve/volumes/disk0/disk.raw",
    token: "0123456789abcdef".repeat(2),
    epoch: 3,
  },
  { type: "extent", offset: 2 ** 40, length: 2 ** 19, leastLsn: 12, waitMs: 1000 },
  { type: "extentBytes", appliedLsn: 2 ** 40, begunLsn: 2 ** 40 + 7 },
  { type: "survey", first: 2 ** 19, count: 2 ** 19, leastLsn: 12, waitMs: 1000 },
  { type: "surveyed", appliedLsn: 0, begunLsn: 3 },
  { type: "mark", name: "before-upgrade" },
  { type: "marked", lsn: 2 ** 40 },
  { type: "collect", run: "0f1e2d3c4b5a6978", dryRun: false, acceptClock: true },
  { type: "collected", isDone: true },
  { type: "fill" },
  { type: "evict", run: "0f1e2d3c4b5a6978", coldAfterMs: 2_592_000_000 },
  { type: "evicted", extents: 2 ** 20, isDone: false },
  {
    ...({
      type: "scrub",
      run: "0f1e2d3c4b5a6978",
      isRepair: true,
    } as const),
    bytesPerSecond: 2 ** 40,
    first: 2 ** 20,
    count: 0,
  },
  { type: "scrubbed", isDone: true, doneBytes: 2 ** 45, totalBytes: 2 ** 46 },
  { type: "mend", extent: 2 ** 20, lsn: 2 ** 40, sum: "00f1e2d3c4b5a697", peer: "attic" },
  { type: "mended", isMended: false },
  { type: "refused", kind: "Retry", tag: "ReplicaBehind", message: "at LSN 12", epoch: 3 },
  {
    type: "state",
    report: {
      node: "shelf",
      host: "shelf.lan",
      condition: "halted",
      reason: "the batch at LSN 13 does not continue the image",
      appliedLsn: 12,
      checkpointLsn: 7,
      epoch: 3,
      sizeBytes: 2 ** 40,
      allocatedBytes: 2 ** 33,
      roomBytes: 2 ** 39,
    },
  },
  {
    type: "state",
    report: {
      node: "shelf",
      host: "shelf.lan",
      condition: "following",
      reason: "the batch at LSN 13 does not continue the image",
      appliedLsn: 12,
      checkpointLsn: 7,
      epoch: 3,
      sizeBytes: 2 ** 40,
      allocatedBytes: 2 ** 33,
      roomBytes: 2 ** 39,
      remoteExtents: 17,
    },
  },
  { type: "where" },
  {
    type: "place",
    line: "0f1e2d3c4b5a6978",
    epoch: 3,
    appliedLsn: 4711,
    checksum: 0x0000_1234_5678_9abcn,
    sequence: 99,
    sizeBytes: 2 ** 40,
  },
  { type: "copy", offset: 2 ** 30, length: 2 ** 26, leastLsn: 4711 },
  { type: "piece", skippedBytes: 2 ** 26, appliedLsn: 4711, begunLsn: 4712 },
  { type: "hold", lsn: 4711, holdMs: 2000 },
  { type: "held", appliedLsn: 4711 },
  { type: "hash", offset: 2 ** 22, extents: 16 },
  { type: "hashes", appliedLsn: 4711 },
  { type: "repair", from: null },
  { type: "repair", from: "bucket" },
  { type: "repair", from: "peers" },
  { type: "resize", sizeBytes: 2 ** 40 },
  { type: "resized", sizeBytes: 2 ** 40 },
  { type: "yield", isForced: true },
  { type: "yielded", disconnected: 2 },
  { type: "reach", lsn: 4711 },
  { type: "reached", lsn: 4711 },
];

const fault = (bytes: Buffer): string | null => {
  const decoded = decodeMessage(bytes);
  return isBadMessage(decoded) ? decoded.fault : null;
};

/** With a right checksum again. */
const changed = (bytes: Buffer, change: (copy: Buffer) => void): Buffer => {
  const copy = Buffer.from(bytes);
  change(copy);
  sealMessage(copy);
  return copy;
};

describe("replica messages", () => {
  const example = hexExample("replica-message.md");

  test("the page's bytes are written and read", () => {
    const { bytes, payloadAt } = encodeWith({ type: "bytes", shownLsn: 4711, epoch: 3 }, 5);
    bytes.write("varve", payloadAt, "latin1");
    sealMessage(bytes);
    expect(bytes.toString("hex")).toBe(example.toString("hex"));
    expect(decodeMessage(example)).toEqual({
      message: { type: "bytes", shownLsn: 4711, epoch: 3 },
      payload: Buffer.from("varve"),
    });
  });

  test("each message comes back as it was", () => {
    for (const message of messages) {
      expect(decodeMessage(encodeMessage(message))).toEqual({ message, payload: Buffer.alloc(0) });
    }
  });

  test("every flipped bit and every cut is found", () => {
    for (const bytes of [example, ...messages.map(encodeMessage)]) {
      const accepts = (other: Buffer): boolean => fault(other) === null;
      expect(accepts(bytes)).toBe(true);
      expect(undetectedFlips(bytes, accepts)).toEqual([]);
      expect(undetectedCuts(bytes, accepts)).toEqual([]);
    }
  });

  test("what is intact but not ours is refused by its fault", () => {
    const [read] = messages.map(encodeMessage) as [Buffer];
    expect(fault(changed(read, (copy) => copy.writeUInt32LE(0, 8)))).toBe("notAMessage");
    expect(fault(changed(read, (copy) => copy.writeUInt16LE(2, 12)))).toBe("version");
    expect(fault(changed(read, (copy) => copy.writeUInt16LE(60_000, 14)))).toBe("truncated");
    expect(fault(changed(read, (copy) => copy.write("reed", 18, "latin1")))).toBe("fields");
    expect(fault(changed(Buffer.concat([read, Buffer.alloc(1)]), () => undefined))).toBe("fields");
    expect(fault(Buffer.alloc(0))).toBe("truncated");
    const surplus = (message: ReplicaMessage): Buffer =>
      changed(Buffer.concat([encodeMessage(message), Buffer.alloc(1)]), () => undefined);
    expect(fault(surplus({ type: "where" }))).toBe("fields");
    expect(fault(surplus({ type: "piece", skippedBytes: 0, appliedLsn: 1, begunLsn: 1 }))).toBeNull();
    expect(fault(encodeMessage({ type: "hash", offset: 0, extents: 17 }))).toBe("fields");
    expect(fault(encodeMessage({ type: "hold", lsn: 1, holdMs: 10_001 }))).toBe("fields");
    expect(fault(encodeMessage({ type: "copy", offset: 0, length: 0, leastLsn: 1 }))).toBe("fields");
  });

  test("the ranges of a peek come back as they were, and what is none is refused", () => {
    const ranges = [
      { offset: 2 ** 50 - 512, length: 512 },
      { offset: 0, length: limits.replicaPeek.readBytesMax },
    ];
    const bytes = Buffer.alloc(ranges.length * peekRangeBytes);
    writePeekRanges(ranges, bytes, 0);
    expect(bytes.toString("hex")).toBe("00feffffffff030000020000000000000000000000200000");
    expect(readPeekRanges(bytes)).toEqual(ranges);
    for (let cut = 1; cut < peekRangeBytes; cut += 1) expect(readPeekRanges(bytes.subarray(cut))).toBeNull();
    expect(readPeekRanges(Buffer.alloc(0))).toBeNull();
    expect(readPeekRanges(Buffer.alloc(peekRangeBytes))).toBeNull();
    const many = Buffer.alloc((limits.replicaPeek.rangesMax + 1) * peekRangeBytes, 1);
    expect(readPeekRanges(many)).toBeNull();
    const beyond = Buffer.from(bytes.subarray(0, peekRangeBytes));
    beyond.writeUInt32LE(513, 8);
    expect(readPeekRanges(beyond)).toBeNull();
    expect(fault(encodeMessage({ type: "peeked", shownLsn: 1, epoch: 1, found: 2 ** 16 }))).toBe("fields");
  });

  test("text that no header can hold is sent as far as it can be", () => {
    const bytes = encodeMessage({
      type: "refused",
      kind: "Full",
      tag: "T",
      message: `é${"x".repeat(999)}`,
      epoch: 0,
    });
    const decoded = decodeMessage(bytes);
    expect(decoded).toMatchObject({ message: { message: `?${"x".repeat(254)}` } });
  });
});
