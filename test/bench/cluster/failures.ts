// Command line of the failure table: npm run bench:failures [-- --times 5] [--rows "gateway killed",…]
// Starts the nemesis' lab (three NATS servers, R3, each part in a network of its own), breaks one thing after the other under a client that
// reads and writes, and writes down what that client saw, in docs/bench/failures.{json,md}. Exit code 1 when a limit is missed.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { NemesisLab } from "../../cluster/nemesis-lab.ts";
import { sleep } from "../../tools/cluster-process.ts";
import { insideOwnNetwork } from "../../tools/lab-network.ts";
import { type S3ServerName, s3ServerDefault } from "../../tools/s3-servers.ts";
import { repositoryDir } from "../../tools/varve-process.ts";
import { type Failure, failures } from "./failure-list.ts";
import { PatientClient, type Seen, volume } from "./patient-client.ts";

interface Row {
  readonly name: string;
  readonly title: string;
  readonly limit: Failure["limit"];
  readonly seen: readonly Seen[];
}

interface FailureTable {
  readonly measuredAt: string;
  readonly machine: string;
  readonly rows: readonly Row[];
}

const sizeBytes = 64 * 1024 * 1024;
const docsDir = join(repositoryDir, "docs", "bench");

const { values } = parseArgs({
  options: { times: { type: "string", default: "5" }, rows: { type: "string" } },
});
const times = Number(values.times);
const wanted = values.rows?.split(",");
const chosen = failures.filter(({ name }) => wanted?.includes(name) ?? true);
if (!Number.isSafeInteger(times) || times < 1 || chosen.length !== (wanted?.length ?? failures.length)) {
  console.error(`--times wants a number of at least 1; rows: ${failures.map(({ name }) => name).join(", ")}`);
  process.exit(64);
}
if (!(await insideOwnNetwork())) process.exit();

const rows: Row[] = [];
for (const withPast of [false, true]) {
  const some = chosen.filter(({ needsPast = false }) => needsPast === withPast);
  if (some.length > 0) rows.push(...(await measureAll(some, withPast ? s3ServerDefault : null)));
}
const before = read();
const kept = (before?.rows ?? []).filter(({ name }) => !rows.some((row) => row.name === name));
const order = failures.map(({ name }) => name);
const table: FailureTable = {
  measuredAt: new Date().toISOString(),
  machine: `${cpus().length} cores (${cpus()[0]?.model.trim()}), Linux ${release()}, Node ${process.versions.node}, nats-server 2.15.1`,
  rows: [...kept, ...rows].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name)),
};
writeFileSync(join(docsDir, "failures.json"), `${JSON.stringify(table, null, 2)}\n`);
writeFileSync(join(docsDir, "failures.md"), page(table));
process.exit(rows.every(holds) ? 0 : 1);

async function measureAll(some: readonly Failure[], store: S3ServerName | null): Promise<readonly Row[]> {
  const measured: Row[] = [];
  const lab = await NemesisLab.open([{ name: volume, sizeBytes, reads: "available" }], store);
  try {
    for (const failure of some) {
      const seen: Seen[] = [];
      for (let time = 0; time < times; time += 1) seen.push(await measure(lab, failure));
      const { name, title, limit } = failure;
      measured.push({ name, title, limit, seen });
      console.log(lineOf({ name, title, limit, seen }));
    }
  } finally {
    await lab.close();
  }
  return measured;
}

async function measure(lab: NemesisLab, failure: Failure): Promise<Seen> {
  const client = await PatientClient.attach(lab, sizeBytes);
  client.start();
  // The overlay is behind the load by little: most reads are answered by a replica.
  await sleep(1500);
  await failure.run(lab, client);
  await sleep(1500);
  return await client.stop();
}

function read(): FailureTable | null {
  const file = join(docsDir, "failures.json");
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as FailureTable) : null;
}

function worst(row: Row, of: "longestReadMs" | "longestWriteMs"): number {
  return Math.max(...row.seen.map((one) => one[of]));
}

function holds(row: Row): boolean {
  const { limit, seen } = row;
  if (limit === null) return true;
  if (limit.noError && seen.some(({ errors }) => errors > 0)) return false;
  return (
    worst(row, "longestReadMs") <= (limit.readMs ?? Number.POSITIVE_INFINITY) &&
    worst(row, "longestWriteMs") <= (limit.writeMs ?? Number.POSITIVE_INFINITY)
  );
}

function lineOf(row: Row): string {
  const median = (of: "longestReadMs" | "longestWriteMs"): number =>
    row.seen.map((one) => one[of]).sort((a, b) => a - b)[Math.floor(row.seen.length / 2)] ?? 0;
  const seconds = (ms: number): string => (ms / 1000).toFixed(2);
  const wait = (of: "longestReadMs" | "longestWriteMs"): string =>
    `${seconds(median(of))} s (${seconds(worst(row, of))} s)`;
  const sum = (of: "errors" | "connections"): number => row.seen.reduce((all, one) => all + one[of], 0);
  const connectedAgain = sum("connections") - row.seen.length;
  const cells = [
    row.title,
    String(row.seen.length),
    wait("longestReadMs"),
    wait("longestWriteMs"),
    String(sum("errors")),
    connectedAgain === 0 ? "goes on" : `ended ${connectedAgain} times`,
    row.limit === null ? "" : row.limit.text,
    row.limit === null ? "" : holds(row) ? "holds" : "**missed**",
  ];
  return `| ${cells.join(" | ")} |`;
}

function page({ measuredAt, machine, rows: all }: FailureTable): string {
  return `# When a part of a cluster fails: what its client sees

Written by \`npm run bench:failures\`; nothing here is typed by hand. Three NATS servers that keep everything three times and sync always,
three storage nodes (two with a replica), two gateways, for the last rows two archivers with a bucket (SeaweedFS), each in a network namespace
of its own, share one machine with the load: a client that
reads and writes 4 KiB, one after the other, all the time. Where its connection ends it connects to the next gateway and asks again. The
waits are the longest of a request in each run, connecting again included: median of the runs, and the longest of all. Errors are
answers with an errno: none is lost work, for an answer with an error promises nothing.

${machine}, ${measuredAt.slice(0, 10)}.

| failure | runs | reads waited (worst) | writes waited (worst) | errors | connection | must | |
| --- | ---: | ---: | ---: | ---: | --- | --- | --- |
${all.map(lineOf).join("\n")}

A NATS server that is killed leads a third of the time. Its followers wait 4 to 9 s, each for a time of its own, before one of them wants to
lead: constants of the server (\`raft.go\`, election time-outs), which no setting changes; of two followers the first decides. A server
that is stopped in good order hands its leadership over at once.
`;
}
