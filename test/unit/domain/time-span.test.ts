// Spans of time: what is read, what is refused, and that the shortest form reads back to the same span.
import { describe, expect, test } from "vitest";
import { parseTimeSpan, timeSpanFrom, timeSpanText } from "#shared/domain/time-span.ts";

describe("time span", () => {
  test.each([
    ["90s", 90_000],
    ["30m", 1_800_000],
    ["12h", 43_200_000],
    ["7d", 604_800_000],
    ["2 w", 1_209_600_000],
    ["0d", 0],
  ])("%s", (text, ms) => {
    expect(parseTimeSpan(text)).toBe(ms);
    expect(parseTimeSpan(timeSpanText(ms))).toBe(ms);
  });

  test("the shortest exact form", () => {
    expect(timeSpanText(604_800_000)).toBe("7d");
    expect(timeSpanText(90_000)).toBe("90s");
    expect(timeSpanText(1500)).toBe("1500 ms");
  });

  test.each(["", "7", "d", "-1d", "1.5h", "7 days", "1y", "9999999999s"])("%j is refused", (text) => {
    expect(parseTimeSpan(text)).toBeNull();
    expect(() => timeSpanFrom(text, "--history")).toThrow(
      `--history: ${JSON.stringify(text)} is not a span of time`,
    );
  });
});
