/*
 * Keeps in the bucket what one replica reads its evicted extents from: a pin of the point in the volume's history record, which the
 * archiver repeats in each manifest, and which nothing is evicted before. Made by kept-extents.ts. Rules: docs/specs/cluster.md#tiering.
 *
 *   wanted ─pin in the history record─► ─a manifest in the bucket has it, the point opens─► kept ─nothing is read from it─► dropped
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { replicaPinHolder, withPin } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";

export interface ReplicaPinsOptions {
  readonly node: string;
  readonly volumeId: string;
  readonly past: Pick<PastRecords, "historyOf" | "changeHistory">;
  readonly archived: Pick<ArchivedImages, "newest" | "point">;
  readonly clock: Clock;
  /** LSNs of the volume that the replica, or its last checkpoint, reads from now. */
  readonly used: () => readonly number[];
}

const lookMs = 500;

export class ReplicaPins {
  readonly #options: ReplicaPinsOptions;
  readonly #holder: string;
  /** Seen in a manifest since this process began, and not dropped. */
  readonly #kept = new Set<number>();
  /** Wanted by evictions under way, and by those of which nobody knows how they ended: these stay until the next start. */
  readonly #wanted = new Map<number, number>();
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: ReplicaPinsOptions) {
    this.#options = options;
    this.#holder = replicaPinHolder(options.node);
  }

  /**
   * Resolves when what the point is read from can't leave the bucket any more; the function lets go of it when the eviction has ended,
   * where that is known. Rejects Retry while the bucket or its archiver is away, otherwise where the point does not open.
   */
  async keep(lsn: number): Promise<() => void> {
    this.#wanted.set(lsn, (this.#wanted.get(lsn) ?? 0) + 1);
    const release = (): void => {
      const others = (this.#wanted.get(lsn) ?? 1) - 1;
      if (others > 0) this.#wanted.set(lsn, others);
      else this.#wanted.delete(lsn);
    };
    try {
      await this.#next(async () => this.#publish(lsn));
      return release;
    } catch (cause) {
      release();
      throw cause;
    }
  }

  /** Keeps what the replica reads from already, as after a start, and drops what it does not. Called now and then; rejects as keep(). */
  async tend(): Promise<void> {
    for (const lsn of this.#options.used()) {
      if (!this.#kept.has(lsn)) (await this.keep(lsn))();
    }
    if (this.#needless().length > 0) await this.#next(async () => this.#drop());
  }

  /** Pins stay: the replica is opened again. */
  close(): void {
    this.#closed = true;
  }

  #next<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #publish(lsn: number): Promise<void> {
    const { past, volumeId, archived } = this.#options;
    if (this.#kept.has(lsn)) return;
    await past.changeHistory(volumeId, (present) => {
      if (present === null) throw noHistory(volumeId);
      return withPin(present, { lsn, holder: this.#holder });
    });
    await this.#untilPublished(lsn);
    // Retention may have passed it before the pin was published: that it is pinned now does not bring back what it needs.
    await (await archived.point(volumeId, lsn)).close();
    this.#kept.add(lsn);
  }

  async #untilPublished(lsn: number): Promise<void> {
    const { archived, volumeId, clock } = this.#options;
    const endMs = clock.monotonicMs() + limits.bucketCommandMs;
    let failure: VarveError | null = null;
    while (!this.#closed) {
      const found = await archived.newest(volumeId).catch((cause: unknown) => {
        failure = toVarveError(cause, "look into the bucket");
        if (failure.kind !== "Retry") throw failure;
        return null;
      });
      const isPinned = found?.pins.some((pin) => pin.lsn === lsn && pin.holder === this.#holder);
      if (found !== null && found.lsn >= lsn && isPinned === true) return;
      if (clock.monotonicMs() >= endMs) break;
      await new Promise<void>((resolve) => {
        clock.after(lookMs, resolve);
      });
    }
    throw notPublished(lsn, failure);
  }

  #needless(): readonly number[] {
    const { past, volumeId, used } = this.#options;
    const needed = new Set(used());
    const mine = past.historyOf(volumeId)?.pins.filter(({ holder }) => holder === this.#holder) ?? [];
    return mine.map(({ lsn }) => lsn).filter((lsn) => !needed.has(lsn) && !this.#wanted.has(lsn));
  }

  async #drop(): Promise<void> {
    const { past, volumeId } = this.#options;
    // Who wants one of them from now on waits for this turn, and pins it again.
    const gone = new Set(this.#needless());
    for (const lsn of gone) this.#kept.delete(lsn);
    await past.changeHistory(volumeId, (present) => {
      if (present === null) return null;
      const pins = present.pins.filter(({ lsn, holder }) => holder !== this.#holder || !gone.has(lsn));
      return pins.length === present.pins.length ? present : { ...present, pins };
    });
  }
}

function noHistory(volumeId: string): VarveError {
  return new VarveError("HistoryOffError", "Retry", `volume ${volumeId} has no history record`, {
    hint: "Look whether a varve archiver runs.",
    fields: { volumeId },
  });
}

function notPublished(lsn: number, cause: VarveError | null): VarveError {
  const why = cause === null ? "no manifest names it yet" : cause.message;
  return new VarveError("PinNotPublished", "Retry", `the bucket does not keep entry ${lsn} yet: ${why}`, {
    hint: "Extents stay where they are for now. Look whether a varve archiver runs and reaches the bucket.",
    fields: { lsn },
    cause,
  });
}
