// Command line of the history bench: npm run bench:history [-- --quick] [--rows snapshots,points,fills,rate,latency-128k,…] [--pairs 3]
//   --report   the page again from the JSON
// Starts a local S3 server, runs the rows on servers of their own, writes docs/bench/history.{json,md,svg}; exit code 1 when a
// target is missed or a row broke. Without --quick it wants the machine to itself and some 20 GiB of disk.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { S3Server, s3ServerLight } from "../../tools/s3-servers.ts";
import { repositoryDir } from "../../tools/varve-process.ts";
import { type LimitRow, limitVerdict, type Machine, type RatioRow, ratioVerdict } from "../results.ts";
import {
  measureArchiveRate,
  measureBusyVolume,
  measureLargeLatency,
  measureSmallLatency,
  measureTiering,
} from "./archive-rows.ts";
import { measureFills } from "./fill-rows.ts";
import { FullMemory } from "./full-memory.ts";
import type { Ground, RequestRow } from "./ground.ts";
import { type HistoryResult, merged, readHistory, tables, writeHistory } from "./history-report.ts";
import { measurePoints } from "./point-rows.ts";
import { measureSnapshots } from "./snapshot-row.ts";

const { values: flags } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rows: { type: "string" },
    pairs: { type: "string" },
    report: { type: "boolean", default: false },
  },
});
const measures: Readonly<Record<string, (ground: Ground) => Promise<void>>> = {
  snapshots: measureSnapshots,
  points: measurePoints,
  fills: measureFills,
  rate: measureArchiveRate,
  "latency-128k": measureLargeLatency,
  "latency-4k": measureSmallLatency,
  busy: measureBusyVolume,
  tiering: measureTiering,
};
const wanted = flags.rows?.split(",") ?? Object.keys(measures);
for (const name of wanted)
  if (!(name in measures)) usage(`there are no rows ${name}; rows: ${Object.keys(measures).join(", ")}`);
const pairs = Number(flags.pairs ?? (flags.quick ? "1" : "3"));
if (!(pairs >= 1)) usage("--pairs wants a number of at least 1");
const docsDir = join(repositoryDir, "docs", "bench");
// Servers and their data go with this process: exit hooks run only where it exits by itself.
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));

if (flags.report) writeHistory(readHistory(docsDir), docsDir);
else await bench();

async function bench(): Promise<void> {
  const ratios: RatioRow[] = [];
  const limits: LimitRow[] = [];
  const requests: RequestRow[] = [];
  const broken: string[] = [];
  const memory = new FullMemory();
  const s3 = await S3Server.start(s3ServerLight);
  try {
    const ground: Ground = {
      s3,
      memory,
      quick: flags.quick,
      pairs,
      announceLimit: (row) => void limits.push(announceLimit(row)),
      announceRatio: (row) => void ratios.push(announceRatio(row)),
      announceRequests: (row) => void requests.push(announceRequests(row)),
      say: (text) => console.log(text),
    };
    for (const name of wanted) {
      await measures[name]?.(ground).catch((cause: unknown) => {
        broken.push(name);
        console.log(`BROKEN ${name}: ${cause instanceof Error ? cause.stack : String(cause)}`);
      });
    }
  } finally {
    memory.end();
    await s3.stop();
  }
  const now: HistoryResult = {
    measuredAt: new Date().toISOString(),
    quick: flags.quick,
    pairs,
    s3: `${s3.name} ${s3.version}`,
    machine: machine(),
    ratios,
    limits,
    requests,
  };
  mkdirSync(docsDir, { recursive: true });
  // Rows that broke keep their figures of an earlier run.
  const result = flags.rows === undefined && broken.length === 0 ? now : merged(now, docsDir);
  writeHistory(result, docsDir);
  console.log(`\n${tables(result)}`);
  const held =
    ratios.every((row) => ratioVerdict(row).holds) && limits.every((row) => limitVerdict(row).holds);
  process.exitCode = held && broken.length === 0 ? 0 : 1;
}

function announceRatio(row: RatioRow): RatioRow {
  const { median, min, max, holds } = ratioVerdict(row);
  const figures = row.pairs.map(({ varve, peer }) => `${varve}/${peer}`).join(" ");
  const range = `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`;
  const note = row.note === undefined ? "" : `; ${row.note}`;
  console.log(
    `${holds ? "ok    " : "MISSED"} ${row.id}: ${range}, ${row.sense} ${row.target}; ${row.unit} ${figures}${note}`,
  );
  return row;
}

function announceLimit(row: LimitRow): LimitRow {
  const { median, holds } = limitVerdict(row);
  const note = row.note === undefined ? "" : `; ${row.note}`;
  console.log(
    `${holds ? "ok    " : "MISSED"} ${row.id}: ${median} ${row.unit}, ${row.sense} ${row.target} (${row.samples.join(" ")})${note}`,
  );
  return row;
}

function announceRequests(row: RequestRow): RequestRow {
  const { put, get, head, list, retries } = row.requests;
  const gib = row.bytes / 2 ** 30;
  const each = (count: number): string => `${count} (${(count / gib).toFixed(1)} per GiB)`;
  console.log(
    `       ${row.id}: ${gib.toFixed(2)} GiB: put ${each(put)}, get ${each(get)}, head ${each(head)}, list ${list}, retries ${retries}`,
  );
  return row;
}

function machine(): Machine {
  const mount = execFileSync("df", ["--output=fstype", tmpdir()], { encoding: "utf8" }).trim().split("\n")[1];
  const { version } = JSON.parse(readFileSync(join(repositoryDir, "package.json"), "utf8")) as {
    version: string;
  };
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    fileSystem: mount?.trim() ?? "",
    versions: { varve: version, node: process.versions.node },
  };
}

function usage(message: string): never {
  console.error(`bench:history: ${message}`);
  process.exit(64);
}
