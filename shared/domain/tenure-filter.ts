/*
 * Which batches of a shared log count. Several writers may reach one log (a JetStream stream), so it can hold batches of a
 * writer that was fenced already: everybody who reads it in its order skips the same ones by this rule, without asking anybody.
 * Pure. Callers: the JetStream log's readers and take-over; storage nodes through them. docs/specs/jetstream-log.md, Followers.
 */
import { lastLsnOf } from "./batch.ts";
import type { Entry } from "./entry.ts";

/** What the rule looks at. */
export interface FilteredBatch {
  readonly line: string;
  readonly epoch: number;
  readonly firstLsn: number;
  readonly previousChecksum: bigint;
  readonly checksum: bigint;
  readonly entries: readonly Entry[];
}

/** The last batch that counted. */
export interface FilterPosition {
  readonly line: string;
  /** Greatest epoch passed; null where only LSN and checksum are known. */
  readonly epoch: number | null;
  readonly lastLsn: number;
  /** Checksum of the batch that ends at lastLsn; 0n where the line begins behind it. */
  readonly checksum: bigint;
}

/** next: it counts and was taken. stale: a fenced writer's, skip it. known: at or before the position, skip it. */
export type FilterVerdict = "next" | "stale" | "known" | FilterMismatch;

/** The log is not what any writers could have made of it: stop, change nothing. */
export interface FilterMismatch {
  readonly what: "line" | "gap" | "overlap" | "chain" | "tenure" | "fork";
  readonly detail: string;
}

/**
 * Judges batches in the order of the log. Deterministic: the same batches from the same position give the same verdicts on
 * every node. After a mismatch it stays where it is.
 */
export class TenureFilter {
  #position: FilterPosition | null;

  /** `position` null: the first batch seen is believed, because its reader knows that it counts. */
  constructor(position: FilterPosition | null) {
    this.#position = position;
  }

  get position(): FilterPosition | null {
    return this.#position;
  }

  /** LSN of the batch that would be next. */
  get nextLsn(): number {
    return (this.#position?.lastLsn ?? 0) + 1;
  }

  judge(batch: FilteredBatch): FilterVerdict {
    const position = this.#position;
    if (position === null) return this.#take(batch);
    if (batch.line !== position.line) {
      return { what: "line", detail: `line ${batch.line} in a log of line ${position.line}` };
    }
    if (position.epoch !== null && batch.epoch < position.epoch) return "stale";
    const lastLsn = lastLsnOf(batch);
    if (lastLsn < position.lastLsn) return "known";
    if (lastLsn === position.lastLsn) return this.#again(batch, position);
    if (batch.firstLsn <= position.lastLsn) {
      return {
        what: "overlap",
        detail: `a batch starts at LSN ${batch.firstLsn} behind ${position.lastLsn}`,
      };
    }
    if (batch.firstLsn !== position.lastLsn + 1) {
      return { what: "gap", detail: `a batch starts at LSN ${batch.firstLsn}, not ${position.lastLsn + 1}` };
    }
    if (batch.previousChecksum !== position.checksum) {
      return {
        what: "chain",
        detail: `the batch at LSN ${batch.firstLsn} follows another one than the last`,
      };
    }
    if (position.epoch !== null && batch.epoch > position.epoch && batch.entries[0]?.kind !== "epoch") {
      return { what: "tenure", detail: `epoch ${batch.epoch} begins without its entry` };
    }
    return this.#take(batch);
  }

  /** The batch of the position itself: it tells the epoch where only LSN and checksum were known. */
  #again(batch: FilteredBatch, position: FilterPosition): FilterVerdict {
    if (batch.checksum === position.checksum) {
      this.#position = { ...position, epoch: batch.epoch };
      return "known";
    }
    // Before the position's own batch is met, an older writer's may stand here.
    if (position.epoch === null) return "known";
    return { what: "fork", detail: `another batch ends at LSN ${position.lastLsn}` };
  }

  #take(batch: FilteredBatch): "next" {
    this.#position = {
      line: batch.line,
      epoch: batch.epoch,
      lastLsn: lastLsnOf(batch),
      checksum: batch.checksum,
    };
    return "next";
  }
}

export function isMismatch(verdict: FilterVerdict): verdict is FilterMismatch {
  return typeof verdict !== "string";
}
