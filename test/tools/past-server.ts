// A `varve up` with a bucket, its API and real NBD clients, for end-to-end tests of the past: test/e2e/history*.test.ts. One
// data directory that outlives the server, so that a test can kill it and go on.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ErrorBody } from "#shared/api/error-body.ts";
import type { ApiVolume } from "#shared/api/http-api.ts";
import type { ApiChanges, ApiHistory, ApiJob, ApiSnapshot, ApiStartedChange } from "#shared/api/past-api.ts";
import { freePort } from "./free-port.ts";
import { NbdClient } from "./nbd-client.ts";
import { SeededRandom } from "./seeded-random.ts";
import { run } from "./varve-command.ts";
import { type VarveOptions, VarveProcess } from "./varve-process.ts";

export interface Answer<T> {
  readonly status: number;
  readonly body: T;
}

export class PastServer {
  readonly directory: string;
  readonly nbd: string;
  readonly base: string;
  private readonly options: VarveOptions;
  private server: VarveProcess | null = null;

  private constructor(
    directory: string,
    http: string,
    volumes: readonly string[],
    more: Partial<VarveOptions>,
  ) {
    this.directory = directory;
    this.nbd = `unix:${join(directory, "nbd.sock")}`;
    this.base = `http://${http}`;
    this.options = { dataDir: join(directory, "data"), nbd: [this.nbd], http, volumes, ...more };
  }

  static async start(volumes: readonly string[], more: Partial<VarveOptions> = {}): Promise<PastServer> {
    const made = await PastServer.prepare(volumes, more);
    await made.up();
    return made;
  }

  /** Not up yet, so that its data directory can be made by a rescue. */
  static async prepare(volumes: readonly string[], more: Partial<VarveOptions> = {}): Promise<PastServer> {
    const directory = mkdtempSync(join(tmpdir(), "varve-past-"));
    return new PastServer(directory, `127.0.0.1:${await freePort()}`, volumes, more);
  }

  async up(more: Partial<VarveOptions> = {}): Promise<VarveProcess> {
    this.server = await VarveProcess.start({ ...this.options, ...more });
    return this.server;
  }

  async stop(): Promise<void> {
    await this.server?.stop();
    this.server = null;
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.server?.killNow();
    await this.server?.exited;
    this.server = null;
  }

  async end(): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** The running server. */
  get process(): VarveProcess {
    if (this.server === null) throw new Error("the server is down");
    return this.server;
  }

  get api(): string[] {
    return ["--api", this.base];
  }

  get dataDir(): string {
    return this.options.dataDir;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** For qemu and libnbd. */
  uri(exportName: string): string {
    return `nbd+unix:///${exportName}?socket=${this.path("nbd.sock")}`;
  }

  async connect(exportName: string, contexts: readonly string[] = []): Promise<NbdClient> {
    return await NbdClient.connect(this.nbd, exportName, { contexts });
  }

  async write(exportName: string, offset: number, data: Uint8Array): Promise<void> {
    const client = await this.connect(exportName);
    await client.write(offset, data);
    await client.disconnect();
  }

  async read(exportName: string, offset: number, length: number): Promise<Buffer> {
    const client = await this.connect(exportName);
    try {
      return await client.read(offset, length);
    } finally {
      await client.disconnect();
    }
  }

  /** The whole export, by nbdcopy. */
  async copy(exportName: string): Promise<Buffer> {
    const file = this.path("copy.raw");
    await succeed("nbdcopy", this.uri(exportName), file);
    return readFileSync(file);
  }

  /** A file with these bytes. */
  file(name: string, bytes: Uint8Array): string {
    writeFileSync(this.path(name), bytes);
    return this.path(name);
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
    const response = await fetch(`${this.base}/v1${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    return { status: response.status, body: (text === "" ? undefined : JSON.parse(text)) as T };
  }

  async ok<T>(method: string, path: string, body?: unknown): Promise<T> {
    const { status, body: answer } = await this.call<T>(method, path, body);
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
    return answer;
  }

  async refused(method: string, path: string, body?: unknown): Promise<ErrorBody> {
    const { status, body: answer } = await this.call<ErrorBody>(method, path, body);
    if (status < 300) throw new Error(`${method} ${path} was not refused: ${status}`);
    return answer;
  }

  async volume(name: string): Promise<ApiVolume> {
    return await this.ok("GET", `/volumes/${name}`);
  }

  async snapshot(volume: string, name: string): Promise<ApiSnapshot> {
    return await this.ok("POST", `/volumes/${volume}/snapshots`, { name });
  }

  async history(volume: string): Promise<ApiHistory> {
    return await this.ok("GET", `/volumes/${volume}/history`);
  }

  async changes(volume: string, from: string, to: string): Promise<ApiChanges> {
    return await this.ok("GET", `/volumes/${volume}/changes?from=${from}&to=${to}`);
  }

  async clone(parent: string, point: string, name: string, more: object = {}): Promise<ApiStartedChange> {
    return await this.ok("POST", `/volumes/${parent}/clones`, { name, point, ...more });
  }

  async rollback(volume: string, point: string, force = false): Promise<ApiStartedChange> {
    return await this.ok("POST", `/volumes/${volume}/rollback`, { point, force });
  }

  /** Resolves with the ended job; rejects where it failed or runs longer. */
  async ended(job: ApiJob, withinMs = 30_000): Promise<ApiJob> {
    const look = async (): Promise<ApiJob | null> => {
      const now = await this.ok<ApiJob>("GET", `/jobs/${job.id}`);
      if (now.state === "failed") throw new Error(`job ${now.kind} failed: ${now.note}`);
      return now.state === "running" ? null : now;
    };
    return await this.until(`job ${job.kind} ended`, look, withinMs);
  }

  async until<T>(what: string, look: () => Promise<T | null>, withinMs = 30_000): Promise<T> {
    const deadlineMs = performance.now() + withinMs;
    for (;;) {
      const found = await look();
      if (found !== null) return found;
      if (performance.now() > deadlineMs) throw new Error(`not within ${withinMs / 1000} s: ${what}`);
      await new Promise((resolve) => {
        setTimeout(resolve, 100);
      });
    }
  }
}

/** Runs a program; throws with its own words where it fails. */
export async function succeed(program: string, ...args: readonly string[]): Promise<string> {
  const result = await run(program, args);
  if (result.code !== 0)
    throw new Error(`${program} ${args.join(" ")}: exit ${result.code}\n${result.stderr}`);
  return result.stdout;
}

/** Bytes that no compression makes small, the same for the same seed. */
export function bytesOf(seed: number, length: number): Buffer {
  const random = new SeededRandom(seed);
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let at = 0; at < words.length; at += 1) words[at] = random.uint32();
  return Buffer.from(words.buffer, 0, length);
}
