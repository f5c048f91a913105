// Starts, watches, stops and kills one real `varve up` process for tests, bench, soak and crash rounds.
// Callers: everything under test/ that needs the product as a user runs it (bin/varve, own process, own data dir).
// Next on data's way: the NBD client of the test (nbd-client.ts, fio, qemu) talks to the address that was asked for.
// No server outlives the process that started it: an exit hook kills what is left.

import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const repositoryDir = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const launcherPath = join(repositoryDir, "bin", "varve");
const readyLine = "varve is ready";
const outputBytesMax = 256 * 1024;
export const clockTicksPerSecond = 100; // USER_HZ is 100 on every Linux that Node runs on

export interface VarveOptions {
  readonly dataDir: string;
  /** `NAME:SIZE[,durability=flush]`, as on the command line. */
  readonly volumes?: readonly string[];
  /** `unix:PATH` or `HOST:PORT`; several are allowed. */
  readonly nbd: readonly string[];
  readonly http?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly readyTimeoutMs?: number;
}

export interface ProcessUsage {
  readonly rssBytes: number;
  readonly rssPeakBytes: number;
  readonly cpuMs: number;
  readonly fds: number;
  readonly threads: number;
}

export interface ProcessExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class VarveProcessError extends Error {
  readonly _tag = "VarveProcessError";
  readonly output: string;
  readonly exit: ProcessExit | undefined;
  constructor(what: string, output: string, exit?: ProcessExit) {
    const ended = exit ? ` (exit code ${exit.code}, signal ${exit.signal})` : "";
    super(`${what}${ended}\n--- output of varve ---\n${output}`);
    this.output = output;
    this.exit = exit;
  }
}

const alive = new Set<VarveProcess>();
process.on("exit", () => {
  for (const server of alive) server.killNow();
});

export class VarveProcess {
  readonly options: VarveOptions;
  /** Settles when the process that was spawned has gone and its output is complete. */
  readonly exited: Promise<ProcessExit>;
  readyAfterMs = 0;
  private readonly child: ChildProcess;
  private kept = "";
  private ended: ProcessExit | undefined;

  private constructor(options: VarveOptions) {
    this.options = options;
    this.child = spawn(launcherPath, ["up", ...argumentsOf(options)], {
      cwd: repositoryDir,
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding("utf8");
      stream?.on("data", (text: string) => this.keep(text));
    }
    alive.add(this);
    this.exited = new Promise((resolve) => {
      const end = (exit: ProcessExit): void => {
        this.ended = exit;
        alive.delete(this);
        resolve(exit);
      };
      this.child.once("close", (code, signal) => end({ code, signal }));
      this.child.once("error", (cause) => {
        this.keep(`\ncannot spawn: ${cause.message}\n`);
        if (this.child.pid === undefined) end({ code: null, signal: null });
      });
    });
  }

  /** Spawns without waiting, for tests that kill a server while it starts. */
  static launch(options: VarveOptions): VarveProcess {
    return new VarveProcess(options);
  }

  /** Resolves when the server printed its ready line; rejects with its output when it ends or takes too long. */
  static async start(options: VarveOptions): Promise<VarveProcess> {
    const startedAtMs = performance.now();
    const server = new VarveProcess(options);
    try {
      await server.waitForLine(readyLine, options.readyTimeoutMs ?? 30_000);
    } catch (cause) {
      server.killNow();
      await server.exited;
      throw cause;
    }
    server.readyAfterMs = performance.now() - startedAtMs;
    return server;
  }

  /** The launcher becomes the server by exec, so the spawned pid is the process that serves. */
  get pid(): number {
    return this.child.pid ?? 0;
  }

  get running(): boolean {
    return this.ended === undefined;
  }

  /** The last 256 KiB of stdout and stderr, in the order they arrived. */
  output(): string {
    return this.kept;
  }

  /** SIGTERM; the promise is exit code 0 after the drain, so anything else is an error. */
  async stop(timeoutMs = 60_000): Promise<void> {
    if (this.ended === undefined) process.kill(this.pid, "SIGTERM");
    const exit = await withTimeout(this.exited, timeoutMs);
    if (exit === undefined) {
      this.killNow();
      await this.exited;
      throw new VarveProcessError(`varve did not stop within ${timeoutMs} ms after SIGTERM`, this.kept);
    }
    if (exit.code !== 0)
      throw new VarveProcessError("varve did not exit with 0 after SIGTERM", this.kept, exit);
  }

  /** kill -9 of the process that serves. Returns when it is gone, so its sockets and locks are free. */
  async kill9(): Promise<void> {
    this.killNow();
    await this.exited;
  }

  /** Starts the same command line again; call after stop() or kill9(). */
  async restart(changes: Partial<VarveOptions> = {}): Promise<VarveProcess> {
    if (this.running) throw new VarveProcessError("restart() before stop() or kill9()", this.kept);
    return await VarveProcess.start({ ...this.options, ...changes });
  }

  usage(): ProcessUsage {
    return usageOf(this.pid);
  }

  /** `nbd://` or `nbd+unix://` URI of an export on the nth address. */
  uri(volume: string, address = 0): string {
    return nbdUri(this.options.nbd[address] ?? "", volume);
  }

  killNow(): void {
    const spawnedPid = this.child.pid;
    if (spawnedPid === undefined || this.ended !== undefined) return;
    try {
      process.kill(spawnedPid, "SIGKILL");
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ESRCH") throw cause;
    }
  }

  /** Waits for a text on stdout or stderr; the two come by ways of their own. */
  async says(text: string, timeoutMs = 10_000): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (!this.kept.includes(text)) {
      if (performance.now() > endMs) {
        throw new VarveProcessError(`varve did not say "${text}" within ${timeoutMs} ms`, this.kept);
      }
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
    }
  }

