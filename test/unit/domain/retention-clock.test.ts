/*
 * Retention time: never faster than monotonic time, never back, never past the wall clock, and a pause with an alarm where the
 * wall clock jumped.
 */
import { describe, expect, it } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import {
  acceptWallClock,
  firstRetentionTime,
  isPaused,
  type RetentionTime,
  tickRetentionTime,
} from "#shared/domain/retention-clock.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const hour = 3_600_000;
const start = Date.UTC(2026, 10, 21);
const first = (wallMs: number): RetentionTime =>
  firstRetentionTime(wallMs, { newestMs: null, oldestMs: null, upMs: 0 });
const next = (time: RetentionTime, wallMs: number, elapsedMs: number, continuous = true) =>
  tickRetentionTime(time, { wallMs, elapsedMs, continuous });

describe("retention time", () => {
  it("follows a steady clock", () => {
    const { time, alarm } = next(first(start), start + hour, hour);
    expect(time).toEqual({ timeMs: start + hour, wallMs: start + hour, pausedUntilMs: 0 });
    expect(alarm).toBeNull();
  });

  it("begins no later than the oldest entry and the time that the process saw pass, whatever the clock says", () => {
    const wrong = Date.UTC(2040, 0, 1);
    const begun = (wallMs: number, oldestMs: number | null, newestMs: number | null = wallMs): number =>
      firstRetentionTime(wallMs, { newestMs, oldestMs, upMs: hour + 0.5 }).timeMs;
    expect(begun(start + hour, start)).toBe(start + hour);
    expect(begun(wrong, start)).toBe(start + hour);
    expect(begun(wrong, null, start)).toBe(start);
    expect(begun(1000, start)).toBe(1000);
    expect(begun(start, null, null)).toBe(start);
  });

  it("is whole milliseconds, although a monotonic clock has fractions", () => {
    let { time } = next(first(start), start + hour, 1234.567);
    expect(time.timeMs).toBe(start + 1234);
    ({ time } = next(time, start + hour, 0.9));
    expect(time.timeMs).toBe(start + 1234);
  });

  it("does not count the time in which nobody ran", () => {
    const { time, alarm } = next(first(start), start + 72 * hour, hour, false);
    expect(time.timeMs).toBe(start + hour);
    expect(alarm).toBeNull();
    expect(acceptWallClock(start + 72 * hour).timeMs).toBe(start + 72 * hour);
  });

  it("a clock that jumps to 2040 pauses for a day and then goes on at the pace of monotonic time", () => {
    const wrong = Date.UTC(2040, 0, 1);
    const jumped = next(first(start), wrong, hour);
    expect(jumped.alarm).toContain("forward");
    expect(jumped.time.timeMs).toBe(start + hour);
    expect(isPaused(jumped.time)).toBe(true);
    const later = next(jumped.time, wrong + 25 * hour, 25 * hour);
    expect(later.alarm).toBeNull();
    expect(isPaused(later.time)).toBe(false);
    expect(later.time.timeMs).toBe(start + 26 * hour);
  });

  it("a clock that jumps to 1970 pauses for as long as it stands there", () => {
    const jumped = next(first(start), 1000, hour);
    expect(jumped.alarm).toContain("back");
    expect(jumped.time.timeMs).toBe(start);
    const later = next(jumped.time, 1000 + 200 * hour, 200 * hour);
    expect(isPaused(later.time)).toBe(true);
    const right = next(later.time, start + 300 * hour, 99 * hour);
    expect(right.alarm).toContain("forward");
    expect(isPaused(right.time)).toBe(true);
    const steady = next(right.time, start + 325 * hour, 25 * hour);
    expect(isPaused(steady.time)).toBe(false);
  });

  it("a process that starts with a clock in the past of the last one is told", () => {
    const { time, alarm } = next(first(start), start - hour, 1000, false);
    expect(alarm).toContain("back");
    expect(time.timeMs).toBe(start);
  });

  it("whatever the clocks do, T moves at most by the monotonic time that passed", () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const random = new SeededRandom(seed);
      let time = first(start);
      for (let step = 0; step < 50; step += 1) {
        const elapsedMs = random.between(0, 48) * hour;
        const wallMs =
          random.between(0, 4) === 0 ? random.between(0, 4_000_000_000) * 1000 : time.wallMs + elapsedMs;
        const { time: after, alarm } = next(time, wallMs, elapsedMs, random.between(0, 2) === 0);
        expect(after.timeMs).toBeGreaterThanOrEqual(time.timeMs);
        expect(after.timeMs - time.timeMs).toBeLessThanOrEqual(elapsedMs);
        if (after.timeMs > time.timeMs) expect(after.timeMs).toBeLessThanOrEqual(wallMs);
        if (alarm !== null) expect(after.pausedUntilMs).toBe(after.timeMs + limits.clockJumpPauseMs);
        time = after;
      }
    }
  });
});
