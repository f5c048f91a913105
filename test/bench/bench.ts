// Command line of the bench: npm run bench [-- --quick] [--rows read-4k-d32,memory-peak] [--pairs 3] [--dir DIR]
//   --profile ROW   where Varve's time goes under that row's load;  --report   the page again from the JSON
//   --self-test     nbdkit in Varve's place against nbdkit: the ratios must be about 1, or the bench itself is wrong
// Prints the side-by-side table, writes docs/bench/one-machine.{json,md,svg}; exit code 1 when a target is missed.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runFio } from "../tools/fio.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";
import { dropFromCache, profiledHotBesideCold, runHotBesideCold, warm } from "./hot-beside-cold.ts";
import { type Ground, runCase, settle } from "./paired-runs.ts";
import { profileCase } from "./profile.ts";
import { merged, readResult, table, writeReport } from "./report.ts";
import { measureEmptyStart, measureIdle, measureMemory, measureReplayStart } from "./resource-rows.ts";
import {
  type BenchResult,
  type LimitRow,
  limitVerdict,
  type Machine,
  type RatioRow,
  ratioVerdict,
} from "./results.ts";
import { cases } from "./rows.ts";
import { type PeerName, PeerServer, peerTitles, type Target, versionsOfTools } from "./servers.ts";

const { values: flags } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rows: { type: "string" },
    pairs: { type: "string" },
    seconds: { type: "string" },
    dir: { type: "string" },
    profile: { type: "string" },
    report: { type: "boolean", default: false },
    "self-test": { type: "boolean", default: false },
  },
});
const docsDir = join(repositoryDir, "docs", "bench");
const limitRows: Readonly<Record<string, (dir: string, runSeconds: number) => Promise<LimitRow>>> = {
  "memory-peak": measureMemory,
  "idle-cpu": measureIdle,
  "start-empty": measureEmptyStart,
  "start-replay": measureReplayStart,
};
const rowNames = [...cases.map((spec) => spec.id), "hot-beside-cold", ...Object.keys(limitRows)];
const wanted = new Set(flags.rows?.split(",") ?? rowNames);
for (const name of wanted)
  if (!rowNames.includes(name)) usage(`there is no row ${name}; rows: ${rowNames.join(", ")}`);
const pairs = Number(flags.pairs ?? "3");
const runSeconds = Number(flags.seconds ?? (flags.quick ? "2" : "6"));
if (!(pairs >= 1) || !(runSeconds >= 1)) usage("--pairs and --seconds want numbers of at least 1");
const sizeMiB = flags.quick ? 512 : 1024;

const dir = await mkdtemp(join(flags.dir ?? tmpdir(), "varve-bench-"));
process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
process.on("SIGINT", () => process.exit(130));

if (flags.report) writeReport(readResult(docsDir), docsDir);
else if (flags.profile !== undefined) await profile(flags.profile);
else if (flags["self-test"]) await selfTest();
else await bench();

async function bench(): Promise<void> {
  const ratios: RatioRow[] = [];
  const limits: LimitRow[] = [];
  for (const [name, measure] of Object.entries(limitRows)) {
    if (wanted.has(name)) limits.push(announceLimit(await measure(dir, runSeconds)));
  }
  if (cases.some((spec) => wanted.has(spec.id)) || wanted.has("hot-beside-cold")) {
    const varve = await VarveProcess.start({
      dataDir: join(dir, "data"),
      nbd: [`unix:${join(dir, "varve.sock")}`],
      volumes: [`write:${sizeMiB}M`, `flush:${sizeMiB}M,durability=flush`],
      // The peers keep no history; what it costs is measured by bench:history.
      args: ["--bucket", "none"],
    });
    const image = (volume: string): string => join(dir, "data", "volumes", volume, "disk.raw");
    const target = (volume: string): Target => ({ uri: varve.uri(volume), pid: varve.pid });
    const targets = { write: target("write"), flush: target("flush") };
    const ground = await prepare(targets, [image("write"), image("flush")]);
    await measureRatios(ground, image("write"), ratios, limits);
    await varve.stop();
  }
  const now: BenchResult = {
    measuredAt: new Date().toISOString(),
    quick: flags.quick,
    pairs,
    runSeconds,
    workingSetMiB: sizeMiB,
    machine: machine(),
    ratios,
    limits,
  };
  const result = flags.rows === undefined ? now : merged(now, docsDir);
  mkdirSync(docsDir, { recursive: true });
  writeReport(result, docsDir);
  console.log(`\n${table(result)}`);
  const held =
    ratios.every((row) => ratioVerdict(row).holds) && limits.every((row) => limitVerdict(row).holds);
  process.exitCode = held ? 0 : 1;
}

