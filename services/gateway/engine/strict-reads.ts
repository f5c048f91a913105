/*
 * Proof for reads of a cluster's volume with `reads: strict`: nothing is answered unless the lease still lasts when the bytes are in
 * hand. Without proof a read waits for the lease to be whole again, then gets EIO. Why that is enough, whatever is paused when:
 * docs/specs/cluster.md#reads-and-the-lease. Made by cluster-volume.ts for each session; volume-export.ts asks it.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import type { Completion } from "#shared/ports/block-export.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { Lease } from "#shared/ports/lease.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeReader } from "./volume-reader.ts";

export interface StrictReadsOptions {
  readonly clock: Clock;
  readonly lease: Pick<Lease, "remainingMs">;
  /** The volume's policy now: it may be changed while clients are attached. */
  readonly wanted: () => boolean;
}

interface Waiting {
  readonly done: Completion;
  readonly patience: Patience;
}

/** A renewal takes as long as an append: looking more often finds nothing. Nobody looks while nothing waits. */
const lookMs = 20;

export class StrictReads {
  readonly #options: StrictReadsOptions;
  #waiting: Waiting[] = [];
  #looking = false;
  #failure: VarveError | null = null;
  /** Reads that had to wait for proof. */
  readonly counters = { unprovenReads: 0 };

  constructor(options: StrictReadsOptions) {
    this.#options = options;
  }

  get wanted(): boolean {
    return this.#options.wanted();
  }

  /** See BlockExport.read. */
  read(
    reader: Pick<VolumeReader, "read">,
    offset: number,
    length: number,
    slab: Slab,
    start: number,
    done: Completion,
  ): boolean {
    const inline = reader.read(offset, length, slab, start, {
      complete: (error) => {
        if (error === null) this.#prove(done);
        else done.complete(error);
      },
    });
    if (inline && this.#isProven()) return true;
    if (inline) this.#wait(done);
    return false;
  }

  /** The session is no more: what waits gets the error, and so does all that comes. */
  fail(error: VarveError): void {
    this.#failure ??= error;
    if (this.#waiting.length > 0) this.#lookSoon();
  }

  #prove(done: Completion): void {
    if (this.#isProven()) done.complete(null);
    else this.#wait(done);
  }

  /** The margin is for clocks of two machines that do not run equally fast. */
  #isProven(): boolean {
    return this.#failure === null && this.#options.lease.remainingMs() > limits.leaseMarginMs;
  }

  #wait(done: Completion): void {
    this.counters.unprovenReads += 1;
    this.#waiting.push({ done, patience: new Patience(this.#options.clock, limits.strictReadPatienceMs) });
    this.#lookSoon();
  }

  #lookSoon(): void {
    if (this.#looking) return;
    this.#looking = true;
    this.#options.clock.after(lookMs, () => {
      this.#looking = false;
      this.#look();
    });
  }

  #look(): void {
    const proven = this.#isProven();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const one of waiting) {
      if (proven) one.done.complete(null);
      else if (this.#failure !== null) one.done.complete(this.#failure);
      else if (one.patience.isOver()) one.done.complete(unproven());
      else this.#waiting.push(one);
    }
    if (this.#waiting.length > 0) this.#lookSoon();
  }
}

function unproven(): VarveError {
  const seconds = limits.strictReadPatienceMs / 1000;
  return new VarveError(
    "ReadNotProven",
    "Retry",
    `for ${seconds} s this gateway could not prove that it still serves the volume`,
    {
      hint: "It does not reach NATS. A gateway that does serves the volume; reads: available answers without proof.",
    },
  );
}
