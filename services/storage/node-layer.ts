/*
 * A storage node as a process: its pools, the replicas in them, and the connection to the cluster. services/cli/commands/storage.ts
 * opens it. Here the engines meet their adapters (engine/replica-set.ts, layer.ts).
 */
import { hostname } from "node:os";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { BucketImages } from "#shared/adapters/history/bucket-images.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import { bucketPlace, parseBucketUrl } from "#shared/domain/bucket-url.ts";
import type { NodeRecord, PoolRecord } from "#shared/domain/cluster.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { DirectoryLock, FileStore } from "#shared/ports/file-store.ts";
import type { ScrubRun } from "#shared/ports/scrub.ts";
import type { PoolConfig, StorageConfig } from "#shared/shell/cluster-config.ts";
import { type ClusterConnection, openCluster } from "#shared/shell/cluster-connection.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import type { Readiness } from "#shared/shell/health-server.ts";
import { greatestFileBytes } from "./engine/greatest-file.ts";
import { nodeReadiness } from "./engine/node-readiness.ts";
import { type OpenPool, ReplicaSet } from "./engine/replica-set.ts";
import { RawReplicas } from "./layer.ts";

export interface StorageNode {
  readiness(): Readiness;
  close(): Promise<void>;
}

/** Free bytes of a pool are looked at this often; so much is never promised beside the reserve. */
const sampleMs = 1000;
const marginBytesMax = 64 * 1024 * 1024;
const marginShare = 64;

class Pool implements OpenPool {
  readonly name: string;
  readonly dataDirectory: string;
  readonly replicas: RawReplicas;
  readonly #config: PoolConfig;
  readonly #store: FileStore;
  readonly #lock: DirectoryLock;
  #free = { freeBytes: 0, totalBytes: 0 };
  #fileBytesMax: number | null = null;

  private constructor(config: PoolConfig, store: FileStore, replicas: RawReplicas, lock: DirectoryLock) {
    this.name = config.name;
    this.dataDirectory = config.directory;
    this.replicas = replicas;
    this.#config = config;
    this.#store = store;
    this.#lock = lock;
  }

  static async open(
    config: PoolConfig,
    store: FileStore,
    clock: Clock,
    onNote: (text: string) => void,
  ): Promise<Pool> {
    const { directory } = config;
    await store.makeDirectory(directory);
    if ((await store.list(directory)).includes(dataLayout.catalog)) throw ofOneMachine(directory);
    const lock = await store.lockDirectory(directory);
    const replicas = new RawReplicas({
      store,
      clock,
      dataDirectory: directory,
      checkpointBatches: limits.replicaCheckpointBatches,
      onNote: (text) => onNote(`warning: ${text}`),
      failpoint: failpointOf(process.env["VARVE_TEST_FAILPOINT"]),
    });
    try {
      await store.makeDirectory(`${directory}/${dataLayout.volumes}`);
      await replicas.start();
      const pool = new Pool(config, store, replicas, lock);
      await pool.sample();
      // Where it can't be asked it is not said, and the node serves what it has.
      pool.#fileBytesMax = await greatestFileBytes(store, directory).catch(() => null);
      return pool;
    } catch (cause) {
      await replicas.close();
      await lock.release();
      throw cause;
    }
  }

  async sample(): Promise<void> {
    this.#free = await this.#store.freeSpace(this.dataDirectory);
  }

  /** Null: not known. */
  get fileBytesMax(): number | null {
    return this.#fileBytesMax;
  }

  roomBytes(): number {
    const { freeBytes, totalBytes } = this.#free;
    return Math.max(0, freeBytes - Math.min(marginBytesMax, totalBytes / marginShare));
  }

  record(): PoolRecord {
    const { name, quotaBytes, tags } = this.#config;
    const { freeBytes, totalBytes: capacityBytes } = this.#free;
    return { name, capacityBytes, freeBytes, quotaBytes, tags };
  }

  async close(): Promise<void> {
    await this.replicas.close();
    await this.#lock.release();
  }
}

export async function openStorageNode(
  config: StorageConfig,
  version: string,
  onNote: (text: string) => void,
  scrub?: ScrubRun,
): Promise<StorageNode> {
  const clock = new SystemClock();
  const store = new NativeFileStore();
  const pools: Pool[] = [];
  let cluster: ClusterConnection | null = null;
  let archived: BucketImages | null = null;
  const closeAll = async (): Promise<void> => {
    for (const pool of pools) await pool.close();
    await archived?.close();
    await cluster?.close();
    await store.close();
  };
  try {
    for (const pool of config.pools) pools.push(await Pool.open(pool, store, clock, onNote));
    cluster = await openCluster(config.nats, `varve storage ${config.name}`, clock, onNote);
    archived = config.bucket === null ? null : imagesIn(config.bucket, clock);
    await archived?.ready().catch((cause: unknown) => onNote(`warning: ${(cause as Error).message}`));
    return await startNode({
      config,
      version,
      onNote,
      clock,
      store,
      pools,
      cluster,
      archived,
      scrub,
      closeAll,
    });
  } catch (cause) {
    await closeAll();
    throw cause;
  }
}