async function measureRatios(
  ground: Ground,
  image: string,
  ratios: RatioRow[],
  limits: LimitRow[],
): Promise<void> {
  for (const spec of cases.filter(({ id }) => wanted.has(id))) {
    const { rows, varve } = await runCase(ground, spec);
    for (const row of rows) ratios.push(announce(row));
    if (spec.absoluteAtLeast === undefined) continue;
    limits.push(
      announceLimit({
        id: `${spec.id}/absolute`,
        title: `${spec.title}, absolute`,
        unit: "MB/s",
        sense: "at least",
        target: spec.absoluteAtLeast,
        samples: varve.map(Math.round),
      }),
    );
  }
  if (wanted.has("hot-beside-cold")) ratios.push(announce(await runHotBesideCold(ground, image)));
}

/** The peers' file is filled with random bytes, Varve's volumes with the same bytes; then everything is read once. */
async function prepare(varve: Ground["varve"], images: string[]): Promise<Ground> {
  const file = join(dir, "peer.raw");
  const fill = ["--rw=write", "--bs=1M", "--iodepth=8", `--size=${sizeMiB}M`, "--refill_buffers"];
  await runFio(["--name=fill", "--ioengine=psync", `--filename=${file}`, ...fill, "--end_fsync=1"], 300_000);
  const peers = {} as Record<PeerName, Target>;
  for (const name of Object.keys(peerTitles) as PeerName[])
    peers[name] = await PeerServer.start(name, dir, file);
  for (const { uri } of new Set(Object.values(varve))) {
    await runFio(["--name=fill", "--ioengine=nbd", `--uri=${uri}`, ...fill, "--end_fsync=1"], 300_000);
  }
  const settleFiles = [file, ...images];
  await settle({ settleFiles, varve });
  for (const path of settleFiles) warm(path, 0, sizeMiB);
  return { varve, peers, file, settleFiles, sizeMiB, pairs, runSeconds };
}

async function selfTest(): Promise<void> {
  const stands = join(dir, "stands-in");
  mkdirSync(stands);
  const image = join(stands, "disk.raw");
  execFileSync("truncate", ["-s", `${sizeMiB}M`, image]);
  const plain = await PeerServer.start("nbdkit", stands, image);
  const forced = await PeerServer.start("nbdkit-fua", stands, image);
  const ground = await prepare({ write: plain, flush: plain }, [image]);
  for (const spec of cases.filter(({ id }) => wanted.has(id))) {
    const against = spec.against.filter(({ peer }) => peer.startsWith("nbdkit"));
    const durable = against[0]?.peer === "nbdkit-fua" ? forced : plain;
    const { rows } = await runCase(
      { ...ground, varve: { write: durable, flush: durable } },
      { ...spec, against },
    );
    for (const row of rows) announce({ ...row, target: 0.9 });
  }
  if (wanted.has("hot-beside-cold")) announce(await runHotBesideCold(ground, image));
  dropFromCache(image);
  plain.kill();
  forced.kill();
}

async function profile(row: string): Promise<void> {
  const loads = [...cases, profiledHotBesideCold];
  const spec = loads.find(({ id }) => id === row);
  if (!spec) usage(`--profile wants one of ${loads.map(({ id }) => id).join(", ")}`);
  const lines = await profileCase(spec, dir, docsDir, runSeconds);
  console.log(lines.join("\n"));
}

function announce(row: RatioRow): RatioRow {
  const { median, min, max, holds } = ratioVerdict(row);
  const figures = row.pairs.map((pair) => `${Math.round(pair.varve)}/${Math.round(pair.peer)}`).join(" ");
  const range = `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`;
  const native = row.native === undefined ? "" : `, raw file ${Math.round(row.native)}`;
  console.log(
    `${holds ? "ok    " : "MISSED"} ${row.id}: ${range}, ${row.sense} ${row.target}; ${row.unit} ${figures}${native}`,
  );
  return row;
}

function announceLimit(row: LimitRow): LimitRow {
  const { median, holds } = limitVerdict(row);
  const figures = row.samples.join(" ");
  console.log(
    `${holds ? "ok    " : "MISSED"} ${row.id}: ${median} ${row.unit}, ${row.sense} ${row.target} (${figures})`,
  );
  return row;
}

function machine(): Machine {
  const mount =
    execFileSync("df", ["--output=fstype", dir], { encoding: "utf8" }).trim().split("\n")[1] ?? "";
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    fileSystem: mount.trim(),
    versions: { varve: varveVersion(), ...versionsOfTools() },
  };
}

function varveVersion(): string {
  const { version } = JSON.parse(readFileSync(join(repositoryDir, "package.json"), "utf8")) as {
    version: string;
  };
  return version;
}

function usage(message: string): never {
  console.error(`bench: ${message}`);
  process.exit(64);
}
