/*
 * An archiver of a cluster as a process: the logs of volumes in, the bucket out. services/cli/commands/archiver.ts opens it. Here the
 * engines meet their adapters (engine/cluster-archiver.ts, layer.ts).
 */
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import type { ArchiverConfig } from "#shared/shell/cluster-config.ts";
import { openCluster } from "#shared/shell/cluster-connection.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import type { Readiness } from "#shared/shell/health-server.ts";
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
    const { environment, create } = { environment: process.env, create: false };
    const store = await openObjectStore(config.bucket, { clock, random, environment, create });
    closers.push(async () => store.close());
    const failpoint = failpointOf(process.env["VARVE_TEST_FAILPOINT"]);
    const options = testOptions(process.env);
    const archiver = new Archiver({ store, clock, random, slabs: files, failpoint, options });
    closers.push(async () => archiver.close());
    const cluster = await openCluster(config.nats, `varve archiver ${config.name}`, clock, onNote);
    closers.push(async () => cluster.close());
    const leases = new KeyTableLeases({ table: cluster.leaseTable, clock, random, prefix: "archive." });
    closers.push(() => leases.close());
    await leases.ready();
    const { catalog, map, bus, past, connection } = cluster;
    const { replicas, monitors } = config.nats;
    const volumes = new ClusterArchiver({
      name: config.name,
      only: config.only,
      clock,
      leases,
      past,
      map,
      bus,
      archiver,
      catalog,
      onNote,
      logOf: (volumeId) =>
        new JetStreamLogFollower({ connection, clock, random, volumeId, replicas, servers: { monitors } }),
    });
    closers.push(async () => volumes.close());
    catalog.follow(
      () => volumes.reconcile(),
      (error) => onNote(`warning: ${error.message}`),
    );
    volumes.reconcile();
    return {
      place: store.place,
      readiness: () => {
        const away = cluster.missing();
        const missing = [...(away === null ? [] : [away]), ...volumes.failures()];
        const detail = {
          archiver: config.name,
          bucket: store.place,
          volumes: volumes.reports(),
          mine: volumes.archived().map(({ record, tenure }) => ({
            name: record.name,
            durableLsn: tenure?.log.state().durableLsn ?? 0,
            counters: tenure?.archive?.status().counters ?? {},
          })),
        };
        return { ready: missing.length === 0, missing, detail };
      },
      close: closeAll,
    };
  } catch (cause) {
    await closeAll();
    throw cause;
  }
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
