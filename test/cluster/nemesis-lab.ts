// The lab that the nemesis plays with: three NATS servers that keep everything three times, three storage nodes, two gateways, volumes with
// a replica on two of the nodes, a bucket, archivers and an api (nemesis-past.ts), each part in a network namespace of its own; the first
// gateway and the first node are one machine. Every part can be killed, paused, cut off, set to another time and brought back; whoever
// needs a disk is attached where one is served. Called by nemesis-run.ts and test/bench/cluster/failures.ts.
import { closeSync, existsSync, openSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import { partialImagePathOf } from "#shared/domain/data-layout.ts";
import { isVarveError } from "#shared/domain/errors.ts";
import type { ReadPolicy } from "#shared/domain/volume.ts";
import type { TakeoverStep } from "#shared/ports/failpoint.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import { openCluster } from "#shared/shell/cluster-connection.ts";
import { type ClusterProcess, type GatewayPlace, Lab, sleep } from "../tools/cluster-process.ts";
import { NamespaceNetwork } from "../tools/lab-network.ts";
import { type NatsNode, NatsServers } from "../tools/nats-server.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import type { S3ServerName } from "../tools/s3-servers.ts";
import { DirectReadCount, type ReadCounters } from "./direct-read-count.ts";
import { type KeeperName, keeperNames, NemesisPast } from "./nemesis-past.ts";

export const nodeNames = ["shelf-1", "shelf-2"] as const;
export const gateNames = ["gate-1", "gate-2"] as const;
type NodeName = (typeof nodeNames)[number];
export type GateName = (typeof gateNames)[number];

export interface LabVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly reads: ReadPolicy;
}

const attachMs = 60_000;
/** A gateway that takes a volume over needs some 4 s; one that was paused meanwhile is not waited for. */
const attachTryMs = 6000;
const followMs = 60_000;
const logEndMs = 60_000;
const logEndPauseMs = 500;
/** Each volume's log may take 10 GiB of it, a clone's too; nothing here is as long. */
const maxFileStore = "500GB";

export class NemesisLab {
  readonly servers: NatsServers;
  readonly network: NamespaceNetwork;
  readonly directReads = new DirectReadCount();
  readonly #lab: Lab;
  readonly #volumeIds = new Map<string, string>();
  #past: NemesisPast | null = null;
  readonly #nodes = new Map<NodeName, ClusterProcess>();
  readonly #gates = new Map<GateName, GatewayPlace>();
  readonly #aheadSeconds = new Map<string, number>();

  private constructor(servers: NatsServers, network: NamespaceNetwork) {
    this.servers = servers;
    this.network = network;
    this.#lab = new Lab(servers, network);
  }

  /** In a network of one's own (insideOwnNetwork). */
  static async open(volumes: readonly LabVolume[], store: S3ServerName | null): Promise<NemesisLab> {
    const network = await NamespaceNetwork.make();
    const lab = new NemesisLab(
      await NatsServers.start({ servers: 3, network, maxFileStore, debug: true }),
      network,
    );
    try {
      if (store !== null) lab.#past = await NemesisPast.open(lab.#lab, network, store);
      for (const name of [...nodeNames, "shelf-3"] as const) await lab.startNode(name);
      for (const volume of volumes) await lab.createVolume(volume);
      for (const name of gateNames) await lab.startGate(name);
      for (const name of store === null ? [] : keeperNames) await lab.startKeeper(name);
      await lab.#past?.api.start();
      return lab;
    } catch (cause) {
      await lab.close();
      throw cause;
    }
  }

  async createVolume({ name, sizeBytes, reads }: LabVolume): Promise<void> {
    this.#volumeIds.set(name, await this.#lab.createVolume(name, sizeBytes, nodeNames, reads));
  }

