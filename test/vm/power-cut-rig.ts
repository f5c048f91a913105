// A true power cut: Varve runs in a virtual machine whose disk (tools/volatile-disk.ts) loses what was not flushed; under
// load qemu is killed and the disk drops its cache; the machine boots again on what survived, and every write that
// Varve had acknowledged must be there. The client runs on the host, so its memory of acknowledgements survives.
// Callers: power-cut.ts (command line) and power-cut.test.ts. The guest's side: guest/varve-server.sh.
import { execFile } from "node:child_process";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { BlockChecker, type RunResult } from "../tools/block-checker.ts";
import type { Finding } from "../tools/block-operation.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { Vm } from "../tools/vm.ts";
import { type CutMode, type CutReport, VolatileDisk, VolatileDiskServer } from "../tools/volatile-disk.ts";
import { buildCodeDisk } from "./code-disk.ts";
import { guestScript } from "./served-volume.ts";

const exec = promisify(execFile);
const volumeBytes = 32 * 1024 * 1024;
const volumeSize = "32M";
/** Room for log segments of two volumes and the reserve that Varve keeps free. Sparse on the host. */
const diskBytes = 4 * 1024 * 1024 * 1024;
const nbdPort = 10809;
const flushMsMax = 12;
/** The control's load: nothing in it asks for a sync, and each answer is a write that the next cut may take. */
const neverSynced = { weights: { write: 1, fua: 0, zero: 0, trim: 0, read: 0, flush: 0 } };
const worstMomentMsMax = 10_000;

export interface RoundPlan {
  readonly mode: CutMode;
  /** How long the load runs before the cut. */
  readonly loadMs: number;
  /**
   * Then wait for a moment when the disk holds unflushed writes and the control was answered since the disk's last flush
   * began: the emulated CPU is slow, so that the disk idles a lot, and a cut just behind a flush takes nothing.
   */
  readonly atWorstMoment: boolean;
  /** After the cut, cut once more this long after Varve began to start again, then boot for good. */
  readonly cutStartingAfterMs: number | undefined;
  /** From this long after the load began the disk ignores FLUSH and FUA. The negative control. */
  readonly lieAfterMs: number | undefined;
}

export interface RoundReport {
  readonly plan: RoundPlan;
  readonly acknowledged: number;
  readonly bytesWritten: number;
  /** What each cut of the round did to the machine's disk. */
  readonly cuts: readonly CutReport[];
  readonly readyAfterMs: number;
  /** Losses of the control volume, which answers before its sync and is judged as if it did not. */
  readonly controlLosses: number;
  /** What was wrong: lost, stale or torn blocks by volume, and errors that the server answered. Empty is good. */
  readonly failures: readonly string[];
}

interface Volume {
  readonly name: string;
  readonly durability: "write" | "flush";
  readonly checker: BlockChecker;
  readonly connections: number;
  readonly depth: number;
  /** Judged by a promise that its durability does not give: what it "loses" shows that the cuts and the checker work. */
  readonly control: boolean;
}

/** `atRisk`: the control acknowledged a write since the disk's last flush began, so that no flush can have covered it. */
interface ControlState {
  atRisk: boolean;
}

/** Chooses a round from the seed: mostly scattered survivors, now and then a second cut during recovery. */
export function planRound(random: SeededRandom): RoundPlan {
  return {
    mode: random.chance(0.3) ? "drop" : "scatter",
    loadMs: random.between(1500, 6000),
    atWorstMoment: random.chance(0.7),
    cutStartingAfterMs: random.chance(0.4) ? random.between(0, 2500) : undefined,
    lieAfterMs: undefined,
  };
}

export class PowerCutRig {
  readonly dir: string;
  readonly disk: VolatileDisk;
  readonly #server: VolatileDiskServer;
  readonly #random: SeededRandom;
  readonly #volumes: readonly Volume[];
  readonly #control: ControlState;
  #vm: Vm | undefined;
  #port = 0;
  #readyAfterMs = 0;
  #boots = 0;

