// Which holes a large read meets, and how seldom the volume is asked: HoleFinder over a memory export whose allocation the
// test sets. A hole must never be answered from memory, data may; on a dense volume the questions must fade out, because each
// one makes the file system walk its extents.

import { expect, test } from "vitest";
import { HoleFinder } from "../../../services/gateway/engine/nbd-hole-finder.ts";
import type { AllocationRun } from "../../../shared/ports/replica-image.ts";
import { MemoryExport } from "../../tools/memory-export.ts";

const MiB = 1024 * 1024;
const piece = MiB / 4;

class CountedExport extends MemoryExport {
  questions = 0;

  override blockStatus(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    this.questions += 1;
    return super.blockStatus(offset, length, runsMax);
  }
}

function volume(sizeBytes: number, ...data: [number, number][]): CountedExport {
  const made = new CountedExport("disk0", { sizeBytes });
  for (const [from, to] of data) made.allocated.fill(1, from / 4096, to / 4096);
  return made;
}

test("a sequential read of a dense volume asks once in 64 MiB", () => {
  const dense = volume(256 * MiB, [0, 256 * MiB]);
  const finder = new HoleFinder(dense);
  for (let offset = 0; offset < 256 * MiB; offset += piece) {
    expect(finder.holeAt(offset, piece)).toBe(0);
    expect(finder.dataEnd).toBeGreaterThanOrEqual(offset + piece);
  }
  expect(dense.questions).toBeLessThanOrEqual(5);
});

test("random reads of dense stretches between far holes ask ever more rarely", () => {
  const stretches = Array.from({ length: 16 }, (_, n): [number, number] => [
    n * 16 * MiB,
    n * 16 * MiB + 8 * MiB,
  ]);
  const sparse = volume(256 * MiB, ...stretches);
  const finder = new HoleFinder(sparse);
  for (let count = 0; count < 2000; count += 1) {
    const offset = ((count * 7) % 16) * 16 * MiB + ((count * 13) % 28) * piece;
    expect(finder.holeAt(offset, piece)).toBe(0);
  }
  expect(sparse.questions).toBeLessThan(300);
});

test("a sequential read finds every hole where it begins and ends", () => {
  const sparse = volume(64 * MiB, [8 * MiB, 10 * MiB], [20 * MiB, 20 * MiB + 4096], [40 * MiB, 64 * MiB]);
  const finder = new HoleFinder(sparse);
  const holes: [number, number][] = [];
  let at = 0;
  while (at < 64 * MiB) {
    const hole = finder.holeAt(at, 64 * MiB - at);
    if (hole > 0) holes.push([at, hole]);
    at = hole > 0 ? at + hole : finder.dataEnd;
  }
  expect(holes).toEqual([
    [0, 8 * MiB],
    [10 * MiB, 10 * MiB],
    [20 * MiB + 4096, 20 * MiB - 4096],
  ]);
});

test("a hole is never longer than the read, and one too short is data", () => {
  const sparse = volume(8 * MiB, [0, 4096], [20_480, MiB]);
  const finder = new HoleFinder(sparse);
  expect(finder.holeAt(0, MiB)).toBe(0);
  expect(finder.dataEnd).toBe(MiB);
  expect(finder.holeAt(MiB, piece)).toBe(piece);
});

test("what was a hole and was written since is data at the next read", () => {
  const sparse = volume(8 * MiB);
  const finder = new HoleFinder(sparse);
  for (let count = 0; count < 10; count += 1) expect(finder.holeAt(0, MiB)).toBe(MiB);
  sparse.allocated.fill(1);
  expect(finder.holeAt(0, MiB)).toBe(0);
});
