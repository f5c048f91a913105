// Runs fio as a child and reads its JSON report. Callers: bench, crash rounds, soak.
// fio 3.33's nbd engine may spin for ever when its server dies, so every run has a time limit and can be killed.

import { type ChildProcess, spawn } from "node:child_process";
import { tmpdir } from "node:os";

export interface FioSide {
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly operations: number;
}

export interface FioJob {
  readonly name: string;
  readonly read: FioSide;
  readonly write: FioSide;
}

export class FioError extends Error {
  readonly _tag = "FioError";
}

interface RawSide {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly clat_ns?: { readonly percentile?: Readonly<Record<string, number>> };
}

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export class FioRun {
  /** Exit code, or null when it was killed. */
  readonly exited: Promise<number | null>;
  private readonly child: ChildProcess;
  private readonly args: readonly string[];
  private stdout = "";
  private stderr = "";

  constructor(args: readonly string[], timeoutMs: number) {
    this.args = args;
    this.child = spawn("fio", ["--output-format=json", "--thread", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: tmpdir(),
    });
    alive.add(this.child);
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.stderr = (this.stderr + text).slice(-16_384);
    });
    const timer = setTimeout(() => this.kill(), timeoutMs);
    this.exited = new Promise((resolve, reject) => {
      this.child.once("error", (cause) => reject(new FioError(`cannot run fio: ${cause.message}`)));
      this.child.once("close", (code) => {
        clearTimeout(timer);
        alive.delete(this.child);
        resolve(code);
      });
    });
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  output(): string {
    return `fio ${this.args.join(" ")}\n${this.stderr}\n${this.stdout.slice(0, 2000)}`;
  }

  /** Its jobs' figures; an error when fio failed or found wrong data. */
  async jobs(): Promise<FioJob[]> {
    const code = await this.exited;
    if (code !== 0) throw new FioError(`fio ended with ${code ?? "a kill"}: ${this.output()}`);
    // Engines print lines of their own before the report.
    const report = JSON.parse(this.stdout.slice(this.stdout.indexOf("{\n"))) as {
      jobs: { jobname: string; error: number; read: RawSide; write: RawSide }[];
    };
    return report.jobs.map((job) => {
      if (job.error !== 0)
        throw new FioError(`fio job ${job.jobname} has error ${job.error}: ${this.output()}`);
      return { name: job.jobname, read: side(job.read), write: side(job.write) };
    });
  }
}

export async function runFio(args: readonly string[], timeoutMs: number): Promise<FioJob[]> {
  return await new FioRun(args, timeoutMs).jobs();
}

function side(raw: RawSide): FioSide {
  const percentile = (name: string): number => (raw.clat_ns?.percentile?.[name] ?? 0) / 1000;
  return {
    iops: raw.iops,
    bytesPerSecond: raw.bw_bytes,
    p50Us: percentile("50.000000"),
    p99Us: percentile("99.000000"),
    operations: raw.total_ios,
  };
}
