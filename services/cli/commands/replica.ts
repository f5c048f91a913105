/*
 * `varve replica add|move|remove|repair|verify` and `varve node drain|undrain`: changes of where replicas are, through a cluster's api
 * process, which decides everything (services/api/engine/replica-placing.ts). Prints; a long one is asked for step by step.
 */
import type { ApiNode, ApiReplica } from "#shared/api/cluster-api.ts";
import type { ApiComparison, ApiPlace } from "#shared/api/replica-api.ts";
import { type FillOrigin, fillOrigins } from "#shared/domain/replica-report.ts";
import { ApiClient, defaultApi } from "../api-client.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { printJson, printLine } from "../output.ts";

const lookMs = 1000;

const clientOf = (line: CommandLine): ApiClient => new ApiClient(line.values.get("api")?.[0] ?? defaultApi);
const volumePath = (line: CommandLine): string => `/v1/volumes/${encodeURIComponent(line.args[0] ?? "")}`;
const nodePath = (line: CommandLine): string => `/v1/nodes/${encodeURIComponent(line.args[0] ?? "")}/drain`;

function flag(line: CommandLine, name: string): string | undefined {
  return line.values.get(name)?.[0];
}

function required(line: CommandLine, name: string): string {
  const value = flag(line, name);
  if (value !== undefined) return value;
  throw new UsageError(
    [`say which storage node: --${name} NODE`],
    `varve replica list shows where the replicas of ${line.args[0]} are.`,
  );
}

/** What the request says of it. */
function fillFrom(line: CommandLine): { readonly fillFrom?: FillOrigin } {
  const chosen = fillOrigins.filter((origin) => line.values.has(`from-${origin}`));
  if (chosen.length > 1) {
    throw new UsageError(
      ["--from-peers and --from-bucket exclude each other"],
      "Without either, the bucket is asked first, then the other replicas.",
    );
  }
  return chosen[0] === undefined ? {} : { fillFrom: chosen[0] };
}

async function add(line: CommandLine): Promise<number> {
  const node = flag(line, "node");
  const body = { ...(node === undefined ? {} : { node }), ...fillFrom(line) };
  const place = await clientOf(line).call<ApiPlace>("POST", `${volumePath(line)}/replicas`, body);
  if (line.values.has("json")) printJson(place);
  else printLine(`${line.args[0]} gets a replica on ${place.node} (pool ${place.pool}); it is filled now`);
  return 0;
}

async function move(line: CommandLine): Promise<number> {
  const from = required(line, "from");
  const to = flag(line, "to");
  const body = to === undefined ? { from } : { from, to };
  const place = await clientOf(line).call<ApiPlace>("POST", `${volumePath(line)}/move`, body);
  if (line.values.has("json")) printJson(place);
  else printLine(`${line.args[0]} moves from ${from} to ${place.node} (pool ${place.pool})`);
  return 0;
}

async function remove(line: CommandLine): Promise<number> {
  const node = required(line, "node");
  await clientOf(line).call("DELETE", `${volumePath(line)}/replicas/${encodeURIComponent(node)}`);
  if (line.values.has("json")) printJson({ removed: node });
  else printLine(`${line.args[0]} has no replica on ${node} any more; the node removes its files`);
  return 0;
}

async function repair(line: CommandLine): Promise<number> {
  const node = required(line, "node");
  const query = new URLSearchParams(fillFrom(line));
  const path = `${volumePath(line)}/replicas/${encodeURIComponent(node)}/repair`;
  await clientOf(line).call("POST", query.size === 0 ? path : `${path}?${query.toString()}`);
  if (line.values.has("json")) printJson({ repairing: node });
  else printLine(`the replica of ${line.args[0]} on ${node} is filled again; see varve replica list`);
  return 0;
}

async function verify(line: CommandLine): Promise<number> {
  const rate = flag(line, "rate");
  const client = clientOf(line);
  const asJson = line.values.has("json");
  const differing: ApiComparison["differing"][number][] = [];
  let offset: number | null = 0;
  let lsn = 0;
  let notCompared = 0;
  while (offset !== null) {
    const body: { offset: number; rate?: string } = rate === undefined ? { offset } : { offset, rate };
    const found: ApiComparison = await client.call("POST", `${volumePath(line)}/verify`, body);
    differing.push(...found.differing);
    notCompared += found.notCompared;
    ({ lsn, nextOffset: offset } = found);
    if (asJson) continue;
    for (const { offset: at, sums } of found.differing) {
      printLine(`extent at ${at} differs: ${sums.map(({ node, sum }) => `${node} ${sum}`).join(", ")}`);
    }
    if (offset !== null) printLine(`${Math.floor((100 * offset) / found.sizeBytes)} % compared`);
  }
  if (asJson) printJson({ lsn, differing, notCompared });
  else if (differing.length === 0) printLine(`the replicas of ${line.args[0]} are the same (LSN ${lsn})`);
  else
    printLine(
      `${differing.length} extents differ. Look at the disks of these nodes, then fill the wrong one again: varve replica repair`,
    );
  if (!asJson && notCompared > 0) {
    printLine(`${notCompared} extents are in the bucket only on some node, and were not compared there`);
  }
  return differing.length === 0 ? 0 : 1;
}

async function drain(line: CommandLine): Promise<number> {
  const client = clientOf(line);
  const name = line.args[0] ?? "";
  await client.call("POST", nodePath(line));
  let said = "";
  while (!line.values.has("no-wait")) {
    const node = (await client.call<readonly ApiNode[]>("GET", "/v1/nodes")).find((one) => one.name === name);
    if (node === undefined || node.volumes.length === 0 || !node.drained) break;
    const replicas = await client.call<readonly ApiReplica[]>("GET", "/v1/replicas");
    const filling = replicas
      .filter((one) => node.volumes.includes(one.volume) && one.condition === "filling")
      .map((one) => `${one.volume} on ${one.node}: ${one.reason || "applies its log"}`);
    const text = [`${node.volumes.length} volumes left on ${name}`, ...filling].join("; ");
    if (text !== said && !line.values.has("json")) printLine(text);
    said = text;
    await new Promise<void>((resolve) => {
      setTimeout(resolve, lookMs);
    });
  }
  if (line.values.has("json")) printJson({ drained: name });
  else if (line.values.has("no-wait")) printLine(`${name} is drained; see varve node list`);
  else printLine(`${name} is empty and gets no replicas`);
  return 0;
}

async function undrain(line: CommandLine): Promise<number> {
  await clientOf(line).call("DELETE", nodePath(line));
  if (line.values.has("json")) printJson({ undrained: line.args[0] });
  else printLine(`${line.args[0]} may have replicas again`);
  return 0;
}

export const replicaCommandModule = { add, move, remove, repair, verify, drain, undrain };
