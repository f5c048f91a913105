// One volume of the nemesis and its client: a load that knows every block (nemesis-load.ts), a witness of reads that are too old, and what is
// judged when a fault leaves the connection alone, ends it and another gateway takes over, or the disk goes back to a point of its past.
// Called by nemesis-run.ts, one for each volume, and by nemesis-steps.ts.
import { BlockChecker, type ByteRange, describe as wording } from "../tools/block-checker.ts";
import type { LedgerPoint } from "../tools/block-ledger.ts";
import type { NbdClient } from "../tools/nbd-client.ts";
import { otherGate } from "./nemesis-faults.ts";
import { type GateName, gateNames, type LabVolume, type NemesisLab, nodeNames } from "./nemesis-lab.ts";
import { Load } from "./nemesis-load.ts";
import { Witness, type WitnessPoint, witnessBytes } from "./nemesis-witness.ts";

const attachTriesMax = 5;
const answersAgainMs = 30_000;

export interface RoundOfClient {
  readonly acknowledged: number;
  readonly waitedMs: number;
  readonly failures: readonly string[];
}

/** A snapshot that was taken under the load, and what the disk may hold there. */
export interface KnownPoint {
  readonly name: string;
  readonly lsn: number;
  readonly ledger: LedgerPoint;
  readonly witness: WitnessPoint;
}

export class NemesisClient {
  readonly volume: LabVolume;
  readonly witness: Witness;
  readonly #lab: NemesisLab;
  readonly #checker: BlockChecker;
  #gate: GateName = gateNames[0];
  #client: NbdClient | null = null;
  #load: Load | null = null;

  constructor(lab: NemesisLab, volume: LabVolume, seed: number) {
    this.#lab = lab;
    this.volume = volume;
    const sizeBytes = volume.sizeBytes - witnessBytes;
    this.witness = new Witness(volume.reads, sizeBytes);
    const size = { sizeBytes, requestBytesMax: 256 * 1024 };
    this.#checker = new BlockChecker({ ...size, seed, survives: "acknowledged" });
  }

  get gate(): GateName {
    return this.#gate;
  }

