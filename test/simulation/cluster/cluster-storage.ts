/*
 * One life of a storage node of the simulated cluster, wired as services/storage/node-layer.ts wires the real one, with one pool on its
 * own simulated disk, which outlives it. Made by cluster-world.ts.
 */
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import { setupOver } from "#shared/adapters/write-log/jetstream-parts.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { ReplicaSet } from "../../../services/storage/engine/replica-set.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import type { SeededRandom } from "../scheduler.ts";
import { SimulatedBus } from "./cluster-bus.ts";
import { hostOf, poolDirectory, poolName } from "./cluster-plan.ts";
import type { SimulatedProcess } from "./cluster-process.ts";
import type { ClusterWorld } from "./cluster-world.ts";
import { SimulatedKeys } from "./simulated-keys.ts";
import { SimulatedStream } from "./simulated-stream.ts";

/** So few, in every other world, that crashes find checkpoints under way; in the others they find long replays. */
const checkpointBatches = 16;

export class SimulatedStorage {
  readonly process: SimulatedProcess;
  private readonly world: ClusterWorld;
  private readonly random: SeededRandom;
  private readonly store: FileStore;
  private readonly bus: SimulatedBus;
  private readonly catalog: KeyTableCatalog;
  private readonly map: KeyTableMap;
  private set: ReplicaSet | null = null;
  private replicas: RawReplicas | null = null;

  constructor(world: ClusterWorld, process: SimulatedProcess, store: FileStore) {
    const { nats, subjects } = world;
    this.world = world;
    this.process = process;
    this.store = store;
    this.random = world.random.fork();
    const table = new SimulatedKeys(nats, process, "varve_catalog");
    this.bus = new SimulatedBus(nats, subjects, process);
    this.catalog = new KeyTableCatalog(table);
    this.map = new KeyTableMap(table, process.clock);
  }

  get name(): string {
    return this.process.name;
  }

  async start(): Promise<void> {
    const { store, process, world } = this;
    const { clock } = process;
    await store.makeDirectory(poolDirectory);
    await store.lockDirectory(poolDirectory);
    const setup = { store, clock, dataDirectory: poolDirectory };
    const isOften = (world.plan.cells / 8) % 2 === 0;
    const replicas = new RawReplicas(isOften ? { ...setup, checkpointBatches } : setup);
    await store.makeDirectory(`${poolDirectory}/${dataLayout.volumes}`);
    await replicas.start();
    this.replicas = replicas;
    await this.loadCatalog();
    await this.map.ready();
    const set = new ReplicaSet({
      node: this.name,
      host: hostOf(this.name, world.plan),
      pools: [{ name: poolName, dataDirectory: poolDirectory, replicas, roomBytes: () => 1024 ** 3 }],
      store,
      clock,
      random: this.random,
      catalog: this.catalog,
      map: this.map,
      bus: this.bus,
      logOf: (volumeId) => world.mutant.follower(this.followerOf(volumeId)),
      only: null,
      fillBytesPerSecond: null,
      onNote: (text) => world.note(`${this.name}: ${text}`),
    });
    this.set = set;
    const reconcile = (): void => {
      set.reconcile().catch(() => undefined); // it never rejects
    };
    this.catalog.follow(reconcile, (error) => world.fail(`${this.name}: ${error.message}`));
    this.map.onChange(reconcile);
    await set.reconcile();
  }

  report(): ReplicaReport | null {
    return this.set?.reports()[0] ?? null;
  }

  failure(): VarveError | null {
    return this.set?.failures()[0]?.error ?? null;
  }

  /** SIGTERM. */
  async close(): Promise<void> {
    await this.set?.close();
    await this.replicas?.close();
    this.catalog.close();
    this.map.close();
  }

  private followerOf(volumeId: string): JetStreamLogFollower {
    const { world, process, bus, random } = this;
    const stream = new SimulatedStream({ nats: world.nats, process, bus, volumeId });
    const parts = { clock: process.clock, random, volumeId, replicas: 3 };
    return new JetStreamLogFollower(setupOver(stream, parts, async () => undefined));
  }

  private async loadCatalog(): Promise<void> {
    for (;;) {
      try {
        await this.catalog.load();
        return;
      } catch (cause) {
        if (!(cause instanceof VarveError) || cause.kind !== "Retry") throw cause;
      }
      await new Promise<void>((resolve) => {
        this.process.clock.after(500, resolve);
      });
    }
  }
}
