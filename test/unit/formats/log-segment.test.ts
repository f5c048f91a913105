// Each rule of docs/formats/log-segment.md with a header that breaks only it, in both directions: what a reader refuses, a
// writer never writes. Random headers come back as they went in.
import { describe, expect, test } from "vitest";
import { checksumOf } from "#shared/formats/checksum.ts";
import {
  isBadSegmentHeader,
  readSegmentHeader,
  type SegmentHeader,
  writeSegmentHeader,
} from "#shared/formats/log-segment.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const header: SegmentHeader = {
  volumeId: "0011223344556677",
  line: "0123456789abcdef",
  sequence: 1,
  segmentBytes: 8192,
  firstLsn: 1,
  durableLsn: 0,
  previousChecksum: 0n,
};

function block(changes: Partial<SegmentHeader> = {}): Buffer {
  const bytes = Buffer.alloc(4096, 0xee);
  writeSegmentHeader(bytes, 0, { ...header, ...changes });
  return bytes;
}

function broken(change: (bytes: Buffer) => void): Buffer {
  const bytes = block();
  change(bytes);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8)), 0);
  return bytes;
}

const faultOf = (bytes: Buffer): string => {
  const result = readSegmentHeader(bytes);
  return isBadSegmentHeader(result) ? result.fault : "none";
};

describe("each rule", () => {
  const cases: [title: string, bytes: () => Buffer, fault: string][] = [
    ["an intact header", () => broken(() => undefined), "none"],
    ["a prepared file", () => Buffer.alloc(4096), "notASegment"],
    ["a record", () => broken((bytes) => bytes.write("VBAT", 8)), "notASegment"],
    ["a newer version", () => broken((bytes) => bytes.writeUInt16LE(2, 12)), "version"],
    ["flags", () => broken((bytes) => bytes.writeUInt16LE(1, 14)), "flags"],
    ["a size of one block", () => broken((bytes) => bytes.writeUInt32LE(4096, 16)), "fields"],
    ["a size beside blocks", () => broken((bytes) => bytes.writeUInt32LE(8193, 16)), "fields"],
    ["a size past 2^53", () => broken((bytes) => bytes.writeUInt8(0xff, 23)), "fields"],
    ["sequence 0", () => broken((bytes) => bytes.writeUInt32LE(0, 40)), "fields"],
    ["LSN 0", () => broken((bytes) => bytes.writeUInt32LE(0, 48)), "fields"],
    ["an LSN past 2^53", () => broken((bytes) => bytes.writeUInt8(0xff, 55)), "fields"],
    ["durable at its own LSN", () => broken((bytes) => bytes.writeUInt32LE(1, 56)), "fields"],
    ["padding", () => broken((bytes) => bytes.writeUInt8(1, 4095)), "padding"],
    ["a changed byte", () => Buffer.concat([block().subarray(0, 4095), Buffer.from([1])]), "checksum"],
    ["less than a block", () => block().subarray(0, 4095), "truncated"],
  ];
  for (const [title, bytes, fault] of cases) {
    test(`${title}: ${fault}`, () => expect(faultOf(bytes())).toBe(fault));
  }

  test("a writer never writes what a reader refuses", () => {
    const bad: Partial<SegmentHeader>[] = [
      { volumeId: "0011" },
      { line: "0123456789ABCDEF" },
      { sequence: 0 },
      { segmentBytes: 4096 },
      { segmentBytes: 10_000 },
      { firstLsn: 0 },
      { firstLsn: 2 ** 53 },
      { durableLsn: 1 },
      { durableLsn: -1 },
    ];
    for (const changes of bad) expect(() => block(changes)).toThrow("invariant");
    expect(() => writeSegmentHeader(Buffer.alloc(4095), 0, header)).toThrow("invariant");
  });
});

test("random headers come back", () => {
  const random = new SeededRandom(3);
  const id = (): string =>
    Buffer.from(Array.from({ length: 8 }, () => random.uint32() & 0xff)).toString("hex");
  for (let round = 0; round < 500; round += 1) {
    const firstLsn = random.logUniform(1, 2 ** 53);
    const made: SegmentHeader = {
      volumeId: id(),
      line: id(),
      sequence: random.logUniform(1, 2 ** 53),
      segmentBytes: 4096 * random.logUniform(2, 2 ** 30),
      firstLsn,
      durableLsn: random.between(0, firstLsn),
      previousChecksum: (BigInt(random.uint32()) << 32n) + BigInt(random.uint32()),
    };
    expect(readSegmentHeader(block(made))).toEqual(made);
  }
});
