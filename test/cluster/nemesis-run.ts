// Rounds of a nemesis on a cluster under the block checker, on a volume of either read policy: load, one fault in the middle of it, healing, a
// look at every block; or a step with one volume's past (nemesis-steps.ts) while something is away. What was acknowledged is there, nothing is
// read that is older than the volume promises, writes come through again in time; now and then and in the end the replicas are the same file,
// and what the bucket makes of the log. Called by nemesis.ts (command line).
import { sleep } from "../tools/cluster-process.ts";
import type { S3ServerName } from "../tools/s3-servers.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { type ArchiveVerdict, judgeArchive } from "./nemesis-archive.ts";
import { archiveFaults } from "./nemesis-archive-faults.ts";
import { NemesisClient, type RoundOfClient } from "./nemesis-client.ts";
import { type Disturbance, disturbances } from "./nemesis-disturbances.ts";
import { type Fault, processFaults } from "./nemesis-faults.ts";
import { NemesisFio } from "./nemesis-fio.ts";
import { type GateName, gateNames, type LabVolume, NemesisLab } from "./nemesis-lab.ts";
import { partitionFaults } from "./nemesis-partitions.ts";
import { NemesisPoints } from "./nemesis-points.ts";
import { type PastStep, pastSteps } from "./nemesis-steps.ts";
import { witnessBytes } from "./nemesis-witness.ts";

export interface NemesisReport {
  readonly round: number;
  /** What it is counted with. */
  readonly fault: string;
  /** All that was chosen. */
  readonly plan: string;
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
  /** Faults and steps by the beginning of their names; all where it is empty, all steps with `past`. */
  readonly only: string;
  /** What is away while a step is taken, by the beginning of its name. */
  readonly away: string;
  /** fio works beside the block checkers on a volume of its own; then only faults that no connection ends by. */
  readonly withFio: boolean;
  readonly bucket: S3ServerName;
}

export class NemesisRun {
  readonly #seed: number;
  readonly #lab: NemesisLab;
  readonly #points: NemesisPoints;
  readonly #plans: readonly (Fault | PastStep)[];
  readonly #disturbances: readonly Disturbance[];
  readonly #withFio: boolean;
  readonly #clients: readonly NemesisClient[];
  #fio: NemesisFio | null = null;
  #gate: GateName = gateNames[0];

  private constructor(lab: NemesisLab, { seed, only, away, withFio }: NemesisOptions) {
    this.#lab = lab;
    this.#withFio = withFio;
    const faults = [...processFaults, ...partitionFaults, ...archiveFaults].filter(
      ({ client }) => client === "stays" || !withFio,
    );
    const plans = [...faults, ...pastSteps].filter(
      (plan) => plan.name.startsWith(only) || (only === "past" && !("client" in plan)),
    );
    if (plans.length === 0) throw new Error(`no fault is called "${only}"`);
    this.#plans = plans;
    this.#disturbances = disturbances.filter(({ name }) => name.startsWith(away));
    this.#seed = seed;
    this.#points = new NemesisPoints(lab.past.api);
    this.#clients = volumes.map((volume, index) => new NemesisClient(lab, volume, seed + index));
  }

  static async open(options: NemesisOptions): Promise<NemesisRun> {
    return new NemesisRun(await NemesisLab.open(volumes, options.bucket), options);
  }

