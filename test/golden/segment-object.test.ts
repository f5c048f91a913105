// The segment of docs/formats/segment.md, byte for byte in both directions; every flipped bit and every cut is found, in the
// whole object and in what a reader of the footer alone sees. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import { isBadRecord, readRecord } from "#shared/formats/log-record.ts";
import { openFrame } from "#shared/formats/object-frame.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import {
  openSegment,
  readSegmentFooter,
  SegmentBuilder,
  sealSegment,
  segmentTrailerBytes,
} from "#shared/formats/segment-object.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

describe("segment", () => {
  const bytes = hexExample("segment.md");
  const record = hexExample("log-record.md");
  const footerStart = 64 + record.length;
  const accepts = (changed: Buffer): boolean => !isBadObject(openSegment(changed));

  test("the page's bytes are written", () => {
    const builder = new SegmentBuilder({
      volumeId: "5ca1ab1e00c0ffee",
      line: "0f1e2d3c4b5a6978",
      archiverEpoch: 3,
    });
    const batch = readRecord(record);
    if (isBadRecord(batch)) throw new Error(batch.detail);
    builder.add({ ...batch, record });
    const sealed = sealSegment(builder.take(), 0);
    if (isBadObject(sealed)) throw new Error(sealed.detail);
    expect(sealed.object.toString("hex")).toBe(bytes.toString("hex"));
    expect(sealed.ref).toMatchObject({ firstLsn: 42, lastLsn: 44, bytes: bytes.length, footerStart });
  });

  test("the page's bytes are read from the end", () => {
    const index = readSegmentFooter(bytes.subarray(footerStart), bytes.length);
    if (isBadObject(index)) throw new Error(index.detail);
    expect(index).toMatchObject({
      volumeId: "5ca1ab1e00c0ffee",
      line: "0f1e2d3c4b5a6978",
      firstLsn: 42,
      lastLsn: 44,
      recordBytes: 8192,
      previousChecksum: 0x1122334455667788n,
      lastChecksum: record.readBigUInt64LE(0),
      lastEpoch: 3,
      events: [{ kind: "epoch", lsn: 42, wallTimeMs: 1_763_688_000_000, writer: "attic pid 4711", epoch: 3 }],
    });
    expect([...index.kinds]).toEqual([4, 0, 3]);
    expect([...index.offsets]).toEqual([0, 2 ** 33, 1_048_576]);
    expect([...index.lengths]).toEqual([0, 5, 65_536]);
    expect([...index.places]).toEqual([0, 4096, 0]);
    const frame = index.frameOf(4096);
    const raw = openFrame(bytes.subarray(frame.objectOffset), frame);
    if (isBadObject(raw)) throw new Error(raw.detail);
    expect(raw.equals(record)).toBe(true);
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every flipped bit of what the footer's checksum covers is found in the tail alone", () => {
    const tail = bytes.subarray(footerStart);
    const taken = (changed: Buffer): boolean => !isBadObject(readSegmentFooter(changed, bytes.length));
    expect(taken(tail)).toBe(true);
    const digestFrom = (tail.length - 32) * 8;
    expect(undetectedFlips(tail, taken).filter((bit) => bit < digestFrom)).toEqual([]);
    const cuts = Array.from({ length: tail.length - 1 }, (_, cut) => tail.subarray(cut + 1));
    expect(cuts.filter(taken)).toEqual([]);
    expect(tail.length).toBeGreaterThan(segmentTrailerBytes);
  });

  test("every cut is found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
  });
});
