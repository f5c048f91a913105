// The reference fold against a plain byte array: it is the oracle of everything else, so it is checked by something simpler.
// Random entries, resizes included, as batches and as drafts; a device of the largest size; and what it refuses.
import { describe, expect, test } from "vitest";
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { type Entry, entryKind } from "#shared/domain/entry.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const sizeMax = 40_000;

/** As plain as can be: the whole disk as one array. */
class PlainDisk {
  bytes: Uint8Array;
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }
  resize(size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    this.bytes = bytes;
  }
}

function randomBatch(
  random: SeededRandom,
  plain: PlainDisk,
  firstLsn: number,
): { batch: Batch; draft: BatchDraft } {
  const entries: Entry[] = [];
  const slab = { bytes: new Uint8Array(4096 * 12), address: 0 };
  const draft = new BatchDraft(slab);
  let payloadStart = 0;
  for (let count = random.between(1, 6); count > 0; count -= 1) {
    const kind = random.weighted({ write: 6, zero: 1, zeroAllocated: 1, trim: 1, resize: 1, mark: 1 });
    if (kind === "mark") {
      entries.push({ kind, name: "m" });
      draft.addValue(entryKind.mark, "m");
    } else if (kind === "resize") {
      const sizeBytes = random.between(512, sizeMax);
      entries.push({ kind, sizeBytes });
      draft.addValue(entryKind.resize, sizeBytes);
      plain.resize(sizeBytes);
    } else {
      const offset = random.between(0, plain.bytes.length - 1);
      const length = Math.min(
        plain.bytes.length - offset,
        random.logUniform(1, kind === "write" ? 8000 : 20_000),
      );
      if (kind === "write") {
        const at = draft.addWrite(offset, length);
        for (let index = 0; index < length; index += 1) slab.bytes[at + index] = random.uint32();
        plain.bytes.set(slab.bytes.subarray(at, at + length), offset);
        entries.push({ kind, offset, length, payloadStart });
        payloadStart += length;
      } else {
        draft.addRange(entryKind[kind], offset, length);
        plain.bytes.fill(0, offset, offset + length);
        entries.push({ kind, offset, length });
      }
    }
  }
  draft.firstLsn = firstLsn;
  const payload = slab.bytes.subarray(4096, 4096 + payloadStart);
  const head = {
    line: "0".repeat(16),
    epoch: 1,
    wallTimeMs: 0,
    durableLsn: 0,
    previousChecksum: 0n,
    checksum: 0n,
  };
  return { batch: { ...head, firstLsn, entries, payload }, draft };
}

describe("against one array", () => {
  for (const seed of [1, 2, 3]) {
    test(`random entries, seed ${seed}`, () => {
      const random = new SeededRandom(seed);
      const plain = new PlainDisk(30_000);
      const fromBatches = new FoldedDisk(30_000);
      const fromDrafts = new FoldedDisk(30_000);
      for (let round = 0; round < 400; round += 1) {
        const { batch, draft } = randomBatch(random, plain, fromBatches.appliedLsn + 1);
        fromBatches.applyBatch(batch);
        fromDrafts.applyDraft(draft);
        expect(fromBatches.sizeBytes).toBe(plain.bytes.length);
        expect(Buffer.compare(fromBatches.read(0, plain.bytes.length), plain.bytes)).toBe(0);
        expect(fromDrafts.firstDifference(fromBatches)).toBe(-1);
        expect(fromDrafts.appliedLsn).toBe(fromBatches.appliedLsn);
      }
    });
  }
});

describe("what it is for", () => {
  test("a disk of the largest size costs what was written, and a trim of all of it is quick", () => {
    const disk = new FoldedDisk(2 ** 50);
    disk.write(2 ** 50 - 5, Buffer.from("varve"));
    disk.write(4095, Buffer.from("ab"));
    expect(disk.pageCount).toBe(3);
    expect(Buffer.from(disk.read(2 ** 50 - 6, 6)).toString()).toBe("\0varve");
    disk.zero(1, 2 ** 50 - 1);
    expect(disk.read(2 ** 50 - 5, 5)).toEqual(new Uint8Array(5));
    expect(disk.pageCount).toBe(1);
  });

  test("what a shrink took does not come back", () => {
    const disk = new FoldedDisk(8192);
    disk.write(0, Buffer.alloc(8192, 1));
    disk.resize(1000);
    disk.resize(8192);
    expect(disk.read(999, 3)).toEqual(Uint8Array.of(1, 0, 0));
    expect(disk.read(4096, 4096).every((byte) => byte === 0)).toBe(true);
  });

  test("a copy is a disk of its own", () => {
    const disk = new FoldedDisk(8192);
    disk.write(10, Buffer.from("a"));
    const copy = disk.copy();
    disk.write(10, Buffer.from("b"));
    expect(copy.read(10, 1)).toEqual(Uint8Array.of(97));
    expect(copy.firstDifference(disk)).toBe(10);
  });

  test("the first difference is by bytes, not by pages held; a shorter disk differs at its end", () => {
    const one = new FoldedDisk(10_000);
    const other = new FoldedDisk(10_000);
    one.write(9000, Buffer.from([0]));
    expect(one.firstDifference(other)).toBe(-1);
    one.write(9000, Buffer.from([1]));
    other.write(20, Buffer.from([1]));
    expect(one.firstDifference(other)).toBe(20);
    expect(new FoldedDisk(512).firstDifference(new FoldedDisk(1024))).toBe(512);
    expect(one.firstDifference(new FoldedDisk(9001))).toBe(9000);
    expect(one.firstDifference(new FoldedDisk(9000))).toBe(9000);
  });

  test("a gap, a repetition, a range past the end and a rebase are refused", () => {
    const disk = new FoldedDisk(1024);
    const mark: Entry[] = [{ kind: "mark", name: "m" }];
    const payload = new Uint8Array(0);
    disk.applyBatch({ firstLsn: 1, entries: mark, payload });
    expect(() => disk.applyBatch({ firstLsn: 1, entries: mark, payload })).toThrow("LSN 1 after 1");
    expect(() => disk.applyBatch({ firstLsn: 3, entries: mark, payload })).toThrow("LSN 3 after 1");
    const trim: Entry[] = [{ kind: "trim", offset: 1000, length: 25 }];
    expect(() => disk.applyBatch({ firstLsn: 2, entries: trim, payload })).toThrow("[1000, 1025)");
    const rebase: Entry[] = [{ kind: "rebase", lsn: 1 }];
    expect(() => disk.applyBatch({ firstLsn: 2, entries: rebase, payload })).toThrow("rebase");
  });
});
