// Rounds of a nemesis on a cluster under the block checker: load, one fault in the middle of it, healing, a look at every block. What was
// acknowledged is there, nothing stale is read, writes come through again in time; in the end the replicas are the same file.
// Called by nemesis.ts (command line).
import { BlockChecker, type RunResult, describe as wording } from "../tools/block-checker.ts";
import { sleep } from "../tools/cluster-process.ts";
import type { NbdClient } from "../tools/nbd-client.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { type Fault, otherGate, processFaults } from "./nemesis-faults.ts";
import { NemesisFio } from "./nemesis-fio.ts";
import { type GateName, NemesisLab, nodeNames } from "./nemesis-lab.ts";
import { partitionFaults } from "./nemesis-partitions.ts";

export interface NemesisReport {
  readonly round: number;
  readonly fault: string;
  readonly acknowledged: number;
  /** The longest that a request took; where the client moved, from the fault to its first answer by the next gateway. */
  readonly waitedMs: number;
  readonly failures: readonly string[];
}

const sizeBytes = 24 * 1024 * 1024;
const depth = 6;
const attachTriesMax = 5;

export interface NemesisOptions {
  readonly seed: number;
  /** Faults by the beginning of their names; all where it is empty. */
  readonly only: string;
  /** fio works beside the block checker on a volume of its own; then only faults that no connection ends by. */
  readonly withFio: boolean;
}

export class NemesisRun {
  readonly #random: SeededRandom;
  readonly #checker: BlockChecker;
  readonly #lab: NemesisLab;
  readonly #faults: readonly Fault[];
  readonly #withFio: boolean;
  #fio: NemesisFio | null = null;
  #order: Fault[] = [];
  #gate: GateName = "gate-1";
  #client: NbdClient | null = null;

