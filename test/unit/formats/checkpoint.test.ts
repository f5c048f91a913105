// Each rule of docs/formats/checkpoint.md with a checkpoint that breaks only it, in both directions, and random damage behind
// a repaired checksum: refused, or exactly the bytes that Varve would have written.
import { describe, expect, test } from "vitest";
import {
  type Checkpoint,
  checkpointBytesMax,
  decodeCheckpoint,
  encodeCheckpoint,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const fresh: Checkpoint = {
  volumeId: "0011223344556677",
  line: null,
  epoch: 0,
  appliedLsn: 0,
  batchChecksum: 0n,
  sizeBytes: 1024,
  residency: "full",
  position: null,
  detached: null,
};
const used: Checkpoint = {
  ...fresh,
  line: "0123456789abcdef",
  epoch: 2,
  appliedLsn: 9,
  batchChecksum: 5n,
  position: { sequence: 1, offset: 4096 },
  detached: { sizeBytes: 1024, mtimeNs: -1n, ctimeNs: 2n ** 63n, inode: 2n ** 64n - 1n },
};

function seal(bytes: Buffer): Buffer {
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8)), 0);
  return bytes;
}

function broken(change: (bytes: Buffer) => void): Buffer {
  const bytes = encodeCheckpoint(used);
  change(bytes);
  return seal(bytes);
}

const faultOf = (bytes: Buffer): string => {
  const result = decodeCheckpoint(bytes);
  return isBadCheckpoint(result) ? result.fault : "none";
};
/** Replaces a piece of text in the body by another of the same length. */
const replaced = (from: string, to: string) => (bytes: Buffer) => {
  expect(from.length).toBe(to.length);
  const at = bytes.indexOf(from, 40, "latin1");
  expect(at).toBeGreaterThan(0);
  bytes.write(to, at, "latin1");
};

describe("round trip", () => {
  test("fresh, attached and detached", () => {
    for (const checkpoint of [fresh, used, { ...used, detached: null }, { ...used, position: null }]) {
      expect(decodeCheckpoint(encodeCheckpoint(checkpoint))).toEqual(checkpoint);
    }
  });
});

describe("each rule", () => {
  const cases: [title: string, bytes: () => Buffer, fault: string][] = [
    ["an intact checkpoint", () => broken(() => undefined), "none"],
    ["an empty file", () => Buffer.alloc(0), "truncated"],
    ["zeroes", () => Buffer.alloc(100), "notACheckpoint"],
    ["a newer version", () => broken((bytes) => bytes.writeUInt16LE(3, 12)), "version"],
    ["flags", () => broken((bytes) => bytes.writeUInt16LE(8, 14)), "flags"],
    [
      "a changed byte",
      () => Buffer.from(encodeCheckpoint(used).map((byte, at) => (at === 50 ? 0 : byte))),
      "checksum",
    ],
    ["cut off", () => encodeCheckpoint(used).subarray(0, 60), "truncated"],
    ["a byte more", () => Buffer.concat([encodeCheckpoint(used), Buffer.alloc(1)]), "checksum"],
    ["a sealed byte more", () => seal(Buffer.concat([encodeCheckpoint(used), Buffer.alloc(1)])), "fields"],
    [
      "a large file",
      () => Buffer.concat([encodeCheckpoint(used), Buffer.alloc(checkpointBytesMax)]),
      "surplus",
    ],
    ["an LSN past 2^53", () => broken((bytes) => bytes.writeUInt8(0xff, 31)), "fields"],
    ["nothing applied, but a batch", () => broken((bytes) => bytes.writeUInt32LE(0, 24)), "fields"],
    ["an id that is none", () => broken(replaced("00112233", "0011223x")), "fields"],
    ["a line that is none", () => broken(replaced("01234567", "0123456G")), "fields"],
    ["another residency", () => broken(replaced("full", "part")), "fields"],
    ["another state", () => broken(replaced("detached", "attached")), "fields"],
    [
      "a time with a leading zero",
      () => broken(replaced("9223372036854775808", "0223372036854775808")),
      "fields",
    ],
    ["an inode past 2^64", () => broken(replaced("18446744073709551615", "18446744073709551616")), "fields"],
  ];
  for (const [title, bytes, fault] of cases) {
    test(`${title}: ${fault}`, () => expect(faultOf(bytes())).toBe(fault));
  }

  test("a writer never writes what a reader refuses", () => {
    const bad: Checkpoint[] = [
      { ...used, volumeId: "x" },
      { ...used, line: "x" },
      { ...used, line: null },
      { ...used, epoch: 0 },
      { ...used, appliedLsn: 2 ** 53 },
      { ...fresh, epoch: 1 },
      { ...fresh, batchChecksum: 1n },
      { ...used, sizeBytes: 511 },
      { ...used, position: { sequence: -1, offset: 0 } },
      { ...used, detached: { sizeBytes: 0.5, mtimeNs: 0n, ctimeNs: 0n, inode: 0n } },
      { ...used, detached: { sizeBytes: 1, mtimeNs: 2n ** 64n, ctimeNs: 0n, inode: 0n } },
    ];
    for (const checkpoint of bad) expect(() => encodeCheckpoint(checkpoint)).toThrow("invariant");
  });
});

test("damage behind a repaired checksum is refused, or is a checkpoint as Varve writes it", () => {
  const random = new SeededRandom(8);
  let accepted = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = broken((copy) => {
      for (let change = random.between(1, 3); change > 0; change -= 1) {
        const at = random.between(8, copy.length);
        copy[at] = random.chance(0.5) ? (copy[at] as number) ^ (1 << random.between(0, 8)) : random.uint32();
      }
    });
    const checkpoint = decodeCheckpoint(bytes);
    if (isBadCheckpoint(checkpoint)) continue;
    accepted += 1;
    expect(encodeCheckpoint(checkpoint).equals(bytes)).toBe(true);
  }
  expect(accepted).toBeGreaterThan(100);
});
