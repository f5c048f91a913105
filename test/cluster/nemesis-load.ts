// Requests of one client of the nemesis, under way until end(), with the times of their answers: the block checker's and, beside it, the
// witness'. Made by nemesis-client.ts.
import type { BlockChecker, ByteRange, RunResult } from "../tools/block-checker.ts";
import { sleep } from "../tools/cluster-process.ts";
import type { NbdClient } from "../tools/nbd-client.ts";
import type { GateName } from "./nemesis-lab.ts";
import type { Witness } from "./nemesis-witness.ts";

export interface LoadParts {
  readonly checker: BlockChecker;
  readonly witness: Witness;
  readonly client: NbdClient;
  readonly gate: GateName;
  /** Where it writes; undefined: everywhere. */
  readonly writes: ByteRange | undefined;
}

const depth = 4;

export class Load {
  readonly #stop = new AbortController();
  readonly #running: Promise<RunResult>;
  readonly #witness: { stop(): Promise<void> };
  #acknowledged = 0;
  #worstMs = 0;

  constructor({ checker, witness, client, gate, writes }: LoadParts) {
    this.#witness = witness.on(client, gate);
    this.#running = checker.run([client], {
      depth,
      ...(writes === undefined ? {} : { writes }),
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
    const result = await this.#running;
    await this.#witness.stop();
    return result;
  }
}
