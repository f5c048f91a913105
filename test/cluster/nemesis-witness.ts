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

export class Witness {
  readonly policy: ReadPolicy;
  readonly counts = { reads: 0, writes: 0, older: 0 };
  readonly findings: string[] = [];
  readonly #start: number;
  readonly #issued: number[] = Array.from({ length: registers }, () => 0);
  readonly #acknowledged: number[] = Array.from({ length: registers }, () => 0);
  #connections = 0;

  constructor(policy: ReadPolicy, start: number) {
    this.policy = policy;
    this.#start = start;
  }

  /** Until the connection ends, or stop() of what it returns, which then has nothing under way. */
  on(client: RegisterClient, through: string): { stop(): Promise<void> } {
    this.#connections += 1;
    const half = this.#connections % 2;
    const seen = [...this.#acknowledged];
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
      seen[register] = Math.max(seen[register] ?? 0, number);
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

  async #read(client: RegisterClient, register: number, seen: number[], through: string): Promise<void> {
    const newest = this.#acknowledged[register] ?? 0;
    const own = seen[register] ?? 0;
    const block = await client.read(this.#start + register * registerBytes, registerBytes);
    const number = block.readUInt32LE(0);
    this.counts.reads += 1;
    const fill = number === 0 ? 0 : number % 251;
    if (block.subarray(4).some((byte) => byte !== fill)) {
      this.#note(`through ${through}: register ${register} is torn at number ${number}`);
    }
    if (number < newest) this.counts.older += 1;
    const least = this.policy === "strict" ? Math.max(own, newest) : own;
    if (number < least || number > (this.#issued[register] ?? 0)) {
      this.#note(`through ${through}: register ${register} shows ${number}, at least ${least} was promised`);
    }
    seen[register] = Math.max(own, number);
  }

  #note(finding: string): void {
    if (this.findings.length < findingsMax) this.findings.push(`${this.policy} reads, ${finding}`);
  }
}
