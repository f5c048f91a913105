/*
 * A gateway of a cluster as a process: NBD in front, leases, JetStream logs and remote replicas behind. services/cli/commands/gateway.ts
 * opens it. Here the engines meet their adapters (engine/cluster-exports.ts, remote-replica.ts).
 */
import { hostname } from "node:os";
import { BootClock } from "#shared/adapters/clock/boot.ts";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import { volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { writerName } from "#shared/domain/entry.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { TakeoverFailpoint } from "#shared/ports/failpoint.ts";
import type { Lease } from "#shared/ports/lease.ts";
import type { Subscription } from "#shared/ports/message-bus.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { GatewayConfig } from "#shared/shell/cluster-config.ts";
import { type ClusterConnection, openCluster } from "#shared/shell/cluster-connection.ts";
import { openClusterPast } from "#shared/shell/cluster-past.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import type { Readiness } from "#shared/shell/health-server.ts";
import { ClusterExports } from "./engine/cluster-exports.ts";
import { ClusterPoints } from "./engine/cluster-points.ts";
import { type DirectFiles, directFiles } from "./engine/direct-reads.ts";
import { answerHolderCall } from "./engine/holder-calls.ts";
import { NbdServer } from "./engine/nbd-server.ts";
import { RemoteAdmission, RemoteFeed } from "./engine/remote-feed.ts";
import { RemoteReplica } from "./engine/remote-replica.ts";
import { VolumeSession } from "./engine/volume-session.ts";
import { WritePatience } from "./engine/write-patience.ts";

export interface ClusterGateway {
  readiness(): Readiness;
  /** What clients may ask for. */
  exportNames(): readonly string[];
  /** Accepts nobody more, answers what is under way, closes sessions, releases leases. */
  close(): Promise<void>;
}

const drainMs = 20_000;
/** The log may know greater epochs than the lease, where its table was lost: so often it is raised. */
const epochRaisesMax = 8;

interface GatewayParts {
  readonly config: GatewayConfig;
  readonly clock: SystemClock;
  readonly random: SystemRandom;
  readonly files: DirectFiles;
  readonly pool: SlabPool;
  readonly cluster: ClusterConnection;
  readonly failpoint: TakeoverFailpoint;
  /** Of the sessions that are open: told of changed placements. */
  readonly images: Set<{ readonly volumeId: string; readonly image: RemoteReplica }>;
}

export async function openClusterGateway(
  config: GatewayConfig,
  onNote: (text: string) => void,
): Promise<ClusterGateway> {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const store = new NativeFileStore();
  const cluster = await openCluster(config.nats, `varve gateway ${config.name}`, clock, onNote);
  const past = await openClusterPast({ ...config, clock, random, cluster }).catch(async (cause: unknown) => {
    await Promise.all([cluster.close(), store.close()]);
    throw cause;
  });
  const leases = new KeyTableLeases({ table: cluster.leaseTable, clock: new BootClock(), random });
  const points = new ClusterPoints(clock, (record) => past.historyOf(record));
  const failpoint = failpointOf(process.env["VARVE_TEST_FAILPOINT"]);
  const pool = new SlabPool(store, clock, config.payloadBytesMax);
  const files = directFiles(store);
  const images: GatewayParts["images"] = new Set();
  const parts: GatewayParts = { config, clock, random, files, pool, cluster, failpoint, images };
  const closeAll = async (): Promise<void> => {
    await points.close();
    await past.close();
    leases.close();
    await cluster.close();
    await store.close();
  };
  let server: NbdServer | null = null;
  try {
    await leases.ready();
    cluster.catalog.follow(
      () => past.keepOnly(cluster.catalog.list()),
      (error) => onNote(`warning: ${error.message}`),
    );
    followPlacements(parts);
    const exports = new ClusterExports({
      gateway: config.name,
      address: config.advertise,
      clock,
      leases,
      catalog: cluster.catalog,
      past: cluster.past,
      points,
      only: config.only,
      openSession: async (record, lease, onHalted, giveUp) =>
        openSession(parts, record, lease, { onHalted, giveUp }),
      isStrict: (id) => cluster.catalog.get(id)?.reads === "strict",
      disconnect: (name) => server?.disconnectExport(name),
      onNote,
    });
    const { connectionsMax } = config;
    const listen = listenPlaces(config);
    const nbd = new NbdServer({ directory: exports, listen, clock, slabs: store, connectionsMax });
    server = nbd;
    await nbd.start();
    return {
      readiness: () => readinessOf(parts, exports),
      exportNames: () => namesOf(parts),
      close: async () => {
        await nbd.drain(drainMs);
        nbd.close();
        await exports.close();
        await closeAll();
      },
    };
  } catch (cause) {
    await closeAll();
    throw cause;
  }
}

function listenPlaces({ nbd }: GatewayConfig): ({ path: string } | { host: string; port: number })[] {
  return nbd.map((one) => (one.kind === "unix" ? { path: one.path } : { host: one.host, port: one.port }));
}

function followPlacements({ cluster, images }: GatewayParts): void {
  cluster.map.onChange(() => {
    for (const { volumeId, image } of images) {
      const nodes = cluster.map.placementOf(volumeId)?.replicas.map(({ node }) => node);
      if (nodes !== undefined && nodes.length > 0) image.setNodes(nodes);
    }
  });
}

function namesOf({ config, cluster }: GatewayParts): readonly string[] {
  return cluster.catalog
    .list()
    .filter(({ name, state }) => state === "active" && (config.only ?? name) === name)
    .map(({ name }) => name);
}

function readinessOf({ config, cluster }: GatewayParts, exports: ClusterExports): Readiness {
  const away = cluster.missing();
  const volumes = [...exports.served()].map(([volumeId, { session, leaseRemainingMs, unprovenReads }]) => ({
    volumeId,
    name: session.name,
    state: session.state,
    reads: cluster.catalog.get(volumeId)?.reads ?? "available",
    unprovenReads,
    // While this is not above 0 writes wait; reads go on as of the last acknowledged state, or, strict, wait, too.
    leaseRemainingMs,
    attachedClients: session.attachedClients,
    epoch: session.log.epoch,
    durableLsn: session.log.durableLsn,
    appliedLsn: session.image.appliedLsn,
    counters: session.counters,
  }));
  return {
    ready: away === null,
    missing: away === null ? [] : [away],
    detail: { gateway: config.name, volumes },
  };
}

interface SessionCalls {
  readonly onHalted: (error: VarveError) => void;
  readonly giveUp: (isForced: boolean) => Promise<number>;
}

async function openSession(
  parts: GatewayParts,
  record: VolumeRecord,
  lease: Lease,
  sessionCalls: SessionCalls,
): Promise<VolumeSession> {
  for (let raises = 0; ; raises += 1) {
    try {
      return await tryOpenSession(parts, record, lease, sessionCalls);
    } catch (cause) {
      const newer =
        cause instanceof VarveError && cause.kind === "Fenced" ? cause.fields["epoch"] : undefined;
      if (typeof newer !== "number" || raises >= epochRaisesMax) throw cause;
      if ((await lease.raiseEpoch(newer)) === null) throw cause;
    }
  }
}

async function tryOpenSession(
  { config, clock, random, files, pool, cluster, failpoint, images }: GatewayParts,
  record: VolumeRecord,
  lease: Lease,
  { onHalted, giveUp }: SessionCalls,
): Promise<VolumeSession> {
  const placement = cluster.map.placementOf(record.id);
  if (placement === null || placement.replicas.length === 0) throw notPlaced(record.name);
  failpoint("takeover-lease");
  let session: VolumeSession | null = null;
  let calls: Subscription | null = null;
  const image = new RemoteReplica({
    bus: cluster.bus,
    clock,
    volumeId: record.id,
    nodes: placement.replicas.map(({ node }) => node),
    host: hostname(),
    files,
    onFenced: (error) => session?.fence(error),
    logShare: () => (session?.hotLog().room().diskBytes ?? 0) / config.logBytesMax,
    onClosed: () => {
      images.delete(known);
      calls?.close();
    },
  });
  const known = { volumeId: record.id, image };
  images.add(known);
  try {
    await image.heard();
    failpoint("takeover-heard");
  } catch (cause) {
    await image.abandon();
    throw cause;
  }
  const { replicas, monitors } = config.nats;
  const patience = new WritePatience(clock);
  session = await VolumeSession.open({
    name: record.name,
    durability: record.durability,
    log: new JetStreamWriteLog({
      connection: cluster.connection,
      links: cluster.links,
      clock,
      random,
      volumeId: record.id,
      replicas: record.orders?.logReplicas ?? replicas,
      logBytesMax: config.logBytesMax,
      servers: { monitors },
      failpoint,
    }),
    image,
    pool,
    admission: new RemoteAdmission(
      () => image.roomBytes(),
      () => patience.refusal,
    ),
    patience,
    feed: (handlers) => new RemoteFeed(image, handlers),
    writer: writerName(`${config.name} on ${hostname()} pid ${process.pid}`),
    archived: cluster.past.historyOf(record.id) !== null,
    tenure: { epoch: lease.epoch, renewEpoch: async (above) => renewEpoch(lease, image, above) },
    onHalted,
  });
  const opened = session;
  const subject = volumeHolderSubject(record.id);
  calls = cluster.bus.serve(subject, async (data) => answerHolderCall(data, opened, giveUp));
  followArchive(cluster.past, record.id, session);
  failpoint("takeover-serve");
  return session;
}

/** The replicas will speak of the new number before the log's answer is here: it is no stranger's. */
async function renewEpoch(lease: Lease, image: RemoteReplica, above: number): Promise<number | null> {
  const epoch = await lease.raiseEpoch(above);
  if (epoch !== null) image.raiseEpoch(epoch);
  return epoch;
}

/** Log goes when the bucket holds it, as the volume's archiver says: of this log, whichever archiver that is. */
function followArchive(past: PastRecords, volumeId: string, session: VolumeSession): void {
  const { line } = session.hotLog();
  const look = (): void => {
    if (past.historyOf(volumeId) === null) return;
    const archive = past.archiveOf(volumeId);
    session.held(archive?.line === line ? archive.heldLsn : 0);
  };
  const unfollow = past.onChange((changed) => {
    if (changed !== volumeId) return;
    if (session.status().state === "serving") look();
    else unfollow();
  });
  look();
}

function notPlaced(name: string): VarveError {
  return new VarveError("VolumeNotPlaced", "Invalid", `volume ${name} has no replica on any storage node`, {
    hint: "Create it again: varve volume create.",
    fields: { name },
  });
}
