/*
 * One life of a gateway of the simulated cluster, wired as services/gateway/cluster-layer.ts wires the real one, without NBD: clients call
 * open() and request(). Everything that leaves it is judged here, with the bytes in hand. Made by cluster-world.ts.
 */
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import { setupOver } from "#shared/adapters/write-log/jetstream-parts.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import { ClusterExports } from "../../../services/gateway/engine/cluster-exports.ts";
import { RemoteAdmission, RemoteFeed } from "../../../services/gateway/engine/remote-feed.ts";
import { RemoteReplica } from "../../../services/gateway/engine/remote-replica.ts";
import { VolumeSession } from "../../../services/gateway/engine/volume-session.ts";
import { WritePatience } from "../../../services/gateway/engine/write-patience.ts";
import { overriding } from "../mutant.ts";
import type { SeededRandom } from "../scheduler.ts";
import { SimulatedBus } from "./cluster-bus.ts";
import { hostOf, volumeName } from "./cluster-plan.ts";
import { SimulatedProcess } from "./cluster-process.ts";
import type { ClusterWorld } from "./cluster-world.ts";
import { GatewayConnection } from "./gateway-connection.ts";
import { Neighbour } from "./neighbour.ts";
import { SimulatedKeys } from "./simulated-keys.ts";
import { SimulatedStream } from "./simulated-stream.ts";

const epochRaisesMax = 8;
const drainMs = 5000;

export class SimulatedGateway {
  readonly process: SimulatedProcess;
  readonly world: ClusterWorld;
  /** The newest session, and the lease that it was opened under. */
  session: VolumeSession | null = null;
  lease: Lease | null = null;
  /** What it has heard of. */
  readonly lostLeases = new Set<Lease>();
  readonly connections = new Set<GatewayConnection>();
  private readonly random: SeededRandom;
  private readonly bus: SimulatedBus;
  private readonly leases: KeyTableLeases;
  private readonly catalog: KeyTableCatalog;
  private readonly map: KeyTableMap;
  private readonly pool: SlabPool;
  private readonly exports: ClusterExports;
  private readonly neighbour: Neighbour;
  private readonly replicas = new Set<RemoteReplica>();
  private ready = false;
  private closing = false;

  constructor(world: ClusterWorld, name: string) {
    const { scheduler, nats, subjects, mutant } = world;
    this.world = world;
    this.process = new SimulatedProcess(name, scheduler);
    this.random = world.random.fork();
    const { clock } = this.process;
    const catalogTable = new SimulatedKeys(nats, this.process, "varve_catalog");
    const leaseTable = new SimulatedKeys(nats, this.process, "varve_leases");
    this.bus = new SimulatedBus(nats, subjects, this.process);
    this.neighbour = new Neighbour(world, this.process, this.bus);
    this.catalog = new KeyTableCatalog(catalogTable);
    this.map = new KeyTableMap(catalogTable, clock);
    this.leases = new KeyTableLeases({
      table: leaseTable,
      clock,
      random: this.random,
    });
    this.pool = new SlabPool(world.slabStore(), clock, world.plan.memoryBytes);
    this.exports = new ClusterExports({
      gateway: name,
      address: name,
      clock,
      leases: mutant.leases(this.watchedLeases()),
      catalog: this.catalog,
      past: { historyOf: () => null },
      points: { open: async () => null },
      only: null,
      openSession: async (record, lease, onHalted) => this.openSession(record, lease, onHalted),
      isStrict: () => world.plan.strictReads,
      disconnect: () => this.disconnect(),
      onNote: (text) => this.note(text),
    });
  }

  get name(): string {
    return this.process.name;
  }

  /** Ready when the catalogue was read. */
  async start(): Promise<void> {
    for (;;) {
      try {
        await this.catalog.load();
        break;
      } catch (cause) {
        if (!(cause instanceof VarveError) || cause.kind !== "Retry") throw cause;
        await this.pause(500);
      }
    }
    await this.map.ready();
    await this.leases.ready();
    this.catalog.follow(
      () => undefined,
      (error) => this.world.fail(`${this.name} can't read the catalogue: ${error.message}`),
    );
    this.ready = true;
  }

  /** A client connects. */
  async open(client: string): Promise<GatewayConnection> {
    if (!this.ready || this.closing) throw new VarveError("NotReady", "Retry", "the gateway is not ready");
    // The client goes to the holder by itself, as the relay would.
    const opened = await this.exports.open(`relay:${volumeName}`);
    const { session, lease } = this;
    if (opened === null || session === null || lease === null)
      throw new VarveError("NoVolume", "Retry", "no such volume");
    const { epoch } = session.status().log;
    if (this.world.oracle.isReplaced(epoch)) {
      this.world.fail(`${this.name} let ${client} in with epoch ${epoch} after a newer one had acknowledged`);
    }
    const connection = new GatewayConnection(this, session, lease, this.world.mutant.opened(opened));
    this.connections.add(connection);
    return connection;
  }