  private keep(text: string): void {
    this.kept = (this.kept + text).slice(-outputBytesMax);
  }

  private async waitForLine(line: string, timeoutMs: number): Promise<void> {
    let check = (): void => {};
    const seen = new Promise<"seen">((resolve) => {
      check = () => {
        if (this.kept.split("\n").includes(line)) resolve("seen");
      };
    });
    this.child.stdout?.on("data", check);
    const outcome = await withTimeout(Promise.race([seen, this.exited]), timeoutMs);
    this.child.stdout?.off("data", check);
    if (outcome === "seen") return;
    if (outcome === undefined) {
      throw new VarveProcessError(`varve did not say "${line}" within ${timeoutMs} ms`, this.kept);
    }
    throw new VarveProcessError("varve ended before it was ready", this.kept, outcome);
  }
}

export function argumentsOf(options: VarveOptions): string[] {
  const args = ["--data", options.dataDir];
  for (const address of options.nbd) args.push("--nbd", address);
  args.push("--http", options.http ?? "off");
  for (const volume of options.volumes ?? []) args.push("--volume", volume);
  return [...args, ...(options.args ?? [])];
}

export function nbdUri(address: string, volume: string): string {
  if (address.startsWith("unix:")) return `nbd+unix:///${volume}?socket=${address.slice("unix:".length)}`;
  return `nbd://${address}/${volume}`;
}

/** What /proc says about a process: also used for the peers in the bench. */
export function usageOf(pid: number): ProcessUsage {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const statusKiB = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0);
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The command name may hold spaces and brackets, so count fields from behind its last bracket.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  return {
    rssBytes: statusKiB("VmRSS") * 1024,
    rssPeakBytes: statusKiB("VmHWM") * 1024,
    cpuMs: (ticks * 1000) / clockTicksPerSecond,
    fds: readdirSync(`/proc/${pid}/fd`).length,
    threads: Number(/^Threads:\s+(\d+)/m.exec(status)?.[1] ?? 0),
  };
}

/** Time of all processors that a virtual machine's host gave to others while there was work for them here ("steal"), since the start. */
export function withheldMs(): number {
  const [, ...ticks] = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]?.split(/ +/) ?? [];
  return (Number(ticks[7]) * 1000) / clockTicksPerSecond;
}

async function withTimeout<T>(promise: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, undefined);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
