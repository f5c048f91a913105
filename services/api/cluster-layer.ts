/*
 * The api of a cluster as a process: catalogue, map and leases over NATS behind the HTTP API. services/cli/commands/api.ts opens it and
 * serves the subject by layer.ts. Here the engine meets its adapters (engine/cluster-volumes.ts).
 */
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { missingStream } from "#shared/adapters/write-log/jetstream-errors.ts";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import { removeLogStream } from "#shared/adapters/write-log/jetstream-removal.ts";
import { LogStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import { writerName } from "#shared/domain/entry.ts";
import type { PlacementGround } from "#shared/domain/placement.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { DeletedVolumes } from "#shared/ports/rescue.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import type { ApiConfig } from "#shared/shell/cluster-config.ts";
import { type ClusterConnection, openCluster } from "#shared/shell/cluster-connection.ts";
import { type ClusterPast as ClusterHistories, openClusterPast } from "#shared/shell/cluster-past.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import type { Readiness } from "#shared/shell/health-server.ts";
import { addressText, nbdUri, parseListenAddress } from "#shared/shell/listen-address.ts";
import type { ApiSubject } from "./api-subject.ts";
import { Arrivals } from "./engine/arrivals.ts";
import {
  type ApiJobs,
  ClusterBucket,
  type ClusterBucketOptions,
  withoutBucket,
} from "./engine/cluster-bucket.ts";
import { ClusterClones, type ClusterClonesOptions } from "./engine/cluster-clones.ts";
import { ClusterPast } from "./engine/cluster-past.ts";
import { ClusterRollback, type ClusterRollbackOptions } from "./engine/cluster-rollback.ts";
import { ClusterScrub } from "./engine/cluster-scrub.ts";
import { ClusterShrink } from "./engine/cluster-shrink.ts";
import { ClusterTiering, type ClusterTieringOptions } from "./engine/cluster-tiering.ts";
import { ClusterUndelete, type ClusterUndeleteOptions } from "./engine/cluster-undelete.ts";
import { ClusterVolumes } from "./engine/cluster-volumes.ts";
import { ReplicaPlacing } from "./engine/replica-placing.ts";
import type { VolumeWritingParts } from "./engine/volume-writing.ts";
import { runSharedSchedules, scheduleLeasePrefix } from "./schedule-layer.ts";

/** What the command wires in from other services. */
export interface ClusterApiHome {
  readonly version: string;
  readonly jobs: ApiJobs;
  readonly bucketOf: (
    store: ObjectStore,
    who: string,
  ) => Pick<ClusterBucketOptions, "requests" | "usage" | "check"> & { readonly deleted: DeletedVolumes };
}

export interface ClusterApi {
  readonly subject: ApiSubject;
  readiness(): Readiness;
  close(): Promise<void>;
}

const deletionsMs = 5000;
const placingMs = 1000;

export async function openClusterApi(
  config: ApiConfig,
  home: ClusterApiHome,
  onNote: (text: string) => void,
): Promise<ClusterApi> {
  const { clock, random, cluster, leases, files, reading, close } = await connect(config, onNote);
  const { catalog, map, bus, past, connection } = cluster;
  const removeLog = async (id: string): Promise<void> => removeLogStream(connection, id);
  const archived = config.bucket !== null;
  const parts = { catalog, map, leases, bus, past, archived, clock, random };
  const log = { config, clock, random, connection };
  const writing = (what: string): VolumeWritingParts => writingAs(what, parts, log, { reading, files });
  const shrinks = new ClusterShrink({ ...writing("resize"), ...parts });
  const shrink: ClusterShrink["shrink"] = async (record, sizeBytes) => shrinks.shrink(record, sizeBytes);
  const volumes = new ClusterVolumes({ ...parts, removeLog, shrink });
  const ground = (): PlacementGround => volumes.ground();
  const arrivals = new Arrivals({ catalog, map, past, clock, random, archived, ground });
  const placing = new ReplicaPlacing({
    ...parts,
    require: (name) => volumes.require(name),
    replicas: (name) => volumes.replicas(name),
    ground,
    volumes: () => catalog.list().filter(({ state }) => state === "active"),
    onNote,
  });
  const withJobs = { ...parts, jobs: home.jobs };
  const clones = clonesOf(volumes, reading, withJobs);
  const tiering = tieringOf(volumes, withJobs);
  const rollbacks = rollbacksOf(volumes, reading, { ...writing("rollback"), ...withJobs });
  const pasts = new ClusterPast({
    ...withJobs,
    clones,
    tiering,
    rollbacks,
    logOf: reading.logOf,
    require: (name) => volumes.require(name),
    show: (name) => volumes.show(name),
    historyOf: (record) => reading.historyOf(record),
    allocateSlab: (bytes) => files.allocateSlab(bytes),
  });
  const scheduleLeases = { table: cluster.leaseTable, clock, random, prefix: scheduleLeasePrefix };
  const schedules = runSharedSchedules(
    { volumes, past: pasts, onNote },
    new KeyTableLeases(scheduleLeases),
    config.name,
  );
  const bucket = bucketOf(home, volumes, reading, withJobs, log);
  const tended = [async () => volumes.finishDeletions(), () => clones.tend(), () => rollbacks.tend()];
  const stops = [
    ...tended.map((tend) => repeat(clock, deletionsMs, tend, onNote)),
    repeat(clock, placingMs, async () => placing.tend(), onNote),
  ];
  return {
    subject: subjectOf(config, home.version, volumes, { placing, past: pasts, bucket, arrivals }),
    readiness: () => {
      const away = cluster.missing();
      const detail = { api: config.name, nodes: volumes.nodes().length, volumes: volumes.list().length };
      return { ready: away === null, missing: away === null ? [] : [away], detail };
    },
    close: async () => {
      for (const stop of stops) stop();
      for (const one of [clones, tiering, rollbacks]) one.close();
      await schedules.stop();
      await close();
    },
  };
}

function rollbacksOf(
  volumes: ClusterVolumes,
  reading: ClusterHistories,
  parts: VolumeWritingParts & Pick<ClusterRollbackOptions, "catalog" | "map" | "past" | "bus" | "jobs">,
): ClusterRollback {
  return new ClusterRollback({
    ...parts,
    require: (name) => volumes.require(name),
    show: (name) => volumes.show(name),
    replicasOf: (record) => volumes.replicasOf(record),
    historyOf: (record) => reading.historyOf(record),
    images: reading.images,
  });
}

interface LogParts {
  readonly config: ApiConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly connection: ClusterConnection["connection"];
}

/** How this process writes to logs, and for what it says so in them. */
function writingAs(
  what: string,
  parts: Pick<VolumeWritingParts, "catalog" | "leases" | "bus" | "clock">,
  log: LogParts,
  { reading, files }: { readonly reading: ClusterHistories; readonly files: NativeFileStore },
): VolumeWritingParts {
  return {
    ...parts,
    writer: writerName(`${what} by api ${log.config.name} pid ${process.pid}`),
    logOf: reading.logOf,
    openLog: async (id) => openLog(id, log),
    allocateSlab: (bytes) => files.allocateSlab(bytes),
  };
}

/** As the gateways set it: who appends an entry changes neither its room nor its copies. */
async function openLog(volumeId: string, parts: LogParts): Promise<WriteLog> {
  const found = await new LogStream(parts.connection, volumeId).view();
  if (found === null) throw missingStream(`varve-log-${volumeId}`, 0);
  const { num_replicas: replicas, max_bytes: logBytesMax } = found.settings;
  return logWith(volumeId, parts, { replicas, logBytesMax });
}

function logWith(
  volumeId: string,
  { config, clock, random, connection }: LogParts,
  size: { readonly replicas: number; readonly logBytesMax?: number },
): WriteLog {
  const servers = { monitors: config.nats.monitors };
  return new JetStreamWriteLog({ connection, clock, random, volumeId, servers, ...size });
}

/** Until it is stopped; what fails is told, and done again. */
function repeat(
  clock: Clock,
  everyMs: number,
  work: () => Promise<void>,
  onNote: (text: string) => void,
): () => void {
  let stopped = false;
  const run = (): void => {
    if (stopped) return;
    work()
      .catch((cause: unknown) => onNote(`warning: ${(cause as Error).message}`))
      .finally(() => clock.after(everyMs, run));
  };
  run();
  return () => {
    stopped = true;
  };
}

function tieringOf(
  volumes: ClusterVolumes,
  parts: Omit<ClusterTieringOptions, "require" | "replicasOf">,
): ClusterTiering {
  return new ClusterTiering({
    ...parts,
    require: (name) => volumes.require(name),
    replicasOf: (record) => volumes.replicasOf(record),
  });
}

function clonesOf(
  volumes: ClusterVolumes,
  reading: ClusterHistories,
  parts: Pick<ClusterClonesOptions, "catalog" | "map" | "past" | "clock" | "random" | "jobs">,
): ClusterClones {
  return new ClusterClones({
    ...parts,
    require: (name) => volumes.require(name),
    show: (name) => volumes.show(name),
    replicasOf: (record) => volumes.replicasOf(record),
    ground: () => volumes.ground(),
    historyOf: (record) => reading.historyOf(record),
    images: reading.images,
  });
}

/** What the engine works with, opened; nothing stays open where it fails. */
async function connect(config: ApiConfig, onNote: (text: string) => void) {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const { bucket, nats } = config;
  const cluster = await openCluster(nats, `varve api ${config.name}`, clock, onNote);
  const leases = new KeyTableLeases({ table: cluster.leaseTable, clock, random });
  const files = new NativeFileStore();
  let reading: ClusterHistories | null = null;
  const close = async (): Promise<void> => {
    await reading?.close();
    leases.close();
    await cluster.close();
    await files.close();
  };
  try {
    const opened = await openClusterPast({ bucket, nats, clock, random, cluster });
    reading = opened;
    await leases.ready();
    cluster.catalog.follow(
      () => opened.keepOnly(cluster.catalog.list()),
      (error) => onNote(`warning: ${error.message}`),
    );
    return { clock, random, cluster, leases, files, reading: opened, close };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/** Without a bucket it scrubs all the same: nodes have theirs, and replicas are compared with each other. */
function bucketOf(
  home: ClusterApiHome,
  volumes: ClusterVolumes,
  reading: Pick<ClusterHistories, "store" | "logOf" | "historyOf">,
  parts: Pick<ClusterUndeleteOptions, "catalog" | "map" | "past" | "leases" | "clock"> &
    Pick<ClusterBucketOptions, "bus" | "clock" | "random" | "jobs">,
  log: LogParts,
): ClusterBucket {
  const { store, logOf } = reading;
  const { bus, clock, random } = parts;
  const replicasOf: ClusterVolumes["replicasOf"] = (record) => volumes.replicasOf(record);
  const require = (name: string): VolumeRecord => volumes.require(name);
  const scrubs = new ClusterScrub({ bus, clock, random, require, replicasOf });
  if (store === null) return new ClusterBucket({ ...parts, ...withoutBucket, scrubs });
  const who = `api ${log.config.name}`;
  const { deleted: bucket, ...looks } = home.bucketOf(store, who);
  const deleted = new ClusterUndelete({
    ...parts,
    bucket,
    logOf,
    writer: writerName(`undelete by ${who} pid ${process.pid}`),
    lastMs: async (record) => (await reading.historyOf(record).range()).toMs,
    ground: () => volumes.ground(),
    replicasOf,
    failpoint: failpointOf(process.env["VARVE_TEST_FAILPOINT"]),
    newLog: (id) => logWith(id, log, { replicas: log.config.nats.replicas }),
  });
  return new ClusterBucket({ ...parts, ...looks, deleted, scrubs });
}

interface Parts {
  readonly placing: ReplicaPlacing;
  readonly past: ClusterPast;
  readonly bucket: ClusterBucket;
  readonly arrivals: Arrivals;
}

function subjectOf(
  { http }: ApiConfig,
  version: string,
  volumes: ClusterVolumes,
  { placing, past, bucket, arrivals }: Parts,
): ApiSubject {
  const startedAt = new Date().toISOString();
  return {
    volumes,
    cluster: volumes,
    replicas: placing,
    arrivals,
    past,
    bucket: () => bucket,
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
