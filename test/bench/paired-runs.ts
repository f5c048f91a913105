// Runs a case in pairs: Varve, each peer, the raw file, and again, with the order turned round in every other pair, so that
// a neighbour's load or a warm disk cache meets all of them alike. A ratio is made within a pair, never across pairs.
// Callers: bench.ts. Next: fio over NBD against what servers.ts started.

import { execFileSync } from "node:child_process";
import { type FioJob, runFio } from "../tools/fio.ts";
import { usageOf } from "../tools/varve-process.ts";
import { median, type RatioRow } from "./results.ts";
import type { Case } from "./rows.ts";
import { type PeerName, peerTitles, type Target } from "./servers.ts";

export interface Ground {
  readonly varve: Readonly<Record<"write" | "flush", Target>>;
  readonly peers: Readonly<Record<PeerName, Target>>;
  /** The raw file that all peers serve; also measured bare. */
  readonly file: string;
  /** Files to sync between runs, so that one run's writeback is not paid by the next. */
  readonly settleFiles: readonly string[];
  readonly sizeMiB: number;
  readonly pairs: number;
  readonly runSeconds: number;
}

export interface CaseResult {
  readonly rows: RatioRow[];
  readonly varve: number[];
}

/** The raw file is for orientation only: no ratio is made with it. */
const nativeSecondsMax = 3;

type Measurement = "varve" | "native" | PeerName;

export async function runCase(ground: Ground, spec: Case): Promise<CaseResult> {
  const order: Measurement[] = ["varve", ...spec.against.map(({ peer }) => peer), "native"];
  const figures = new Map<Measurement, number[]>(order.map((name) => [name, []]));
  for (let pair = 0; pair < ground.pairs; pair += 1) {
    for (const name of pair % 2 === 0 ? order : [...order].reverse()) {
      await settle(ground);
      const jobs = await runFio(fioArguments(ground, spec, name), (ground.runSeconds + 60) * 1000);
      figures.get(name)?.push(figureOf(spec, jobs));
    }
  }
  const varve = figures.get("varve") ?? [];
  const rows = spec.against.map(({ peer, target }): RatioRow => {
    const peerFigures = figures.get(peer) ?? [];
    return {
      id: `${spec.id}/${peer}`,
      title: spec.title,
      against: peerTitles[peer],
      unit: spec.unit,
      sense: "at least",
      target,
      pairs: varve.map((figure, index) => {
        const other = peerFigures[index] ?? Number.NaN;
        return { varve: round(figure), peer: round(other), ratio: figure / other };
      }),
      native: round(median(figures.get("native") ?? [])),
    };
  });
  return { rows, varve };
}

function fioArguments(ground: Ground, spec: Case, name: Measurement): string[] {
  const pattern = [
    ...spec.fio,
    "--norandommap",
    "--randrepeat=0",
    `--size=${ground.sizeMiB}M`,
    "--group_reporting",
  ];
  if (name === "native") {
    const engine = spec.fio.includes("--iodepth=1") ? "psync" : "io_uring";
    const file = [`--ioengine=${engine}`, `--filename=${ground.file}`, ...spec.nativeFio];
    return ["--name=native", ...file, ...pattern, ...timing(Math.min(ground.runSeconds, nativeSecondsMax))];
  }
  const target = name === "varve" ? ground.varve[spec.volume] : ground.peers[name];
  return [
    `--name=${name}`,
    "--ioengine=nbd",
    `--uri=${target.uri}`,
    ...pattern,
    ...timing(ground.runSeconds),
  ];
}

function timing(seconds: number): string[] {
  return ["--time_based", `--runtime=${seconds}`, "--ramp_time=1", "--invalidate=0"];
}

function figureOf(spec: Case, jobs: readonly FioJob[]): number {
  let figure = 0;
  for (const { read, write } of jobs) {
    figure +=
      spec.unit === "MB/s" ? (read.bytesPerSecond + write.bytesPerSecond) / 1e6 : read.iops + write.iops;
  }
  if (figure === 0) throw new Error(`${spec.id}: fio did nothing`);
  return figure;
}

/** All files synced and every server idle: nothing of the last run is left to do. */
export async function settle(ground: Pick<Ground, "settleFiles" | "varve">): Promise<void> {
  execFileSync("sync", [...ground.settleFiles]);
  const deadlineMs = performance.now() + 20_000;
  const pid = ground.varve.write.pid;
  for (let quiet = 0; quiet < 2 && performance.now() < deadlineMs; ) {
    const beforeMs = usageOf(pid).cpuMs;
    await new Promise((resolve) => setTimeout(resolve, 200));
    quiet = usageOf(pid).cpuMs - beforeMs <= 10 ? quiet + 1 : 0;
  }
}

function round(value: number): number {
  return value >= 100 ? Math.round(value) : Math.round(value * 100) / 100;
}