interface NodeParts {
  readonly config: StorageConfig;
  readonly version: string;
  readonly onNote: (text: string) => void;
  readonly clock: Clock;
  readonly store: FileStore;
  readonly pools: readonly Pool[];
  readonly cluster: ClusterConnection;
  readonly archived: BucketImages | null;
  readonly scrub: ScrubRun | undefined;
  readonly closeAll: () => Promise<void>;
}

/** Nothing is asked of the bucket before a replica is filled, and a node runs without it. */
function imagesIn(bucket: string, clock: Clock): BucketImages {
  const address = parseBucketUrl(bucket);
  const parts = { clock, random: new SystemRandom(), environment: process.env, create: false };
  return new BucketImages({
    place: typeof address === "string" ? "of this node" : bucketPlace(address),
    clock,
    openStore: async () => openObjectStore(bucket, parts),
  });
}

async function startNode(parts: NodeParts): Promise<StorageNode> {
  const { config, onNote, clock, store, pools, cluster, archived, closeAll } = parts;
  const { bus, catalog, map, connection } = cluster;
  const random = new SystemRandom();
  const { replicas, monitors } = config.nats;
  const set = new ReplicaSet({
    node: config.name,
    host: hostname(),
    pools,
    store,
    clock,
    random,
    catalog,
    map,
    bus,
    logOf: (volumeId) =>
      new JetStreamLogFollower({ connection, clock, random, volumeId, replicas, servers: { monitors } }),
    archived,
    only: config.only,
    past: cluster.past,
    fillBytesPerSecond: config.fillBytesPerSecond,
    imageBytesMax: config.imageBytesMax,
    ...(parts.scrub === undefined ? {} : { scrub: parts.scrub }),
    onNote,
  });
  const reconcile = (): void => {
    set.reconcile().catch(() => undefined); // it never rejects
  };
  const stopRenewals = renewNode(parts);
  catalog.follow(reconcile, (error) => onNote(`warning: ${error.message}`));
  map.onChange(reconcile);
  await set.reconcile();
  return {
    readiness: () =>
      nodeReadiness({
        node: config.name,
        away: cluster.missing(),
        replicas: set.reports(),
        failures: set.failures().map(({ volumeId, error }) => ({
          volume: catalog.get(volumeId)?.name ?? volumeId,
          error,
        })),
      }),
    close: async () => {
      stopRenewals();
      // First: fills under way end with it.
      await archived?.close();
      await set.close();
      await closeAll();
    },
  };
}

/** Free bytes each second, the node's record each 10 s. */
function renewNode({ config, version, onNote, clock, pools, cluster }: NodeParts): () => void {
  let renewal = 0;
  let stopped = false;
  let limitsAreSaid = false;
  let lastPutMs = Number.NEGATIVE_INFINITY;
  const renew = async (): Promise<void> => {
    await Promise.all(pools.map(async (pool) => pool.sample().catch(() => undefined))); // the last figures stay
    if (clock.monotonicMs() - lastPutMs < limits.nodeRenewalMs) return;
    renewal += 1;
    const { name } = config;
    const record: NodeRecord = {
      name,
      host: hostname().slice(0, 255),
      version,
      pools: pools.map((pool) => pool.record()),
      // Grows over restarts, too.
      renewal: Math.max(renewal, Math.floor(clock.wallTimeMs() / 1000)),
    };
    if (!limitsAreSaid) {
      const known = pools.flatMap(({ name: pool, fileBytesMax }) =>
        fileBytesMax === null ? [] : [{ name: pool, fileBytesMax }],
      );
      await cluster.map.putFileLimits({ node: name, pools: known });
      limitsAreSaid = true;
    }
    await cluster.map.putNode(record);
    lastPutMs = clock.monotonicMs();
  };
  const run = (): void => {
    if (stopped) return;
    renew()
      .catch((cause: unknown) => {
        if (lastPutMs === Number.NEGATIVE_INFINITY) onNote(`warning: ${(cause as Error).message}`);
      })
      .finally(() => clock.after(sampleMs, run));
  };
  run();
  return () => {
    stopped = true;
  };
}

function ofOneMachine(directory: string): VarveError {
  return new VarveError(
    "PoolIsDataDirectory",
    "Invalid",
    `${directory} is the data directory of a varve up, not a pool of a storage node`,
    { hint: "Give the pool a directory of its own: --pool NAME:DIR.", fields: { directory } },
  );
}
