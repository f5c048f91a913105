/*
 * The extents of an open volume: what fills and evicts them in the background, what is asked for at once, and where they are.
 * Part of volume-session.ts, which closes it before the image; hosted-volume.ts starts the tending and reads residency.
 */
import { invariant } from "#shared/domain/invariant.ts";
import type { ReplicaTending, TendingOptions } from "#shared/ports/replica-home.ts";
import type { ReplicaExtents, ResidencyState } from "#shared/ports/replica-residency.ts";

/** The newest held base and the point that what is evicted is read from (TendingOptions.heldBase). */
export type EvictionBase = NonNullable<ReturnType<TendingOptions["heldBase"]>>;

/** Extents in one eviction, 16 GiB: each costs a checkpoint. */
const evictedAtOnceMax = 4096;

export class SessionExtents {
  private readonly extents: ReplicaExtents | undefined;
  private readonly begin: ((options: TendingOptions) => ReplicaTending) | undefined;
  private tending: ReplicaTending | null = null;
  private closed = false;

  /** `extents` undefined: all are always local. */
  constructor(
    extents: ReplicaExtents | undefined,
    begin: ((options: TendingOptions) => ReplicaTending) | undefined,
  ) {
    this.extents = extents;
    this.begin = begin;
  }

  /** Starts to fill and evict in the background; null where all are always local. Ended by close(). */
  tend(options: TendingOptions): ReplicaTending | null {
    invariant(this.tending === null && !this.closed, "a session tends its extents once");
    this.tending = this.begin?.(options) ?? null;
    return this.tending;
  }

  /** Where they are; null where all are always local. */
  residency(): ResidencyState | null {
    return this.extents?.residency() ?? null;
  }

  /** Gives what was not used since `beforeMs` back to the bucket; resolves with how many went. */
  async evictCold(held: EvictionBase, beforeMs: number): Promise<number> {
    const { extents } = this;
    // Once each: what somebody reads comes back as fast as it leaves, and there would be no end.
    const chosen = new Set<number>();
    for (let evicted = 0; ; ) {
      if (extents === undefined || this.closed) return evicted;
      const found = await extents.coldExtents(held.baseLsn, beforeMs, evictedAtOnceMax + chosen.size);
      const cold = found.filter((extent) => !chosen.has(extent)).slice(0, evictedAtOnceMax);
      if (cold.length === 0) return evicted;
      for (const extent of cold) chosen.add(extent);
      evicted += await extents.evict({ ...held, extents: cold });
    }
  }

  /** Gives an extent back to the bucket and fetches it again; false where the base does not have all of it. */
  async refill(base: EvictionBase, extent: number): Promise<boolean> {
    const { extents } = this;
    if (extents === undefined) return false;
    if ((await extents.evict({ ...base, extents: [extent] })) === 0) return false;
    await extents.fill(extent);
    return true;
  }

  /** What was not fetched is fetched after the next start. */
  async close(): Promise<void> {
    this.closed = true;
    await this.tending?.close().catch(() => undefined);
  }
}
