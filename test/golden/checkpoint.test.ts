// The checkpoint of docs/formats/checkpoint.md, byte for byte in both directions; every flipped bit, every cut and every
// surplus byte is found. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import { LocalBlocks } from "#shared/domain/local-blocks.ts";
import {
  type Checkpoint,
  decodeCheckpoint,
  encodeCheckpoint,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { SteppedRandom } from "../unit/file-store/stepped-clock.ts";
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

function partialCheckpoint(): Checkpoint {
  const local = new LocalBlocks();
  for (const [start, end] of [
    [4096, 12_288],
    [20_000, 20_010],
    [limits.extentBytes - 4096, limits.extentBytes],
  ] as const) {
    local.add(start, end);
  }
  return {
    ...checkpoint,
    position: null,
    detached: null,
    residency: {
      points: [
        { volumeId: "00000000000000aa", lsn: 77 },
        { volumeId: "5ca1ab1e00c0ffee", lsn: 40 },
      ],
      runs: [
        { extents: 2000, place: 1 },
        { extents: 60, place: 0 },
        { extents: 500, place: 2 },
      ],
      parts: [{ extent: 7, local }],
    },
  };
}

describe("checkpoint with remote extents", () => {
  const bytes = hexExample("checkpoint.md", "hex-partial");
  const accepts = (changed: Buffer): boolean => !isBadCheckpoint(decodeCheckpoint(changed));

  test("the page's bytes are written and read", () => {
    expect(encodeCheckpoint(partialCheckpoint()).toString("hex")).toBe(bytes.toString("hex"));
    expect(decodeCheckpoint(bytes)).toEqual(partialCheckpoint());
  });

  test("every flipped bit, cut and surplus byte is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });

  test("with a right checksum, every wrong byte of the table is refused or another table, and never throws", () => {
    const again = (changed: Buffer): Buffer => {
      changed.writeBigUInt64LE(checksumOf(changed.subarray(8)), 0);
      return changed;
    };
    for (let at = 40; at < bytes.length; at += 1) {
      for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
        const changed = Buffer.from(bytes);
        changed[at] = value;
        const read = decodeCheckpoint(again(changed));
        // One encoding only: what is read is written as it was.
        if (!isBadCheckpoint(read)) expect(encodeCheckpoint(read).equals(changed)).toBe(true);
      }
    }
  });

  test("tables that no Varve writes are refused", () => {
    const whole = partialCheckpoint();
    const { residency } = whole;
    if (residency === "full") throw new TypeError("the example is partial");
    const [run = { extents: 1, place: 1 }] = residency.runs;
    for (const wrong of [
      { ...residency, runs: [{ extents: 2560, place: 0 }] },
      { ...residency, runs: [run, ...residency.runs.slice(1, 2)] },
      { ...residency, runs: [{ extents: 2560, place: 1 }] },
      { ...residency, parts: [{ extent: 2001, local: residency.parts[0]?.local ?? new LocalBlocks() }] },
      { ...residency, parts: [{ extent: 7, local: new LocalBlocks() }] },
    ]) {
      expect(() => encodeCheckpoint({ ...whole, residency: wrong })).toThrow("invariant");
    }
  });

  test("random tables come back, scattered ones stay small", () => {
    const random = new SteppedRandom(4);
    for (let round = 0; round < 50; round += 1) {
      const local = new LocalBlocks();
      for (let index = random.integer(1, 200); index > 0; index -= 1) {
        const start = random.integer(0, limits.extentBytes - 1);
        local.add(start, Math.min(limits.extentBytes, start + random.integer(1, 9000)));
      }
      const whole = partialCheckpoint();
      if (whole.residency === "full" || local.full) continue;
      const residency = { ...whole.residency, parts: [{ extent: random.integer(0, 2000), local }] };
      const written = encodeCheckpoint({ ...whole, residency });
      expect(decodeCheckpoint(written)).toEqual({ ...whole, residency });
      expect(written.length).toBeLessThan(200 + 130 + 7 * local.edgeCount + 10);
    }
  });
});
