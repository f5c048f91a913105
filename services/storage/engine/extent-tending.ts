/*
 * Tends the extents of one attached replica: the filler fetches what is remote, tiering gives back what is cold. Made by
 * services/storage/layer.ts when a volume serves, closed before its session is. docs/specs/residency.md, "Tiering".
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type {
  ReplicaTending,
  TendingOptions,
  TendingPolicy,
  TendingStatus,
} from "#shared/ports/replica-home.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { ReplicaExtents } from "#shared/ports/replica-residency.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import { ExtentFiller } from "./extent-filler.ts";

export interface ExtentTendingParts {
  readonly image: ReplicaImage;
  readonly clock: Clock;
  readonly admission: SpaceAdmission;
}

/** Coldness is counted in hours; capacity is watched more closely. */
const passMs = 60_000;
const coldPassMs = 10 * 60_000;
const saveUseMs = 3_600_000;
/** Given back with one checkpoint: 16 GiB. */
const evictedAtOnceMax = 4096;

interface Waiter {
  resolve(): void;
  reject(error: VarveError): void;
}

export class ExtentTending implements ReplicaTending {
  readonly #parts: ExtentTendingParts;
  readonly #extents: ReplicaExtents;
  readonly #options: TendingOptions;
  readonly #filler: ExtentFiller;
  readonly #waiters: Waiter[] = [];
  #policy: TendingPolicy;
  #timer: Timer | null = null;
  #pass: Promise<void> | null = null;
  #coldPassDueMs = 0;
  #saveDueMs: number;
  #closed = false;

  constructor(parts: ExtentTendingParts, extents: ReplicaExtents, options: TendingOptions) {
    this.#parts = parts;
    this.#extents = extents;
    this.#options = options;
    this.#policy = options.policy;
    this.#saveDueMs = parts.clock.monotonicMs() + saveUseMs;
    this.#filler = new ExtentFiller({
      extents,
      clock: parts.clock,
      admission: parts.admission,
      checkpoint: () => parts.image.checkpoint(),
      onWhole: () => this.#whole(),
      onNote: (text) => options.onNote?.(text),
    });
    this.setPolicy(options.policy);
  }

  status(): TendingStatus {
    const { extents, localExtents, counters } = this.#extents.residency();
    return {
      state: this.#filler.state,
      remainingExtents: extents - localExtents,
      extents,
      filledBytes: this.#filler.filledBytes,
      evictedExtents: counters.evictedExtents,
      error: this.#filler.error,
    };
  }

  async fill(): Promise<void> {
    if (this.#closed) return;
    const whole = new Promise<void>((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
    });
    this.#setFiller();
    await whole;
  }

  async evictCold(beforeMs: number): Promise<number> {
    // Once each: what somebody reads comes back as fast as it leaves, and there would be no end.
    const chosen = new Set<number>();
    for (let evicted = 0; ; ) {
      const before = chosen.size;
      evicted += await this.#evict(beforeMs, evictedAtOnceMax, chosen);
      if (chosen.size === before) return evicted;
    }
  }

  setPolicy(policy: TendingPolicy): void {
    this.#policy = policy;
    this.#extents.trackReads(policy.residency === "tiered");
    this.#coldPassDueMs = 0;
    this.#setFiller();
    this.#schedule();
  }

  pause(): void {
    this.#filler.pause(true);
  }

  resume(): void {
    this.#filler.pause(false);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
    await this.#filler.close();
    await this.#pass;
    const error = tendingClosed();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }

  #setFiller(): void {
    const everything = this.#policy.residency === "full" || this.#waiters.length > 0;
    this.#filler.set(everything, this.#policy.fillBytesPerSecond);
  }

  #whole(): void {
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
    this.#setFillerAfterFill();
    this.#options.onWhole?.();
  }

  /** A tiered replica goes back to fetching what is read. */
  #setFillerAfterFill(): void {
    if (this.#policy.residency === "tiered") this.#setFiller();
  }

  #schedule(): void {
    if (this.#closed || this.#timer !== null || this.#policy.residency !== "tiered") return;
    this.#timer = this.#parts.clock.after(passMs, () => {
      this.#timer = null;
      this.#pass = this.#lookForCold()
        .catch((cause: unknown) => {
          const error = toVarveError(cause, "evict cold extents");
          if (!this.#closed) this.#options.onNote?.(`cold extents stay for now: ${error.message}`);
        })
        .finally(() => {
          this.#pass = null;
          this.#schedule();
        });
    });
  }

  async #lookForCold(): Promise<void> {
    const { clock } = this.#parts;
    const nowMs = clock.monotonicMs();
    if (nowMs >= this.#saveDueMs) {
      this.#saveDueMs = nowMs + saveUseMs;
      await this.#extents.saveLastUse();
    }
    // Somebody wants the file whole: nothing is given back meanwhile.
    if (this.#waiters.length > 0) return;
    if (nowMs >= this.#coldPassDueMs) {
      this.#coldPassDueMs = nowMs + coldPassMs;
      await this.#evict(clock.wallTimeMs() - this.#policy.coldAfterMs, evictedAtOnceMax);
    }
    const { capacity } = this.#policy;
    const { allocatedBytes } = this.#parts.image.state();
    if (capacity === null || allocatedBytes <= capacity.highBytes) return;
    const surplus = Math.ceil((allocatedBytes - capacity.lowBytes) / limits.extentBytes);
    // Whatever its age, but for the present hour.
    await this.#evict(clock.wallTimeMs(), Math.min(surplus, evictedAtOnceMax));
  }

  /** `chosen`: not those; afterwards also what was chosen now. */
  async #evict(beforeMs: number, most: number, chosen = new Set<number>()): Promise<number> {
    const base = this.#options.heldBase();
    if (base === null || this.#closed) return 0;
    const found = await this.#extents.coldExtents(base.baseLsn, beforeMs, most + chosen.size);
    const extents = found.filter((extent) => !chosen.has(extent)).slice(0, most);
    if (extents.length === 0 || this.#closed) return 0;
    for (const extent of extents) chosen.add(extent);
    const release = await this.#options.keep?.(base.point);
    const gone = this.#closed ? 0 : await this.#extents.evict({ ...base, extents });
    release?.();
    return gone;
  }
}

function tendingClosed(): VarveError {
  return new VarveError(
    "FillStopped",
    "Retry",
    "the volume is being closed; filling goes on when it is opened again",
  );
}

/** For a replica whose extents are always local: nothing to do. */
export class NothingToTend implements ReplicaTending {
  status(): TendingStatus {
    return { state: "idle", remainingExtents: 0, extents: 0, filledBytes: 0, evictedExtents: 0, error: null };
  }

  async fill(): Promise<void> {}

  async evictCold(): Promise<number> {
    return 0;
  }

  setPolicy(): void {}
  pause(): void {}
  resume(): void {}
  async close(): Promise<void> {}
}