  get volumeNames(): readonly string[] {
    return [...this.#volumeIds.keys()];
  }

  get past(): NemesisPast {
    if (this.#past === null) throw new Error("this lab keeps no past");
    return this.#past;
  }

  node(name: NodeName): ClusterProcess {
    const found = this.#nodes.get(name);
    if (found === undefined) throw new Error(`no storage node ${name}`);
    return found;
  }

  gate(name: GateName): GatewayPlace {
    const found = this.#gates.get(name);
    if (found === undefined) throw new Error(`no gateway ${name}`);
    return found;
  }

  async startNode(name: NodeName | "shelf-3"): Promise<void> {
    const started = await this.#lab.storage(name, this.#bucketSetting(), this.#environmentOf(name));
    if (name !== "shelf-3") this.#nodes.set(name, started);
  }

  /** `pausedAt`: the step of its next takeover at which it stops itself by SIGSTOP. */
  async startGate(name: GateName, pausedAt?: TakeoverStep): Promise<void> {
    const failpoint = pausedAt === undefined ? "" : `${pausedAt}:1:stop`;
    const env = { ...this.#environmentOf(name), VARVE_TEST_FAILPOINT: failpoint };
    this.#gates.set(name, await this.#lab.gateway(name, this.#bucketSetting(), env));
  }

  #bucketSetting(): Readonly<Record<string, string>> {
    return this.#past === null ? {} : { bucket: this.#past.bucket.url() };
  }

  #environmentOf(name: string): Readonly<Record<string, string>> {
    return { ...this.#clockOf(name), ...this.#past?.bucket.env };
  }

  async startKeeper(name: KeeperName, failpoint?: string): Promise<void> {
    await this.past.start(name, this.#clockOf(name), failpoint);
  }

  /** From now on that process' wall clock shows another time, and again when it starts anew. Its monotonic clock goes on. */
  setClock(name: NodeName | GateName | KeeperName, aheadSeconds: number): void {
    this.#aheadSeconds.set(name, aheadSeconds);
    this.#writeClock(name);
  }

  /** The server that leads the volume's stream, or null while there is none. */
  async logLeader(): Promise<NatsNode | null> {
    for (const server of this.servers.nodes) {
      const answer = await fetch(`${server.monitor}/jsz?streams=true`, {
        signal: AbortSignal.timeout(1000),
      }).then(
        async (response) => (await response.json()) as JetStreamReport,
        () => null,
      );
      const streams = answer?.account_details?.flatMap((account) => account.stream_detail ?? []) ?? [];
      const leader = streams.find(({ name }) => name.startsWith("varve-log-"))?.cluster?.leader ?? "";
      const found = this.servers.nodes.find(({ name }) => name === leader);
      if (found !== undefined) return found;
    }
    return null;
  }

  /** Where the log of a volume ends and begins; null: nobody opened it yet. After a fault a stream may be without a leader for a while. */
  async logEnd(volume: string): Promise<LogEnd | null> {
    const volumeId = this.#volumeIds.get(volume) ?? "";
    const { addresses, monitors, nodes } = this.servers;
    const clock = new SystemClock();
    const replicas = nodes.length;
    const nats = { servers: addresses, monitors, replicas };
    const cluster = await openCluster(nats, "nemesis", clock, () => undefined);
    try {
      const parts = { connection: cluster.connection, clock, random: new SystemRandom(), volumeId, replicas };
      const follower = new JetStreamLogFollower({ ...parts, servers: { monitors } });
      for (const byMs = performance.now() + logEndMs; ; await sleep(logEndPauseMs)) {
        try {
          return await follower.end();
        } catch (error) {
          if (!isVarveError(error) || error.kind !== "Retry" || performance.now() > byMs) throw error;
        }
      }
    } finally {
      await cluster.close();
    }
  }

  /** As a client does that waits for its disk: one gateway after the other, `first` first. */
  async attach(
    first: GateName,
    volume: string,
  ): Promise<{ readonly client: NbdClient; readonly gate: GateName }> {
    const order = [first, ...gateNames.filter((name) => name !== first)];
    const endMs = performance.now() + attachMs;
    for (;;) {
      for (const gate of order) {
        try {
          return { client: await this.#connect(gate, volume), gate };
        } catch (cause) {
          if (performance.now() > endMs) throw cause;
        }
        await sleep(50);
      }
    }
  }

  async #connect(gate: GateName, volume: string): Promise<NbdClient> {
    const { host, port } = this.gate(gate);
    const connecting = NbdClient.connect(`${host}:${port}`, volume);
    const late = new Promise<null>((resolve) => {
      setTimeout(() => resolve(null), attachTryMs);
    });
    const client = await Promise.race([connecting, late]);
    if (client !== null) return client;
    connecting.then(
      (one) => one.destroy(),
      () => undefined,
    );
    throw new Error(`${gate} does not serve within ${attachTryMs} ms`);
  }

  /** libfaketime, told by a file what to add to the wall clock; it looks once a second. */
  #clockOf(name: string): Readonly<Record<string, string>> {
    this.#writeClock(name);
    return {
      LD_PRELOAD: "libfaketimeMT.so.1",
      LD_LIBRARY_PATH: `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu/faketime`,
      FAKETIME_TIMESTAMP_FILE: this.#clockFile(name),
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      FAKETIME_CACHE_DURATION: "1",
      NO_FAKE_STAT: "1",
    };
  }

  #writeClock(name: string): void {
    const ahead = this.#aheadSeconds.get(name) ?? 0;
    writeFileSync(this.#clockFile(name), `${ahead < 0 ? "-" : "+"}${Math.abs(ahead)}`);
  }

  #clockFile(name: string): string {
    return join(this.#lab.directory, `${name}.clock`);
  }

  /** It has the volume itself, and relays to nobody. */
  async serves(gate: GateName, volume: string): Promise<boolean> {
    const { host, health } = this.gate(gate);
    const answer = await fetch(`http://${host}:${health}/readyz`);
    const { detail } = (await answer.json()) as GateReadiness;
    return detail.volumes.some(({ name }) => name === volume);
  }

  /** Adds up what gateways read of images on their own machine; what one did since, before it was killed, is not counted. */
  async countDirectReads(): Promise<void> {
    for (const [gate, { host, health }] of this.#gates) {
      const answer = await fetch(`http://${host}:${health}/readyz`, {
        signal: AbortSignal.timeout(500),
      }).then(
        async (response) => (await response.json()) as GateReadiness,
        () => null, // it is paused, cut off or gone
      );
      for (const { name, epoch, counters } of answer?.detail.volumes ?? []) {
        this.directReads.note(`${gate} ${name} ${epoch}`, counters);
      }
    }
  }

  imageOf(node: NodeName, volume: string): string {
    return this.#lab.imageOf(node, volume);
  }

  /** The image by the name that it has now: one that was filled keeps its other name until the next checkpoint. */
  fileOf(node: NodeName, volume: string): string {
    const whole = this.imageOf(node, volume);
    return existsSync(whole) ? whole : partialImagePathOf(whole);
  }

  async stopGates(): Promise<void> {
    for (const { process } of this.#gates.values()) await endWell(process);
  }

  /** Stops gateways, archivers, then nodes, in good order. Rejects where one does not end with 0. */
  async stop(): Promise<void> {
    await this.stopGates();
    for (const process of this.#past?.processes ?? []) await endWell(process);
    // Nobody writes any more: both come to have what the log has, also one that lost its servers a moment ago.
    const endMs = performance.now() + followMs;
    const differ = (): boolean => [...this.#volumeIds.keys()].some((name) => this.difference(name) !== null);
    do await sleep(1000);
    while (differ() && performance.now() < endMs);
    for (const process of this.#nodes.values()) await endWell(process);
  }

  /** First byte in which the two images of a volume differ, or null. */
  difference(volume: string): number | null {
    const [one, other] = nodeNames.map((name) => openSync(this.fileOf(name, volume), "r"));
    if (one === undefined || other === undefined) throw new Error("two images");
    const [left, right] = [Buffer.alloc(1024 * 1024), Buffer.alloc(1024 * 1024)];
    try {
      for (let offset = 0; ; offset += left.length) {
        const length = readSync(one, left, 0, left.length, offset);
        if (readSync(other, right, 0, right.length, offset) !== length) return offset;
        if (length === 0) return null;
        const at = left.subarray(0, length).compare(right.subarray(0, length));
        if (at !== 0) return offset + left.findIndex((byte, index) => byte !== right[index]);
      }
    } finally {
      closeSync(one);
      closeSync(other);
    }
  }

  async close(): Promise<void> {
    await this.#lab.close();
    await this.#past?.close();
    await this.servers.stop();
  }

  /** The ends of all logs, and what the NATS servers think of each other now. */
  async outputs(): Promise<string> {
    const processes = [...this.#gates.values()]
      .map(({ process }) => process)
      .concat([...this.#nodes.values()], this.#past?.processes ?? []);
    const servers = this.servers.nodes.map(
      async (one) => `--- ${one.name}\n${one.output.slice(-6000)}\n${await one.view()}`,
    );
    const ends = processes.map((one) => `--- ${one.name}\n${one.output.slice(-2000)}`);
    return [...ends, ...(await Promise.all(servers))].join("\n");
  }
}

interface GateReadiness {
  readonly detail: {
    readonly volumes: readonly {
      readonly name: string;
      readonly epoch: number;
      readonly counters: ReadCounters;
    }[];
  };
}

interface JetStreamReport {
  readonly account_details?: readonly {
    readonly stream_detail?: readonly {
      readonly name: string;
      readonly cluster?: { readonly leader?: string };
    }[];
  }[];
}

async function endWell(process: ClusterProcess): Promise<void> {
  const { code, signal } = await process.stop();
  if (code !== 0)
    throw new Error(`${process.name} ended with ${code ?? signal}:\n${process.output.slice(-2000)}`);
}