  private constructor(lab: NemesisLab, { seed, only, withFio }: NemesisOptions) {
    this.#lab = lab;
    this.#withFio = withFio;
    this.#faults = [...processFaults, ...partitionFaults].filter(
      ({ name, client }) => name.startsWith(only) && (client === "stays" || !withFio),
    );
    if (this.#faults.length === 0) throw new Error(`no fault is called "${only}"`);
    this.#random = new SeededRandom(seed);
    this.#checker = new BlockChecker({
      sizeBytes,
      seed,
      survives: "acknowledged",
      requestBytesMax: 256 * 1024,
    });
  }

  static async open(options: NemesisOptions): Promise<NemesisRun> {
    return new NemesisRun(await NemesisLab.open(sizeBytes), options);
  }

  /** One after the other in an order that changes, so that each comes about equally often. */
  async round(round: number): Promise<NemesisReport> {
    if (this.#order.length === 0) this.#order = this.#shuffled();
    const fault = this.#order.pop() as Fault;
    const failures: string[] = [];
    if (this.#client === null) {
      await this.#attach();
      failures.push(...(await this.#look("restart")));
    }
    if (this.#withFio) this.#fio ??= await NemesisFio.start(this.#lab, this.#gate, sizeBytes);
    await fault.prepare?.(this.#lab, this.#random, this.#gate);
    const load = this.#load();
    await sleep(this.#random.between(300, 900));
    const faultMs = performance.now();
    const waitedMs =
      fault.client !== "stays"
        ? await this.#moved(fault, load, faultMs, failures)
        : await this.#stayed(fault, load, failures);
    failures.push(...(this.#fio?.failures() ?? []));
    return { round, fault: fault.name, acknowledged: load.acknowledged(), waitedMs, failures };
  }

  /** Ends in good order; what is wrong with the images then. */
  async close(): Promise<readonly string[]> {
    await this.#fio?.stop();
    await this.#client?.disconnect();
    await this.#lab.stop();
    const failures = nodeNames.flatMap((node) =>
      this.#checker.verifyFile(this.#lab.imageOf(node)).map((one) => `${node}: ${wording(one)}`),
    );
    const at = this.#lab.difference();
    if (at !== null) failures.push(`the replicas differ from byte ${at} on`);
    await this.#lab.close();
    return failures;
  }

  async abandon(): Promise<void> {
    await this.#lab.close();
  }

  outputs(): string {
    return this.#lab.outputs();
  }

  /** Nothing that the client sees breaks: requests wait, none fails. */
  async #stayed(fault: Fault, load: Load, failures: string[]): Promise<number> {
    await fault.run(this.#lab, this.#random, this.#gate);
    await load.answersAgain(30_000);
    const result = await load.end();
    failures.push(...result.findings.map(wording), ...result.requestErrors);
    if (result.connectionLost === undefined) {
      failures.push(...(await this.#look("quiet")));
    } else {
      failures.push(`the connection was lost: ${result.connectionLost}`);
      this.#client = null;
    }
    return load.worstMs();
  }

  /**
   * The client loses its gateway, is served again, and finds everything that was acknowledged. It may be served by the same gateway: one that
   * was paused and woke up before anybody took its lease. So nothing is judged before the first connection has ended.
   */
  async #moved(fault: Fault, load: Load, faultMs: number, failures: string[]): Promise<number> {
    const lost = this.#gate;
    const first = this.#required();
    const healed = fault.run(this.#lab, this.#random, lost);
    this.#gate = otherGate(lost);
    this.#client = null;
    await this.#served();
    const waitedMs = performance.now() - faultMs;
    await healed;
    const before = await load.end();
    await first.disconnect().catch(() => undefined);
    // A gateway that it was relayed to may have been the one that went: then it connects once more.
    await this.#served();
    failures.push(...(await this.#look("restart")));
    const again = this.#load();
    await again.answersAgain(30_000);
    const after = await again.end();
    failures.push(...before.findings.map((one) => `by the gateway that was lost: ${wording(one)}`));
    failures.push(...before.requestErrors);
    failures.push(
      ...after.findings.map((one) => `by the next gateway: ${wording(one)}`),
      ...after.requestErrors,
    );
    if (after.connectionLost !== undefined) failures.push(`lost once more: ${after.connectionLost}`);
    failures.push(...(await this.#look("quiet")));
    await this.#goToHolder();
    return waitedMs;
  }

  /** Every block, after a gateway was lost or while nothing is in flight. */
  async #look(after: "restart" | "quiet"): Promise<readonly string[]> {
    const findings = await this.#checker.verify(this.#required(), after);
    return findings.map((one) => `${after}: ${wording(one)}`);
  }

  /** Connects until a read is answered. */
  async #served(): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const client = this.#client ?? (await this.#attach());
      try {
        await client.read(0, 4096);
        return;
      } catch (cause) {
        if (tries === attachTriesMax) throw cause;
        this.#client = null;
        client.destroy();
      }
    }
  }

  /** A client that is relayed goes to the gateway that serves it: what happens to the other one is nothing to it then. */
  async #goToHolder(): Promise<void> {
    if (await this.#lab.serves(this.#gate)) return;
    await this.#client?.disconnect();
    this.#gate = otherGate(this.#gate);
    await this.#attach();
  }

  async #attach(): Promise<NbdClient> {
    const { client, gate } = await this.#lab.attach(this.#gate);
    this.#client = client;
    this.#gate = gate;
    return client;
  }

  #required(): NbdClient {
    if (this.#client === null) throw new Error("the client is attached");
    return this.#client;
  }

  #load(): Load {
    return new Load(this.#checker, this.#required());
  }

  #shuffled(): Fault[] {
    const rest = [...this.#faults];
    const order: Fault[] = [];
    while (rest.length > 0) order.push(...rest.splice(this.#random.between(0, rest.length), 1));
    return order;
  }
}

/** Requests under way until end(), with the times of their answers. */
class Load {
  readonly #stop = new AbortController();
  readonly #running: Promise<RunResult>;
  #acknowledged = 0;
  #worstMs = 0;

  constructor(checker: BlockChecker, client: NbdClient) {
    this.#running = checker.run([client], {
      depth,
      signal: this.#stop.signal,
      onAnswer: (ms) => {
        this.#acknowledged += 1;
        this.#worstMs = Math.max(this.#worstMs, ms);
      },
    });
  }

  acknowledged(): number {
    return this.#acknowledged;
  }

  worstMs(): number {
    return this.#worstMs;
  }

  /** Resolves when answers came again after this call. */
  async answersAgain(timeoutMs: number): Promise<void> {
    const wanted = this.#acknowledged + 4 * depth;
    const endMs = performance.now() + timeoutMs;
    while (this.#acknowledged < wanted) {
      if (performance.now() > endMs) throw new Error(`no answers ${timeoutMs} ms after the fault was healed`);
      await sleep(20);
    }
  }

  async end(): Promise<RunResult> {
    this.#stop.abort();
    return await this.#running;
  }
}
