// Command line of the cluster bench: npm run bench:cluster [-- --seconds 4] [--pairs 3] [--rows sequential-R1,…] [--report]
// Starts NATS servers of its own on this machine, one and three, sync always, and measures the log of a volume beside plain
// JetStream publishing in pairs; writes docs/bench/cluster.{json,md}; exit code 1 when a target is missed.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { NatsServers } from "../../tools/nats-server.ts";
import { repositoryDir } from "../../tools/varve-process.ts";
import { type Machine, type Pair, type RatioRow, ratioVerdict } from "../results.ts";
import { type Load, plainPublishing, type Rate, volumeWriting } from "./log-loads.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

interface LogRow {
  readonly name: string;
  readonly title: string;
  readonly replicas: number;
  readonly target: number;
  readonly unit: "MB/s" | "requests/s";
  readonly varve: (load: Load) => Promise<Rate>;
  readonly peer: (load: Load) => Promise<Rate>;
  readonly against: string;
}

/** In bytes a second, so that writes and messages of different sizes compare. */
const bytesRate = (run: (load: Load) => Promise<Rate>, bytes: number, depth: number) => async (load: Load) =>
  ((await run({ ...load, bytes, depth })) * bytes) / 1e6;
const countRate = (run: (load: Load) => Promise<Rate>, bytes: number, depth: number) => (load: Load) =>
  run({ ...load, bytes, depth });
const sequential = (load: Load): Promise<Rate> => volumeWriting(load, "sequential");
const random = (load: Load): Promise<Rate> => volumeWriting(load, "random");

const rows: readonly LogRow[] = [1, 3].flatMap((replicas): LogRow[] => [
  {
    name: `sequential-R${replicas}`,
    title: `1 MiB sequential writes, depth 8, R${replicas}`,
    replicas,
    target: replicas === 1 ? 0.7 : 0.6,
    unit: "MB/s",
    varve: bytesRate(sequential, MiB, 8),
    peer: bytesRate(plainPublishing, 256 * KiB, 32),
    against: "plain JetStream, 256 KiB messages, 32 in flight",
  },
  {
    name: `random-R${replicas}`,
    title: `4 KiB random writes, depth 32, R${replicas}`,
    replicas,
    target: replicas === 1 ? 8 : 5,
    unit: "requests/s",
    varve: countRate(random, 4 * KiB, 32),
    peer: countRate(plainPublishing, 4 * KiB, 32),
    against: "plain JetStream, one message for each write, 32 in flight",
  },
]);

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string", default: "4" },
    pairs: { type: "string", default: "3" },
    rows: { type: "string" },
    report: { type: "boolean", default: false },
  },
});
const seconds = Number(flags.seconds);
const pairs = Number(flags.pairs);
const wanted = flags.rows?.split(",") ?? rows.map(({ name }) => name);
const unknown = wanted.filter((name) => !rows.some((row) => row.name === name));
if (unknown.length > 0 || !(seconds >= 1) || !(pairs >= 1)) {
  console.error(
    `rows: ${rows.map(({ name }) => name).join(", ")}; --seconds and --pairs want numbers of at least 1`,
  );
  process.exit(2);
}
const docsDir = join(repositoryDir, "docs", "bench");

interface ClusterResult {
  readonly measuredAt: string;
  readonly seconds: number;
  readonly machine: Machine;
  readonly ratios: readonly RatioRow[];
}

function readResult(): ClusterResult | null {
  try {
    return JSON.parse(readFileSync(join(docsDir, "cluster.json"), "utf8")) as ClusterResult;
  } catch {
    return null;
  }
}

async function measure(): Promise<ClusterResult> {
  const measured: RatioRow[] = [];
  for (const count of [1, 3]) {
    const chosen = rows.filter((row) => row.replicas === count && wanted.includes(row.name));
    if (chosen.length === 0) continue;
    const servers = await NatsServers.start({ servers: count });
    try {
      for (const row of chosen) measured.push(await measureRow(row, servers));
    } finally {
      await servers.stop();
    }
  }
  const before = readResult()?.ratios ?? [];
  const kept = before.filter(({ id }) => !measured.some((row) => row.id === id));
  const order = (row: RatioRow): number => rows.findIndex(({ name }) => name === row.id);
  const ratios = [...kept, ...measured].sort((a, b) => order(a) - order(b));
  return { measuredAt: new Date().toISOString(), seconds, machine: machine(), ratios };
}

async function measureRow(row: LogRow, servers: NatsServers): Promise<RatioRow> {
  const load = { servers, replicas: row.replicas, seconds, bytes: 0, depth: 0 };
  const found: Pair[] = [];
  for (let pair = 0; pair < pairs; pair += 1) {
    // The order turns round, so that a warm disk or a neighbour meets both alike.
    const first = pair % 2 === 0 ? await row.varve(load) : 0;
    const peer = await row.peer(load);
    const varve = pair % 2 === 0 ? first : await row.varve(load);
    found.push({ varve: Math.round(varve), peer: Math.round(peer), ratio: varve / peer });
  }
  const { title, against, unit, target } = row;
  const ratio: RatioRow = {
    id: row.name,
    title,
    against,
    unit,
    sense: "at least",
    target,
    pairs: found,
    native: undefined,
  };
  console.log(line(ratio));
  return ratio;
}

function machine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    fileSystem: execFileSync("stat", ["-f", "-c", "%T", tmpdir()], { encoding: "utf8" }).trim(),
    versions: { node: process.versions.node, "nats-server": "2.15.1" },
  };
}

function line(row: RatioRow): string {
  const { median, min, max, holds } = ratioVerdict(row);
  const middle = [...row.pairs].sort((a, b) => a.ratio - b.ratio)[row.pairs.length >> 1];
  const ratio = `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`;
  const cells = [
    row.title,
    row.against,
    `${middle?.varve} ${row.unit}`,
    `${middle?.peer} ${row.unit}`,
    ratio,
  ];
  return `| ${[...cells, `≥ ${row.target}`, holds ? "holds" : "**missed**"].join(" | ")} |`;
}

function page(result: ClusterResult): string {
  const { machine, measuredAt } = result;
  return `# The log of several machines, measured

Written by \`npm run bench:cluster\`; nothing here is typed by hand. The load is the gateway's volume writer over the JetStream log,
without NBD; every write is answered when a quorum has synced it. Servers (\`sync_interval: always\`), load and disk share one
machine. Ratios are made within a pair, runs of ${result.seconds} s.

${machine.cores} cores (${machine.cpu}), ${machine.memoryGiB} GiB, Linux ${machine.kernel}, ${machine.fileSystem}, Node ${machine.versions["node"]}, nats-server ${machine.versions["nats-server"]}, ${measuredAt.slice(0, 10)}.

| case | against | Varve | peer | ratio: median (range) | target | |
| --- | --- | ---: | ---: | ---: | ---: | --- |
${result.ratios.map(line).join("\n")}
`;
}

const result = flags.report ? readResult() : await measure();
if (result === null) {
  console.error("docs/bench/cluster.json is not there: measure first");
  process.exit(2);
}
writeFileSync(join(docsDir, "cluster.json"), `${JSON.stringify(result, null, 2)}\n`);
writeFileSync(join(docsDir, "cluster.md"), page(result));
process.exitCode = result.ratios.every((row) => ratioVerdict(row).holds) ? 0 : 1;
