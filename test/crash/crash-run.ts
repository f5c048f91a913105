// Kill rounds on one data directory: load by the block checker and by fio on volumes of both durabilities, kill -9 of the
// real process at a random moment (sometimes again while it recovers), restart, and the check of every promise.
// Callers: crash.ts (command line) and crash.test.ts (bounded). Next on data's way: block-checker.ts and fio, over NBD.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { BlockChecker, describe, type RunResult } from "../tools/block-checker.ts";
import { FioRun, runFio } from "../tools/fio.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { nbdUri, type VarveOptions, VarveProcess } from "../tools/varve-process.ts";

export interface CrashOptions {
  readonly dir: string;
  readonly seed: number;
  /** The server keeps unsynced writes in its own memory, so a kill loses exactly what was not synced. */
  readonly dropUnsynced: boolean;
}

export interface RoundReport {
  readonly round: number;
  readonly seed: number;
  readonly killedAfterMs: number;
  readonly killsWhileStarting: number;
  readonly readyAfterMs: number;
  readonly acknowledged: number;
  readonly bytesWritten: number;
  readonly fioVerified: number;
  readonly failures: readonly string[];
}

interface CheckedVolume {
  readonly name: string;
  readonly checker: BlockChecker;
}

interface FioVolume {
  readonly name: string;
  readonly flushes: boolean;
}

const volumeBytes = 64 * 1024 * 1024;
const connectionsPerVolume = 2;
const depth = 8;
const fioVolumes: readonly FioVolume[] = [
  { name: "fio-write", flushes: false },
  { name: "fio-flush", flushes: true },
];

export class CrashRun {
  private readonly options: CrashOptions;
  private readonly serverOptions: VarveOptions;
  private readonly address: string;
  private readonly checked: readonly CheckedVolume[];
  private server: VarveProcess | undefined;
  private killing = false;

  constructor(options: CrashOptions) {
    this.options = options;
    this.address = `unix:${join(options.dir, "nbd.sock")}`;
    this.serverOptions = {
      dataDir: join(options.dir, "data"),
      nbd: [this.address],
      volumes: [
        "check-write:64M",
        "check-flush:64M,durability=flush",
        "fio-write:64M",
        "fio-flush:64M,durability=flush",
      ],
      ...(options.dropUnsynced ? { env: { VARVE_TEST_DROP_UNSYNCED: "1" } } : {}),
    };
    const random = new SeededRandom(options.seed);
    const checker = (survives: "acknowledged" | "flushed"): BlockChecker =>
      new BlockChecker({ sizeBytes: volumeBytes, seed: random.uint32(), survives });
    this.checked = [
      { name: "check-write", checker: checker("acknowledged") },
      // A killed process loses nothing that it answered: only a lost host does, which dropUnsynced stands for.
      { name: "check-flush", checker: checker(options.dropUnsynced ? "flushed" : "acknowledged") },
    ];
  }

  async open(): Promise<void> {
    await mkdir(this.options.dir, { recursive: true });
    this.server = await VarveProcess.start(this.serverOptions);
  }

  async round(round: number): Promise<RoundReport> {
    const seed = new SeededRandom(this.options.seed ^ Math.imul(round + 1, 0x9e3779b1)).uint32();
    const random = new SeededRandom(seed);
    const killAfterMs = random.between(100, 2200);
    const failures: string[] = [];
    const { results, completed } = await this.loadAndKill(killAfterMs, random);
    for (const { name, result } of results) {
      for (const finding of result.findings)
        failures.push(`${name}, read beside writes: ${describe(finding)}`);
      for (const error of result.requestErrors) failures.push(`${name}: ${error}`);
    }
    const killsWhileStarting = random.chance(0.35) ? random.between(1, 4) : 0;
    for (let kill = 0; kill < killsWhileStarting; kill += 1) {
      const starting = VarveProcess.launch(this.serverOptions);
      await pauseMs(random.between(50, 900));
      await starting.kill9();
    }
    this.server = await VarveProcess.start(this.serverOptions);
    failures.push(...(await this.verifyOverNbd()), ...(await this.verifyFio(completed)));
    return {
      round,
      seed,
      killedAfterMs: killAfterMs,
      killsWhileStarting,
      readyAfterMs: this.server.readyAfterMs,
      acknowledged: results.reduce((sum, { result }) => sum + result.acknowledged, 0),
      bytesWritten: results.reduce((sum, { result }) => sum + result.bytesWritten, 0),
      fioVerified: completed.length,
      failures,
    };
  }