  /** What round n is: one after the other in an order that changes, so that each comes about equally often. By the seed and n alone. */
  #planOf(round: number): { readonly plan: Fault | PastStep; readonly random: SeededRandom } {
    const turn = Math.floor((round - 1) / this.#plans.length);
    const order = shuffled(this.#plans, new SeededRandom(this.#seed + turn * 0x9e3779b1));
    const plan = order[(round - 1) % order.length] as Fault | PastStep;
    return { plan, random: new SeededRandom((this.#seed ^ Math.imul(round, 0x85ebca6b)) >>> 0) };
  }

  /** For people: what a round that did not come to its end was. */
  planOf(round: number): string {
    const { plan, random } = this.#planOf(round);
    return "client" in plan ? plan.name : this.#choose(plan, random).name;
  }

  #choose(step: PastStep, random: SeededRandom) {
    const client = random.pick(this.#clients);
    const disturbance = random.pick(this.#disturbances);
    return { client, disturbance, name: `${client.volume.name} ${step.name}, ${disturbance.name}` };
  }

  async round(round: number): Promise<NemesisReport> {
    const { plan, random } = this.#planOf(round);
    const failures: string[] = [];
    for (const client of this.#clients) failures.push(...(await client.ready(this.#gate)));
    await this.#gather();
    if (this.#withFio) this.#fio ??= await NemesisFio.start(this.#lab, this.#gate, sizeBytes);
    const { name, rounds } =
      "client" in plan ? await this.#fault(plan, random) : await this.#step(plan, random);
    await this.#lab.countDirectReads();
    await this.#points.deleteClones();
    failures.push(...rounds.flatMap((one) => one.failures), ...(this.#fio?.failures() ?? []));
    return {
      round,
      fault: plan.name,
      plan: name,
      acknowledged: rounds.reduce((sum, one) => sum + one.acknowledged, 0),
      waitedMs: Math.max(...rounds.map((one) => one.waitedMs)),
      failures,
    };
  }

  async #fault(fault: Fault, random: SeededRandom): Promise<Done> {
    await fault.prepare?.(this.#lab, random, this.#gate);
    for (const client of this.#clients) client.begin();
    await sleep(random.between(300, 900));
    await this.#lab.countDirectReads();
    const faultMs = performance.now();
    const healed = fault.run(this.#lab, random, this.#gate);
    const rounds = await Promise.all(
      this.#clients.map(async (client) =>
        fault.client === "stays" ? client.stayed(healed) : client.moved(healed, faultMs),
      ),
    );
    return { name: fault.name, rounds };
  }

  /** With the past of one volume; the other one is written to meanwhile. */
  async #step(step: PastStep, random: SeededRandom): Promise<Done> {
    const { client, disturbance, name } = this.#choose(step, random);
    const [planned, away] = [random.fork(), random.fork()];
    const writes = step.writes?.(planned);
    for (const one of this.#clients) one.begin(one === client ? writes : undefined);
    await sleep(planned.between(300, 900));
    const ended = new AbortController();
    const over = new Promise<void>((resolve) => ended.signal.addEventListener("abort", () => resolve()));
    const disturb = (): Promise<void> => {
      const disturbed = disturbance.run(this.#lab, away, this.#gate);
      // A step that fails before does not wait for it.
      disturbed.catch(() => undefined);
      return disturbed;
    };
    const stepped = step
      .run({ lab: this.#lab, client, points: this.#points, random: planned, disturb })
      .finally(() => ended.abort());
    const others = this.#clients.filter((one) => one !== client);
    const rounds = await Promise.all([stepped, ...others.map(async (one) => one.stayed(over))]);
    return { name, rounds };
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
    // They let go of the clones, which they would serve half a minute longer.
    await this.#lab.stopGates();
    const failures = [...(await this.#points.end())];
    const { api } = this.#lab.past;
    for (const name of this.#lab.volumeNames) await api.job(`volumes/${name}/fill`);
    failures.push(...(await api.bucketProblems()));
    await this.#lab.stop();
    failures.push(...this.#clients.flatMap((client) => client.verifyImages()));
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

  async outputs(): Promise<string> {
    return await this.#lab.outputs();
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
      this.#points.summary(),
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
}

interface Done {
  readonly name: string;
  readonly rounds: readonly RoundOfClient[];
}

function shuffled<T>(all: readonly T[], random: SeededRandom): readonly T[] {
  const rest = [...all];
  const order: T[] = [];
  while (rest.length > 0) order.push(...rest.splice(random.between(0, rest.length), 1));
  return order;
}
