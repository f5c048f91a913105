/*
 * `varve node list`, `varve replica list`, `varve attachments` and `varve volume takeover`: what an operator sees of a cluster and does
 * to it, through its api process. Prints; everything is decided by the server (services/api/engine/cluster-volumes.ts).
 */
import type { ApiAttachment, ApiNode, ApiReplica } from "#shared/api/cluster-api.ts";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { ApiClient, defaultApi } from "../api-client.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { printJson, printLine, table } from "../output.ts";

const clientOf = (line: CommandLine): ApiClient => new ApiClient(line.values.get("api")?.[0] ?? defaultApi);

async function nodes(line: CommandLine): Promise<number> {
  const found = await clientOf(line).call<readonly ApiNode[]>("GET", "/v1/nodes");
  if (line.values.has("json")) printJson(found);
  else if (found.length === 0) printLine("no storage nodes; varve storage --config FILE starts one");
  else printLine(nodeTable(found));
  return 0;
}

async function replicas(line: CommandLine): Promise<number> {
  const found = await clientOf(line).call<readonly ApiReplica[]>("GET", "/v1/replicas");
  if (line.values.has("json")) printJson(found);
  else printLine(found.length === 0 ? "no replicas" : replicaTable(found));
  return 0;
}

async function attachments(line: CommandLine): Promise<number> {
  if (line.values.has("local")) return (await import("./attach.ts")).listLocal(line);
  const found = await clientOf(line).call<readonly ApiAttachment[]>("GET", "/v1/attachments");
  if (line.values.has("json")) printJson(found);
  else if (found.length === 0) printLine("no volume is served now");
  else {
    const columns = [
      { title: "VOLUME", cell: (one: ApiAttachment) => one.volume },
      { title: "GATEWAY", cell: (one: ApiAttachment) => one.gateway },
      { title: "ADDRESS", cell: (one: ApiAttachment) => one.address },
      { title: "EPOCH", right: true, cell: (one: ApiAttachment) => String(one.epoch) },
    ];
    printLine(table(columns, found));
  }
  return 0;
}

async function takeover(line: CommandLine): Promise<number> {
  const name = line.args[0] ?? "";
  if (!line.values.has("force")) {
    throw new UsageError(
      [
        `varve volume takeover ${name} cuts the clients of the gateway that serves it off: say so with --force`,
      ],
      "Without it, stop that gateway or disconnect its clients: the volume moves by itself then.",
    );
  }
  const path = `/v1/volumes/${encodeURIComponent(name)}/takeover`;
  const was = await clientOf(line).call<ApiAttachment>("POST", path);
  if (line.values.has("json")) printJson(was);
  else printLine(`${name} is taken from gateway ${was.gateway}; any gateway may serve it in some seconds`);
  return 0;
}

export const clusterCommandModule = { nodes, replicas, attachments, takeover };

function nodeTable(found: readonly ApiNode[]): string {
  return table<ApiNode>(
    [
      { title: "NODE", cell: (one) => one.name },
      {
        title: "STATE",
        cell: (one) =>
          `${one.alive ? "alive" : `silent for ${Math.round(one.ageMs / 1000)} s`}${one.drained ? ", drained" : ""}`,
      },
      { title: "HOST", cell: (one) => one.host },
      { title: "VOLUMES", right: true, cell: (one) => String(one.volumes.length) },
      {
        title: "POOLS (FREE OF SIZE)",
        cell: (one) =>
          one.pools
            .map(
              (pool) =>
                `${pool.name} ${readableByteSize(pool.freeBytes)}/${readableByteSize(pool.capacityBytes)}`,
            )
            .join(", "),
      },
    ],
    found,
  );
}

function replicaTable(found: readonly ApiReplica[]): string {
  return table<ApiReplica>(
    [
      { title: "VOLUME", cell: (one) => one.volume },
      { title: "NODE", cell: (one) => one.node },
      { title: "POOL", cell: (one) => one.pool },
      { title: "STATE", cell: (one) => `${one.condition}${one.leaving ? ", leaving" : ""}` },
      { title: "APPLIED", right: true, cell: (one) => String(one.appliedLsn) },
      { title: "CHECKPOINT", right: true, cell: (one) => String(one.checkpointLsn) },
      { title: "WHY", cell: (one) => one.reason },
    ],
    found,
  );
}
