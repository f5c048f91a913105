// Command line of the cluster bench: npm run bench:cluster [-- --seconds 4] [--pairs 3] [--rows sequential-R1,…] [--links] [--report]
// Starts NATS servers of its own on this machine, one and three, sync always, and measures in pairs: the log of a volume beside plain
// JetStream publishing, whole disks beside one machine's and beside plain requests. --links instead measures over links of 1 Gb/s, which needs root; writes docs/bench/cluster.{json,md}; exit code 1 when a target is missed.
import { execFileSync } from "node:child_process";
import { appendFileSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { insideOwnNetwork } from "../../tools/lab-network.ts";
import { NatsServers } from "../../tools/nats-server.ts";
import { repositoryDir } from "../../tools/varve-process.ts";
import { type Machine, type Pair, type RatioRow, ratioVerdict } from "../results.ts";
import {
  clusterReading,
  clusterWritingUse,
  oneMachineReading,
  plainRequests,
  remoteReading,
} from "./disk-loads.ts";
import { type LinkResult, measureLinks } from "./links.ts";
import { type Load, plainPublishing, type Rate, volumeWriting } from "./log-loads.ts";
import { medianUse, type ProcessorUse, useTable } from "./processor-use.ts";

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
  /** Why it is missed, for as long as it is. */
  readonly note?: string | ((load: Load, found: readonly Pair[]) => Promise<string>);
  /** Where servers, images and all else live; the usual temporary directory where it is not there. */
  readonly under?: string;
}

/** In bytes a second, so that writes and messages of different sizes compare. */
const bytesRate = (run: (load: Load) => Promise<Rate>, bytes: number, depth: number) => async (load: Load) =>
  ((await run({ ...load, bytes, depth })) * bytes) / 1e6;
const countRate = (run: (load: Load) => Promise<Rate>, bytes: number, depth: number) => (load: Load) =>
  run({ ...load, bytes, depth });
const sequential = (load: Load): Promise<Rate> => volumeWriting(load, "sequential");
const random = (load: Load): Promise<Rate> => volumeWriting(load, "random");

/** 32 writes that wait can't be faster than 32 for each answer to one small message: measured on the same servers, behind the pairs. */
async function smallWritesNote(load: Load, found: readonly Pair[]): Promise<string> {
  const alone = (await plainPublishing({ ...load, bytes: 4 * KiB, depth: 1 })) * 32;
  const whole = await plainPublishing({ ...load, bytes: 128 * KiB, depth: 1 });
  const peers = found.map(({ peer }) => peer).sort((a, b) => a - b);
  const times = alone / (peers[Math.floor(peers.length / 2)] ?? Number.NaN);
  return `With three servers the peer is no message per sync: the servers group what waits. 32 writes that wait for a quorum can't be faster
than 32 for each answer to one small message, however they are batched: a 4 KiB message alone was answered in ${(32_000 / alone).toFixed(2)} ms, which is
${Math.round(alone)} writes a second at the most, ${times.toFixed(1)} times the peer. One that holds 32 writes, 128 KiB, was answered in ${(1000 / whole).toFixed(2)} ms.`;
}

const memoryNote = `Processors are the limit: what each process takes of them is in the table below, and two cores have 2 s for 100 MB at 100 MB/s.`;

/** What each process took of the processors, of every run of the row that measures it. */
const processorRuns: (readonly ProcessorUse[])[] = [];
const writingWithUse = async (load: Load): Promise<Rate> => {
  const { rate, use } = await clusterWritingUse(load);
  processorRuns.push(use);
  return rate;
};

const logRows: readonly LogRow[] = [1, 3].flatMap((replicas): LogRow[] => [
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
    ...(replicas === 3 ? { note: smallWritesNote } : {}),
  },
]);

const inMemory = "/dev/shm";
const touchedBytes = 3 * 1024 * MiB;
const sizeOf = (bytes: number): string => (bytes < MiB ? `${bytes / KiB} KiB` : "1 MiB");

