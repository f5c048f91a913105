// What may stand in an entry: ranges at their edges, values by kind, and a writer's name made of any text. The draft and the
// record reader both ask these functions, so an entry that one lets out the other lets in.
import { expect, test } from "vitest";
import { entryKind, isEntryRange, isEntryValue, writerName } from "#shared/domain/entry.ts";

test("ranges lie within the largest volume and are not empty", () => {
  expect(isEntryRange(0, 1)).toBe(true);
  expect(isEntryRange(0, 2 ** 50)).toBe(true);
  expect(isEntryRange(2 ** 50 - 1, 1)).toBe(true);
  for (const [offset, length] of [
    [2 ** 50, 1],
    [1, 2 ** 50],
    [0, 0],
    [-1, 2],
    [0, -1],
    [0.5, 1],
    [0, 1.5],
    [Number.MAX_SAFE_INTEGER, 1],
    [Number.NaN, 1],
    [0, Number.POSITIVE_INFINITY],
  ] as const) {
    expect(isEntryRange(offset, length), `${offset}, ${length}`).toBe(false);
  }
});

test("values by kind", () => {
  const { epoch, mark, resize, rebase } = entryKind;
  expect(isEntryValue(epoch, "host pid 1")).toBe(true);
  expect(isEntryValue(epoch, "")).toBe(false);
  expect(isEntryValue(epoch, "w".repeat(129))).toBe(false);
  expect(isEntryValue(epoch, "tab\t")).toBe(false);
  expect(isEntryValue(epoch, 5)).toBe(false);
  expect(isEntryValue(mark, "a.b-c_9")).toBe(true);
  expect(isEntryValue(mark, ".a")).toBe(false);
  expect(isEntryValue(mark, 5)).toBe(false);
  expect(isEntryValue(resize, 512)).toBe(true);
  expect(isEntryValue(resize, 2 ** 50 + 1)).toBe(false);
  expect(isEntryValue(resize, "512")).toBe(false);
  expect(isEntryValue(rebase, 1)).toBe(true);
  expect(isEntryValue(rebase, 0)).toBe(false);
  expect(isEntryValue(rebase, 1.5)).toBe(false);
});

test("a writer's name can be made of any text", () => {
  for (const text of ["attic pid 7", "", "\0\n", "håst", "x".repeat(500)]) {
    expect(isEntryValue(entryKind.epoch, writerName(text)), JSON.stringify(text)).toBe(true);
  }
  expect(writerName("håst pid 7")).toBe("h?st pid 7");
  expect(writerName("")).toBe("unknown");
});
