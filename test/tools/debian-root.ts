// A bare Debian 12 in a directory, for tests of what is installed: made by debootstrap once (kept in .cache/, git-ignored), unpacked
// anew for each. Commands run in it by chroot with a /proc of their own; they share the network with the test. Needs root.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { access, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { repositoryDir } from "./varve-process.ts";

const run = promisify(execFile);
const suite = "bookworm";
const outputBytesMax = 16 * 1024 * 1024;

export interface Ran {
  readonly code: number;
  readonly output: string;
}

export class DebianRoot {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async unpack(): Promise<DebianRoot> {
    const tarball = await baseTarball();
    const directory = await mkdtemp(join(tmpdir(), "varve-debian-"));
    await run("tar", ["-C", directory, "-xf", tarball]);
    // The archive has its root's mode too, which was a private temporary directory's.
    await run("chmod", ["755", directory]);
    return new DebianRoot(directory);
  }

  /** Of a path in it, the path outside. */
  path(inside: string): string {
    return join(this.directory, inside);
  }

  /** Runs to the end, stdout and stderr together. */
  async run(...command: readonly string[]): Promise<Ran> {
    const child = this.spawn(command);
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-outputBytesMax);
      });
    }
    const code = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (exitCode) => resolve(exitCode ?? 137));
    });
    return { code, output };
  }

  /** The process is the command itself, so signals reach it. `user`: who runs it, root if nobody is said. */
  spawn(command: readonly string[], user?: string): ChildProcess {
    const inside = ["-c", 'mount -t proc proc "$1/proc" && shift && exec chroot "$@"', "sh", this.directory];
    const who = user === undefined ? [] : [`--userspec=${user}:${user}`];
    return spawn("unshare", ["--mount", "--", "sh", ...inside, ...who, this.directory, ...command], {
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function baseTarball(): Promise<string> {
  const folder = join(repositoryDir, ".cache", "debian-root");
  const tarball = join(folder, `${suite}.tar`);
  const known = await access(tarball).then(
    () => true,
    () => false,
  );
  if (known) return tarball;
  await mkdir(folder, { recursive: true });
  const made = await mkdtemp(join(tmpdir(), "varve-debootstrap-"));
  try {
    await run("debootstrap", ["--variant=minbase", suite, made], { maxBuffer: outputBytesMax });
    await run("tar", ["-C", made, "-cf", `${tarball}.part`, "."]);
    await rename(`${tarball}.part`, tarball);
  } finally {
    await rm(made, { recursive: true, force: true });
  }
  return tarball;
}
