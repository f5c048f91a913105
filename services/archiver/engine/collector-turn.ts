/*
 * Which archiver process of a cluster collects the bucket: one, by a lease of the lease table, because retention time moves only by the
 * hours that one process saw pass. The others trim the volumes that they archive by the time that it stored (collector.ts). Made
 * by the archiver's cluster keeper; serves what the api asks for (collect-calls.ts) while the turn is its own.
 */
import { toVarveError } from "#shared/domain/errors.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";

export interface CollectorTurnOptions {
  /** Name of this archiver process. */
  readonly name: string;
  readonly clock: Clock;
  readonly leases: Pick<Leases, "take">;
  /** Called when the turn begins; what it returns, when the turn ends. */
  readonly begin: () => () => void;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

/** Its prefix is that of the archivers' leases; no volume's id has this form. */
const leaseKey = "archive.collector";
const againMs = 5000;

export class CollectorTurn {
  readonly #options: CollectorTurnOptions;
  #lease: Lease | null = null;
  #end: (() => void) | null = null;
  #timer: Timer | null = null;
  #trying: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: CollectorTurnOptions) {
    this.#options = options;
  }

  start(): void {
    this.#trying = this.#try();
  }

  /** The lease saves work, it protects nothing: what is deleted is guarded by the bucket's own lease and by what manifests name. */
  get isMine(): boolean {
    return this.#lease !== null && this.#lease.remainingMs() > 0;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#trying;
    const lease = this.#lease;
    this.#over();
    await lease?.release();
  }

  async #try(): Promise<void> {
    let lease: Lease | null = null;
    try {
      lease = await this.#options.leases.take(leaseKey, { holder: this.#options.name, address: "" });
      this.#lease = lease;
      this.#end = this.#options.begin();
      lease.onLost(() => {
        this.#over();
        this.#again();
      });
    } catch (cause) {
      // Another archiver has it, or the table is away: both are told where volumes are archived. Whoever can't begin lets others.
      if (lease !== null) {
        this.#over();
        this.#options.onNote(
          `warning: the bucket is not collected here: ${toVarveError(cause, "collect").message}`,
        );
        await lease.release();
      }
      this.#again();
    }
  }

  #over(): void {
    this.#end?.();
    this.#end = null;
    this.#lease = null;
  }

  #again(): void {
    if (this.#closed) return;
    this.#timer = this.#options.clock.after(againMs, () => {
      this.#trying = this.#try();
    });
  }
}
