// The record of docs/formats/log-record.md, byte for byte in both directions; every flipped bit and every cut is found.
// The example is read from the page itself.
import { unpack } from "msgpackr";
import { describe, expect, test } from "vitest";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { frameRecord, isBadRecord, readRecord } from "#shared/formats/log-record.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const page = "log-record.md";
const frame = {
  line: "0f1e2d3c4b5a6978",
  epoch: 3,
  wallTimeMs: 1_763_688_000_000,
  durableLsn: 41,
  previousChecksum: 0x1122334455667788n,
};

describe("log record", () => {
  const bytes = hexExample(page);
  const accepts = (changed: Buffer): boolean => !isBadRecord(readRecord(changed));

  test("the page's bytes are written, over whatever stood in the slab", () => {
    const slab = { bytes: Buffer.alloc(8192, 0xee), address: 0 };
    const draft = new BatchDraft(slab);
    draft.addValue(entryKind.epoch, "attic pid 4711");
    slab.bytes.write("varve", draft.addWrite(2 ** 33, 5), "latin1");
    draft.addRange(entryKind.trim, 1_048_576, 65_536);
    draft.firstLsn = 42;
    frameRecord(draft, frame);
    expect(slab.bytes.toString("hex")).toBe(bytes.toString("hex"));
    expect(draft.recordBytes).toBe(bytes.length);
    expect(draft.checksum).toBe(bytes.readBigUInt64LE(0));
    expect(draft).toMatchObject({
      epoch: 3,
      wallTimeMs: frame.wallTimeMs,
      previousChecksum: frame.previousChecksum,
    });
  });

  test("the page's bytes are read", () => {
    const batch = readRecord(bytes);
    expect(batch).toEqual({
      ...frame,
      firstLsn: 42,
      checksum: bytes.readBigUInt64LE(0),
      entries: [
        { kind: "epoch", writer: "attic pid 4711" },
        { kind: "write", offset: 2 ** 33, length: 5, payloadStart: 0 },
        { kind: "trim", offset: 1_048_576, length: 65_536 },
      ],
      payload: Buffer.from("varve"),
    });
  });

  test("the packed header is plain msgpack", () => {
    const header: unknown = unpack(bytes.subarray(72, 72 + bytes.readUInt32LE(24)));
    expect(header).toEqual([
      frame.line,
      frame.epoch,
      frame.wallTimeMs,
      [4, "attic pid 4711", 0, 2 ** 33, 5, 3, 1_048_576, 65_536],
    ]);
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every cut is found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
  });
});
