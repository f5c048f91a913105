// The checksum is xxh64 with seed 0, by the values that its specification gives; whoever reads Varve's files with another
// implementation gets the same. Buffers that are views into larger memory count by their own bytes only.
import { expect, test } from "vitest";
import { checksumOf } from "#shared/formats/checksum.ts";

test("known answers of xxh64", () => {
  expect(checksumOf(Buffer.alloc(0)).toString(16)).toBe("ef46db3751d8e999");
  expect(checksumOf(Buffer.from("abc")).toString(16)).toBe("44bc2cf5ad770999");
});

test("a view counts by its own bytes", () => {
  const memory = Buffer.from("..abc..");
  expect(checksumOf(memory.subarray(2, 5))).toBe(checksumOf(Buffer.from("abc")));
});
