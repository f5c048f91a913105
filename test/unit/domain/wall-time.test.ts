// Times as people read them: the same text as Date's for every kind of day, and read back to the same millisecond.
import { describe, expect, test } from "vitest";
import { parsePoint } from "#shared/domain/point.ts";
import { timeText } from "#shared/domain/wall-time.ts";

describe("wall time", () => {
  test.each([
    0,
    999,
    951_782_400_000, // 2000-02-29
    1_709_164_799_999, // 2024-02-28, the last millisecond
    1_709_251_199_999, // 2024-02-29, the last millisecond
    1_763_688_000_123,
    4_107_542_400_000, // 2100-03-01: no leap year
    253_402_300_799_999, // the end of 9999
  ])("%i", (ms) => {
    expect(timeText(ms)).toBe(new Date(ms).toISOString());
    expect(parsePoint(timeText(ms))).toEqual({ kind: "time", wallTimeMs: ms });
  });

  test("every day of 130 years", () => {
    for (let day = 0; day < 130 * 366; day += 1) {
      expect(timeText(day * 86_400_000)).toBe(new Date(day * 86_400_000).toISOString());
    }
  });

  test("what no date can say stays milliseconds", () => {
    expect(timeText(-1)).toBe("-1 ms");
    expect(timeText(253_402_300_800_000)).toBe("253402300800000 ms");
  });
});
