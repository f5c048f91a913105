/*
 * The time by which history and objects expire. It follows the wall clock, but never faster than monotonic time passes and
 * never back, so that a wrong clock deletes nothing. Pure: the collector reads both clocks, ticks, and stores the state with
 * its lease. See docs/specs/retention.md, "Retention time".
 */
import { limits } from "./limits.ts";

export interface RetentionTime {
  /** Retention time, milliseconds since 1970. */
  readonly timeMs: number;
  /** The wall clock at the last tick. */
  readonly wallMs: number;
  /** Nothing expires while retention time is below this. 0: not paused. */
  readonly pausedUntilMs: number;
}

export interface ClockLook {
  readonly wallMs: number;
  /** Monotonic time since the last tick by this process, or since the process began. */
  readonly elapsedMs: number;
  /** True where this process made the last tick: then wall and monotonic clock can be compared. */
  readonly continuous: boolean;
}

export interface Tick {
  readonly time: RetentionTime;
  /** What is wrong with the clock, for the operator; null where nothing is. */
  readonly alarm: string | null;
}

/** What speaks against a wrong clock where no run has stored a time yet. */
export interface ClockWitness {
  /** The time of the manifest that was written last; null: there is none. */
  readonly newestMs: number | null;
  /** The time of the oldest entry that the bucket has; null: it has none. */
  readonly oldestMs: number | null;
  /** Monotonic time since this process began. */
  readonly upMs: number;
}

/**
 * The first look at a bucket ever: the wall clock, but no later than what was written last, and no later than the oldest entry and
 * the time that this process has seen pass: a clock alone ages nothing, also one that was wrong when the machine started.
 */
export function firstRetentionTime(wallMs: number, witness: ClockWitness): RetentionTime {
  const { newestMs, oldestMs, upMs } = witness;
  const grownMs = oldestMs === null ? wallMs : oldestMs + Math.floor(upMs);
  return { timeMs: Math.min(wallMs, newestMs ?? wallMs, grownMs), wallMs, pausedUntilMs: 0 };
}

export function tickRetentionTime(before: RetentionTime, look: ClockLook): Tick {
  const alarm = alarmOf(before, look);
  // Stored in whole milliseconds; a monotonic clock has fractions.
  const elapsedMs = Math.floor(Math.max(0, look.elapsedMs));
  const reached = Math.min(before.timeMs + elapsedMs, look.wallMs);
  const timeMs = Math.max(before.timeMs, reached);
  const pausedUntilMs = alarm === null ? before.pausedUntilMs : timeMs + limits.clockJumpPauseMs;
  return {
    time: { timeMs, wallMs: look.wallMs, pausedUntilMs: timeMs >= pausedUntilMs ? 0 : pausedUntilMs },
    alarm,
  };
}

/** The operator says that the wall clock is right. */
export function acceptWallClock(wallMs: number): RetentionTime {
  return { timeMs: wallMs, wallMs, pausedUntilMs: 0 };
}

export function isPaused(time: RetentionTime): boolean {
  return time.pausedUntilMs > time.timeMs;
}

/** For the operator, behind what happened. */
export const pauseRule =
  "nothing expires until it was steady for a day and is not before retention time, or until varve bucket collect --accept-clock";

function alarmOf(before: RetentionTime, look: ClockLook): string | null {
  const passed = look.wallMs - before.wallMs;
  const jump = look.continuous ? passed - look.elapsedMs : Math.min(0, passed);
  if (Math.abs(jump) <= limits.clockJumpMs) return null;
  const seconds = Math.round(Math.abs(jump) / 1000);
  return `the wall clock jumped ${jump > 0 ? "forward" : "back"} by ${seconds} s; ${pauseRule}`;
}
