// Runs a script in the throw-away machine of test/tools/vm-client and follows what it prints: a real Linux
// kernel as NBD client (test/vm/kernel-client.test.ts), or the machine that Varve itself runs in
// (test/vm/power-cut.ts). Builds the machine's root disk on first use: about 20 s plus 115 MB of Debian packages.
import { type ChildProcess, spawn } from "node:child_process";
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { repositoryDir } from "./varve-process.ts";

const vmClientPath = join(repositoryDir, "test", "tools", "vm-client", "vm-client");
const linesMax = 20_000;

/** Where vm-client keeps kernel, initrd and root disk; the same rule as in the script. */
export const vmCacheDir =
  process.env["VM_CLIENT_CACHE"] ??
  join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vm-client");

export interface VmOptions {
  /** Script that runs as root in the guest. */
  readonly script: string;
  /** Folder that is copied to /share in the guest. */
  readonly share?: string;
  readonly env?: Readonly<Record<string, string | number>>;
  /** Attached by qemu's own NBD client as $BLOCKDEV. */
  readonly nbdBlockdev?: string;
  /** Ports of the host's 127.0.0.1 that lead to ports of the guest. */
  readonly forward?: readonly { readonly host: number; readonly guest: number }[];
  readonly cpus?: number;
  readonly memoryMiB?: number;
  readonly timeoutSeconds?: number;
  /** File for the kernel's messages. */
  readonly console?: string;
  readonly qemuArgs?: readonly string[];
}

/** The machine ended, or was silent for too long, before it said what the test waited for. */
export class VmError extends Error {
  readonly _tag = "VmError";
  readonly output: string;
  constructor(what: string, output: string) {
    super(`${what}\n--- last output of the machine ---\n${output}`);
    this.output = output;
  }
}

const alive = new Set<Vm>();
process.on("exit", () => {
  for (const vm of alive) vm.killNow();
});

/** One run of the machine. Its exit status is the script's; 124 time-out, 125 panic, 130 cut by `cutPower`. */
export class Vm {
  readonly lines: string[] = [];
  readonly exited: Promise<number>;
  #child: ChildProcess;
  #code: number | undefined;
  #watchers = new Set<() => void>();

  private constructor(options: VmOptions) {
    this.#child = spawn(vmClientPath, ["run", ...argumentsOf(options)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    alive.add(this);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (!stream) continue;
      createInterface({ input: stream }).on("line", (line) => this.#keep(line.replace(/\r$/, "")));
    }
    this.exited = new Promise((resolve) => {
      const end = (code: number): void => {
        this.#code = code;
        alive.delete(this);
        for (const watcher of this.#watchers) watcher();
        resolve(code);
      };
      this.#child.once("close", (code) => end(code ?? 130));
      this.#child.once("error", (cause) => {
        this.#keep(`cannot run vm-client: ${cause.message}`);
        if (this.#child.pid === undefined) end(127);
      });
    });
  }

  /** Boots the machine; returns before the script has started. */
  static async start(options: VmOptions): Promise<Vm> {
    await buildVmClient();
    return new Vm(options);
  }

  /** Boots, waits for the script's end, and rejects unless it was 0. */
  static async run(options: VmOptions): Promise<string[]> {
    const vm = await Vm.start(options);
    await vm.succeeded();
    return vm.lines;
  }

  get running(): boolean {
    return this.#code === undefined;
  }

  get output(): string {
    return this.lines.slice(-80).join("\n");
  }

  /** The first line that matches, past or future. Rejects when the machine ends without one. */
  async waitForLine(pattern: RegExp, timeoutMs: number): Promise<string> {
    let next = 0;
    let timer: NodeJS.Timeout | undefined;
    let watcher = (): void => {};
    try {
      return await new Promise<string>((resolve, reject) => {
        watcher = () => {
          for (; next < this.lines.length; next++) {
            const line = this.lines[next] as string;
            if (pattern.test(line)) return resolve(line);
          }
          if (this.#code !== undefined) {
            reject(new VmError(`the machine ended (${this.#code}) before ${pattern}`, this.output));
          }
        };
        timer = setTimeout(() => {
          reject(new VmError(`no line ${pattern} within ${timeoutMs} ms`, this.output));
        }, timeoutMs);
        this.#watchers.add(watcher);
        watcher();
      });
    } finally {
      clearTimeout(timer);
      this.#watchers.delete(watcher);
    }
  }

  async succeeded(): Promise<void> {
    const code = await this.exited;
    if (code !== 0) throw new VmError(`the guest's script ended with ${code}`, this.output);
  }

  /** kill -9 of qemu, now: nothing of the guest gets a chance to tidy up. Returns when it is gone. */
  async cutPower(): Promise<void> {
    this.killNow();
    await this.exited;
  }

  killNow(): void {
    if (this.#code === undefined) this.#child.kill("SIGTERM"); // vm-client answers with kill -9 of qemu
  }

  #keep(line: string): void {
    if (this.lines.length < linesMax) this.lines.push(line);
    for (const watcher of this.#watchers) watcher();
  }
}

/** Builds kernel, initrd and root disk unless they are there. Needs root and apt. */
export async function buildVmClient(): Promise<void> {
  const child = spawn(vmClientPath, ["ensure"], { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log = (log + text).slice(-8192);
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve(status ?? 1));
  });
  if (code !== 0) throw new VmError(`vm-client ensure ended with ${code}`, log);
}

function argumentsOf(options: VmOptions): string[] {
  const args = ["--script", options.script, "--timeout", String(options.timeoutSeconds ?? 300)];
  if (options.share !== undefined) args.push("--share", options.share);
  for (const [name, value] of Object.entries(options.env ?? {})) args.push("--env", `${name}=${value}`);
  if (options.nbdBlockdev !== undefined) args.push("--nbd-blockdev", options.nbdBlockdev);
  for (const { host, guest } of options.forward ?? []) args.push("--forward", `${host}:${guest}`);
  args.push("--cpus", String(options.cpus ?? 2), "--mem", String(options.memoryMiB ?? 768));
  if (options.console !== undefined) args.push("--console", options.console);
  return [...args, "--", ...(options.qemuArgs ?? [])];
}