/** Reads that are counted as requests where they are small, as bytes where they are large. */
const readRow = (place: "same-host" | "remote", bytes: number, depth: number): LogRow => {
  const rate = bytes < 64 * KiB ? countRate : bytesRate;
  const pattern = bytes < 64 * KiB ? "randread" : "read";
  const same = place === "same-host";
  return {
    name: `read-${place}-${bytes / KiB}k`,
    title: `${sizeOf(bytes)} reads, depth ${depth}, ${same ? "replica on the gateway's host, NBD" : "replica over NATS"}`,
    replicas: 1,
    target: same ? 0.8 : 0.6,
    unit: bytes < 64 * KiB ? "requests/s" : "MB/s",
    varve: rate(same ? clusterReading(pattern) : remoteReading, bytes, depth),
    peer: rate(same ? oneMachineReading(pattern) : plainRequests, bytes, depth),
    against: same ? "`varve up`, NBD" : "plain NATS request/reply of the same size",
  };
};

const rows: readonly LogRow[] = [
  ...logRows,
  {
    name: "memory-log-R3",
    title: "1 MiB sequential writes, depth 8, R3, stores in memory, the log alone",
    replicas: 3,
    target: 1,
    unit: "MB/s",
    varve: bytesRate(sequential, MiB, 8),
    peer: async () => 100,
    against: "a limit of 100 MB/s",
    under: inMemory,
  },
  {
    name: "memory-plain-R3",
    title: "the same",
    replicas: 3,
    target: 0.6,
    unit: "MB/s",
    varve: bytesRate(sequential, MiB, 8),
    peer: bytesRate(plainPublishing, 256 * KiB, 32),
    against: "plain JetStream, 256 KiB messages, 32 in flight, stores in memory",
    under: inMemory,
  },
  {
    name: "memory-R3",
    title: "1 MiB sequential writes, depth 8, R3, two replicas, NBD, stores and images in memory",
    replicas: 3,
    target: 1,
    unit: "MB/s",
    varve: bytesRate(writingWithUse, MiB, 8),
    peer: async () => 100,
    against: "a limit of 100 MB/s",
    note: memoryNote,
    under: inMemory,
  },
  readRow("same-host", 4 * KiB, 32),
  readRow("same-host", 1 * MiB, 8),
  readRow("remote", 4 * KiB, 32),
  readRow("remote", 512 * KiB, 8),
];

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string", default: "4" },
    pairs: { type: "string", default: "3" },
    rows: { type: "string" },
    links: { type: "boolean", default: false },
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
  readonly links?: LinkResult;
  readonly processors?: readonly ProcessorUse[];
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
  const places = [1, 3].flatMap((count) => [undefined, inMemory].map((under) => ({ count, under })));
  const usual = tmpdir();
  for (const { count, under } of places) {
    const fits = (row: LogRow): boolean => row.replicas === count && row.under === under;
    const chosen = rows.filter((row) => fits(row) && wanted.includes(row.name));
    if (chosen.length === 0) continue;
    process.env["TMPDIR"] = under ?? usual;
    const servers = await NatsServers.start({ servers: count });
    try {
      for (const row of chosen) measured.push(await measureRow(row, servers));
    } finally {
      await servers.stop();
    }
  }
  process.env["TMPDIR"] = usual;
  const before = readResult();
  const kept = (before?.ratios ?? []).filter(({ id }) => !measured.some((row) => row.id === id));
  const order = (row: RatioRow): number => rows.findIndex(({ name }) => name === row.id);
  const ratios = [...kept, ...measured].sort((a, b) => order(a) - order(b));
  const processors = processorRuns.length > 0 ? medianUse(processorRuns) : before?.processors;
  return {
    ...before,
    measuredAt: new Date().toISOString(),
    seconds,
    machine: machine(),
    ratios,
    ...(processors === undefined ? {} : { processors }),
  };
}

async function withLinks(): Promise<ClusterResult> {
  const links = await measureLinks(seconds);
  const before = readResult();
  const ratios = before?.ratios ?? [];
  return {
    ...before,
    measuredAt: new Date().toISOString(),
    seconds,
    machine: machine(),
    ratios,
    links,
  };
}

