// Rounds of a nemesis on a cluster under the block checker, on a volume of either read policy: load, one fault in the middle of it, healing, a
// look at every block. What was acknowledged is there, nothing is read that is older than the volume promises, writes come through again in
// time; now and then and in the end the replicas are the same file, and what the bucket makes of the log. Called by nemesis.ts (command line).
import { sleep } from "../tools/cluster-process.ts";
import type { S3ServerName } from "../tools/s3-servers.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { type ArchiveVerdict, judgeArchive } from "./nemesis-archive.ts";
import { archiveFaults } from "./nemesis-archive-faults.ts";
import { NemesisClient } from "./nemesis-client.ts";
import { type Fault, processFaults } from "./nemesis-faults.ts";
import { NemesisFio } from "./nemesis-fio.ts";
import { type GateName, gateNames, type LabVolume, NemesisLab } from "./nemesis-lab.ts";
import { partitionFaults } from "./nemesis-partitions.ts";
import { witnessBytes } from "./nemesis-witness.ts";

export interface NemesisReport {
  readonly round: number;
  readonly fault: string;
  readonly acknowledged: number;
  /** The longest that a request took; where the client moved, from the fault to its first answer by the next gateway. */
  readonly waitedMs: number;
  readonly failures: readonly string[];
}

const sizeBytes = 16 * 1024 * 1024 + witnessBytes;
const volumes: readonly LabVolume[] = [
  { name: "disk0", sizeBytes, reads: "available" },
  { name: "disk1", sizeBytes, reads: "strict" },
];

export interface NemesisOptions {
  readonly seed: number;
  /** Faults by the beginning of their names; all where it is empty. */
  readonly only: string;
  /** fio works beside the block checkers on a volume of its own; then only faults that no connection ends by. */
  readonly withFio: boolean;
  readonly bucket: S3ServerName;
}

export class NemesisRun {
  readonly #random: SeededRandom;
  readonly #lab: NemesisLab;
  readonly #faults: readonly Fault[];
  readonly #withFio: boolean;
  readonly #clients: readonly NemesisClient[];
  #fio: NemesisFio | null = null;
  #order: Fault[] = [];
  #gate: GateName = gateNames[0];

  private constructor(lab: NemesisLab, { seed, only, withFio }: NemesisOptions) {
    this.#lab = lab;
    this.#withFio = withFio;
    this.#faults = [...processFaults, ...partitionFaults, ...archiveFaults].filter(
      ({ name, client }) => name.startsWith(only) && (client === "stays" || !withFio),
    );
    if (this.#faults.length === 0) throw new Error(`no fault is called "${only}"`);
    this.#random = new SeededRandom(seed);
    this.#clients = volumes.map((volume, index) => new NemesisClient(lab, volume, seed + index));
  }

  static async open(options: NemesisOptions): Promise<NemesisRun> {
    return new NemesisRun(await NemesisLab.open(volumes, options.bucket), options);
  }

  /** One after the other in an order that changes, so that each comes about equally often. */
  async round(round: number): Promise<NemesisReport> {
    if (this.#order.length === 0) this.#order = this.#shuffled();
    const fault = this.#order.pop() as Fault;
    const failures: string[] = [];
    for (const client of this.#clients) failures.push(...(await client.ready(this.#gate)));
    await this.#gather();
    if (this.#withFio) this.#fio ??= await NemesisFio.start(this.#lab, this.#gate, sizeBytes);
    await fault.prepare?.(this.#lab, this.#random, this.#gate);
    for (const client of this.#clients) client.begin();
    await sleep(this.#random.between(300, 900));
    await this.#lab.countDirectReads();
    const faultMs = performance.now();
    const healed = fault.run(this.#lab, this.#random, this.#gate);
    const rounds = await Promise.all(
      this.#clients.map(async (client) =>
        fault.client === "stays" ? client.stayed(healed) : client.moved(healed, faultMs),
      ),
    );
    await this.#lab.countDirectReads();
    failures.push(...rounds.flatMap((one) => one.failures), ...(this.#fio?.failures() ?? []));
    return {
      round,
      fault: fault.name,
      acknowledged: rounds.reduce((sum, one) => sum + one.acknowledged, 0),
      waitedMs: Math.max(...rounds.map((one) => one.waitedMs)),
      failures,
    };
  }

  /** Between two rounds. */
  async judgeArchives(): Promise<readonly ArchiveVerdict[]> {
    const verdicts: ArchiveVerdict[] = [];
    for (const { volume } of this.#clients) verdicts.push(await judgeArchive(this.#lab, volume.name));
    return verdicts;
  }

  /** Ends in good order; what is wrong with the images then. */
  async close(): Promise<readonly string[]> {
    await this.#fio?.stop();
    for (const client of this.#clients) await client.leave();
    await this.#lab.stop();
    const failures = this.#clients.flatMap((client) => client.verifyImages());
    for (const { volume } of this.#clients) {
      const at = this.#lab.difference(volume.name);
      if (at !== null) failures.push(`the replicas of ${volume.name} differ from byte ${at} on`);
    }
    await this.#lab.close();
    return failures;
  }

  async abandon(): Promise<void> {
    await this.#lab.close();
  }

  outputs(): string {
    return this.#lab.outputs();
  }

  /** How reads were answered, and how many of them showed an older state, as `available` may. */
  summary(): readonly string[] {
    const { direct, remote } = this.#lab.directReads;
    const witnessed = this.#clients.map(({ volume, witness: { counts } }) => {
      const judged = `${counts.reads} reads and ${counts.writes} writes on two connections at once`;
      return `${volume.name}, reads ${volume.reads}: ${judged}, ${counts.older} older than acknowledged elsewhere`;
    });
    return [
      `reads of an image on the gateway's own machine: ${direct}; asked of a node: ${remote}`,
      ...witnessed,
    ];
  }

  /** What happens to the one gateway happens to the clients of both volumes: each is at the gateway that serves it, and that is one. */
  async #gather(): Promise<void> {
    for (const client of this.#clients) await client.goToHolder();
    this.#gate = this.#clients[0]?.gate ?? this.#gate;
    for (const client of this.#clients) {
      if (client.gate === this.#gate) continue;
      const { gate } = client;
      await client.leave();
      await this.#lab.gate(gate).process.stop();
      await this.#lab.startGate(gate);
      await client.ready(this.#gate);
    }
  }

  #shuffled(): Fault[] {
    const rest = [...this.#faults];
    const order: Fault[] = [];
    while (rest.length > 0) order.push(...rest.splice(this.#random.between(0, rest.length), 1));
    return order;
  }
}
