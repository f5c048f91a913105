// A client as a virtual machine's disk is one: one write and one read after the other, each timed; where its connection ends it connects
// to the next gateway and asks again. Says how long a request took at the most, and what failed. Called by failures.ts.
import { type GateName, type NemesisLab } from "../../cluster/nemesis-lab.ts";
import { type NbdClient, NbdRequestError } from "../../tools/nbd-client.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const blockBytes = 4096;
/** The one of the lab. */
export const volume = "disk0";

export interface Seen {
  /** The longest that a request took, with all connecting again. */
  readonly longestReadMs: number;
  readonly longestWriteMs: number;
  readonly errors: number;
  readonly connections: number;
}

export class PatientClient {
  readonly #lab: NemesisLab;
  readonly #sizeBytes: number;
  readonly #random = new SeededRandom(1);
  readonly #stop = new AbortController();
  readonly #payload = Buffer.alloc(blockBytes, 0x5a);
  #client: NbdClient;
  #gate: GateName;
  #attaching: Promise<void> | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #longestReadMs = 0;
  #longestWriteMs = 0;
  #errors = 0;
  #connections = 1;

  private constructor(lab: NemesisLab, sizeBytes: number, client: NbdClient, gate: GateName) {
    this.#lab = lab;
    this.#sizeBytes = sizeBytes;
    this.#client = client;
    this.#gate = gate;
  }

  /** Directly at the gateway that serves the volume. */
  static async attach(lab: NemesisLab, sizeBytes: number): Promise<PatientClient> {
    for (const gate of ["gate-1", "gate-2"] as const) {
      const attached = await lab.attach(gate, volume);
      if (await lab.serves(attached.gate, volume))
        return new PatientClient(lab, sizeBytes, attached.client, attached.gate);
      await attached.client.disconnect();
    }
    throw new Error("no gateway serves the volume itself");
  }

  get gate(): GateName {
    return this.#gate;
  }

  start(): void {
    const reading = this.#again(async () => {
      const tookMs = await this.#ask(async (client) => client.read(this.#offset(), blockBytes));
      this.#longestReadMs = Math.max(this.#longestReadMs, tookMs);
    });
    const writing = this.#again(async () => {
      const tookMs = await this.#ask(async (client) => client.write(this.#offset(), this.#payload));
      this.#longestWriteMs = Math.max(this.#longestWriteMs, tookMs);
    });
    this.#running = Promise.all([reading, writing]);
  }

  /** Ends when what is under way was answered. */
  async stop(): Promise<Seen> {
    this.#stop.abort();
    await this.#running;
    await this.#client.disconnect().catch(() => undefined);
    return {
      longestReadMs: this.#longestReadMs,
      longestWriteMs: this.#longestWriteMs,
      errors: this.#errors,
      connections: this.#connections,
    };
  }

  async #again(request: () => Promise<void>): Promise<void> {
    while (!this.#stop.signal.aborted) await request();
  }

  /** How long it took until an answer came. */
  async #ask(request: (client: NbdClient) => Promise<unknown>): Promise<number> {
    const sentMs = performance.now();
    for (;;) {
      const client = this.#client;
      try {
        await request(client);
        return performance.now() - sentMs;
      } catch (cause) {
        if (cause instanceof NbdRequestError) this.#errors += 1;
        else await this.#connectAgain(client);
      }
    }
  }

  /** Both loops meet the end of a connection; one connects. */
  async #connectAgain(lost: NbdClient): Promise<void> {
    if (this.#client !== lost) return;
    this.#attaching ??= this.#lab
      .attach(this.#gate === "gate-1" ? "gate-2" : "gate-1", volume)
      .then(({ client, gate }) => {
        this.#client = client;
        this.#gate = gate;
        this.#connections += 1;
      })
      .finally(() => {
        this.#attaching = null;
      });
    await this.#attaching;
  }

  #offset(): number {
    return this.#random.between(0, this.#sizeBytes / blockBytes) * blockBytes;
  }
}
