/*
 * The plan of a seed of the cluster world, and what outlives its processes: servers, network, disks, clients, the log's truth and the
 * oracle. Knows who runs now; starts, kills and judges. The events are cluster-events.ts, one seed cluster-run.ts.
 */
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { checkpointPathOf, volumePaths } from "#shared/domain/data-layout.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { encodeCatalog } from "#shared/formats/catalog.ts";
import { decodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import { encodeClusterRecord } from "#shared/formats/cluster-records.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { Scheduler, SeededRandom } from "../scheduler.ts";
import { SlabStock } from "../slab-stock.ts";
import { SimulationFailure } from "../world.ts";
import { CellOracle } from "./cell-oracle.ts";
import { cellBytes } from "./cells.ts";
import { SimulatedSubjects } from "./cluster-bus.ts";
import { ClusterClient, runCells } from "./cluster-client.ts";
import { SimulatedGateway } from "./cluster-gateway.ts";
import type { ClusterMutant } from "./cluster-mutant.ts";
import { SimulatedNats } from "./cluster-nats.ts";
import { SimulatedNetwork } from "./cluster-network.ts";
import { type ClusterPlan, hostOf, planOf, poolDirectory, poolName, volumeName } from "./cluster-plan.ts";
import { SimulatedProcess } from "./cluster-process.ts";
import { SimulatedStorage } from "./cluster-storage.ts";
import { readHastily } from "./hasty-reader.ts";
import { LogTruth } from "./log-truth.ts";

/** A machine with a storage node: its disk outlives the process. */
interface NodeMachine {
  readonly name: string;
  readonly disk: SimulatedDisk;
  readonly slabs: SlabStock;
  process: SimulatedProcess | null;
  storage: SimulatedStorage | null;
}

interface GatewayMachine {
  readonly name: string;
  readonly slabs: SlabStock;
  gateway: SimulatedGateway | null;
}

const hastyReads = 700;

export class ClusterWorld {
  readonly seed: number;
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly network: SimulatedNetwork;
  readonly nats: SimulatedNats;
  readonly subjects = new SimulatedSubjects();
  readonly plan: ClusterPlan;
  readonly mutant: ClusterMutant;
  readonly oracle: CellOracle;
  readonly truth: LogTruth;
  readonly record: VolumeRecord;
  readonly nodes: readonly NodeMachine[];
  readonly gateways: readonly GatewayMachine[];
  readonly clients: readonly ClusterClient[];
  readonly counts = new Map<string, number>();
  failure: SimulationFailure | null = null;
  private readonly print: ((line: string) => void) | null;
  private slabsInUse: SlabStock = new SlabStock();

  constructor(seed: number, mutant: ClusterMutant, print: ((line: string) => void) | null) {
    this.seed = seed;
    this.mutant = mutant;
    this.print = print;
    const source = new SeededRandom(Math.imul(seed, 0x9e3779b1) ^ 0x2545f491);
    for (let index = 0; index < 8; index++) source.next();
    this.random = source.fork();
    this.scheduler = new Scheduler(source.fork());
    this.plan = planOf(source.fork());
    const { cells, nodes, gateways, clients } = this.plan;
    this.oracle = new CellOracle(cells);
    this.truth = new LogTruth(cells * cellBytes, {
      fail: (what) => this.fail(what),
      note: (what) => this.note(what),
      count: (what) => this.count(what),
      checkpointLsns: () => this.nodes.map(({ name }) => ({ node: name, lsn: this.checkpointOf(name) })),
    });
    this.network = new SimulatedNetwork(this.scheduler, source.fork());
    this.nats = new SimulatedNats(this.scheduler, this.network, source.fork(), () => this.truth);
    this.record = {
      id: source.hex(8),
      name: volumeName,
      sizeBytes: cells * cellBytes,
      durability: "write",
      createdAtMs: 1_700_000_000_000,
      state: "active",
    };
    this.nodes = Array.from({ length: nodes }, (_, index) => this.newNode(`s${index + 1}`, source.fork()));
    this.gateways = Array.from({ length: gateways }, (_, index) => ({
      name: `g${index + 1}`,
      slabs: new SlabStock(),
      gateway: null,
    }));
    this.clients = Array.from({ length: clients }, (_, index) => {
      const runs: number[] = [];
      for (let run = index * runCells; run < cells; run += clients * runCells) runs.push(run);
      return new ClusterClient(this, `c${index + 1}`, runs);
    });
    this.store();
  }

  get gatewayNames(): readonly string[] {
    return this.gateways.map(({ name }) => name);
  }

  /** The process that runs now, or null. */
  gateway(name: string): SimulatedGateway | null {
    return this.gateways.find((one) => one.name === name)?.gateway ?? null;
  }

  startGateway(name: string): void {
    const machine = this.gateways.find((one) => one.name === name);
    if (machine === undefined || machine.gateway !== null) return;
    machine.slabs.takeAllBack();
    this.slabsInUse = machine.slabs;
    const gateway = new SimulatedGateway(this, name);
    machine.gateway = gateway;
    this.note(`${name} starts`);
    gateway.start().catch((cause: unknown) => this.fail(`${name} did not start`, cause));
  }

  killGateway(name: string): void {
    const machine = this.gateways.find((one) => one.name === name);
    const gateway = machine?.gateway ?? null;
    if (machine === undefined || gateway === null) return;
    this.note(`${name} is killed`);
    this.count("direct reads", gateway.directReads);
    gateway.process.die();
    this.subjects.forget(gateway.process);
    machine.gateway = null;
    for (const client of this.clients) this.network.send(name, client.name, () => client.broken(name));
  }

  startNode(name: string): void {
    const machine = this.node(name);
    if (machine.process !== null) return;
    machine.slabs.takeAllBack();
    const process = new SimulatedProcess(name, this.scheduler);
    machine.process = process;
    const storage = new SimulatedStorage(this, process, this.mutant.store(this.storeOf(machine)));
    machine.storage = storage;
    this.note(`${name} starts`);
    for (const { gateway } of this.gateways) {
      if (gateway !== null && this.sharesHost(gateway.name, name)) this.hurry(gateway);
    }
    storage.start().catch((cause: unknown) => this.fail(`${name} did not start`, cause));
  }

  /** `power`: its machine loses power, too. */
  killNode(name: string, power: boolean): void {
    const machine = this.node(name);
    if (machine.process === null) return;
    this.note(power ? `${name} loses power` : `${name} is killed`);
    machine.process.die();
    this.subjects.forget(machine.process);
    machine.process = null;
    machine.storage = null;
    if (!power) machine.disk.kill();
    else {
      machine.disk.crash();
      for (const other of this.gatewayNames) if (this.sharesHost(other, name)) this.killGateway(other);
    }
  }

  /** Whoever has clients is asked for much while that gateway takes over: it, too, as soon as it has some. */
  takesOver(): void {
    for (const { gateway } of this.gateways) if (gateway !== null) this.hurry(gateway);
  }

  hurry(gateway: SimulatedGateway, reads = hastyReads): void {
    const { oracle, random, scheduler } = this;
    const later = (delayMs: number, run: () => void): void => void scheduler.after(delayMs, run);
    readHastily({ gateway, oracle, random: random.fork(), later }, reads);
  }

  sharesHost(gateway: string, node: string): boolean {
    return hostOf(gateway, this.plan) === hostOf(node, this.plan);
  }

  /** Of the node on that gateway's host, as it sees it; null: none is there. */
  diskBeside(gateway: string): SimulatedDisk | null {
    const index = this.nodes.findIndex(({ name }) => this.sharesHost(gateway, name));
    const isForeign = this.plan.foreignFiles && index === 0;
    return this.nodes[isForeign ? this.nodes.length - 1 : index]?.disk ?? null;
  }

  node(name: string): NodeMachine {
    const machine = this.nodes.find((one) => one.name === name);
    if (machine === undefined) throw new Error(`no node ${name}`);
    return machine;
  }

  /** Memory of the gateway that starts. */
  slabStore(): Pick<FileStore, "allocateSlab" | "shrinkSlab"> {
    const slabs = this.slabsInUse;
    return { allocateSlab: (bytes) => slabs.take(bytes), shrinkSlab: () => undefined };
  }

  /** A node's image file as it is on its disk. */
  imageOf(name: string): Buffer | null {
    return this.fileOf(name, volumePaths(poolDirectory, volumeName).image);
  }

  checkpointOf(name: string): number {
    const bytes = this.fileOf(name, checkpointPathOf(volumePaths(poolDirectory, volumeName).image));
    if (bytes === null) return 0;
    const checkpoint = decodeCheckpoint(bytes);
    return isBadCheckpoint(checkpoint) ? 0 : checkpoint.appliedLsn;
  }

  /** What is acknowledged or shown is in the log. */
  judgeDurable(cell: number, serial: number, who: string): void {
    const stored = this.truth.serialOf(cell);
    if (stored === 0 || typeof stored === "string" || stored >= serial) return;
    this.fail(`${who} serial ${serial} of cell ${cell}, but the log has ${stored}`);
  }

  /** Promise 8: a taker acknowledges nothing until the lease before it was released or ran out. */
  judgeTenure(gateway: SimulatedGateway, epoch: number): void {
    for (const { gateway: other } of this.gateways) {
      if (other === null || other === gateway || other.lease === null || other.lease.epoch >= epoch) continue;
      // Closed: the release is on its way, or done and not yet answered.
      if (other.lease.remainingMs() > 0 && other.session?.status().state !== "closed") {
        this.fail(`${gateway.name} acknowledges in epoch ${epoch} while ${other.name} still has its lease`);
      }
    }
  }

  /** A session halts only because somebody newer writes. */
  judgeHalt(gateway: string, error: VarveError): void {
    this.count(`sessions halted: ${error._tag}`);
    if (error.kind !== "Fenced") this.fail(`${gateway} halted: ${error.message}`, error);
  }

  note(what: string): void {
    this.print?.(`${this.scheduler.nowMs.toFixed(3).padStart(12)} ms  ${what}`);
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** May be called from inside the product, so it only takes a note: the next step ends the seed. */
  fail(what: string, cause?: unknown): void {
    if (this.failure !== null) return;
    this.failure = new SimulationFailure(what, cause === undefined ? undefined : { cause });
    this.note(`FAILED: ${what}`);
  }

  throwFailure(): void {
    if (this.failure !== null) throw this.failure;
  }

  end(): void {
    for (const { name } of this.gateways) this.killGateway(name);
    for (const { name } of this.nodes) this.killNode(name, false);
    this.scheduler.reset();
    for (const { slabs } of [...this.nodes, ...this.gateways]) slabs.giveUp();
  }

  private fileOf(name: string, path: string): Buffer | null {
    const content = this.node(name).disk.names.seen.files.get(path)?.cache;
    if (content === undefined) return null;
    const bytes = Buffer.alloc(content.sizeBytes);
    content.read(bytes, 0);
    return bytes;
  }

  private storeOf({ disk, slabs }: NodeMachine): FileStore {
    const store = disk.store();
    store.allocateSlab = (bytes) => slabs.take(bytes);
    store.shrinkSlab = () => undefined;
    return store;
  }

  private newNode(name: string, random: SeededRandom): NodeMachine {
    const machine: NodeMachine = {
      name,
      disk: new SimulatedDisk({ random, schedule: (run) => machine.process?.schedule(run) }),
      slabs: new SlabStock(),
      process: null,
      storage: null,
    };
    return machine;
  }

  /** The volume and its placement, as the api stores them. */
  private store(): void {
    const table = this.nats.table("varve_catalog");
    table.set("volumes", encodeCatalog([this.record]), 0);
    const replicas = this.nodes.map(({ name }) => ({ node: name, pool: poolName }));
    const placement = { volumeId: this.record.id, beginBytes: this.record.sizeBytes, replicas };
    table.set(`placement.${this.record.id}`, encodeClusterRecord("placement", placement), 0);
  }
}
