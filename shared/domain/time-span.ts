/*
 * Spans of time as people write and read them: `90s`, `30m`, `12h`, `7d`, `2w`. Used by the CLI, the API and every page that
 * prints one. Pure.
 */
import { VarveError } from "./errors.ts";

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const;
const spanPattern = /^([0-9]{1,9})\s*([smhdw])$/;

/** Milliseconds of a span such as `7d`; null when it is not one. */
export function parseTimeSpan(text: string): number | null {
  const match = spanPattern.exec(text.trim());
  if (match === null) return null;
  return Number(match[1]) * unitMs[match[2] as keyof typeof unitMs];
}

/** Shortest exact form: 604800000 is `7d`; what is no whole second stays milliseconds. Whole weeks are written in days. */
export function timeSpanText(spanMs: number): string {
  for (const unit of ["d", "h", "m", "s"] as const) {
    if (spanMs % unitMs[unit] === 0) return spanMs === 0 ? "0s" : `${spanMs / unitMs[unit]}${unit}`;
  }
  return `${spanMs} ms`;
}

/** parseTimeSpan for input from outside: says what was wrong. `what` names the place, e.g. `--history`. */
export function timeSpanFrom(text: string, what: string): number {
  const span = parseTimeSpan(text);
  if (span !== null) return span;
  throw new VarveError(
    "TimeSpanSyntaxError",
    "Invalid",
    `${what}: ${JSON.stringify(text)} is not a span of time`,
    {
      hint: "Write a number with s, m, h, d or w: 90s, 12h, 7d, 2w.",
      fields: { text },
    },
  );
}
