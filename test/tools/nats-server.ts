// Starts, kills, stops, pauses and restarts real NATS servers on free ports of 127.0.0.1 or a lab's network, alone or as a cluster, each with a
// configuration file and file storage in a temporary directory. Callers: test/nats, benches. No server outlives the process
// that started it. A missing nats-server fails the test that needs it, with the way out (scripts/test-server-binary.ts).
import { type ChildProcess, spawn } from "node:child_process";
import { cp, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { serverBinary } from "../../scripts/test-server-binary.ts";
import { freePort } from "./free-port.ts";
import { type LabNetwork, type LabPlace, loopback } from "./lab-network.ts";

const outputBytesMax = 64 * 1024;
const startMs = 30_000;
const systemUser = { user: "system", password: "system-secret" };

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export interface NatsSettings {
  /** 1, or 3 for a cluster. */
  readonly servers?: number;
  /** As it stands in the file; the server's own default is two minutes. */
  readonly syncInterval?: string;
  readonly maxPayload?: string;
  /** Bytes that all streams of a server may take. */
  readonly maxFileStore?: string;
  /** Where stores live, for benches that want another file system. */
  readonly under?: string;
  /** Its own log says why it places, refuses, elects. */
  readonly debug?: boolean;
  /** Parts nats-1 to nats-3 of it; without it all are on 127.0.0.1. */
  readonly network?: LabNetwork;
}

export class NatsServers {
  readonly nodes: readonly NatsNode[];
  /** Between the servers; for NatsNode.configure. */
  readonly routes: readonly string[];
  readonly #directory: string;

  private constructor(nodes: readonly NatsNode[], routes: readonly string[], directory: string) {
    this.nodes = nodes;
    this.routes = routes;
    this.#directory = directory;
  }

  /** Resolves when all answer, and a cluster has a leader. */
  static async start(settings: NatsSettings = {}): Promise<NatsServers> {
    const binary = await serverBinary("nats-server");
    const directory = await mkdtemp(join(settings.under ?? tmpdir(), "varve-nats-"));
    const count = settings.servers ?? 1;
    const ports = await Promise.all(Array.from({ length: count * 3 }, freePort));
    const portOf = (index: number, kind: number): number => ports[index * 3 + kind] ?? 0;
    const at = (index: number): LabPlace => (settings.network ?? loopback).place(`nats-${index + 1}`);
    const routes = Array.from(
      { length: count },
      (_, index) => `nats://${at(index).host}:${portOf(index, 2)}`,
    );
    const nodes = Array.from({ length: count }, (_, index) => {
      const place = { client: portOf(index, 0), monitor: portOf(index, 1), cluster: portOf(index, 2) };
      const command = [...at(index).prefix, binary];
      return new NatsNode(command, at(index).host, join(directory, `n${index + 1}`), place);
    });
    const servers = new NatsServers(nodes, routes, directory);
    try {
      for (const node of nodes) await node.configure(settings, routes);
      await Promise.all(nodes.map((node) => node.start()));
    } catch (error) {
      await servers.stop();
      throw error;
    }
    return servers;
  }

  /** One of the servers. */
  node(index: number): NatsNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no server ${index}`);
    return node;
  }

  named(name: string): NatsNode {
    const node = this.nodes.find((candidate) => candidate.name === name);
    if (node === undefined) throw new Error(`no server ${name}`);
    return node;
  }

  /** Addresses for clients. */
  get addresses(): readonly string[] {
    return this.nodes.map((node) => node.address);
  }

  /** http://… of each. */
  get monitors(): readonly string[] {
    return this.nodes.map((node) => node.monitor);
  }

  get systemUser(): { readonly user: string; readonly password: string } {
    return systemUser;
  }

  /** Ends all and removes their data. */
  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.kill()));
    await rm(this.#directory, { recursive: true, force: true });
  }
}

interface Ports {
  readonly client: number;
  readonly monitor: number;
  readonly cluster: number;
}

export class NatsNode {
  /** n1 and so on; its folder is called so. */
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly monitor: string;
  readonly #command: readonly string[];
  readonly #host: string;
  readonly #directory: string;
  readonly #ports: Ports;
  #child: ChildProcess | null = null;
  #output = "";

  constructor(command: readonly string[], host: string, directory: string, ports: Ports) {
    this.name = basename(directory);
    this.port = ports.client;
    this.address = `${host}:${ports.client}`;
    this.monitor = `http://${host}:${ports.monitor}`;
    this.#command = command;
    this.#host = host;
    this.#directory = directory;
    this.#ports = ports;
  }

  /** Writes its file; takes effect at the next start. */
  async configure(settings: NatsSettings, routes: readonly string[]): Promise<void> {
    const { client, monitor, cluster } = this.#ports;
    const syncInterval = settings.syncInterval ?? "always";
    const lines = [
      `server_name: ${this.name}`,
      `listen: ${this.#host}:${client}`,
      `http: ${this.#host}:${monitor}`,
      `max_payload: ${settings.maxPayload ?? "1MB"}`,
      settings.debug === true ? "debug: true" : "",
      "jetstream {",
      `  store_dir: "${this.#directory}"`,
      syncInterval === "" ? "" : `  sync_interval: ${syncInterval}`,
      settings.maxFileStore === undefined ? "" : `  max_file_store: ${settings.maxFileStore}`,
      "}",
      `accounts { $SYS { users: [{ user: ${systemUser.user}, password: ${systemUser.password} }] } }`,
    ];
    if (routes.length > 1) {
      lines.push(`cluster { name: lab, listen: "${this.#host}:${cluster}", routes: [${routes.join(", ")}] }`);
    }
    await writeFile(this.#file, `${lines.filter((line) => line !== "").join("\n")}\n`);
  }

  /** Resolves when it answers as healthy: in a cluster that means its streams are current. */
  async start(): Promise<void> {
    const [program, ...args] = this.#command;
    const child = spawn(program ?? "", [...args, "-c", this.#file], { stdio: ["ignore", "ignore", "pipe"] });
    this.#child = child;
    alive.add(child);
    child.once("close", () => alive.delete(child));
    child.once("error", (cause) => this.#keep(`cannot spawn: ${cause.message}`));
    child.stderr.setEncoding("utf8");
    child.stderr.on("data", (text: string) => this.#keep(text));
    const endMs = performance.now() + startMs;
    while (performance.now() < endMs && isRunning(child)) {
      if (await this.#isHealthy()) return;
      await new Promise((resolve) => {
        setTimeout(resolve, 50);
      });
    }
    await this.kill();
    throw new Error(`nats-server ${this.name} does not become healthy\n${this.#output}`);
  }

  /** kill -9; resolves when it is gone. Its data stay. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || !isRunning(child)) return;
    const gone = new Promise((resolve) => {
      child.once("close", resolve);
    });
    child.kill("SIGKILL");
    await gone;
  }

  /** SIGTERM; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#child?.kill("SIGTERM");
    const child = this.#child;
    if (child !== null && isRunning(child)) await new Promise((resolve) => child.once("close", resolve));
    await this.kill();
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  /** Keeps its store as it is now; for tests of servers that lose what they acknowledged. */
  async copyStore(): Promise<void> {
    this.signal("SIGSTOP");
    await cp(this.#directory, `${this.#directory}.copy`, { recursive: true });
    this.signal("SIGCONT");
  }

  /** The store as it was copied. It does not run now. */
  async putBackStore(): Promise<void> {
    await rm(this.#directory, { recursive: true });
    await rename(`${this.#directory}.copy`, this.#directory);
  }

  /** SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** The end of its own log. */
  get output(): string {
    return this.#output;
  }

  /** What it thinks of the others: the group that places streams, as JSON, or why there is none. */
  async view(): Promise<string> {
    try {
      const answer = await fetch(`${this.monitor}/jsz`, { signal: AbortSignal.timeout(1000) });
      const { meta_cluster: group, ...rest } = (await answer.json()) as Record<string, unknown>;
      const { storage, reserved_storage: reserved, config } = rest;
      return JSON.stringify({ group, storage, reserved, config });
    } catch (cause) {
      return String(cause);
    }
  }

  get #file(): string {
    return `${this.#directory}.conf`;
  }

  async #isHealthy(): Promise<boolean> {
    const answer = await fetch(`${this.monitor}/healthz`, { signal: AbortSignal.timeout(1000) }).catch(
      () => null,
    );
    await answer?.arrayBuffer();
    return answer?.ok === true;
  }

  #keep(text: string): void {
    this.#output = (this.#output + text).slice(-outputBytesMax);
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}
