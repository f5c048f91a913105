// The shape of docs/bench/one-machine.json and the sums over it. Callers: the bench's rows fill it, report.ts and chart.ts
// print it. Pure.

export type Unit = "requests/s" | "MB/s" | "µs p50" | "MiB" | "% of a core" | "s" | "ms" | "ms p99" | "PUTs";

export interface Pair {
  readonly varve: number;
  readonly peer: number;
  readonly ratio: number;
}

/** One case against one peer. */
export interface RatioRow {
  readonly id: string;
  readonly title: string;
  readonly against: string;
  readonly unit: Unit;
  /** "at least": the ratio must reach the target; "at most": it must not pass it (latencies). */
  readonly sense: "at least" | "at most";
  readonly target: number;
  readonly pairs: readonly Pair[];
  /** The same pattern on the raw file by fio, without any server; median of the same runs. */
  readonly native: number | undefined;
  readonly note?: string;
}

/** One figure of Varve alone against a limit. */
export interface LimitRow {
  readonly id: string;
  readonly title: string;
  readonly unit: Unit;
  readonly sense: "at least" | "at most";
  readonly target: number;
  readonly samples: readonly number[];
  readonly note?: string;
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly fileSystem: string;
  readonly versions: Readonly<Record<string, string>>;
}

export interface BenchResult {
  readonly measuredAt: string;
  readonly quick: boolean;
  readonly pairs: number;
  readonly runSeconds: number;
  readonly workingSetMiB: number;
  readonly machine: Machine;
  readonly ratios: readonly RatioRow[];
  readonly limits: readonly LimitRow[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export interface Verdict {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly holds: boolean;
}

export function ratioVerdict(row: RatioRow): Verdict {
  return verdict(
    row.pairs.map((pair) => pair.ratio),
    row,
  );
}

export function limitVerdict(row: LimitRow): Verdict {
  return verdict(row.samples, row);
}

function verdict(values: readonly number[], row: { sense: "at least" | "at most"; target: number }): Verdict {
  const middle = median(values);
  return {
    median: middle,
    min: Math.min(...values),
    max: Math.max(...values),
    holds: row.sense === "at least" ? middle >= row.target : middle <= row.target,
  };
}
