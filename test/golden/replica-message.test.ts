// The messages of docs/formats/replica-message.md, byte for byte in both directions; every flipped bit, every cut and every foreign
// header is refused. The example is read from the page itself.
import { describe, expect, test } from "vitest";
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
  { type: "bytes", appliedLsn: 4711, epoch: 3 },
  { type: "ask" },
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
    const { bytes, payloadAt } = encodeWith({ type: "bytes", appliedLsn: 4711, epoch: 3 }, 5);
    bytes.write("varve", payloadAt, "latin1");
    sealMessage(bytes);
    expect(bytes.toString("hex")).toBe(example.toString("hex"));
    expect(decodeMessage(example)).toEqual({
      message: { type: "bytes", appliedLsn: 4711, epoch: 3 },
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
