// A few registers beside the block checker's part of a volume, by which two connections at once are judged: each writes growing numbers into
// registers of its own and reads all. `strict`: no read is older than what anybody was acknowledged before it was asked; `available`: than what
// its own connection was acknowledged or shown, or anybody was before it connected. Called by nemesis-client.ts.
import type { ReadPolicy } from "#shared/domain/volume.ts";
import { sleep } from "../tools/cluster-process.ts";
import { type NbdClient, NbdRequestError } from "../tools/nbd-client.ts";

const registerBytes = 4096;
const registers = 16;
/** Behind what the block checker has. */
export const witnessBytes = registers * registerBytes;
const writeGapMs = 15;
const readGapMs = 4;
const findingsMax = 20;

export type RegisterClient = Pick<NbdClient, "read" | "write">;

/** What a connection must see of a register at least, and why. */
interface Promised {
  readonly number: number;
  readonly why: "acknowledged" | "shown";
}

/** The numbers that each register may show at a point of the past. */
export interface WitnessPoint {
  readonly least: readonly number[];
  readonly most: readonly number[];
}

export class Witness {
  readonly policy: ReadPolicy;
  readonly counts = { reads: 0, writes: 0, older: 0 };
  readonly findings: string[] = [];
  readonly #start: number;
  readonly #issued: number[] = Array.from({ length: registers }, () => 0);
  readonly #acknowledged: number[] = Array.from({ length: registers }, () => 0);
  /** What the last rollback found, and what it undid: numbers above the one and up to the other are never seen again. */
  readonly #found: number[] = Array.from({ length: registers }, () => 0);
  readonly #undone: number[] = Array.from({ length: registers }, () => 0);
  #connections = 0;

  constructor(policy: ReadPolicy, start: number) {
    this.policy = policy;
    this.#start = start;
  }

  /** Until the connection ends, or stop() of what it returns, which then has nothing under way. */
  on(client: RegisterClient, through: string): { stop(): Promise<void> } {
    this.#connections += 1;
    const half = this.#connections % 2;
    const seen = this.#acknowledged.map((number): Promised => ({ number, why: "acknowledged" }));
    const halt = new AbortController();
    const again = async (step: () => Promise<void>, gapMs: number): Promise<void> => {
      while (!halt.signal.aborted) {
        try {
          await step();
        } catch (cause) {
          if (cause instanceof NbdRequestError) this.#note(`through ${through}: ${cause.message}`);
          else return;
        }
        await sleep(gapMs);
      }
    };
    let turn = 0;
    const write = async (): Promise<void> => {
      turn += 1;
      const register = 2 * (turn % (registers / 2)) + half;
      const number = await this.#write(client, register);
      seen[register] = { number, why: "acknowledged" };
    };
    const read = async (): Promise<void> => {
      turn += 1;
      await this.#read(client, turn % registers, seen, through);
    };
    const running = Promise.all([again(write, writeGapMs), again(read, readGapMs)]);
    return {
      stop: async () => {
        halt.abort();
        await running;
      },
    };
  }

  /** Before a point of the disk is asked for; give it to pointTaken() when that was answered. */
  pointAsked(): readonly number[] {
    return [...this.#acknowledged];
  }

  pointTaken(least: readonly number[]): WitnessPoint {
    return { least, most: [...this.#issued] };
  }

  /** A disk that is to show a point. `isDisk`: this one went back to it, and nothing is under way on it. */
  async judgePoint(client: RegisterClient, point: WitnessPoint, isDisk: boolean): Promise<readonly string[]> {
    const findings: string[] = [];
    for (let register = 0; register < registers; register += 1) {
      const number = await this.#show(client, register, (finding) => findings.push(finding));
      const [least, most] = [point.least[register] ?? 0, point.most[register] ?? 0];
      if (number < least || number > most) {
        findings.push(`register ${register} shows ${number}, not ${least} to ${most} as at the point`);
      }
      if (!isDisk) continue;
      this.#acknowledged[register] = number;
      this.#found[register] = number;
      this.#undone[register] = this.#issued[register] ?? 0;
    }
    return findings;
  }

  async #write(client: RegisterClient, register: number): Promise<number> {
    const number = (this.#issued[register] ?? 0) + 1;
    this.#issued[register] = number;
    const block = Buffer.alloc(registerBytes, number % 251);
    block.writeUInt32LE(number, 0);
    await client.write(this.#start + register * registerBytes, block);
    this.#acknowledged[register] = Math.max(this.#acknowledged[register] ?? 0, number);
    this.counts.writes += 1;
    return number;
  }

  async #read(client: RegisterClient, register: number, seen: Promised[], through: string): Promise<void> {
    const newest = this.#acknowledged[register] ?? 0;
    const own = seen[register] ?? { number: 0, why: "acknowledged" };
    const undone = this.#undone[register] ?? 0;
    const number = await this.#show(client, register, (finding) =>
      this.#note(`through ${through}: ${finding}`),
    );
    this.counts.reads += 1;
    if (number < newest) this.counts.older += 1;
    const isNewer = this.policy === "strict" && newest >= own.number;
    const least: Promised = isNewer ? { number: newest, why: "acknowledged" } : own;
    const issued = this.#issued[register] ?? 0;
    if (number < least.number || number > issued) {
      const finding = `register ${register} shows ${number}, ${least.number} was ${least.why}, ${issued} written`;
      this.#note(`through ${through}: ${finding}`);
    }
    if (number > (this.#found[register] ?? 0) && number <= undone) {
      this.#note(`through ${through}: register ${register} shows ${number}, which a rollback undid`);
    }
    if (number > (seen[register]?.number ?? 0)) seen[register] = { number, why: "shown" };
  }

  /** The number in a register, which is in all of it. */
  async #show(client: RegisterClient, register: number, note: (finding: string) => void): Promise<number> {
    const block = await client.read(this.#start + register * registerBytes, registerBytes);
    const number = block.readUInt32LE(0);
    const fill = number === 0 ? 0 : number % 251;
    if (block.subarray(4).some((byte) => byte !== fill))
      note(`register ${register} is torn at number ${number}`);
    return number;
  }

  #note(finding: string): void {
    if (this.findings.length < findingsMax) this.findings.push(`${this.policy} reads, ${finding}`);
  }
}
