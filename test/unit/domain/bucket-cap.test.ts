// Where history ends under a cap: the oldest log of all volumes together, no more of it than needed, never past the present.
import { expect, test } from "vitest";
import type { IndexPageRef, SegmentRef } from "#shared/domain/archive.ts";
import { capCutoff } from "#shared/domain/bucket-cap.ts";

const segment = (wallMaxMs: number, bytes: number, recordBytes = 2 * bytes): SegmentRef => ({
  key: `segment ${wallMaxMs}`,
  firstLsn: 1,
  lastLsn: 1,
  bytes,
  recordBytes,
  wallMinMs: wallMaxMs - 1,
  wallMaxMs,
  footerStart: 0,
});
const page = (wallMaxMs: number, recordBytes: number): IndexPageRef => ({
  key: `page ${wallMaxMs}`,
  firstLsn: 1,
  lastLsn: 1,
  segments: 4,
  recordBytes,
  wallMinMs: 0,
  wallMaxMs,
});

test("the oldest goes first, whosever it is, and no more than has to", () => {
  const one = { pages: [], segments: [segment(100, 10), segment(300, 10)] };
  const other = { pages: [], segments: [segment(200, 10), segment(400, 10)] };
  expect(capCutoff([one, other], 1, 1000)).toBe(101);
  expect(capCutoff([one, other], 10, 1000)).toBe(101);
  expect(capCutoff([one, other], 11, 1000)).toBe(201);
  expect(capCutoff([other, one], 25, 1000)).toBe(301);
});

test("with less log than must go all of it goes, up to now and not beyond", () => {
  expect(capCutoff([{ pages: [], segments: [segment(100, 10)] }], 11, 1000)).toBe(1000);
  expect(capCutoff([], 11, 1000)).toBe(1000);
  // A clock that stood at a later time.
  expect(capCutoff([{ pages: [], segments: [segment(5000, 10)] }], 5, 1000)).toBe(1000);
});

test("a page counts with what its segments take in the bucket, as far as that can be known", () => {
  const volume = { pages: [page(50, 100)], segments: [segment(100, 10, 40)] };
  // 100 bytes of records at 10 for 40.
  expect(capCutoff([volume], 25, 1000)).toBe(51);
  expect(capCutoff([volume], 26, 1000)).toBe(101);
  expect(capCutoff([{ pages: [page(50, 100)], segments: [] }], 100, 1000)).toBe(51);
});
