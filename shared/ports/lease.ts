/*
 * Leases: who should write a volume. Only the epoch in the log decides who may (docs/specs/cluster.md#the-lease), so a lease
 * that is wrong costs availability, never data. The gateway takes one before it opens a log. Adapter: adapters/lease/key-table.ts
 * over any key table; the contract suite (test/contract/lease.contract.ts) runs it on memory and on JetStream.
 */
import type { LeaseRecord } from "#shared/domain/cluster.ts";
import type { VarveError } from "#shared/domain/errors.ts";

export interface LeaseTerms {
  readonly holder: string;
  readonly address: string;
}

export interface Lease {
  readonly key: string;
  /** To open the log with. */
  readonly epoch: number;
  /**
   * Milliseconds that the lease still lasts by this process's own monotonic clock, counted from when the last renewal that
   * succeeded was sent; 0 or less: it ran out, and somebody may have it. Exact at the moment of the call.
   */
  remainingMs(): number;
  /** Called once when the lease is known to be lost: somebody else has it, or it was revoked. Not after release(). */
  onLost(listener: (error: VarveError) => void): void;
  /** Raises the epoch above `above`, if the lease is still this one's: resolves with the new one, or null: it is lost. Rejects Retry. */
  raiseEpoch(above: number): Promise<number | null>;
  /** Lets it go, so that others need not wait. Whatever it was protecting is closed. Idempotent; never rejects. */
  release(): Promise<void>;
}

export interface Leases {
  /** Resolves when present leases are known. */
  ready(): Promise<void>;
  /**
   * Takes the lease. Where another holder stopped renewing it waits until its time has passed. Rejects Retry (LeaseHeldError)
   * when the holder renews it, or while the key table is away.
   */
  take(key: string, terms: LeaseTerms): Promise<Lease>;
  /** Makes the present holder lose it within one renewal; takers still wait a full lease. False: nobody holds it. */
  revoke(key: string): Promise<boolean>;
  /** As last seen; null: never taken. */
  view(key: string): LeaseRecord | null;
  close(): void;
}
