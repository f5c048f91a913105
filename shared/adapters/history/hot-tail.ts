/*
 * The part of a volume's log that is not in segments yet, scanned from the hot log and held in columns: what a point past the
 * archived LSN, a time search and a timeline need of it. While the bucket is away that may be gigabytes of small batches, so
 * there is no object for each. The log is pinned first and stays so until release(). Made by volume-view.ts; payloads are
 * read again from the hot log when a read wants them (frame-reader.ts).
 */
import type { LogEvent } from "#shared/domain/archive.ts";
import { lastLsnOf } from "#shared/domain/batch.ts";
import { type Entry, entryKind } from "#shared/domain/entry.ts";
import type { HotLog, LoggedBatch } from "#shared/ports/history.ts";
import { historyTooLong } from "./history-errors.ts";
import type { LogPart } from "./log-parts.ts";

/** Payloads of batches, one behind the other, as one stream of bytes; the value of a map's range. */
export interface HotPlace {
  readonly kind: "hot";
  readonly log: HotLog;
  /** Per batch. */
  readonly firstLsns: Float64Array;
  readonly checksums: BigUint64Array;
  /** Where its payload begins in the stream; one more at the end. */
  readonly starts: Float64Array;
}

export interface HotTail {
  readonly log: HotLog;
  /** Entries (afterLsn, lastLsn] are in `part`. */
  readonly afterLsn: number;
  readonly lastLsn: number;
  readonly part: (LogPart & { readonly place: HotPlace }) | null;
  /** Per batch. */
  readonly wallTimes: Float64Array;
  readonly events: readonly LogEvent[];
  /** Lets the log go. Once. */
  readonly release: () => void;
}

export interface HotBatch {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly wallTimeMs: number;
}

/** Null where the log does not reach back to afterLsn + 1 any more: it is archived by now. */
export async function scanHotTail(
  log: HotLog,
  afterLsn: number,
  upToLsn: number,
  entriesMax: number,
): Promise<HotTail | null> {
  const release = log.pin(afterLsn + 1);
  try {
    const { oldestLsn, durableLsn } = log.state();
    if (oldestLsn > afterLsn + 1) {
      release();
      return null;
    }
    const lastLsn = Math.min(upToLsn, durableLsn);
    const columns = new TailColumns(log);
    if (lastLsn > afterLsn) {
      for await (const batch of log.read(afterLsn + 1)) {
        columns.push(batch);
        if (columns.entryCount > entriesMax) {
          const what = `more than ${entriesMax} entries are not archived yet`;
          throw historyTooLong(log.line, lastLsnOf(batch), what);
        }
        if (lastLsnOf(batch) >= lastLsn) break;
      }
    }
    return { log, afterLsn, ...columns.finish(afterLsn), release };
  } catch (error) {
    release();
    throw error;
  }
}

/** In LSN order. */
export function* hotBatches(tail: HotTail | null): Generator<HotBatch, void, undefined> {
  const firstLsns = tail?.part?.place.firstLsns ?? new Float64Array(0);
  for (let index = 0; index < firstLsns.length; index += 1) {
    const next = firstLsns[index + 1] ?? (tail?.lastLsn ?? 0) + 1;
    yield {
      firstLsn: firstLsns[index] as number,
      lastLsn: next - 1,
      wallTimeMs: tail?.wallTimes[index] as number,
    };
  }
}

/** A column that grows by doubling. */
class Column {
  private values = new Float64Array(64);
  private used = 0;

  get length(): number {
    return this.used;
  }

  push(value: number): void {
    if (this.used === this.values.length) {
      const larger = new Float64Array(this.used * 2);
      larger.set(this.values);
      this.values = larger;
    }
    this.values[this.used] = value;
    this.used += 1;
  }

  finish(): Float64Array {
    return this.values.slice(0, this.used);
  }
}

class TailColumns {
  private readonly log: HotLog;
  private readonly kinds = new Column();
  private readonly offsets = new Column();
  private readonly lengths = new Column();
  private readonly places = new Column();
  private readonly firstLsns = new Column();
  private readonly starts = new Column();
  private readonly wallTimes = new Column();
  private readonly checksums: BigUint64Array[] = [];
  private readonly events: LogEvent[] = [];
  private payloadBytes = 0;
  private lastLsn = 0;

  constructor(log: HotLog) {
    this.log = log;
  }

  get entryCount(): number {
    return this.kinds.length;
  }

  push(batch: LoggedBatch): void {
    const at = this.firstLsns.length % checksumsPerBlock;
    if (at === 0) this.checksums.push(new BigUint64Array(checksumsPerBlock));
    (this.checksums.at(-1) as BigUint64Array)[at] = batch.checksum;
    this.firstLsns.push(batch.firstLsn);
    this.starts.push(this.payloadBytes);
    this.wallTimes.push(batch.wallTimeMs);
    for (const entry of batch.entries) {
      const isRange = "offset" in entry;
      this.kinds.push(entryKind[entry.kind]);
      this.offsets.push(isRange ? entry.offset : numberOf(entry));
      this.lengths.push(isRange ? entry.length : 0);
      this.places.push(entry.kind === "write" ? this.payloadBytes + entry.payloadStart : 0);
    }
    pushEvents(this.events, batch);
    this.payloadBytes += batch.payload.length;
    this.lastLsn = lastLsnOf(batch);
  }

  finish(afterLsn: number): Pick<HotTail, "lastLsn" | "part" | "wallTimes" | "events"> {
    const { events } = this;
    const wallTimes = this.wallTimes.finish();
    const batchCount = wallTimes.length;
    if (batchCount === 0) return { lastLsn: afterLsn, part: null, wallTimes, events };
    this.starts.push(this.payloadBytes);
    const checksums = new BigUint64Array(batchCount);
    for (const [block, values] of this.checksums.entries()) {
      const at = block * checksumsPerBlock;
      checksums.set(values.subarray(0, Math.min(values.length, batchCount - at)), at);
    }
    const firstLsns = this.firstLsns.finish();
    const place: HotPlace = {
      kind: "hot",
      log: this.log,
      firstLsns,
      checksums,
      starts: this.starts.finish(),
    };
    const part = {
      firstLsn: firstLsns[0] as number,
      lastLsn: this.lastLsn,
      kinds: Uint8Array.from(this.kinds.finish()),
      offsets: this.offsets.finish(),
      lengths: this.lengths.finish(),
      places: this.places.finish(),
      place,
    };
    return { lastLsn: this.lastLsn, part, wallTimes, events };
  }
}

const checksumsPerBlock = 1024;

function numberOf(entry: Entry): number {
  if (entry.kind === "resize") return entry.sizeBytes;
  return entry.kind === "rebase" ? entry.lsn : 0;
}

function pushEvents(events: LogEvent[], batch: LoggedBatch): void {
  const { wallTimeMs, epoch, firstLsn } = batch;
  for (const [index, entry] of batch.entries.entries()) {
    const at = { lsn: firstLsn + index, wallTimeMs };
    if (entry.kind === "epoch") events.push({ kind: "epoch", ...at, writer: entry.writer, epoch });
    else if (entry.kind === "mark") events.push({ kind: "mark", ...at, name: entry.name });
    else if (entry.kind === "resize") events.push({ kind: "resize", ...at, sizeBytes: entry.sizeBytes });
    else if (entry.kind === "rebase") events.push({ kind: "rebase", ...at, toLsn: entry.lsn });
  }
}
