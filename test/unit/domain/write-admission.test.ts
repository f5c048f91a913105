// Admission's promise, attacked by a model file system: whatever was admitted finds room, with samples of the free space
// that are late and applies that fall into the middle of a sample. And each refusal by its kind.
import { describe, expect, test } from "vitest";
import { entryKind } from "#shared/domain/entry.ts";
import { imageRoomBytes, recordRoomBytes, refuseEntry, SpaceLedger } from "#shared/domain/write-admission.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const facts = { sizeBytes: 1_000_000, readOnly: false, imageRoomBytes: 8192, logRoomBytes: 12_288 };

describe("refusals", () => {
  const cases: [
    title: string,
    kind: 0 | 1 | 2 | 3 | 5,
    offset: number,
    length: number,
    change: object,
    tag: string,
  ][] = [
    ["a read-only volume", 0, 0, 512, { readOnly: true }, "ReadOnlyError"],
    ["past the end", 0, 999_999, 2, {}, "OutOfRangeError"],
    ["an empty range", 0, 0, 0, {}, "OutOfRangeError"],
    ["a range before the disk", 3, -1, 1, {}, "OutOfRangeError"],
    ["an entry without a range", 5, 0, 512, {}, "OutOfRangeError"],
    ["a full log", 0, 0, 8193, { imageRoomBytes: 1e9 }, "OutOfSpaceError"],
    ["a full image", 0, 1, 8192, {}, "OutOfSpaceError"],
    ["zeroes that stay allocated, in a full image", 2, 0, 8193, {}, "OutOfSpaceError"],
    ["a trim, in a full log", 3, 0, 1, { logRoomBytes: 4095 }, "OutOfSpaceError"],
  ];
  for (const [title, kind, offset, length, change, tag] of cases) {
    test(`${title}: ${tag}`, () => {
      const error = refuseEntry(kind, offset, length, { ...facts, ...change });
      expect(error?._tag).toBe(tag);
      expect(error?.kind).toBe(tag === "OutOfSpaceError" ? "Full" : "Invalid");
      expect(error?.hint).not.toBe("");
    });
  }

  test("what fits exactly is admitted; trims and zeroes need no room in the image", () => {
    expect(refuseEntry(entryKind.write, 0, 8192, facts)).toBeNull();
    expect(refuseEntry(entryKind.write, 999_999, 1, facts)).toBeNull();
    const none = { ...facts, imageRoomBytes: 0, logRoomBytes: 4096 };
    expect(refuseEntry(entryKind.trim, 0, 1_000_000, none)).toBeNull();
    expect(refuseEntry(entryKind.zero, 0, 1_000_000, none)).toBeNull();
  });

  test("room is counted in whole blocks", () => {
    expect(imageRoomBytes(entryKind.write, 4095, 2)).toBe(8192);
    expect(imageRoomBytes(entryKind.write, 4096, 4096)).toBe(4096);
    expect(imageRoomBytes(entryKind.zeroAllocated, 1, 1)).toBe(4096);
    expect(recordRoomBytes(entryKind.write, 1)).toBe(8192);
    expect(recordRoomBytes(entryKind.trim, 2 ** 49)).toBe(4096);
  });
});

/** A file system whose free space falls when blocks are written, and other programs that take a little. */
class ModelFileSystem {
  readonly blocks = new Set<number>();
  othersBytes = 0;
  readonly capacityBytes: number;
  constructor(capacityBytes: number) {
    this.capacityBytes = capacityBytes;
  }
  get freeBytes(): number {
    return this.capacityBytes - this.blocks.size * 4096 - this.othersBytes;
  }
}

describe("the promise", () => {
  for (const seed of [1, 2, 3, 4]) {
    test(`whatever was admitted finds room, seed ${seed}`, () => {
      const random = new SeededRandom(seed);
      const disk = new ModelFileSystem(4_000_000);
      const ledger = new SpaceLedger(100_000);
      const waiting: { offset: number; length: number; bytes: number }[] = [];
      let sample: { seen: number } | null = null;
      let refused = 0;
      let admitted = 0;
      for (let step = 0; step < 20_000; step += 1) {
        const act = random.weighted({ write: 5, apply: 5, sample: 1, trim: 0.05, fail: 0.2 });
        if (act === "write") {
          const offset = random.between(0, 20_000_000);
          const length = random.logUniform(1, 60_000);
          const bytes = imageRoomBytes(entryKind.write, offset, length);
          const now = { ...facts, sizeBytes: 2 ** 40, imageRoomBytes: ledger.roomBytes, logRoomBytes: 1e9 };
          if (refuseEntry(entryKind.write, offset, length, now) !== null) {
            refused += 1;
            continue;
          }
          admitted += 1;
          ledger.admit(bytes);
          waiting.push({ offset, length, bytes });
        } else if (act === "apply") {
          const entry = waiting.shift();
          if (entry === undefined) continue;
          const end = Math.ceil((entry.offset + entry.length) / 4096);
          for (let block = Math.floor(entry.offset / 4096); block < end; block += 1) disk.blocks.add(block);
          ledger.settle(entry.bytes);
          expect(disk.freeBytes).toBeGreaterThanOrEqual(0);
        } else if (act === "fail") {
          const entry = waiting.pop();
          if (entry !== undefined) ledger.withdraw(entry.bytes);
        } else if (act === "trim") {
          for (const block of disk.blocks) if (random.chance(0.2)) disk.blocks.delete(block);
        } else if (sample === null) {
          ledger.beginSample();
          // The answer is taken now and told later: applies come between.
          sample = { seen: disk.freeBytes };
        } else {
          ledger.endSample(sample.seen);
          sample = null;
          disk.othersBytes = random.between(0, 100_000);
        }
      }
      expect(admitted).toBeGreaterThan(300);
      expect(refused).toBeGreaterThan(300);
      expect(ledger.promisedBytes).toBe(waiting.reduce((sum, entry) => sum + entry.bytes, 0));
    });
  }

  test("nothing is promised before the first sample, and nothing of the reserve", () => {
    const ledger = new SpaceLedger(1000);
    expect(ledger.roomBytes).toBe(0);
    ledger.beginSample();
    ledger.endSample(1000);
    expect(ledger.roomBytes).toBe(0);
    ledger.endSample(5096);
    expect(ledger.roomBytes).toBe(4096);
    ledger.admit(4096);
    expect(ledger.roomBytes).toBe(0);
    expect(() => ledger.settle(4097)).toThrow("invariant");
    expect(() => ledger.withdraw(4097)).toThrow("invariant");
    expect(() => ledger.endSample(-1)).toThrow("invariant");
  });
});
