// What the tests of reading the past share: a slab, reading a whole point, comparing it with what the disk was.
import { expect } from "vitest";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { SeededRandom } from "../../tools/seeded-random.ts";

export function slabOf(bytes: number): Slab {
  return { bytes: Buffer.alloc(bytes, 0xaa), address: 0 };
}

export async function readAt(source: PointSource, offset: number, length: number): Promise<Buffer> {
  const slab = slabOf(length + 32);
  await source.read(slab, 16, length, offset);
  // Nothing outside of what was asked for is touched.
  expect(slab.bytes.subarray(0, 16).every((byte) => byte === 0xaa)).toBe(true);
  expect(slab.bytes.subarray(length + 16).every((byte) => byte === 0xaa)).toBe(true);
  return slab.bytes.subarray(16, length + 16);
}

/** Every byte, in pieces of any size, in any order. */
export async function expectDisk(
  source: PointSource,
  disk: FoldedDisk,
  random: SeededRandom,
  what: string,
): Promise<void> {
  expect(source.sizeBytes, `${what}: size`).toBe(disk.sizeBytes);
  const pieces: { offset: number; length: number }[] = [];
  for (let offset = 0; offset < disk.sizeBytes; ) {
    const length = Math.min(random.logUniform(1000, 3_000_000), disk.sizeBytes - offset);
    pieces.push({ offset, length });
    offset += length;
  }
  if (random.chance(0.5)) pieces.reverse();
  await Promise.all(
    pieces.map(async ({ offset, length }) => {
      const found = await readAt(source, offset, length);
      const expected = Buffer.from(disk.read(offset, length));
      if (!found.equals(expected)) {
        const at = found.findIndex((byte, index) => byte !== expected[index]);
        expect.fail(`${what}: byte ${offset + at} is ${found[at]}, not ${expected[at]}`);
      }
    }),
  );
}
