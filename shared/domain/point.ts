/*
 * A point: anything that names an LSN of a volume (design §7): a snapshot's name, `lsn:N`, or an RFC 3339 time. Parsing only;
 * finding the LSN of a time or a name is the business of whoever holds the history. The three never look alike, because
 * names have no colon. Pure: no Date, so that every place parses the same text to the same millisecond.
 */
import { isEntryValue } from "./entry.ts";
import { VarveError } from "./errors.ts";

export type Point =
  | { readonly kind: "mark"; readonly name: string }
  | { readonly kind: "lsn"; readonly lsn: number }
  /** Means the last batch at or before this wall time, milliseconds since 1970. */
  | { readonly kind: "time"; readonly wallTimeMs: number };

const lsnPattern = /^lsn:([1-9][0-9]{0,15})$/;
const timePattern =
  /^(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))$/;

/** Throws Invalid for anything else. Fractions below a millisecond are cut off. */
export function parsePoint(text: string): Point {
  const lsn = Number(lsnPattern.exec(text)?.[1] ?? Number.NaN);
  if (Number.isSafeInteger(lsn)) return { kind: "lsn", lsn };
  const wallTimeMs = parseTime(text);
  if (wallTimeMs !== null) return { kind: "time", wallTimeMs };
  if (isEntryValue(5, text)) return { kind: "mark", name: text };
  throw new VarveError("PointSyntaxError", "Invalid", `${JSON.stringify(text)} is not a point in time`, {
    hint: "Write a snapshot's name, lsn:N, or a time with its zone such as 2026-11-20T10:15:00Z.",
    fields: { text },
  });
}

/** Milliseconds since 1970 of an RFC 3339 time with zone, or null. The zone is asked for: a guess would be a wrong restore. */
function parseTime(text: string): number | null {
  const match = timePattern.exec(text);
  if (match === null) return null;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match.slice(1, 7).map(Number);
  const zoneHour = Number(match[9] ?? 0);
  const zoneMinute = Number(match[10] ?? 0);
  const exists =
    month >= 1 && month <= 12 && day >= 1 && day <= daysOfMonth(year, month) && hour < 24 && minute < 60;
  if (!exists || second > 59 || zoneHour > 23 || zoneMinute > 59) return null;
  const zoneMinutes = (match[8] === "-" ? -1 : 1) * (zoneHour * 60 + zoneMinute);
  const minutes = (daysSince1970(year, month, day) * 24 + hour) * 60 + minute - zoneMinutes;
  const wallTimeMs = minutes * 60_000 + second * 1000 + Number((match[7] ?? "").padEnd(3, "0").slice(0, 3));
  return wallTimeMs >= 0 ? wallTimeMs : null;
}

function isLeapYear(year: number): boolean {
  return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
}

function daysOfMonth(year: number, month: number): number {
  if (month === 2) return isLeapYear(year) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** Days from 1970-01-01, Gregorian calendar. */
function daysSince1970(year: number, month: number, day: number): number {
  const before = year - 1;
  const leapDays = Math.floor(before / 4) - Math.floor(before / 100) + Math.floor(before / 400);
  let days = before * 365 + leapDays + (day - 1);
  for (let earlier = 1; earlier < month; earlier += 1) days += daysOfMonth(year, earlier);
  return days - 719_162;
}
