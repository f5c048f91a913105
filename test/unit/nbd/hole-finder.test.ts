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

/** What one read of [offset, offset + length) meets: holes as [offset, length]. */
function holesOf(finder: HoleFinder, offset: number, length: number): [number, number][] {
  const holes: [number, number][] = [];
  finder.begin(offset, length);
  for (let at = offset; at < offset + length; ) {
    const hole = finder.holeAt(at);
    if (hole > 0) holes.push([at, hole]);
    const next = hole > 0 ? at + hole : Math.min(finder.dataEnd, at + piece);
    expect(next).toBeGreaterThan(at);
    at = next;
  }
  return holes;
}

test("reads of a dense volume ask ever more rarely", () => {
  const dense = volume(256 * MiB, [0, 256 * MiB]);
  const finder = new HoleFinder(dense);
  for (let count = 0; count < 5000; count += 1) {
    expect(holesOf(finder, ((count * 7) % 255) * MiB, MiB)).toEqual([]);
  }
  expect(dense.questions).toBeLessThan(40);
});

test("one question serves all pieces of a read without holes", () => {
  const dense = volume(64 * MiB, [0, 64 * MiB]);
  expect(holesOf(new HoleFinder(dense), 0, 32 * MiB)).toEqual([]);
  expect(dense.questions).toBe(1);
});

test("a read finds every hole where it begins and ends", () => {
  const sparse = volume(64 * MiB, [8 * MiB, 10 * MiB], [20 * MiB, 20 * MiB + 4096], [40 * MiB, 64 * MiB]);
  expect(holesOf(new HoleFinder(sparse), 0, 64 * MiB)).toEqual([
    [0, 8 * MiB],
    [10 * MiB, 10 * MiB],
    [20 * MiB + 4096, 20 * MiB - 4096],
  ]);
});

test("where holes are met every read asks", () => {
  const sparse = volume(64 * MiB, [0, MiB / 2]);
  const finder = new HoleFinder(sparse);
  for (let count = 0; count < 50; count += 1) {
    expect(holesOf(finder, 0, MiB)).toEqual([[MiB / 2, MiB / 2]]);
  }
});

test("a hole is never longer than the read, and one too short is data", () => {
  const sparse = volume(8 * MiB, [0, 4096], [20_480, MiB]);
  const finder = new HoleFinder(sparse);
  expect(holesOf(finder, 0, MiB)).toEqual([]);
  expect(holesOf(new HoleFinder(sparse), MiB - 8192, MiB)).toEqual([[MiB, MiB - 8192]]);
  expect(holesOf(new HoleFinder(sparse), MiB - 8192, 16_384)).toEqual([]);
});

test("what was a hole and was written since is data at the next read", () => {
  const sparse = volume(8 * MiB);
  const finder = new HoleFinder(sparse);
  for (let count = 0; count < 10; count += 1) expect(holesOf(finder, 0, MiB)).toEqual([[0, MiB]]);
  sparse.allocated.fill(1);
  expect(holesOf(finder, 0, MiB)).toEqual([]);
});
