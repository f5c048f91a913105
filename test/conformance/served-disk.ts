// A real `varve up` for the conformance tests: own data directory, volumes on a unix socket and on TCP, and a way to run a
// real client against it. Every client's exit code and output count; a client that hangs is killed and reported.
// Callers: the test files beside it. The server is the product as a user starts it (bin/varve).

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../tools/free-port.ts";
import { nbdUri, VarveProcess } from "../tools/varve-process.ts";

const clientTimeoutMs = 120_000;

export interface ClientRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a client; its exit code is part of the answer. */
export async function client(program: string, ...args: readonly string[]): Promise<ClientRun> {
  return await new Promise((resolve) => {
    const options = { timeout: clientTimeoutMs, maxBuffer: 64 * 1024 * 1024, killSignal: "SIGKILL" as const };
    execFile(program, [...args], options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, stdout, stderr: error === null || code > 0 ? stderr : `${stderr}${error.message}` });
    });
  });
}

/** Runs a client that must succeed; returns what it printed. */
export async function succeed(program: string, ...args: readonly string[]): Promise<string> {
  const run = await client(program, ...args);
  if (run.code === 0) return run.stdout;
  throw new Error(`${program} ${args.join(" ")} exited with ${run.code}\n${run.stdout}\n${run.stderr}`);
}

export class ServedDisk {
  readonly dir: string;
  readonly server: VarveProcess;
  /** The first volume's URI on the unix socket, and on TCP. */
  readonly uri: string;
  readonly tcpUri: string;
  readonly address: string;
  readonly imagePath: string;

  private constructor(dir: string, server: VarveProcess, volume: string) {
    this.dir = dir;
    this.server = server;
    this.address = server.options.nbd[0] ?? "";
    this.uri = nbdUri(this.address, volume);
    this.tcpUri = nbdUri(server.options.nbd[1] ?? "", volume);
    this.imagePath = join(server.options.dataDir, "volumes", volume, "disk.raw");
  }

  /** `volumes` as `varve up --volume` takes them; the first is the one that `uri` names. */
  static async start(...volumes: readonly string[]): Promise<ServedDisk> {
    const dir = mkdtempSync(join(tmpdir(), "varve-conformance-"));
    const server = await VarveProcess.start({
      dataDir: join(dir, "data"),
      nbd: [`unix:${join(dir, "nbd.sock")}`, `127.0.0.1:${await freePort()}`],
      volumes,
    });
    return new ServedDisk(dir, server, (volumes[0] ?? "").split(":")[0] ?? "");
  }

  file(name: string): string {
    return join(this.dir, name);
  }

  uriOf(volume: string): string {
    return nbdUri(this.address, volume);
  }

  /** Stops the server if it still runs, and removes its data. A stop that is not clean throws. */
  async end(): Promise<void> {
    try {
      if (this.server.running) await this.server.stop();
    } finally {
      this.server.killNow();
      rmSync(this.dir, { recursive: true, force: true });
    }
  }
}
