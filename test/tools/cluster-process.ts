// Starts, kills, pauses and stops the real processes of a cluster (bin/varve gateway, storage, api) against real NATS servers, on free
// ports and temporary directories. Callers: test/nats, test/cluster. No process outlives the one that started it.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import type { PlacementRecord } from "#shared/domain/cluster.ts";
import type { ReadPolicy } from "#shared/domain/volume.ts";
import { openCluster } from "#shared/shell/cluster-connection.ts";
import { freePort } from "./free-port.ts";
import { type LabNetwork, loopback } from "./lab-network.ts";
import type { NatsServers } from "./nats-server.ts";
import { NbdClient } from "./nbd-client.ts";
import { repositoryDir } from "./varve-process.ts";

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export interface ProcessEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** One process; its settings come from a file, as a user would give them. */
export class ClusterProcess {
  readonly name: string;
  readonly exited: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  #output = "";

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#child = child;
    alive.add(child);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8");
      stream?.on("data", (text: string) => {
        this.#output = (this.#output + text).slice(-256 * 1024);
      });
    }
    this.exited = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        alive.delete(child);
        resolve({ code, signal });
      });
    });
  }

  static async start(
    command: readonly string[],
    name: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<ClusterProcess> {
    const [program = "", ...args] = command;
    const child = spawn(program, args, {
      cwd: repositoryDir,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    const started = new ClusterProcess(name, child);
    await started.says("varve is ready");
    return started;
  }

  get output(): string {
    return this.#output;
  }

  /** Waits for a text in what it prints. */
  async says(text: string, timeoutMs = 30_000): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (!this.#output.includes(text)) {
      if (performance.now() > endMs || this.#child.exitCode !== null) {
        throw new Error(`${this.name} does not say "${text}":\n${this.#output}`);
      }
      await sleep(20);
    }
  }

  /** It was stopped by SIGSTOP, from outside or by itself. */
  get isPaused(): boolean {
    const { pid } = this.#child;
    if (pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return false;
    return /\) T /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.exited;
  }

  /** SIGTERM; resolves with how it ended. */
  async stop(): Promise<ProcessEnd> {
    this.#child.kill("SIGTERM");
    const late = setTimeout(() => this.#child.kill("SIGKILL"), 30_000);
    const end = await this.exited;
    clearTimeout(late);
    return end;
  }
}

export interface GatewayPlace {
  readonly process: ClusterProcess;
  readonly host: string;
  readonly port: number;
  readonly health: number;
}

/** Processes of one lab, and where each keeps its things. */
export class Lab {
  readonly directory: string;
  readonly #servers: NatsServers;
  readonly #network: LabNetwork;
  readonly #processes: ClusterProcess[] = [];

  constructor(servers: NatsServers, network: LabNetwork = loopback) {
    this.#servers = servers;
    this.#network = network;
    this.directory = mkdtempSync(join(tmpdir(), "varve-lab-"));
  }

  async storage(
    name: string,
    settings: Readonly<Record<string, unknown>> = {},
    env: Readonly<Record<string, string>> = {},
  ): Promise<ClusterProcess> {
    const health = `${this.#network.place(name).host}:${await freePort()}`;
    return await this.start("storage", name, { pool: `main:${this.poolOf(name)}`, health, ...settings }, env);
  }

  async gateway(
    name: string,
    settings: Readonly<Record<string, unknown>> = {},
    env: Readonly<Record<string, string>> = {},
  ): Promise<GatewayPlace> {
    const { host } = this.#network.place(name);
    const [port, health] = [await freePort(), await freePort()];
    const addresses = { nbd: `${host}:${port}`, health: `${host}:${health}` };
    const started = await this.start("gateway", name, { ...addresses, ...settings }, env);
    return { process: started, host, port, health };
  }

  async start(
    command: string,
    name: string,
    settings: Readonly<Record<string, unknown>>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<ClusterProcess> {
    const file = join(this.directory, `${name}.json`);
    const nats = {
      nats: this.#servers.addresses,
      "nats-monitor": this.#servers.monitors,
      "nats-replicas": this.#servers.nodes.length,
    };
    writeFileSync(file, JSON.stringify({ name, ...nats, ...settings }));
    const { prefix } = this.#network.place(name);
    const varve = [...prefix, join(repositoryDir, "bin", "varve"), command, "--config", file];
    const started = await ClusterProcess.start(varve, name, env);
    this.#processes.push(started);
    return started;
  }

  poolOf(node: string): string {
    return join(this.directory, node);
  }

  imageOf(node: string, volume: string): string {
    return join(this.poolOf(node), "volumes", volume, "disk.raw");
  }

  /** A volume with replicas on these nodes, as the api would place it. */
  async createVolume(
    name: string,
    sizeBytes: number,
    nodes: readonly string[],
    reads: ReadPolicy = "available",
  ): Promise<string> {
    const { addresses, monitors } = this.#servers;
    const nats = { servers: addresses, monitors, replicas: this.#servers.nodes.length };
    const cluster = await openCluster(nats, "test", new SystemClock(), () => undefined);
    try {
      const id = new SystemRandom().hex(8);
      const record = { id, name, sizeBytes, durability: "write", createdAtMs: Date.now(), reads } as const;
      const replicas = nodes.map((node) => ({ node, pool: "main" }));
      const placement: PlacementRecord = { volumeId: id, beginBytes: sizeBytes, replicas };
      await cluster.map.changePlacement(id, () => placement);
      await cluster.catalog.put({ ...record, state: "active" });
      return id;
    } finally {
      await cluster.close();
    }
  }

  /** What a process says of itself. */
  async readiness(health: number): Promise<{ readonly ready: boolean; readonly detail: unknown }> {
    const answer = await fetch(`http://127.0.0.1:${health}/readyz`);
    return (await answer.json()) as { readonly ready: boolean; readonly detail: unknown };
  }

  async close(): Promise<void> {
    await Promise.all(this.#processes.map(async (one) => one.kill()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** As a client does that waits for its disk: connects again until it is served. */
export async function attach(port: number, volume = "disk0"): Promise<NbdClient> {
  const endMs = performance.now() + 20_000;
  for (;;) {
    try {
      return await NbdClient.connect(`127.0.0.1:${port}`, volume);
    } catch (cause) {
      if (performance.now() > endMs) throw cause;
    }
    await sleep(50);
  }
}
