/*
 * `varve volume move`: a volume of a stopped `varve up` becomes a volume of a cluster. Begins it there, copies and compares, marks it
 * moved here, then lets the cluster serve it; each step may be the last one of a killed process, and the next run goes on from there.
 * Order and crash rules: docs/specs/move-into-cluster.md.
 */
import { hostname } from "node:os";
import type { ApiArrival, ApiNode } from "#shared/api/cluster-api.ts";
import type { ApiVolume } from "#shared/api/http-api.ts";
import { exactByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { isReadPolicy } from "#shared/domain/volume.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import { type CopyFigures, copyIntoCluster, type MoveSource } from "../../gateway/volume-move.ts";
import { ApiClient, defaultApi } from "../api-client.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { CopyProgress } from "../copy-progress.ts";
import { printJson, printLine, printNote } from "../output.ts";
import { type OpenVolumes, openVolumes } from "../single-machine.ts";

interface Move {
  readonly name: string;
  readonly opened: OpenVolumes;
  readonly client: ApiClient;
  readonly gateway: string;
  readonly replicas: number;
  readonly reads: string;
  readonly json: boolean;
}

const failpoint = failpointOf(process.env["VARVE_TEST_FAILPOINT"]);

export async function move(line: CommandLine): Promise<number> {
  const name = line.args[0] ?? "";
  const [data, gateway] = [
    required(line, "data", "/srv/varve"),
    required(line, "gateway", "10.0.0.31:10809"),
  ];
  const [replicas, reads] = [replicasOf(line), readsOf(line)];
  const client = new ApiClient(line.values.get("api")?.[0] ?? defaultApi);
  const opened = await openVolumes({ dataDirectory: data, create: false });
  try {
    const wanted = { name, opened, client, gateway, replicas, reads, json: line.values.has("json") };
    if (line.values.has("dry-run")) await dryRun(wanted);
    else await run(wanted);
    return 0;
  } finally {
    await opened.close();
  }
}

async function run(wanted: Move): Promise<void> {
  const { name, opened, client, json } = wanted;
  let figures: CopyFigures | null = null;
  if (opened.host.moved.find(name) === null) {
    await opened.host.moveAway(name, client.address, async (source) => {
      const arrival = await begin(wanted, source);
      failpoint("move-arriving");
      figures = await copy(wanted, source, arrival);
      failpoint("move-copied");
      return arrival.volumeId;
    });
    failpoint("move-marked");
  } else if (!json) printNote(`${name} was copied before; what is left is to serve it in the cluster`);
  const volumeId = opened.host.moved.find(name)?.move?.volumeId ?? "";
  await client.call("POST", `/v1/volumes/${name}/arrived`, { volumeId });
  failpoint("move-served");
  report(wanted, volumeId, figures);
}

async function begin(
  { name, opened, client, replicas, reads }: Move,
  { record }: MoveSource,
): Promise<ApiArrival> {
  const place = `${hostname()}:${opened.dataDirectory}`.replace(/[^ !#-[\]-~]/g, "?").slice(0, 100);
  const body = { from: record.id, place, size: record.sizeBytes, replicas, reads };
  return await client.call("POST", `/v1/volumes/${name}/arrive`, body);
}

async function copy(
  { name, opened, gateway, json }: Move,
  source: MoveSource,
  { fresh }: ApiArrival,
): Promise<CopyFigures> {
  if (!fresh && !json)
    printNote(`${name}: the cluster has a part of it from an earlier run; all of it is compared`);
  const progress = new CopyProgress(name, json);
  try {
    return await copyIntoCluster(source, {
      gateway,
      fresh,
      clock: opened.clock,
      allocateSlab: (bytes) => opened.store.allocateSlab(bytes),
      onProgress: (doneBytes, totalBytes, what) => progress.show(doneBytes, totalBytes, what),
      failpoint,
    });
  } finally {
    progress.end();
  }
}

function report({ name, client, json }: Move, volumeId: string, figures: CopyFigures | null): void {
  const copiedBytes = figures?.copiedBytes ?? 0;
  if (json) {
    printJson({
      moved: name,
      volumeId,
      api: client.address,
      copiedBytes,
      comparedBytes: figures?.comparedBytes ?? 0,
    });
    return;
  }
  const compared = readableByteSize(figures?.comparedBytes ?? 0);
  const copied = figures === null ? "" : `: ${readableByteSize(copiedBytes)} copied, ${compared} compared`;
  printLine(`${name} is served by the cluster at ${client.address} from now on${copied}`);
  printLine(`its files stay here until varve volume delete ${name}; its past of before stays in its bucket`);
}

/** Says what would happen; opens the volume, which changes nothing that a client could see. */
async function dryRun({ name, opened, client, replicas, json }: Move): Promise<void> {
  const gone = opened.host.moved.find(name);
  const volumes = await client.call<readonly ApiVolume[]>("GET", "/v1/volumes");
  const nodes = await client.call<readonly ApiNode[]>("GET", "/v1/nodes");
  const alive = nodes.filter((node) => node.alive && !node.drained).length;
  const view = gone === null ? opened.host.show(name) : null;
  // An earlier run of this move goes on; what somebody else creates, or moves there, is in its way.
  const there = volumes.find((volume) => volume.name === name);
  const taken = there !== undefined && (view === null || there.arrivesFrom !== view.id);
  const ready = view !== null && !taken && alive >= replicas;
  if (json) {
    printJson({
      name,
      sizeBytes: view?.sizeBytes ?? null,
      moved: gone !== null,
      nameTaken: taken,
      nodesAlive: alive,
      replicas,
      ready,
    });
    return;
  }
  if (view === null) {
    printLine(`${name} was moved to ${gone?.move?.place ?? ""} already`);
    return;
  }
  printLine(`${name}: ${exactByteSize(view.sizeBytes)}, to ${client.address} with ${replicas} replicas`);
  printLine(
    taken
      ? `the cluster has another volume named ${name}: it would be refused`
      : there === undefined
        ? "the name is free there"
        : "its move there was begun: it would go on",
  );
  printLine(`${alive} storage nodes could take a replica${alive < replicas ? ": too few" : ""}`);
  if (view.durability === "flush") printLine("its durability becomes write: a cluster has no other");
  printLine("nothing was changed");
}

function required(line: CommandLine, flag: string, example: string): string {
  const value = line.values.get(flag)?.[0];
  if (value !== undefined) return value;
  throw new UsageError(
    [`--${flag} is missing, for example --${flag} ${example}`],
    "See: varve help volume move.",
  );
}

function replicasOf(line: CommandLine): number {
  const text = line.values.get("replicas")?.[0] ?? "1";
  if (/^[1-9]$/.test(text)) return Number(text);
  throw new UsageError([`--replicas: "${text}" is not a number from 1 to 9`], "For example: --replicas 2.");
}

function readsOf(line: CommandLine): string {
  const text = line.values.get("reads")?.[0] ?? "available";
  if (isReadPolicy(text)) return text;
  throw new UsageError(
    [`--reads: "${text}" is neither available nor strict`],
    "See: varve help volume move.",
  );
}
