/*
 * One lease that this process took, and its renewals. Made by key-table.ts, which also hands it what the watch sees; the gateway
 * holds it as a Lease. Numbers: docs/specs/cluster.md#the-lease.
 */
import type { LeaseRecord } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeClusterRecord, encodeClusterRecord } from "#shared/formats/cluster-records.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { KeyTable } from "#shared/ports/key-table.ts";
import type { Lease } from "#shared/ports/lease.ts";

export interface HeldLeaseOptions {
  readonly table: KeyTable;
  readonly clock: Clock;
  readonly key: string;
  readonly record: LeaseRecord;
  readonly revision: number;
  /** Own monotonic clock: when the put that took it was sent. */
  readonly sentMs: number;
}

/** Renewals without an answer whose sending times are remembered: more than fit a lease. */
const sendingsMax = 64;

export class HeldLease implements Lease {
  readonly key: string;
  readonly #table: KeyTable;
  readonly #clock: Clock;
  /** As last known to be stored. */
  #record: LeaseRecord;
  #revision: number;
  /** Rule 1: when the last renewal that is known to be stored was sent. */
  #sentMs: number;
  /** The number of the last renewal that was sent, stored or not. */
  #lastRenewal: number;
  /** Rule 3: when renewals were sent whose answers have not come. */
  readonly #sendings = new Map<number, number>();
  #timer: Timer | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #state: "held" | "lost" | "released" = "held";
  #lostError: VarveError | null = null;
  readonly #lostListeners: ((error: VarveError) => void)[] = [];
  #stopped: () => void = () => undefined;

  constructor({ table, clock, key, record, revision, sentMs }: HeldLeaseOptions) {
    this.#table = table;
    this.#clock = clock;
    this.key = key;
    this.#record = record;
    this.#revision = revision;
    this.#sentMs = sentMs;
    this.#lastRenewal = record.renewal;
    this.#renewLater();
  }

  get epoch(): number {
    return this.#record.epoch;
  }

  remainingMs(): number {
    if (this.#state !== "held") return 0;
    return this.#sentMs + this.#record.leaseMs - this.#clock.monotonicMs();
  }

  onLost(listener: (error: VarveError) => void): void {
    if (this.#lostError !== null) listener(this.#lostError);
    else this.#lostListeners.push(listener);
  }

  onStopped(listener: () => void): void {
    this.#stopped = listener;
  }

  async raiseEpoch(above: number): Promise<number | null> {
    await this.#inTurn(async () => this.#store({ epoch: Math.max(above, this.#record.epoch) + 1 }));
    return this.#state === "held" ? this.#record.epoch : null;
  }

  async release(): Promise<void> {
    if (this.#state !== "held") return;
    await this.#inTurn(async () => {
      await this.#store({ state: "released" }).catch(() => undefined); // then it runs out by itself
      if (this.#state === "held") this.#state = "released";
    }).catch(() => undefined);
    this.stop();
  }

  /** No more renewals; the lease runs out by itself. */
  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#stopped();
  }

  /** What the watch saw. Own changes come by here, too, early or late. */
  saw(record: LeaseRecord | null, revision: number): void {
    if (this.#state !== "held" || revision <= this.#revision) return;
    if (record === null || record.tenure !== this.#record.tenure || record.state === "revoked") {
      this.#lose(record);
    }
  }

  #renewLater(): void {
    const everyMs = this.#record.leaseMs / limits.leaseRenewalsPerLease;
    this.#timer = this.#clock.after(everyMs, () => {
      this.#inTurn(async () => this.#store({}))
        .catch(() => undefined) // away: it may run out; the next renewal tells whether somebody took it
        .finally(() => {
          if (this.#state === "held" && this.#timer !== null) this.#renewLater();
        });
    });
  }

  /** One change at a time. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  /** Stores a renewal with `change`, on whatever of this tenure is stored now. Rejects Retry; a lost lease shows in #state. */
  async #store(change: Partial<LeaseRecord>): Promise<void> {
    while (this.#state === "held") {
      this.#lastRenewal += 1;
      const record = { ...this.#record, ...change, renewal: this.#lastRenewal };
      const sentMs = this.#clock.monotonicMs();
      if (this.#sendings.size < sendingsMax) this.#sendings.set(record.renewal, sentMs);
      const value = encodeClusterRecord("lease", record);
      const revision = await this.#table.put(this.key, value, this.#revision);
      if (revision !== null) {
        this.#stored(record, revision, sentMs);
        return;
      }
      await this.#adopt();
    }
  }

  /** Rule 3: a renewal whose answer was lost may stand there. */
  async #adopt(): Promise<void> {
    const row = await this.#table.get(this.key);
    if (row === null || row.value === null) {
      this.#lose(null);
      return;
    }
    if (row.revision < this.#revision) {
      throw new VarveError("LeaseStaleRead", "Retry", `${this.key}: a server that is behind answered`);
    }
    const record = decodeClusterRecord("lease", row.value, this.key);
    if (record.tenure !== this.#record.tenure || record.state === "revoked") {
      this.#lose(record);
      return;
    }
    // A renewal that was not remembered moves the revision, not the end of the lease.
    this.#stored(record, row.revision, this.#sendings.get(record.renewal) ?? this.#sentMs);
  }

  #stored(record: LeaseRecord, revision: number, sentMs: number): void {
    this.#record = record;
    this.#revision = revision;
    this.#sentMs = Math.max(this.#sentMs, sentMs);
    for (const renewal of this.#sendings.keys()) {
      if (renewal <= record.renewal) this.#sendings.delete(renewal);
    }
  }

  #lose(record: LeaseRecord | null): void {
    if (this.#state !== "held") return;
    this.#state = "lost";
    const by =
      record === null ? "its key was removed" : record.state === "revoked" ? "it was revoked" : record.holder;
    this.#lostError = new VarveError("LeaseLostError", "Fenced", `lease ${this.key} is lost: ${by}`, {
      hint: "Another gateway may serve the volume now; clients connect again and are sent there.",
      fields: { key: this.key },
    });
    this.stop();
    for (const listener of this.#lostListeners.splice(0)) listener(this.#lostError);
  }
}
