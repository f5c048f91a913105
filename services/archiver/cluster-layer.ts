/*
 * An archiver of a cluster as a process: the logs of volumes in, the bucket out. services/cli/commands/archiver.ts opens it. Here the
 * engines meet their adapters (engine/cluster-archiver.ts, layer.ts).
 */
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ArchiverConfig } from "#shared/shell/cluster-config.ts";
import { type ClusterConnection, openCluster } from "#shared/shell/cluster-connection.ts";
import { openClusterPast } from "#shared/shell/cluster-past.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import type { Readiness } from "#shared/shell/health-server.ts";
import { type ClusterKeeper, openClusterKeeper } from "./cluster-keeper.ts";
import { ClusterArchiver } from "./engine/cluster-archiver.ts";
import { Archiver, type ArchiverOptions } from "./layer.ts";

export interface ClusterArchiverProcess {
  /** The bucket, for people. */
  readonly place: string;
  readiness(): Readiness;
  /** Archives the rest of each log where the bucket answers, then lets the volumes go. */
  close(): Promise<void>;
}

export async function openClusterArchiver(
  config: ArchiverConfig,
  onNote: (text: string) => void,
): Promise<ClusterArchiverProcess> {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const files = new NativeFileStore();
  const closers: (() => Promise<void> | void)[] = [async () => files.close()];
  const closeAll = async (): Promise<void> => {
    for (const close of closers.toReversed()) await close();
  };
  try {
    const { bucket, nats } = config;
    const cluster = await openCluster(nats, `varve archiver ${config.name}`, clock, onNote);
    closers.push(async () => cluster.close());
    const reading = await openClusterPast({ bucket, nats, clock, random, cluster });
    closers.push(async () => reading.close());
    const { store, histories, logOf } = reading;
    if (store === null || histories === null) throw noBucket();
    const failpoint = failpointOf(process.env["VARVE_TEST_FAILPOINT"]);
    const options = testOptions(process.env);
    const archiver = new Archiver({ store, clock, random, slabs: files, failpoint, options });
    closers.push(async () => archiver.close());
    const leases = new KeyTableLeases({ table: cluster.leaseTable, clock, random, prefix: "archive." });
    closers.push(() => leases.close());
    await leases.ready();
    const { catalog, map, bus, past } = cluster;
    const { name, only } = config;
    const setting = { name, only, clock, leases, past, map, bus, archiver, catalog, onNote, logOf };
    const volumes = new ClusterArchiver(setting);
    closers.push(async () => volumes.close());
    const keeper = openClusterKeeper({
      ...setting,
      store,
      random,
      histories,
      kept: () => volumes.kept((record) => reading.historyOf(record)),
      allocateSlab: (bytes) => files.allocateSlab(bytes),
      graceMs: numberOf(process.env["VARVE_TEST_GRACE_MS"]),
    });
    closers.push(async () => keeper.close());
    catalog.follow(
      () => {
        reading.keepOnly(catalog.list());
        volumes.reconcile();
      },
      (error) => onNote(`warning: ${error.message}`),
    );
    volumes.reconcile();
    return {
      place: store.place,
      readiness: () => readinessOf(config.name, { place: store.place, cluster, volumes, keeper }),
      close: closeAll,
    };
  } catch (cause) {
    await closeAll();
    throw cause;
  }
}

function readinessOf(
  archiver: string,
  parts: { place: string; cluster: ClusterConnection; volumes: ClusterArchiver; keeper: ClusterKeeper },
): Readiness {
  const { place: bucket, cluster, volumes, keeper } = parts;
  const away = cluster.missing();
  const missing = [...(away === null ? [] : [away]), ...volumes.failures()];
  const detail = {
    archiver,
    bucket,
    // One archiver of the cluster collects the bucket.
    collects: keeper.collects(),
    volumes: volumes.reports(),
    mine: volumes.archived().map(({ record, tenure }) => ({
      name: record.name,
      durableLsn: tenure?.log.state().durableLsn ?? 0,
      counters: tenure?.archive?.status().counters ?? {},
    })),
  };
  return { ready: missing.length === 0, missing, detail };
}

function numberOf(text: string | undefined): number | null {
  return text === undefined ? null : Number(text);
}

function noBucket(): VarveError {
  return new VarveError("NoBucketError", "Invalid", "an archiver needs a bucket", {
    hint: "Give it one: --bucket s3://BUCKET/PREFIX?endpoint=...",
  });
}

/** Tests can't wait for a minute until the last entries are in the bucket, nor write as much as a base is worth. */
function testOptions(environment: NodeJS.ProcessEnv): Partial<ArchiverOptions> {
  const segmentMs = environment["VARVE_TEST_SEGMENT_MS"];
  const baseBytes = environment["VARVE_TEST_BASE_BYTES"];
  const settleMs = environment["VARVE_TEST_SETTLE_MS"];
  return {
    ...(segmentMs === undefined ? {} : { segmentAgeMs: Number(segmentMs) }),
    ...(settleMs === undefined ? {} : { settleMs: Number(settleMs) }),
    ...(baseBytes === undefined
      ? {}
      : { baseLogBytesMin: Number(baseBytes), baseLogBytesMax: Number(baseBytes) }),
  };
}
