// One volume of a real `varve up` for the VM and boot tests, and what these tests ask of its image file once the
// server has stopped: the guest's promises (`sum …` lines of guest/files.py) against the file system in the image.
// Callers: kernel-client, server-restart and boot tests. The guest's side is under test/vm/guest.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePort } from "../tools/free-port.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";

const exec = promisify(execFile);

/** The scripts that run in the guest; the whole folder is given to it as /share. */
export const guestDir = join(repositoryDir, "test", "vm", "guest");
export const guestScript = (name: string): string => join(guestDir, name);

export class ServedVolume {
  readonly dir: string;
  readonly name: string;
  readonly port: number;
  server: VarveProcess;

  private constructor(dir: string, name: string, port: number, server: VarveProcess) {
    this.dir = dir;
    this.name = name;
    this.port = port;
    this.server = server;
  }

  /** `volume` as on the command line, `disk0:512M`. Listens on a TCP port of 127.0.0.1 and on a unix socket. */
  static async start(volume: string): Promise<ServedVolume> {
    const dir = await mkdtemp(join(tmpdir(), "varve-vm-"));
    const port = await freePort();
    const nbd = [`127.0.0.1:${port}`, `unix:${join(dir, "nbd.sock")}`];
    const server = await VarveProcess.start({ dataDir: join(dir, "data"), volumes: [volume], nbd });
    return new ServedVolume(dir, volume.split(":")[0] as string, port, server);
  }

  get imagePath(): string {
    return join(this.dir, "data", "volumes", this.name, "disk.raw");
  }

  get tcpUri(): string {
    return this.server.uri(this.name, 0);
  }

  get unixUri(): string {
    return this.server.uri(this.name, 1);
  }

  /** kill -9, a pause in which clients find nobody, and the same command line again. */
  async killAndRestart(pauseMs: number): Promise<void> {
    await this.server.kill9();
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    this.server = await this.server.restart();
  }

  /** Bytes that the image really takes on the host. */
  async allocatedBytes(): Promise<number> {
    return (await stat(this.imagePath)).blocks * 512;
  }

  async remove(): Promise<void> {
    if (this.server.running) await this.server.kill9();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** What the guest printed as `sum SHA256 NAME BYTES`: files that it had synced. */
export function promisedSums(lines: readonly string[]): Map<string, string> {
  const sums = new Map<string, string>();
  for (const line of lines) {
    const found = /^sum ([0-9a-f]{64}) (\S+) \d+$/.exec(line);
    if (found) sums.set(found[2] as string, found[1] as string);
  }
  return sums;
}

/** `fact NAME VALUE` lines of the guest. */
export function fact(lines: readonly string[], name: string): string | undefined {
  const prefix = `fact ${name} `;
  return lines.find((line) => line.startsWith(prefix))?.slice(prefix.length);
}

/** Checks an ext4 image file with e2fsck; rejects with its output when anything is wrong. */
export async function checkExt4(imagePath: string): Promise<void> {
  await exec("/sbin/e2fsck", ["-fn", imagePath]);
}

/** SHA-256 of every file in a folder of an ext4 image, read by debugfs without mounting it. */
export async function sumsInExt4(imagePath: string, folder: string): Promise<Map<string, string>> {
  const out = await mkdtemp(join(tmpdir(), "varve-rdump-"));
  try {
    await exec("/sbin/debugfs", ["-R", `rdump ${folder} ${out}`, imagePath]);
    const { stdout } = await exec("find", [out, "-type", "f"], { maxBuffer: 16 * 1024 * 1024 });
    const sums = new Map<string, string>();
    for (const path of stdout.split("\n").filter((line) => line !== "")) {
      const sum = createHash("sha256")
        .update(await readFile(path))
        .digest("hex");
      sums.set(path.slice(path.lastIndexOf("/") + 1), sum);
    }
    return sums;
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}
