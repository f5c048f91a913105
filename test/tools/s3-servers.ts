// Starts, kills, restarts and stops real S3 servers on a free port of 127.0.0.1 or a lab's network, with data in a temporary directory and one
// bucket made. Callers: test/s3, e2e tests and benches that need a bucket on S3. No server outlives the process that started
// it. How each kind runs is s3-server-programs.ts; a missing program fails the test that needs it, with the way out.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { freePorts } from "./free-port.ts";
import { type LabPlace, loopback } from "./lab-network.ts";
import { type S3ServerName, type ServerContext, serverPrograms } from "./s3-server-programs.ts";

export type { S3ServerName } from "./s3-server-programs.ts";
/** The one that `npm test` uses: the one of docker-compose.yml. */
export const s3ServerDefault: S3ServerName = "seaweedfs";
/** For benches and long runs: it starts at once and needs little beside what is measured. */
export const s3ServerLight: S3ServerName = "versitygw";

const accessKeyId = "varve-test-key";
const secretAccessKey = "varve-test-secret";
const bucketName = "past";
const outputBytesMax = 64 * 1024;
const startMs = 60_000;
const innerPortsMax = 9;

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export class S3Server {
  readonly name: S3ServerName;
  readonly version: string;
  readonly endpoint: string;
  /** Credentials, as `openObjectStore` and `varve up` read them. */
  readonly env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  private readonly binary: string;
  private readonly port: number;
  private readonly innerPorts: readonly number[];
  private readonly directory: string;
  private children: ChildProcess[] = [];
  private output = "";

  private readonly place: LabPlace;

  private constructor(
    name: S3ServerName,
    place: LabPlace,
    binary: string,
    ports: readonly number[],
    directory: string,
  ) {
    this.name = name;
    this.version = serverPrograms[name].version;
    this.binary = binary;
    const [port = 0, ...innerPorts] = ports;
    this.port = port;
    this.innerPorts = innerPorts;
    this.directory = directory;
    this.place = place;
    this.endpoint = `http://${place.host}:${port}`;
  }

  /** `place`: of a lab's network; only VersityGW and SeaweedFS can be anywhere but on 127.0.0.1. */
  static async start(
    name: S3ServerName = s3ServerDefault,
    place: LabPlace = loopback.place("bucket"),
  ): Promise<S3Server> {
    const binary = await serverPrograms[name].binary();
    const directory = await mkdtemp(join(tmpdir(), `varve-${name}-`));
    const server = new S3Server(name, place, binary, await freePorts(innerPortsMax + 1), directory);
    try {
      await mkdir(join(directory, "data"));
      await serverPrograms[name].prepare?.(server.context());
      await server.run();
      await server.makeBucket();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  /** For `--bucket`; with a prefix of its own for each test. */
  url(prefix = "varve"): string {
    return `s3://${bucketName}/${prefix}?endpoint=${this.endpoint}`;
  }

  /** Of the process that listens. */
  get pid(): number {
    return this.children.at(-1)?.pid ?? 0;
  }

  /** kill -9 of all its processes. Returns when they are gone. */
  async kill(): Promise<void> {
    await this.end("SIGKILL");
  }

  /** The same port and data again, after kill(). Resolves when it answers. */
  async restart(): Promise<void> {
    await this.end("SIGKILL");
    await this.run();
  }

  /** Ends the server and removes its data. */
  async stop(): Promise<void> {
    await this.end("SIGTERM");
    await rm(this.directory, { recursive: true, force: true });
  }

  /** For tests that stop a server in its tracks: SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    for (const child of this.children) child.kill(signal);
  }

  private async run(): Promise<void> {
    await serverPrograms[this.name].run(this.context());
    const endMs = performance.now() + startMs;
    while (performance.now() < endMs && this.children.every(isRunning)) {
      const answer = await fetch(this.endpoint + serverPrograms[this.name].healthPath).catch(() => null);
      await answer?.arrayBuffer();
      if (answer?.ok === true) return;
      await new Promise((resolve) => {
        setTimeout(resolve, 50);
      });
    }
    await this.end("SIGKILL");
    throw new Error(`${this.name} does not answer on ${this.endpoint}\n${this.output}`);
  }

  private context(): ServerContext {
    return {
      binary: this.binary,
      directory: this.directory,
      host: this.place.host,
      port: this.port,
      innerPorts: this.innerPorts,
      accessKeyId,
      secretAccessKey,
      spawn: (command, args, env = {}) => this.spawn(command, args, env),
    };
  }

  private spawn(command: string, args: readonly string[], env: Readonly<Record<string, string>>): void {
    const [program = "", ...all] = [...this.place.prefix, command, ...args];
    const child = spawn(program, all, {
      cwd: this.directory,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.children.push(child);
    alive.add(child);
    child.once("close", () => alive.delete(child));
    child.once("error", (cause) => this.keep(`cannot spawn: ${cause.message}`));
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text: string) => this.keep(text));
    }
  }

  private async makeBucket(): Promise<void> {
    const client = new S3Client({
      endpoint: this.endpoint,
      region: "us-east-1",
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    });
    await client.send(new CreateBucketCommand({ Bucket: bucketName }));
    client.destroy();
  }

  /** The last that was started ends first. */
  private async end(signal: NodeJS.Signals): Promise<void> {
    for (const child of this.children.toReversed().filter(isRunning)) {
      const gone = new Promise((resolve) => {
        child.once("close", resolve);
      });
      child.kill("SIGCONT");
      child.kill(signal);
      const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await gone;
      clearTimeout(late);
    }
    this.children = [];
  }

  private keep(text: string): void {
    this.output = (this.output + text).slice(-outputBytesMax);
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}
