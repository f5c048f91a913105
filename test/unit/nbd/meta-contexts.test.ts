// Metadata contexts: which a query matches, and the runs that changed ranges and residency become, clipped and bounded.
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import {
  changedRuns,
  matchContexts,
  residencyRuns,
} from "../../../services/gateway/engine/nbd-meta-contexts.ts";

const ranges = [
  { offset: 100, length: 50 },
  { offset: 150, length: 50 },
  { offset: 400, length: 1 },
];
const anExport = (parts: Partial<BlockExport>): BlockExport => parts as BlockExport;
const namesOf = (found: readonly { readonly name: string }[]): string[] => found.map((one) => one.name);

describe("what a query matches", () => {
  const volume = anExport({
    changesSince: async (point) => {
      if (point === "gone") throw new VarveError("PointNotThere", "Invalid", "no");
      return point === "one" ? ranges : [];
    },
  });

  test("LIST: all that need no point, a namespace, or an exact name", async () => {
    expect(namesOf(await matchContexts(volume, [], false))).toEqual(["base:allocation", "varve:residency"]);
    expect(namesOf(await matchContexts(volume, ["base:"], false))).toEqual(["base:allocation"]);
    expect(namesOf(await matchContexts(volume, ["varve:", "qemu:"], false))).toEqual(["varve:residency"]);
    expect(namesOf(await matchContexts(volume, ["varve:changed:one"], false))).toEqual(["varve:changed:one"]);
  });

  test("SET: exact names, each once; a point that does not open is ignored", async () => {
    const queries = [
      "varve:changed:gone",
      "qemu:dirty-bitmap:one",
      "qemu:dirty-bitmap:one",
      "base:",
      "base:allocation",
    ];
    const found = await matchContexts(volume, queries, true);
    expect(found.map(({ id, name }) => [id, name])).toEqual([
      [1, "base:allocation"],
      [3, "qemu:dirty-bitmap:one"],
    ]);
    expect(found[1]?.ranges).toEqual(ranges);
  });

  test("an export without a past has none; a session has at most so many", async () => {
    expect(await matchContexts(anExport({}), ["varve:changed:one"], true)).toEqual([]);
    const many = Array.from({ length: 9 }, (_, index) => `varve:changed:lsn:${index + 1}`);
    const found = await matchContexts(volume, many, true);
    expect(found).toHaveLength(limits.nbdChangedContextsMax);
    expect(new Set(found.map((one) => one.id)).size).toBe(found.length);
  });
});

describe("changed ranges as runs", () => {
  const flat = (offset: number, length: number, runsMax = 100): string =>
    changedRuns(ranges, offset, length, runsMax)
      .map((run) => `${run.length}${run.flags === 1 ? "!" : ""}`)
      .join(" ");

  test.each([
    [0, 500, "100 50! 50! 200 1! 99"],
    [0, 50, "50"],
    [120, 10, "10!"],
    [120, 280, "30! 50! 200"],
    [400, 1, "1!"],
    [401, 9, "9"],
    [500, 10, "10"],
  ])("[%i, +%i)", (offset, length, text) => {
    expect(flat(offset, length)).toBe(text);
  });

  test("they cover the request exactly, or end early at the limit", () => {
    for (let offset = 90; offset < 210; offset += 7) {
      for (let length = 1; length < 400; length += 13) {
        const runs = changedRuns(ranges, offset, length, 100);
        expect(runs.reduce((sum, run) => sum + run.length, 0)).toBe(length);
        expect(runs.every((run) => run.length > 0)).toBe(true);
        let at = offset;
        for (const run of runs) {
          const inside = ranges.some((range) => at >= range.offset && at < range.offset + range.length);
          expect(run.flags).toBe(inside ? 1 : 0);
          at += run.length;
        }
      }
    }
    expect(flat(0, 500, 2)).toBe("100 50!");
    expect(flat(0, 500, 1)).toBe("100");
  });
});

describe("residency as runs", () => {
  const extent = limits.extentBytes;
  const volume = anExport({ isLocal: (number) => number !== 1 && number !== 2 });

  test("extents of a kind are one run, the ends are clipped", () => {
    expect(residencyRuns(volume, 100, 4 * extent - 100, 10)).toEqual([
      { length: extent - 100, flags: 0 },
      { length: 2 * extent, flags: 1 },
      { length: extent, flags: 0 },
    ]);
    expect(residencyRuns(volume, extent + 5, 7, 10)).toEqual([{ length: 7, flags: 1 }]);
    expect(residencyRuns(volume, 0, 4 * extent, 1)).toEqual([{ length: extent, flags: 0 }]);
    expect(residencyRuns(anExport({}), 0, 4 * extent, 1)).toEqual([{ length: 4 * extent, flags: 0 }]);
  });
});
