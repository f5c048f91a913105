/*
 * One line of `varve doctor`: what was looked at, how it stands, what to do. The checks (system-checks.ts, disk-checks.ts,
 * port-checks.ts) return these; commands/doctor.ts prints them.
 */

export type Verdict = "ok" | "warn" | "fail";

export interface Finding {
  readonly verdict: Verdict;
  /** A word or two, the same on every machine. */
  readonly subject: string;
  /** What was found. */
  readonly found: string;
  /** What to do; absent where nothing needs doing. */
  readonly advice?: string;
}

export function ok(subject: string, found: string): Finding {
  return { verdict: "ok", subject, found };
}

export function warn(subject: string, found: string, advice: string): Finding {
  return { verdict: "warn", subject, found, advice };
}

export function fail(subject: string, found: string, advice: string): Finding {
  return { verdict: "fail", subject, found, advice };
}