  private constructor(
    dir: string,
    disk: VolatileDisk,
    server: VolatileDiskServer,
    control: ControlState,
    seed: number,
  ) {
    this.dir = dir;
    this.disk = disk;
    this.#server = server;
    this.#control = control;
    this.#random = new SeededRandom(seed);
    const checker = (offset: number, survives: "acknowledged" | "flushed", weights = {}): BlockChecker =>
      new BlockChecker({
        ...weights,
        sizeBytes: volumeBytes,
        seed: seed + offset,
        survives,
        requestBytesMax: 256 * 1024,
      });
    const volume = { control: false, depth: 8, connections: 1 };
    this.#volumes = [
      {
        ...volume,
        name: "durable",
        durability: "write",
        checker: checker(1, "acknowledged"),
        connections: 2,
      },
      { ...volume, name: "cached", durability: "flush", checker: checker(2, "flushed") },
      {
        name: "early",
        durability: "flush",
        checker: checker(4, "acknowledged", neverSynced),
        ...volume,
        control: true,
      },
    ];
  }

  /** Makes the disks and boots the machine for the first time. */
  static async open(seed: number): Promise<PowerCutRig> {
    const dir = await mkdtemp(join(tmpdir(), "varve-power-"));
    const medium = join(dir, "medium.raw");
    await buildCodeDisk(join(dir, "code.raw"));
    await writeFile(medium, "");
    await truncate(medium, diskBytes);
    const format = ["-q", "-t", "ext4", "-N", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0", medium];
    await exec("/sbin/mke2fs", format);
    const disk = new VolatileDisk(medium);
    const flushTimes = new SeededRandom(seed + 3);
    const control: ControlState = { atRisk: false };
    const server = await VolatileDiskServer.listen(disk, join(dir, "disk.sock"), () => {
      control.atRisk = false;
      return flushTimes.between(0, flushMsMax);
    });
    const rig = new PowerCutRig(dir, disk, server, control, seed);
    try {
      await rig.#boot();
    } catch (cause) {
      await rig.close();
      throw cause;
    }
    return rig;
  }

  /** Load, cut, boot, verify. The machine is up before and after. */
  async round(plan: RoundPlan): Promise<RoundReport> {
    const cuts: CutReport[] = [];
    const results = await this.#load(plan);
    cuts.push(await this.#finishCut(plan.mode));
    this.disk.lying = false;
    if (plan.cutStartingAfterMs !== undefined) {
      await this.#start();
      await this.#vm?.waitForLine(/^== \S+ starting/, 180_000);
      await new Promise((resolve) => setTimeout(resolve, plan.cutStartingAfterMs));
      this.#server.freeze();
      cuts.push(await this.#finishCut(plan.mode));
    }
    await this.#boot();
    const failures: string[] = [];
    let controlLosses = 0;
    for (const [index, volume] of this.#volumes.entries()) {
      const result = results[index] as RunResult;
      failures.push(...result.requestErrors.map((error) => `${volume.name}: server answered ${error}`));
      failures.push(
        ...result.findings.map((finding) => `${volume.name}, before the cut: ${describe(finding)}`),
      );
      const found = await this.#verify(volume);
      if (volume.control) controlLosses += found.length;
      else failures.push(...found.map((finding) => `${volume.name}: ${describe(finding)}`));
    }
    return {
      plan,
      acknowledged: results.reduce((sum, result) => sum + result.acknowledged, 0),
      bytesWritten: results.reduce((sum, result) => sum + result.bytesWritten, 0),
      cuts,
      readyAfterMs: this.#readyAfterMs,
      controlLosses,
      failures,
    };
  }

  /** The last lines of the machine, for a failure's report. */
  output(): string {
    return this.#vm?.output ?? "";
  }

  /** Ends the machine and the disk; the files go too unless they are wanted for a post-mortem. */
  async close(keepFiles = false): Promise<void> {
    await this.#vm?.cutPower();
    await this.#server.stop();
    if (!keepFiles) await rm(this.dir, { recursive: true, force: true });
  }

  async #start(): Promise<void> {
    this.#boots++;
    this.#port = await freePort();
    this.#vm = await Vm.start({
      script: guestScript("varve-server.sh"),
      env: {
        VOLUMES: this.#volumes
          .map((v) => `--volume ${v.name}:${volumeSize},durability=${v.durability}`)
          .join(" "),
      },
      nbdBlockdev: `nbd+unix:///medium?socket=${join(this.dir, "disk.sock")}`,
      forward: [{ host: this.#port, guest: nbdPort }],
      // One CPU: with two, emulated by two threads, V8 once in thirty boots stumbles over code that it has just compiled.
      cpus: 1,
      memoryMiB: 1536,
      timeoutSeconds: 600,
      console: join(this.dir, `console-${this.#boots}.log`),
      qemuArgs: [
        "-drive",
        `if=none,id=code,file=${join(this.dir, "code.raw")},format=raw,readonly=on`,
        "-device",
        "virtio-blk-pci,drive=code",
      ],
    });
  }

  async #boot(): Promise<void> {
    await this.#start();
    const vm = this.#vm as Vm;
    await vm.waitForLine(/^== \S+ starting/, 180_000);
    const startedAtMs = performance.now();
    await vm.waitForLine(/^varve is ready$/, 180_000);
    this.#readyAfterMs = performance.now() - startedAtMs;
  }

  /** Runs the load on all volumes until the moment of the cut, and freezes the disk at that moment. */
  async #load(plan: RoundPlan): Promise<RunResult[]> {
    const clients: NbdClient[] = [];
    const runs: Promise<RunResult>[] = [];
    const stop = new AbortController();
    let endedEarly = false;
    try {
      for (const { name, checker, connections, depth, control } of this.#volumes) {
        const onAnswer = (): void => {
          if (control) this.#control.atRisk = true;
        };
        const own: NbdClient[] = [];
        for (let n = 0; n < connections; n++) own.push(await this.#connect(name));
        clients.push(...own);
        runs.push(checker.run(own, { depth, signal: stop.signal, onAnswer }));
      }
      const lieAfterMs = plan.lieAfterMs ?? plan.loadMs;
      await new Promise((resolve) => setTimeout(resolve, lieAfterMs));
      this.disk.lying = plan.lieAfterMs !== undefined;
      await new Promise((resolve) => setTimeout(resolve, plan.loadMs - lieAfterMs));
      const waitUntilMs = performance.now() + worstMomentMsMax;
      const worst = (): boolean => this.disk.unflushedWrites > 0 && this.#control.atRisk;
      while (plan.atWorstMoment && !worst() && performance.now() < waitUntilMs) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    } finally {
      endedEarly = this.#vm?.running !== true;
      this.#server.freeze();
      this.#vm?.killNow();
      stop.abort();
      await this.#vm?.exited;
      for (const client of clients) client.destroy();
    }
    if (endedEarly) throw new Error(`Varve ended before its power was cut\n${this.output()}`);
    return await Promise.all(runs);
  }

  async #finishCut(mode: CutMode): Promise<CutReport> {
    await this.#vm?.cutPower();
    return this.#server.powerCut(mode, () => this.#random.fraction());
  }

  async #verify(volume: Volume): Promise<Finding[]> {
    const client = await this.#connect(volume.name);
    const findings = await volume.checker.verify(client, "restart");
    await client.disconnect();
    return findings;
  }

  async #connect(volume: string): Promise<NbdClient> {
    return await NbdClient.connect(`127.0.0.1:${this.#port}`, volume);
  }
}

function describe(finding: Finding): string {
  return `${finding.kind} at ${finding.offset}, ${finding.length} bytes: ${finding.detail}`;
}