async function measureRow(row: LogRow, servers: NatsServers): Promise<RatioRow> {
  const load = { servers, replicas: row.replicas, seconds, bytes: 0, depth: 0 };
  const found: Pair[] = [];
  for (let pair = 0; pair < pairs; pair += 1) {
    // The order turns round, so that a warm disk or a neighbour meets both alike.
    if (row.under !== undefined) touchMemory(row.under);
    const first = pair % 2 === 0 ? await row.varve(load) : 0;
    const peer = await row.peer(load);
    const varve = pair % 2 === 0 ? first : await row.varve(load);
    found.push({ varve: Math.round(varve), peer: Math.round(peer), ratio: varve / peer });
  }
  const { title, against, unit, target } = row;
  const note = typeof row.note === "function" ? await row.note(load, found) : row.note;
  const ratio: RatioRow = {
    id: row.name,
    title,
    against,
    unit,
    sense: "at least",
    target,
    pairs: found,
    native: undefined,
    ...(note === undefined ? {} : { note }),
  };
  console.log(line(ratio));
  return ratio;
}

/**
 * As many bytes as a run stores, written and removed: a virtual machine gets each page from its host at the first touch, which took the
 * servers two to three times the system time of pages that are there.
 */
function touchMemory(directory: string): void {
  const file = join(directory, `varve-bench-touch-${process.pid}`);
  const piece = Buffer.alloc(16 * MiB, 1);
  const { bavail, bsize } = statfsSync(directory);
  const pieces = Math.floor(Math.min(touchedBytes, (bavail * bsize) / 4) / piece.length);
  try {
    for (let index = 0; index < pieces; index += 1) appendFileSync(file, piece);
  } finally {
    rmSync(file, { force: true });
  }
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
  return `# Several machines, measured

Written by \`npm run bench:cluster\`; nothing here is typed by hand. Where a row does not say NBD, the load is the
gateway's own volume writer over the JetStream log, or its remote replica, in the bench's process. Every write is answered when a quorum has
synced it. Servers (\`sync_interval: always\`), load and disk share one
machine. Ratios are made within a pair, runs of ${result.seconds} s. Memory for stores is touched before each pair.

${machine.cores} cores (${machine.cpu}), ${machine.memoryGiB} GiB, Linux ${machine.kernel}, ${machine.fileSystem}, Node ${machine.versions["node"]}, nats-server ${machine.versions["nats-server"]}, ${measuredAt.slice(0, 10)}.

| case | against | Varve | peer | ratio: median (range) | target | |
| --- | --- | ---: | ---: | ---: | ---: | --- |
${result.ratios.map(line).join("\n")}
${result.ratios
  .filter((row) => row.note !== undefined && !ratioVerdict(row).holds)
  .map(({ title, note }) => `\n**${title}**: ${note}\n`)
  .join(
    "",
  )}${result.processors === undefined ? "" : useTable(result.processors)}${result.links === undefined ? "" : linkTable(result.links)}`;
}

function linkTable({ delayMs, rows: linkRows }: LinkResult): string {
  const links =
    delayMs === 0 ? "1 Gb/s (this kernel can't delay packets)" : `1 Gb/s and ${delayMs} ms each way`;
  const lines = linkRows.map(
    ({ title, figure, unit, allowed }) =>
      `| ${title} | ${figure.toFixed(2)} ${unit} | ${allowed.toFixed(2)} ${unit} |`,
  );
  return `
## Over links

Every part in a network namespace of its own, each with a link of ${links}; two replicas, NBD, all on this machine's processors and disk.
\`npm run bench:cluster -- --links\`, as root. The last column is what the links alone allow.

| case | Varve | allowed |
| --- | ---: | ---: |
${lines.join("\n")}
`;
}

if (flags.links && process.getuid?.() !== 0) {
  console.error("--links makes network namespaces with links of their own: run it as root");
  process.exit(2);
}
if (flags.links && !(await insideOwnNetwork())) process.exit();

const measured = flags.links ? withLinks : measure;
const result = flags.report ? readResult() : await measured();
if (result === null) {
  console.error("docs/bench/cluster.json is not there: measure first");
  process.exit(2);
}
writeFileSync(join(docsDir, "cluster.json"), `${JSON.stringify(result, null, 2)}\n`);
writeFileSync(join(docsDir, "cluster.md"), page(result));
process.exitCode = result.ratios.every((row) => ratioVerdict(row).holds) ? 0 : 1;
