/*
 * Leases over a key table, by compare-and-set: the table's kind does not matter. One object per gateway process watches all
 * leases, so that it knows how long each was not renewed; held-lease.ts keeps one that was taken. Rules by number:
 * docs/specs/cluster.md#the-lease. Made by the gateway's layer.
 */
import type { LeaseRecord } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeClusterRecord, encodeClusterRecord } from "#shared/formats/cluster-records.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { KeyRow, KeyTable, KeyWatch } from "#shared/ports/key-table.ts";
import type { Lease, Leases, LeaseTerms } from "#shared/ports/lease.ts";
import { HeldLease } from "./held-lease.ts";

export interface LeaseOptions {
  readonly table: KeyTable;
  readonly clock: Clock;
  readonly random: Random;
  readonly leaseMs?: number;
  /** Of the keys that are watched, and can be taken; without it the leases of writers. */
  readonly prefix?: string;
}

/** A key as this process last saw it. */
interface Seen {
  readonly record: LeaseRecord | null;
  readonly revision: number;
  /** Own monotonic clock: when this revision was first seen. */
  readonly sinceMs: number;
}

export class KeyTableLeases implements Leases {
  readonly #options: LeaseOptions;
  readonly #leaseMs: number;
  readonly #seen = new Map<string, Seen>();
  readonly #held = new Map<string, HeldLease>();
  readonly #watch: KeyWatch;
  readonly #ready: Promise<void>;
  readonly #changes = new Set<() => void>();

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? limits.leaseMsDefault;
    let caughtUp = (): void => undefined;
    this.#ready = new Promise((resolve) => {
      caughtUp = resolve;
    });
    this.#watch = options.table.watch(options.prefix ?? "volume.", {
      row: (row) => this.#note(row),
      caughtUp,
    });
  }

  async ready(): Promise<void> {
    await this.#ready;
  }

  view(key: string): LeaseRecord | null {
    return this.#seen.get(key)?.record ?? null;
  }

  async take(key: string, terms: LeaseTerms): Promise<Lease> {
    await this.#ready;
    const first = this.#seen.get(key)?.record ?? null;
    for (;;) {
      const seen = this.#seen.get(key) ?? null;
      const record = seen?.record ?? null;
      if (record !== null && renewed(first, record)) throw held(key, record);
      const waitMs = seen === null ? 0 : this.#untilFree(seen);
      if (waitMs > 0) {
        await this.#changeOr(waitMs);
        continue;
      }
      const lease = await this.#tryTake(key, terms, seen);
      if (lease !== null) return lease;
    }
  }

  async revoke(key: string): Promise<boolean> {
    const row = await this.#options.table.get(key);
    if (row === null) return false;
    this.#note(row);
    const record = this.view(key);
    if (record === null || record.state !== "held") return false;
    const value = encodeClusterRecord("lease", { ...record, state: "revoked" });
    const revision = await this.#options.table.put(key, value, row.revision);
    if (revision === null) return await this.revoke(key);
    this.#note({ key, value, revision });
    return true;
  }

  close(): void {
    this.#watch.close();
    for (const lease of this.#held.values()) lease.stop();
  }

  /** Rule 2. */
  #untilFree({ record, sinceMs }: Seen): number {
    if (record === null || record.state === "released") return 0;
    return sinceMs + record.leaseMs - this.#options.clock.monotonicMs();
  }

  /** Null: the key changed meanwhile. */
  async #tryTake(key: string, terms: LeaseTerms, seen: Seen | null): Promise<Lease | null> {
    const { table, clock, random } = this.#options;
    const record: LeaseRecord = {
      ...terms,
      tenure: random.hex(8),
      epoch: (seen?.record?.epoch ?? 0) + 1,
      renewal: 0,
      leaseMs: this.#leaseMs,
      state: "held",
    };
    const value = encodeClusterRecord("lease", record);
    const sentMs = clock.monotonicMs();
    let revision: number | null;
    try {
      const present = seen === null || seen.record === null ? 0 : seen.revision;
      revision = await table.put(key, value, present);
    } catch (cause) {
      // It may have happened: then the key says so.
      const row = await table.get(key);
      if (row !== null) this.#note(row);
      if (this.view(key)?.tenure !== record.tenure || row === null) throw cause;
      ({ revision } = row);
    }
    if (revision === null) {
      const row = await table.get(key);
      if (row === null) this.#seen.delete(key);
      else this.#note(row);
      return null;
    }
    this.#note({ key, value, revision });
    const lease = new HeldLease({ table, clock, key, record, revision, sentMs });
    this.#held.set(key, lease);
    lease.onStopped(() => {
      if (this.#held.get(key) === lease) this.#held.delete(key);
    });
    return lease;
  }

  #note({ key, value, revision }: KeyRow): void {
    const before = this.#seen.get(key);
    if (before !== undefined && revision <= before.revision) return;
    const record = value === null ? null : decodeClusterRecord("lease", value, key);
    this.#seen.set(key, { record, revision, sinceMs: this.#options.clock.monotonicMs() });
    this.#held.get(key)?.saw(record, revision);
    for (const wake of this.#changes) wake();
  }

  async #changeOr(waitMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#changes.delete(wake);
        timer.cancel();
        resolve();
      };
      const timer = this.#options.clock.after(waitMs, wake);
      this.#changes.add(wake);
    });
  }
}

/** Somebody holds it and shows it: another renewal than before, or another tenure; `first` null: nobody had it. */
function renewed(first: LeaseRecord | null, now: LeaseRecord): boolean {
  return now.state === "held" && (now.tenure !== first?.tenure || now.renewal !== first.renewal);
}

function held(key: string, { holder, address }: LeaseRecord): VarveError {
  return new VarveError("LeaseHeldError", "Retry", `${key} is served by gateway ${holder} at ${address}`, {
    hint: "Connect to that gateway, or, if it must give it up: varve volume takeover NAME --force.",
    fields: { holder, address },
  });
}
