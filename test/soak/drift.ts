// Tells drift from noise: the last third of the samples against the first third, after a warm-up, each figure with its own
// limit. Callers: soak.ts and the report. Pure.

export interface Sample {
  /** Seconds since the load started. */
  readonly atSeconds: number;
  readonly rssMiB: number;
  readonly fds: number;
  readonly threads: number;
  readonly cpuPercent: number;
  readonly dataMiB: number;
  readonly writeP50Ms: number;
  readonly writeP99Ms: number;
  readonly readP50Ms: number;
  readonly readP99Ms: number;
  /** The test's own 4 KiB write and fdatasync on the same disk, without Varve: how busy the machine was. */
  readonly controlP50Ms: number;
}

export type Figure = Exclude<keyof Sample, "atSeconds" | "cpuPercent" | "controlP50Ms">;

/** The last third may be at most `first × factor + slack`; latencies are also allowed what the control lost meanwhile. */
export interface DriftLimit {
  readonly figure: Figure;
  readonly factor: number;
  readonly slack: number;
  readonly withControl?: boolean;
  readonly why: string;
}

export interface DriftCheck extends DriftLimit {
  readonly first: number;
  readonly last: number;
  readonly allowed: number;
  readonly holds: boolean;
}

const neighbours = "noise; more is allowed only where the disk itself became slower";

export const driftLimits: readonly DriftLimit[] = [
  { figure: "rssMiB", factor: 1.15, slack: 16, why: "caches are full after the warm-up; more is a leak" },
  {
    figure: "fds",
    factor: 1.25,
    slack: 8,
    why: "log segments are open until a checkpoint lets them go; clients come and go",
  },
  { figure: "threads", factor: 1, slack: 2, why: "thread pools are started once" },
  {
    figure: "dataMiB",
    factor: 1.25,
    slack: 256,
    why: "log is released after checkpoints; one cycle of it may be held",
  },
  { figure: "writeP50Ms", factor: 1.5, slack: 1, withControl: true, why: neighbours },
  { figure: "writeP99Ms", factor: 3, slack: 20, withControl: true, why: neighbours },
  { figure: "readP50Ms", factor: 1.5, slack: 1, withControl: true, why: neighbours },
  { figure: "readP99Ms", factor: 3, slack: 20, withControl: true, why: neighbours },
];

/** A fifth of the run, but at least 90 s where the run is long enough: caches fill and the log reaches its steady length. */
export function warmUpSeconds(totalSeconds: number): number {
  return Math.max(totalSeconds / 5, Math.min(90, totalSeconds / 2));
}

export function checkDrift(samples: readonly Sample[], totalSeconds: number): DriftCheck[] {
  const steady = samples.filter((sample) => sample.atSeconds > warmUpSeconds(totalSeconds));
  const third = Math.floor(steady.length / 3);
  if (third < 1) throw new Error("too few samples for a drift check: run for at least a minute");
  const first = steady.slice(0, third);
  const last = steady.slice(-third);
  const busier = Math.max(1, middle(last, "controlP50Ms") / middle(first, "controlP50Ms"));
  return driftLimits.map((limit) => {
    const before = middle(first, limit.figure);
    const after = middle(last, limit.figure);
    const allowed = before * limit.factor * (limit.withControl === true ? busier : 1) + limit.slack;
    return { ...limit, first: before, last: after, allowed, holds: after <= allowed };
  });
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

function middle(samples: readonly Sample[], figure: Figure | "controlP50Ms"): number {
  return percentile(
    samples.map((sample) => sample[figure]),
    0.5,
  );
}
