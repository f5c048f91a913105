// The checkpoint of docs/formats/checkpoint.md, byte for byte in both directions; every flipped bit, every cut and every
// surplus byte is found. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import {
  type Checkpoint,
  decodeCheckpoint,
  encodeCheckpoint,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const checkpoint: Checkpoint = {
  volumeId: "5ca1ab1e00c0ffee",
  line: "0f1e2d3c4b5a6978",
  epoch: 3,
  appliedLsn: 44,
  batchChecksum: 0x146dcf450a1866a3n,
  sizeBytes: 10_737_418_240,
  residency: "full",
  position: { sequence: 7, offset: 12_288 },
  detached: {
    sizeBytes: 10_737_418_240,
    mtimeNs: 1_763_688_000_123_456_789n,
    ctimeNs: 1_763_688_000_123_456_789n,
    inode: 1311n,
  },
};

describe("checkpoint", () => {
  const bytes = hexExample("checkpoint.md");
  const accepts = (changed: Buffer): boolean => !isBadCheckpoint(decodeCheckpoint(changed));

  test("the page's bytes are written", () => {
    expect(encodeCheckpoint(checkpoint).toString("hex")).toBe(bytes.toString("hex"));
  });

  test("the page's bytes are read", () => {
    expect(decodeCheckpoint(bytes)).toEqual(checkpoint);
  });

  test("its batch is the one of the record's page", () => {
    expect(checkpoint.batchChecksum).toBe(hexExample("log-record.md").readBigUInt64LE(0));
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every cut and every surplus byte is found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });
});
