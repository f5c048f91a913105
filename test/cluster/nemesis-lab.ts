// The lab that the nemesis plays with: three NATS servers that keep everything three times, two storage nodes, two gateways, one volume with
// a replica on each node. Every part can be killed, paused and brought back; whoever needs a disk is attached where one is served.
// Called by nemesis-run.ts.
import { closeSync, openSync, readSync } from "node:fs";
import { type ClusterProcess, type GatewayPlace, Lab, sleep } from "../tools/cluster-process.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { NbdClient } from "../tools/nbd-client.ts";

export const volume = "disk0";
export const nodeNames = ["shelf-1", "shelf-2"] as const;
export const gateNames = ["gate-1", "gate-2"] as const;
type NodeName = (typeof nodeNames)[number];
type GateName = (typeof gateNames)[number];

const attachMs = 60_000;
const followMs = 60_000;

export class NemesisLab {
  readonly servers: NatsServers;
  readonly #lab: Lab;
  readonly #nodes = new Map<NodeName, ClusterProcess>();
  readonly #gates = new Map<GateName, GatewayPlace>();

  private constructor(servers: NatsServers) {
    this.servers = servers;
    this.#lab = new Lab(servers);
  }

  static async open(sizeBytes: number): Promise<NemesisLab> {
    const lab = new NemesisLab(await NatsServers.start({ servers: 3 }));
    try {
      for (const name of nodeNames) await lab.startNode(name);
      await lab.#lab.createVolume(volume, sizeBytes, nodeNames);
      for (const name of gateNames) await lab.startGate(name);
      return lab;
    } catch (cause) {
      await lab.close();
      throw cause;
    }
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

  async startNode(name: NodeName): Promise<void> {
    this.#nodes.set(name, await this.#lab.storage(name));
  }

  async startGate(name: GateName): Promise<void> {
    this.#gates.set(name, await this.#lab.gateway(name));
  }

  /** As a client does that waits for its disk: one gateway after the other, `first` first. */
  async attach(first: GateName): Promise<{ readonly client: NbdClient; readonly gate: GateName }> {
    const order = [first, ...gateNames.filter((name) => name !== first)];
    const endMs = performance.now() + attachMs;
    for (;;) {
      for (const gate of order) {
        try {
          const client = await NbdClient.connect(`127.0.0.1:${this.gate(gate).port}`, volume);
          return { client, gate };
        } catch (cause) {
          if (performance.now() > endMs) throw cause;
        }
        await sleep(50);
      }
    }
  }

  imageOf(node: NodeName): string {
    return this.#lab.imageOf(node, volume);
  }

  /** Stops gateways, then nodes, in good order. Rejects where one does not end with 0. */
  async stop(): Promise<void> {
    for (const { process } of this.#gates.values()) await endWell(process);
    // Nobody writes any more: both come to have what the log has, also one that lost its servers a moment ago.
    const endMs = performance.now() + followMs;
    do await sleep(1000);
    while (this.difference() !== null && performance.now() < endMs);
    for (const process of this.#nodes.values()) await endWell(process);
  }

  /** First byte in which the two images differ, or null. */
  difference(): number | null {
    const [one, other] = nodeNames.map((name) => openSync(this.imageOf(name), "r"));
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
    await this.servers.stop();
  }

  outputs(): string {
    const processes = [...this.#gates.values()]
      .map(({ process }) => process)
      .concat([...this.#nodes.values()]);
    return processes.map((one) => `--- ${one.name}\n${one.output.slice(-2000)}`).join("\n");
  }
}

async function endWell(process: ClusterProcess): Promise<void> {
  const { code, signal } = await process.stop();
  if (code !== 0)
    throw new Error(`${process.name} ended with ${code ?? signal}:\n${process.output.slice(-2000)}`);
}
