// Both ways to make a zstd frame, Node's zlib and the C interface of the library in Node, give the same bytes, and say so when they do not fit.
import { randomFillSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import { nativeZstd } from "#shared/adapters/archive-worker/native-zstd.ts";
import { type CompressInto, compressByNode } from "#shared/formats/object-room.ts";
import { decompress } from "#shared/formats/sealed-object.ts";

const native = nativeZstd();
const ways: readonly (readonly [string, CompressInto])[] = [
  ["node:zlib", compressByNode],
  ["the C interface", native?.compressInto ?? (() => null)],
];
const raw = Buffer.alloc(262_144, "varve ");
randomFillSync(raw, 100_000, 60_000);

test("the pinned Node has the C interface", () => {
  expect(native).not.toBeNull();
});

describe.each(ways)("a frame by %s", (_name, compressInto) => {
  test.each([1, 3, 19])("of level %i is the other's", (level) => {
    const into = Buffer.alloc(300_000);
    const bytes = compressInto(raw, into, level) ?? 0;
    const other = Buffer.alloc(300_000);
    expect(bytes).toBe(compressByNode(raw, other, level));
    expect(into.equals(other)).toBe(true);
    expect(decompress(into.subarray(0, bytes), raw.length)?.equals(raw)).toBe(true);
    native?.release();
  });

  test("that has no room is none", () => {
    const into = Buffer.alloc(1000, 7);
    expect(compressInto(raw, into.subarray(0, 500), 1)).toBeNull();
    expect(into.subarray(500).every((byte) => byte === 7)).toBe(true);
  });
});
