// Command line of the soak: npm run soak -- --minutes 30 [--dir DIR]
// Runs all loads of loads.ts on one server, samples it every 10 s, checks drift, stops it cleanly, checks the image files,
// writes docs/bench/soak.{json,md}. Exit code 1 on any wrong byte, error or drift.

import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BlockChecker, describe } from "../tools/block-checker.ts";
import { freePort } from "../tools/free-port.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";
import { checkDrift, percentile, type Sample } from "./drift.ts";
import {
  checkerLoad,
  fileSystemLoad,
  fioLoad,
  type LoadContext,
  type ProbeWindow,
  probeLoad,
} from "./loads.ts";
import { driftTable, passed, type SoakResult, writeSoakReport } from "./soak-report.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "30" }, dir: { type: "string" } },
});
const minutes = Number(values.minutes);
if (!(minutes >= 1)) {
  console.error("soak: --minutes wants a number of at least 1, e.g. --minutes 30");
  process.exit(64);
}

const sampleEveryMs = 10_000;
const rssPeakMiBMax = 300;
const checkedBytes = 256 * 2 ** 20;
const dir = await mkdtemp(join(values.dir ?? tmpdir(), "varve-soak-"));
process.on("SIGINT", () => process.exit(130));

const address = `unix:${join(dir, "nbd.sock")}`;
const server = await VarveProcess.start({
  dataDir: join(dir, "data"),
  nbd: [address],
  http: `127.0.0.1:${await freePort()}`,
  volumes: [
    "check-write:256M",
    "check-flush:256M,durability=flush",
    "fio-write:256M",
    "fio-flush:256M,durability=flush",
    "files:128M",
    "probe:64M",
  ],
});
const checkers = new Map(
  ["check-write", "check-flush"].map((name, seed) => [
    name,
    new BlockChecker({
      sizeBytes: checkedBytes,
      seed,
      survives: "acknowledged",
      requestBytesMax: 256 * 1024,
    }),
  ]),
);
const stop = new AbortController();
const context: LoadContext = {
  address,
  dir,
  signal: stop.signal,
  failures: [],
  counts: { checkerOperations: 0, quietChecks: 0, fioRuns: 0, fileSystems: 0 },
};
const window: ProbeWindow = { writesMs: [], readsMs: [], controlMs: [] };
const loads = [
  ...[...checkers].map(([name, checker]) => watched(name, checkerLoad(context, name, checker))),
  watched("fio-write", fioLoad(context, "fio-write", false)),
  watched("fio-flush", fioLoad(context, "fio-flush", true)),
  watched("files", fileSystemLoad(context, "files")),
  watched("probe", probeLoad(context, "probe", window)),
];

const samples: Sample[] = [];
const startedAtMs = performance.now();
let lastCpuMs = server.usage().cpuMs;
let lastAtMs = startedAtMs;
let rssPeakMiB = 0;
while (!stop.signal.aborted && performance.now() - startedAtMs < minutes * 60_000) {
  await new Promise((resolve) => setTimeout(resolve, sampleEveryMs));
  if (server.running) takeSample();
  else fail("the server ended");
}
stop.abort();
await Promise.all(loads);
await finish();

function takeSample(): void {
  const usage = server.usage();
  const nowMs = performance.now();
  const data = execFileSync("du", ["--summarize", "--block-size=1", join(dir, "data")], { encoding: "utf8" });
  const sample: Sample = {
    atSeconds: (nowMs - startedAtMs) / 1000,
    rssMiB: usage.rssBytes / 2 ** 20,
    fds: usage.fds,
    threads: usage.threads,
    cpuPercent: ((usage.cpuMs - lastCpuMs) / (nowMs - lastAtMs)) * 100,
    dataMiB: Number.parseInt(data, 10) / 2 ** 20,
    writeP50Ms: percentile(window.writesMs, 0.5),
    writeP99Ms: percentile(window.writesMs, 0.99),
    readP50Ms: percentile(window.readsMs, 0.5),
    readP99Ms: percentile(window.readsMs, 0.99),
    controlP50Ms: percentile(window.controlMs, 0.5),
  };
  if (window.writesMs.length === 0) fail("the probe got no answer for a whole sample");
  window.writesMs.length = 0;
  window.readsMs.length = 0;
  window.controlMs.length = 0;
  lastCpuMs = usage.cpuMs;
  lastAtMs = nowMs;
  rssPeakMiB = usage.rssPeakBytes / 2 ** 20;
  samples.push(sample);
  const latency = `write ${sample.writeP50Ms.toFixed(2)}/${sample.writeP99Ms.toFixed(1)} ms`;
  const { checkerOperations, fioRuns, fileSystems } = context.counts;
  console.log(
    `${Math.round(sample.atSeconds)} s  rss ${Math.round(sample.rssMiB)} MiB  fds ${sample.fds}  cpu ${Math.round(sample.cpuPercent)} %` +
      `  data ${Math.round(sample.dataMiB)} MiB  ${latency}  ${checkerOperations} ops, ${fioRuns} fio, ${fileSystems} ext4`,
  );
}

async function finish(): Promise<void> {
  try {
    await server.stop();
    for (const [name, checker] of checkers) {
      const findings = checker.verifyFile(join(dir, "data", "volumes", name, "disk.raw"));
      for (const finding of findings) context.failures.push(`${name}, image file: ${describe(finding)}`);
    }
  } catch (cause) {
    context.failures.push((cause as Error).message);
  }
  const result: SoakResult = {
    measuredAt: new Date().toISOString(),
    minutes,
    counts: context.counts,
    rssPeakMiB,
    rssPeakMiBMax,
    checks: samples.length >= 5 ? checkDrift(samples, minutes * 60) : [],
    failures: context.failures.slice(0, 50),
    samples,
  };
  writeSoakReport(result, join(repositoryDir, "docs", "bench"));
  console.log(`\n${driftTable(result.checks)}\npeak memory ${Math.round(rssPeakMiB)} MiB`);
  if (passed(result)) {
    rmSync(dir, { recursive: true, force: true });
    console.log(`soak: ${minutes} minutes, no error, no drift`);
    return;
  }
  for (const failure of result.failures) console.error(`soak: ${failure}`);
  console.error(`soak: failed; data kept in ${dir}\n${server.output().slice(-4000)}`);
  server.killNow();
  process.exitCode = 1;
}

/** A load that breaks ends the soak; what it says becomes a failure. */
async function watched(name: string, load: Promise<void>): Promise<void> {
  try {
    await load;
    if (context.failures.length > 0) stop.abort();
  } catch (cause) {
    fail(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function fail(what: string): void {
  context.failures.push(what);
  stop.abort();
}