  /** SIGTERM, then the image files themselves must be the disks, and once more over NBD after a clean start. */
  async close(): Promise<string[]> {
    await this.server?.stop();
    const failures = this.checked.flatMap((volume) => this.verifyImage(volume));
    this.server = await VarveProcess.start(this.serverOptions);
    failures.push(...(await this.verifyOverNbd()));
    await this.server.stop();
    return failures;
  }

  /** With dropUnsynced, none over many rounds would mean that the server's layer drops nothing. */
  get unpromisedLosses(): number {
    return this.checked.reduce((sum, { checker }) => sum + checker.ledger.unpromisedLosses, 0);
  }

  abandon(): void {
    this.server?.killNow();
  }

  serverOutput(): string {
    return this.server?.output() ?? "";
  }

  private async loadAndKill(
    killAfterMs: number,
    random: SeededRandom,
  ): Promise<{
    results: { name: string; result: RunResult }[];
    completed: { volume: string; seed: number }[];
  }> {
    this.killing = false;
    const jobs = fioVolumes.map((volume) => {
      const seed = random.between(1, 1_000_000);
      return { volume: volume.name, seed, ...this.startFio(volume, seed) };
    });
    const runs = this.checked.map((volume) => this.load(volume));
    await pauseMs(killAfterMs);
    // Only what fio saw finished before the kill counts as acknowledged.
    const completed = jobs.filter((job) => job.done()).map(({ volume, seed }) => ({ volume, seed }));
    this.killing = true;
    await this.server?.kill9();
    for (const job of jobs) job.fio.kill();
    const results = await Promise.all(runs);
    await Promise.all(jobs.map((job) => job.fio.exited));
    return { results, completed };
  }

  /** A kill may come before the last connection was made: then there is less load, which is no failure. */
  private async load({ name, checker }: CheckedVolume): Promise<{ name: string; result: RunResult }> {
    const clients: NbdClient[] = [];
    const limits = { depth };
    try {
      for (let index = 0; index < connectionsPerVolume; index += 1) {
        const replies = index === 0 ? "structured" : "extended";
        clients.push(await NbdClient.connect(this.address, name, { replies }));
      }
    } catch (cause) {
      for (const client of clients) client.destroy();
      const result = await checker.run([], limits);
      if (!this.killing) result.requestErrors.push(`cannot connect: ${(cause as Error).message}`);
      return { name, result };
    }
    return { name, result: await checker.run(clients, limits) };
  }

  private startFio(volume: FioVolume, seed: number): { fio: FioRun; done: () => boolean } {
    const fsync = volume.flushes ? ["--end_fsync=1"] : [];
    const fio = new FioRun([...this.fioArguments(volume.name, seed), "--do_verify=0", ...fsync], 60_000);
    let finished = false;
    void fio.exited.then((code) => {
      finished = code === 0;
    });
    return { fio, done: () => finished };
  }

  private fioArguments(volume: string, seed: number): string[] {
    return [
      `--name=${volume}`,
      "--ioengine=nbd",
      `--uri=${nbdUri(this.address, volume)}`,
      "--rw=randwrite",
      "--bsrange=512-64k",
      "--blockalign=512",
      "--iodepth=16",
      "--size=64M",
      "--io_size=8M",
      "--verify=crc32c",
      "--verify_interval=512",
      "--verify_state_save=0",
      `--randseed=${seed}`,
    ];
  }

  private async verifyFio(completed: readonly { volume: string; seed: number }[]): Promise<string[]> {
    const failures: string[] = [];
    for (const { volume, seed } of completed) {
      try {
        await runFio([...this.fioArguments(volume, seed), "--verify_only=1"], 60_000);
      } catch (cause) {
        failures.push(`${volume}: ${(cause as Error).message}`);
      }
    }
    return failures;
  }

  private async verifyOverNbd(): Promise<string[]> {
    const failures: string[] = [];
    for (const { name, checker } of this.checked) {
      const client = await NbdClient.connect(this.address, name);
      const findings = await checker.verify(client, "restart");
      await client.disconnect();
      failures.push(...findings.map((finding) => `${name}, after restart: ${describe(finding)}`));
    }
    return failures;
  }

  private verifyImage({ name, checker }: CheckedVolume): string[] {
    const findings = checker.verifyFile(join(this.serverOptions.dataDir, "volumes", name, "disk.raw"));
    return findings.map((finding) => `${name}, image file: ${describe(finding)}`);
  }
}

function pauseMs(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
