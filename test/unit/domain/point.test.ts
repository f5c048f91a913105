// Points: each of the three forms, what is none of them, and the calendar against JavaScript's own on random times.
// The parser has no Date, so the test brings one to compare with.
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { parsePoint } from "#shared/domain/point.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

describe("points", () => {
  test("names, LSNs and times", () => {
    expect(parsePoint("before-upgrade.2")).toEqual({ kind: "mark", name: "before-upgrade.2" });
    expect(parsePoint("2026-11-20")).toEqual({ kind: "mark", name: "2026-11-20" });
    expect(parsePoint("lsn:1")).toEqual({ kind: "lsn", lsn: 1 });
    expect(parsePoint("lsn:9007199254740991")).toEqual({ kind: "lsn", lsn: Number.MAX_SAFE_INTEGER });
    const time = { kind: "time", wallTimeMs: Date.UTC(2026, 10, 20, 10, 15) };
    for (const text of ["2026-11-20T10:15:00Z", "2026-11-20 10:15:00z", "2026-11-20T12:15:00+02:00"]) {
      expect(parsePoint(text)).toEqual(time);
    }
    expect(parsePoint("2026-11-19T23:45:00.0009-10:30")).toEqual(time);
    expect(parsePoint("1970-01-01T00:00:00.5Z")).toEqual({ kind: "time", wallTimeMs: 500 });
  });

  test("anything else is Invalid, and says what to write", () => {
    const bad = [
      ..."|lsn:0|lsn:01|lsn:-1|lsn:|LSN:5|lsn:9007199254740992|Upper|a b|ä|-x|a@b".split("|"),
      "n".repeat(64),
      "2026-11-20T10:15:00",
      "2026-02-29T00:00:00Z",
      "2026-13-01T00:00:00Z",
      "2026-00-01T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-04-00T00:00:00Z",
      "2026-04-01T24:00:00Z",
      "2026-04-01T00:60:00Z",
      "2026-04-01T00:00:60Z",
      "2026-04-01T00:00:00+24:00",
      "2026-04-01T00:00:00+00:60",
      "1969-12-31T23:59:59Z",
    ];
    for (const text of bad) {
      let error: unknown = null;
      try {
        parsePoint(text);
      } catch (cause) {
        error = cause;
      }
      expect(error, text).toBeInstanceOf(VarveError);
      expect(error).toMatchObject({ _tag: "PointSyntaxError", kind: "Invalid" });
    }
  });

  test("the calendar is JavaScript's", () => {
    const random = new SeededRandom(4);
    for (let round = 0; round < 5000; round += 1) {
      const wallTimeMs = Math.floor(random.fraction() * Date.UTC(9999, 11, 31));
      expect(parsePoint(new Date(wallTimeMs).toISOString())).toEqual({ kind: "time", wallTimeMs });
    }
    for (const text of ["2000-02-29T00:00:00.000Z", "2100-02-28T23:59:59.999Z", "2100-03-01T00:00:00.000Z"]) {
      expect(parsePoint(text)).toEqual({ kind: "time", wallTimeMs: Date.parse(text) });
    }
  });
});
