// Varve and the C servers it is compared with, each over a unix socket under the export name `disk0` or the volume's name.
// Callers: paired-runs.ts and the special rows. The peers serve one raw file in turn; Varve serves its own data directory.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NbdClient } from "../tools/nbd-client.ts";
import { nbdUri } from "../tools/varve-process.ts";

export type PeerName = "nbdkit" | "nbdkit-fua" | "qemu-nbd" | "nbd-server";

export const peerTitles: Readonly<Record<PeerName, string>> = {
  nbdkit: "nbdkit file",
  "nbdkit-fua": "nbdkit file, fua filter, fuamode=force",
  "qemu-nbd": "qemu-nbd cache=writethrough",
  "nbd-server": "nbd-server sync=true",
};

/** What fio is pointed at. */
export interface Target {
  readonly uri: string;
  readonly pid: number;
}

const exportName = "disk0";
const startTimeoutMs = 10_000;

export class PeerServer implements Target {
  readonly uri: string;
  readonly pid: number;
  private readonly child: ChildProcess | undefined;

  private constructor(uri: string, pid: number, child: ChildProcess | undefined) {
    this.uri = uri;
    this.pid = pid;
    this.child = child;
    process.on("exit", () => this.kill());
  }

  static async start(name: PeerName, dir: string, file: string): Promise<PeerServer> {
    const socket = join(dir, `${name}.sock`);
    const address = `unix:${socket}`;
    const uri = nbdUri(address, exportName);
    if (name === "nbd-server") return await startNbdServer(dir, file, socket, uri);
    const [program, ...args] = commandOf(name, socket, file);
    const child = spawn(program as string, args, { stdio: ["ignore", "ignore", "inherit"] });
    child.unref(); // it ends with this process, which need not wait for it
    const server = new PeerServer(uri, child.pid ?? 0, child);
    await waitUntilServed(address, name);
    return server;
  }

  static adopt(uri: string, pid: number): PeerServer {
    return new PeerServer(uri, pid, undefined);
  }

  kill(): void {
    if (this.child) this.child.kill("SIGTERM");
    else if (existsSync(`/proc/${this.pid}`)) process.kill(this.pid, "SIGTERM");
  }
}

function commandOf(name: PeerName, socket: string, file: string): string[] {
  const nbdkit = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "-e", exportName];
  if (name === "nbdkit") return [...nbdkit, "file", file];
  if (name === "nbdkit-fua") return [...nbdkit, "--filter=fua", "file", file, "fuamode=force"];
  const qemu = [
    "--format=raw",
    `--export-name=${exportName}`,
    `--socket=${socket}`,
    "--shared=16",
    "--persistent",
  ];
  return ["qemu-nbd", ...qemu, "--cache=writethrough", "--aio=threads", file];
}

/** nbd-server goes to the background by itself (its foreground mode ends after one client) and leaves a pid file. */
async function startNbdServer(dir: string, file: string, socket: string, uri: string): Promise<PeerServer> {
  const config = join(dir, "nbd-server.conf");
  const pidFile = join(dir, "nbd-server.pid");
  writeFileSync(
    config,
    `[generic]\nunixsock = ${socket}\nallowlist = true\n[${exportName}]\nexportname = ${file}\nsync = true\n`,
  );
  execFileSync("nbd-server", ["-p", pidFile, "-C", config], { stdio: "ignore" });
  await waitUntilServed(`unix:${socket}`, "nbd-server");
  return PeerServer.adopt(uri, Number(readFileSync(pidFile, "utf8")));
}

async function waitUntilServed(address: string, name: string): Promise<void> {
  const deadlineMs = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      const client = await NbdClient.connect(address, exportName, { replies: "simple" });
      client.destroy();
      return;
    } catch (cause) {
      if (performance.now() > deadlineMs) throw new Error(`${name} does not serve ${address}`, { cause });
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

export function versionsOfTools(): Record<string, string> {
  const firstLine = (program: string, ...args: string[]): string =>
    execFileSync(program, args, { encoding: "utf8" }).split("\n")[0] ?? "";
  const number = (text: string): string => /\d+\.\d+(\.\d+)?/.exec(text)?.[0] ?? text;
  return {
    nbdkit: number(firstLine("nbdkit", "--version")),
    "qemu-nbd": number(firstLine("qemu-nbd", "--version")),
    "nbd-server": number(firstLine("nbd-server", "--version")),
    fio: number(firstLine("fio", "--version")),
    node: process.versions.node,
  };
}
