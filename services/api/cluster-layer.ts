/*
 * The api of a cluster as a process: catalogue, map and leases over NATS behind the HTTP API. services/cli/commands/api.ts opens it and
 * serves the subject by layer.ts. Here the engine meets its adapters (engine/cluster-volumes.ts).
 */
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { removeLogStream } from "#shared/adapters/write-log/jetstream-removal.ts";
import type { ApiConfig } from "#shared/shell/cluster-config.ts";
import { openCluster } from "#shared/shell/cluster-connection.ts";
import type { Readiness } from "#shared/shell/health-server.ts";
import { addressText, nbdUri, parseListenAddress } from "#shared/shell/listen-address.ts";
import type { ApiSubject } from "./api-subject.ts";
import { ClusterVolumes } from "./engine/cluster-volumes.ts";
import { NoPast } from "./engine/no-past.ts";
import { ReplicaPlacing } from "./engine/replica-placing.ts";

export interface ClusterApi {
  readonly subject: ApiSubject;
  readiness(): Readiness;
  close(): Promise<void>;
}

const deletionsMs = 5000;
const placingMs = 1000;

export async function openClusterApi(
  config: ApiConfig,
  version: string,
  onNote: (text: string) => void,
): Promise<ClusterApi> {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const cluster = await openCluster(config.nats, `varve api ${config.name}`, clock, onNote);
  const leases = new KeyTableLeases({ table: cluster.leaseTable, clock, random });
  try {
    await leases.ready();
  } catch (cause) {
    leases.close();
    await cluster.close();
    throw cause;
  }
  cluster.catalog.follow(
    () => undefined,
    (error) => onNote(`warning: ${error.message}`),
  );
  const { catalog, map, bus, past, connection } = cluster;
  const removeLog = async (id: string): Promise<void> => removeLogStream(connection, id);
  const archived = config.bucket !== null;
  const parts = { catalog, map, leases, bus, past, archived, clock, random };
  const volumes = new ClusterVolumes({ ...parts, removeLog });
  const placing = new ReplicaPlacing({
    map,
    bus,
    clock,
    require: (name) => volumes.require(name),
    replicas: (name) => volumes.replicas(name),
    ground: () => volumes.ground(),
    volumes: () => catalog.list().filter(({ state }) => state === "active"),
    onNote,
  });
  let closed = false;
  const place = (): void => {
    if (!closed) void placing.tend().finally(() => clock.after(placingMs, place));
  };
  const tend = (): void => {
    if (closed) return;
    volumes
      .finishDeletions()
      .catch((cause: unknown) => onNote(`warning: ${(cause as Error).message}`))
      .finally(() => clock.after(deletionsMs, tend));
  };
  tend();
  place();
  return {
    subject: subjectOf(config, version, volumes, placing),
    readiness: () => {
      const away = cluster.missing();
      const detail = { api: config.name, nodes: volumes.nodes().length, volumes: volumes.list().length };
      return { ready: away === null, missing: away === null ? [] : [away], detail };
    },
    close: async () => {
      closed = true;
      leases.close();
      await cluster.close();
    },
  };
}

function subjectOf(
  { http }: ApiConfig,
  version: string,
  volumes: ClusterVolumes,
  placing: ReplicaPlacing,
): ApiSubject {
  const startedAt = new Date().toISOString();
  return {
    volumes,
    cluster: volumes,
    replicas: placing,
    past: new NoPast(),
    bucket: () => null,
    connections: { connections: () => [], totals: () => ({}) },
    urisOf: (name) =>
      volumes
        .attachments()
        .filter(({ volume }) => volume === name)
        .flatMap(({ address }) => {
          const parsed = parseListenAddress(address);
          return typeof parsed === "string" ? [] : [nbdUri(parsed, name)];
        }),
    process: async () => ({
      version,
      pid: process.pid,
      startedAt,
      dataDirectory: `cluster, HTTP on ${addressText(http)}`,
      nbd: [],
      residentBytes: process.memoryUsage.rss(),
      freeBytes: volumes
        .nodes()
        .flatMap(({ pools }) => pools.map(({ freeBytes }) => freeBytes))
        .reduce((sum, bytes) => sum + bytes, 0),
    }),
  };
}
