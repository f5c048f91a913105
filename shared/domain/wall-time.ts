/*
 * Wall times as people read them, RFC 3339 in UTC, without Date, so that engines under a clock port can write them. The reverse
 * of point.ts. Pure.
 */

/** `2026-11-20T10:15:00.123Z` of milliseconds since 1970; years above 9999 and negative times as plain milliseconds. */
export function timeText(wallTimeMs: number): string {
  const days = Math.floor(wallTimeMs / 86_400_000);
  if (!Number.isSafeInteger(wallTimeMs) || wallTimeMs < 0 || days > 2_932_896) return `${wallTimeMs} ms`;
  const { year, month, day } = dateOf(days);
  const ms = wallTimeMs % 86_400_000;
  const pad = (value: number, width = 2): string => String(value).padStart(width, "0");
  const hour = pad(Math.floor(ms / 3_600_000));
  const minute = pad(Math.floor(ms / 60_000) % 60);
  const second = pad(Math.floor(ms / 1000) % 60);
  return `${pad(year, 4)}-${pad(month)}-${pad(day)}T${hour}:${minute}:${second}.${pad(ms % 1000, 3)}Z`;
}

/** Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin in March. */
function dateOf(days: number): { readonly year: number; readonly month: number; readonly day: number } {
  const shifted = days + 719_468;
  const era = Math.floor(shifted / 146_097);
  const dayOfEra = shifted - era * 146_097;
  const yearOfEra = Math.floor(
    (dayOfEra -
      Math.floor(dayOfEra / 1460) +
      Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const day = dayOfYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1;
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
  return { year: era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, day };
}
