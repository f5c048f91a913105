// Starts, kills, restarts and stops real S3 servers on a free port of 127.0.0.1, with data in a temporary directory and one
// bucket made. Callers: test/s3, e2e tests and benches that need a bucket on S3. No server outlives the process that started
// it. The programs come from scripts/s3-server-binary.ts; a missing one fails the test that needs it.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { type BuiltServer, serverBinary } from "../../scripts/s3-server-binary.ts";

export type S3ServerName = BuiltServer;
/** The one that `npm test` uses. */
export const s3ServerDefault: S3ServerName = "versitygw";

const accessKeyId = "varve-test-key";
const secretAccessKey = "varve-test-secret";
const bucketName = "past";
const outputBytesMax = 64 * 1024;
const startMs = 60_000;

interface Program {
  readonly args: (dataDir: string, port: number) => readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly healthPath: string;
}

const programs: Readonly<Record<S3ServerName, Program>> = {
  versitygw: {
    args: (dataDir, port) => {
      const listen = ["--port", `127.0.0.1:${port}`, "--health", "/health", "--quiet"];
      return [...listen, "posix", dataDir];
    },
    env: { ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
    healthPath: "/health",
  },
  minio: {
    args: (dataDir, port) => ["server", "--quiet", "--address", `127.0.0.1:${port}`, dataDir],
    env: {
      MINIO_ROOT_USER: accessKeyId,
      MINIO_ROOT_PASSWORD: secretAccessKey,
      MINIO_BROWSER: "off",
      MINIO_UPDATE: "off",
    },
    healthPath: "/minio/health/ready",
  },
};

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export class S3Server {
  readonly name: S3ServerName;
  readonly endpoint: string;
  /** Credentials, as `openObjectStore` and `varve up` read them. */
  readonly env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  private readonly binary: string;
  private readonly port: number;
  private readonly directory: string;
  private child: ChildProcess | undefined;
  private output = "";

  private constructor(name: S3ServerName, binary: string, port: number, directory: string) {
    this.name = name;
    this.binary = binary;
    this.port = port;
    this.directory = directory;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  static async start(name: S3ServerName = s3ServerDefault): Promise<S3Server> {
    const binary = await serverBinary(name);
    const directory = await mkdtemp(join(tmpdir(), `varve-${name}-`));
    const server = new S3Server(name, binary, await freePort(), directory);
    await mkdir(server.dataDir);
    await server.run();
    await server.makeBucket();
    return server;
  }

  /** For `--bucket`; with a prefix of its own for each test. */
  url(prefix = "varve"): string {
    return `s3://${bucketName}/${prefix}?endpoint=${this.endpoint}`;
  }

  get pid(): number {
    return this.child?.pid ?? 0;
  }

  /** kill -9. Returns when it is gone. */
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
    this.child?.kill(signal);
  }

  private get dataDir(): string {
    return join(this.directory, "data");
  }

  private async run(): Promise<void> {
    const program = programs[this.name];
    const child = spawn(this.binary, program.args(this.dataDir, this.port), {
      cwd: this.directory,
      env: { ...process.env, ...program.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child = child;
    alive.add(child);
    child.once("close", () => alive.delete(child));
    child.once("error", (cause) => this.keep(`cannot spawn: ${cause.message}`));
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text: string) => this.keep(text));
    }
    await this.answers(child);
  }

  private async answers(child: ChildProcess): Promise<void> {
    const endMs = performance.now() + startMs;
    while (performance.now() < endMs && child.exitCode === null && child.signalCode === null) {
      const answer = await fetch(this.endpoint + programs[this.name].healthPath).catch(() => null);
      await answer?.arrayBuffer();
      if (answer?.ok === true) return;
      await new Promise((resolve) => {
        setTimeout(resolve, 50);
      });
    }
    child.kill("SIGKILL");
    throw new Error(`${this.name} does not answer on ${this.endpoint}\n${this.output}`);
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

  private async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => {
      child.once("close", resolve);
    });
    child.kill(signal);
    const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await gone;
    clearTimeout(late);
  }

  private keep(text: string): void {
    this.output = (this.output + text).slice(-outputBytesMax);
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => {
    probe.listen(0, "127.0.0.1", resolve);
  });
  const address = probe.address();
  await new Promise((resolve) => {
    probe.close(resolve);
  });
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