  /** SIGTERM. */
  async close(): Promise<void> {
    this.closing = true;
    const endMs = this.process.clock.monotonicMs() + drainMs;
    const busy = (): boolean => [...this.connections].some((connection) => connection.unanswered > 0);
    while (busy() && this.process.clock.monotonicMs() < endMs) await this.pause(5);
    this.disconnect();
    await this.exports.close();
    this.leases.close();
    this.catalog.close();
    this.map.close();
  }

  /** Reads of an image that it did itself, without the node. */
  get directReads(): number {
    return [...this.replicas].reduce((sum, { counters }) => sum + counters.directReads, 0);
  }

  note(text: string): void {
    this.world.note(`${this.name}: ${text}`);
  }

  /** The judge sees the leases as they are. */
  private watchedLeases(): Leases {
    const { leases } = this;
    return overriding<Leases>(leases, {
      take: async (key, terms) => {
        const lease = await leases.take(key, terms);
        this.lease = lease;
        lease.onLost(() => this.lostLeases.add(lease));
        return lease;
      },
    });
  }

  private disconnect(): void {
    for (const connection of this.connections) connection.close();
    this.connections.clear();
  }

  private async openSession(
    record: VolumeRecord,
    lease: Lease,
    onHalted: (error: VarveError) => void,
  ): Promise<VolumeSession> {
    for (let raises = 0; ; raises += 1) {
      try {
        return await this.tryOpenSession(record, lease, onHalted);
      } catch (cause) {
        const newer =
          cause instanceof VarveError && cause.kind === "Fenced" ? cause.fields["epoch"] : undefined;
        this.note(`not opened: ${String(cause)}`);
        if (typeof newer !== "number" || raises >= epochRaisesMax) throw cause;
        if ((await lease.raiseEpoch(newer)) === null) throw cause;
      }
    }
  }

  private async tryOpenSession(
    record: VolumeRecord,
    lease: Lease,
    onHalted: (error: VarveError) => void,
  ): Promise<VolumeSession> {
    const { world, process } = this;
    const { nats, mutant } = world;
    const { clock } = process;
    const placement = this.map.placementOf(record.id);
    if (placement === null) throw new VarveError("VolumeNotPlaced", "Retry", "no placement is known yet");
    let session: VolumeSession | null = null;
    const { bus, files } = this.neighbour;
    world.takesOver();
    const replica = new RemoteReplica({
      bus,
      clock,
      volumeId: record.id,
      nodes: placement.replicas.map(({ node }) => node),
      host: hostOf(this.name, world.plan),
      ...(files === null ? {} : { files }),
      onFenced: (error) => session?.fence(error),
      logShare: () => (session?.hotLog().room().diskBytes ?? 0) / limits.logBytesMaxDefault,
    });
    this.replicas.add(replica);
    const image = mutant.replica(replica);
    try {
      await image.heard();
    } catch (cause) {
      await image.abandon();
      throw cause;
    }
    const patience = new WritePatience(clock);
    const stream = mutant.stream(
      new SimulatedStream({ nats, process, bus: this.bus, volumeId: record.id }),
      this.name,
    );
    const parts = { clock, random: this.random, volumeId: record.id, replicas: 3 };
    session = await VolumeSession.open({
      name: record.name,
      durability: record.durability,
      log: mutant.log(new JetStreamWriteLog(setupOver(stream, parts, async () => undefined))),
      image,
      pool: this.pool,
      admission: new RemoteAdmission(
        () => image.roomBytes(),
        () => patience.refusal,
      ),
      patience,
      feed: (handlers) => new RemoteFeed(image, handlers),
      writer: this.name,
      tenure: { epoch: lease.epoch, renewEpoch: async (above) => renewEpoch(lease, image, above) },
      onHalted: (error) => {
        this.note(`halted: ${error.message}`);
        world.judgeHalt(this.name, error);
        onHalted(error);
      },
    });
    this.session = mutant.session(session);
    this.note(`serves with epoch ${session.status().log.epoch}`);
    world.count("sessions opened");
    return this.session;
  }

  private async pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.process.clock.after(ms, resolve);
    });
  }
}

/** As services/gateway/cluster-layer.ts does it. */
async function renewEpoch(lease: Lease, image: RemoteReplica, above: number): Promise<number | null> {
  const epoch = await lease.raiseEpoch(above);
  if (epoch !== null) image.raiseEpoch(epoch);
  return epoch;
}
