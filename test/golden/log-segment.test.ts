// The segment header of docs/formats/log-segment.md, byte for byte in both directions; every flipped bit and every cut is
// found. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import {
  isBadSegmentHeader,
  readSegmentHeader,
  type SegmentHeader,
  writeSegmentHeader,
} from "#shared/formats/log-segment.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const header: SegmentHeader = {
  volumeId: "5ca1ab1e00c0ffee",
  line: "0f1e2d3c4b5a6978",
  sequence: 7,
  segmentBytes: 33_554_432,
  firstLsn: 42,
  durableLsn: 41,
  previousChecksum: 0x1122334455667788n,
};

describe("log segment header", () => {
  const bytes = hexExample("log-segment.md");
  const accepts = (changed: Buffer): boolean => !isBadSegmentHeader(readSegmentHeader(changed));

  test("the page's bytes are written, over whatever stood in the block", () => {
    const block = Buffer.alloc(4096 * 3, 0xee);
    writeSegmentHeader(block, 4096, header);
    expect(block.subarray(4096, 8192).toString("hex")).toBe(bytes.toString("hex"));
    expect(block.subarray(0, 4096).every((byte) => byte === 0xee)).toBe(true);
    expect(block.subarray(8192).every((byte) => byte === 0xee)).toBe(true);
  });

  test("the page's bytes are read, wherever they stand", () => {
    expect(readSegmentHeader(bytes)).toEqual(header);
    expect(readSegmentHeader(Buffer.concat([Buffer.alloc(4096), bytes]), 4096)).toEqual(header);
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every cut is found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
  });
});