  /** Connected, and every block looked at, where it was not. */
  async ready(gate: GateName): Promise<readonly string[]> {
    if (this.#client !== null) return [];
    this.#gate = gate;
    await this.#attach();
    return await this.#look("restart");
  }

  /** `writes`: where it writes; everywhere without. */
  begin(writes?: ByteRange): void {
    this.#load = this.#newLoad(writes);
  }

  /** Of the disk as it is under the load: `take` makes a snapshot. A name is taken once, so what fails is tried again by another one. */
  async point(take: () => Promise<{ readonly name: string; readonly lsn: number }>): Promise<KnownPoint> {
    const { ledger } = this.#checker;
    const [asked, least] = [ledger.pointAsked(), this.witness.pointAsked()];
    try {
      const { name, lsn } = await take();
      return { name, lsn, ledger: ledger.pointTaken(asked), witness: this.witness.pointTaken(least) };
    } catch (cause) {
      ledger.readFailed(asked);
      throw cause;
    }
  }

  /** What is wrong with another disk that is to be this one at a point. */
  async judgeCopy(copy: NbdClient, point: KnownPoint): Promise<readonly string[]> {
    const findings = (await this.#checker.verifyPoint(copy, point.ledger, false)).map(wording);
    return [...findings, ...(await this.witness.judgePoint(copy, point.witness, false))];
  }

  /** Nothing is under way any more, and the connection stands. */
  async rest(): Promise<readonly string[]> {
    const { findings, requestErrors, connectionLost } = await this.#loading().end();
    const lost = connectionLost === undefined ? [] : [`the connection was lost: ${connectionLost}`];
    if (connectionLost !== undefined) this.#client = null;
    return [...findings.map(wording), ...requestErrors, ...lost];
  }

  /**
   * The disk goes back: under its load, whose connection is cut and none of whose requests fails, or while nobody is attached. Then it is what it
   * was at the point, whoever reads it, and is written to again.
   */
  async wentBack(back: Promise<void>, point: KnownPoint): Promise<RoundOfClient> {
    const load = this.#loading();
    const begunMs = performance.now();
    const failures: string[] = [];
    await back;
    if (this.#client !== null) {
      const before = await load.end();
      failures.push(...before.findings.map((one) => `before it went back: ${wording(one)}`));
      failures.push(...before.requestErrors);
      if (before.connectionLost === undefined) failures.push("the disk went back under an attached client");
      this.#client.destroy();
      this.#client = null;
    }
    await this.#served();
    const waitedMs = performance.now() - begunMs;
    const disk = this.#required();
    failures.push(
      ...(await this.#checker.verifyPoint(disk, point.ledger, true)).map(wording),
      ...(await this.witness.judgePoint(disk, point.witness, true)),
    );
    const again = this.#newLoad();
    await again.answersAgain(answersAgainMs);
    const after = await again.end();
    failures.push(...after.findings.map((one) => `after it went back: ${wording(one)}`));
    failures.push(...after.requestErrors);
    if (after.connectionLost !== undefined) failures.push(`lost once more: ${after.connectionLost}`);
    failures.push(...(await this.#look("quiet")));
    return this.#round(load, waitedMs, failures);
  }

  /** Nothing that the client sees breaks: requests wait, none fails. */
  async stayed(healed: Promise<void>): Promise<RoundOfClient> {
    const load = this.#loading();
    await healed;
    await load.answersAgain(answersAgainMs);
    const result = await load.end();
    const failures = [...result.findings.map(wording), ...result.requestErrors];
    if (result.connectionLost === undefined) failures.push(...(await this.#look("quiet")));
    else {
      failures.push(`the connection was lost: ${result.connectionLost}`);
      this.#client = null;
    }
    return this.#round(load, load.worstMs(), failures);
  }

  /**
   * The client loses its gateway, is served again, and finds everything that was acknowledged. It may be served by the same gateway: one that
   * was paused and woke up before anybody took its lease. So nothing is judged before the first connection has ended, but by the witness,
   * who is on both: one gateway writes on while the other may still answer.
   */
  async moved(healed: Promise<void>, faultMs: number): Promise<RoundOfClient> {
    const failures: string[] = [];
    const load = this.#loading();
    const first = this.#required();
    this.#gate = otherGate(this.#gate);
    this.#client = null;
    await this.#served();
    const waitedMs = performance.now() - faultMs;
    const beside = this.witness.on(this.#required(), this.#gate);
    await healed;
    const before = await load.end();
    await first.disconnect().catch(() => undefined);
    await beside.stop();
    // A gateway that it was relayed to may have been the one that went: then it connects once more.
    await this.#served();
    failures.push(...(await this.#look("restart")));
    const again = this.#newLoad();
    await again.answersAgain(answersAgainMs);
    const after = await again.end();
    failures.push(...before.findings.map((one) => `by the gateway that was lost: ${wording(one)}`));
    failures.push(...before.requestErrors);
    failures.push(...after.findings.map((one) => `by the next gateway: ${wording(one)}`));
    failures.push(...after.requestErrors);
    if (after.connectionLost !== undefined) failures.push(`lost once more: ${after.connectionLost}`);
    failures.push(...(await this.#look("quiet")));
    return this.#round(load, waitedMs, failures);
  }

  /** A client that is relayed goes to the gateway that serves it: what happens to the other one is nothing to it then. */
  async goToHolder(): Promise<void> {
    if (this.#client === null || (await this.#lab.serves(this.#gate, this.volume.name))) return;
    await this.leave();
    this.#gate = otherGate(this.#gate);
    await this.#attach();
  }

  /** Nothing is under way any more; ready() connects again. */
  async leave(): Promise<void> {
    await this.#client?.disconnect().catch(() => undefined);
    this.#client = null;
  }

  /** What is wrong with the images after a clean stop. */
  verifyImages(): readonly string[] {
    return nodeNames.flatMap((node) =>
      this.#checker
        .verifyFile(this.#lab.imageOf(node, this.volume.name))
        .map((one) => `${node}, ${this.volume.name}: ${wording(one)}`),
    );
  }

  #round(load: Load, waitedMs: number, failures: readonly string[]): RoundOfClient {
    const all = [...failures, ...this.witness.findings.splice(0)];
    return {
      acknowledged: load.acknowledged(),
      waitedMs,
      failures: all.map((one) => `${this.volume.name}: ${one}`),
    };
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

  async #attach(): Promise<NbdClient> {
    const { client, gate } = await this.#lab.attach(this.#gate, this.volume.name);
    this.#client = client;
    this.#gate = gate;
    return client;
  }

  #required(): NbdClient {
    if (this.#client === null) throw new Error("the client is attached");
    return this.#client;
  }

  #loading(): Load {
    if (this.#load === null) throw new Error("the load has begun");
    return this.#load;
  }

  #newLoad(writes?: ByteRange): Load {
    const { witness } = this;
    return new Load({ checker: this.#checker, witness, client: this.#required(), gate: this.#gate, writes });
  }
}
