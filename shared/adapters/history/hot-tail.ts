/*
 * The part of a volume's log that is not in segments yet, scanned from the hot log and held in columns: what a point past the
 * archived LSN, a time search and a timeline need of it. The log is pinned first and stays so until release().
 * Made by volume-view.ts; payloads are read again from the hot log when a read wants them (frame-reader.ts).
 */
import type { LogEvent } from "#shared/domain/archive.ts";
import { lastLsnOf } from "#shared/domain/batch.ts";
import { type Entry, entryKind } from "#shared/domain/entry.ts";
import type { HotLog, LoggedBatch } from "#shared/ports/history.ts";
import type { LogPart } from "./log-parts.ts";

/** Where the payload of a batch is read again; the value of a map's range. */
export interface HotPlace {
  readonly kind: "hot";
  readonly log: HotLog;
  readonly firstLsn: number;
  readonly checksum: bigint;
  readonly payloadBytes: number;
}

export interface HotBatch extends LogPart {
  readonly wallTimeMs: number;
}

export interface HotTail {
  readonly log: HotLog;
  /** Entries (afterLsn, lastLsn] are in `batches`. */
  readonly afterLsn: number;
  readonly lastLsn: number;
  readonly batches: readonly HotBatch[];
  readonly events: readonly LogEvent[];
  /** Lets the log go. Once. */
  readonly release: () => void;
}

/** Null where the log does not reach back to afterLsn + 1 any more: it is archived by now. */
export async function scanHotTail(log: HotLog, afterLsn: number, upToLsn: number): Promise<HotTail | null> {
  const release = log.pin(afterLsn + 1);
  try {
    const { oldestLsn, durableLsn } = log.state();
    if (oldestLsn > afterLsn + 1) {
      release();
      return null;
    }
    const lastLsn = Math.min(upToLsn, durableLsn);
    const batches: HotBatch[] = [];
    const events: LogEvent[] = [];
    if (lastLsn > afterLsn) {
      for await (const batch of log.read(afterLsn + 1)) {
        batches.push(columnsOf(log, batch));
        pushEvents(events, batch);
        if (lastLsnOf(batch) >= lastLsn) break;
      }
    }
    return { log, afterLsn, lastLsn: batches.at(-1)?.lastLsn ?? afterLsn, batches, events, release };
  } catch (error) {
    release();
    throw error;
  }
}

function columnsOf(log: HotLog, batch: LoggedBatch): HotBatch {
  const { entries, firstLsn, checksum, wallTimeMs } = batch;
  const kinds = new Uint8Array(entries.length);
  const offsets = new Float64Array(entries.length);
  const lengths = new Float64Array(entries.length);
  const places = new Uint32Array(entries.length);
  for (const [index, entry] of entries.entries()) {
    kinds[index] = entryKind[entry.kind];
    if ("offset" in entry) {
      offsets[index] = entry.offset;
      lengths[index] = entry.length;
    } else {
      offsets[index] = numberOf(entry);
    }
    if (entry.kind === "write") places[index] = entry.payloadStart;
  }
  const place: HotPlace = { kind: "hot", log, firstLsn, checksum, payloadBytes: batch.payload.length };
  return { firstLsn, lastLsn: lastLsnOf(batch), kinds, offsets, lengths, places, place, wallTimeMs };
}

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
