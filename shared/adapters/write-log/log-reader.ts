/*
 * Follows the log for replay, archiver and history: batches from an LSN up to what is stored, each checked for checksum, line, LSN and
 * chain, while appends go on behind. The embedded writer's read() is this; record-scanner.ts reads the bytes.
 */
import type { BadRecord } from "#shared/formats/log-record.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import { damage, newerFormat } from "./log-errors.ts";
import { RecordScanner } from "./record-scanner.ts";
import type { ScanMemory } from "./scan-memory.ts";
import type { LogSegment } from "./segment-file.ts";
import type { SegmentSet } from "./segment-set.ts";

export interface ReadRange {
  readonly line: string;
  readonly fromLsn: number;
  /** The last LSN to read. */
  readonly untilLsn: number;
}

export async function* readBatches(
  store: FileStore,
  memory: ScanMemory,
  set: SegmentSet,
  range: ReadRange,
): AsyncGenerator<LoggedBatch, void, undefined> {
  const scanner = new RecordScanner(memory);
  try {
    let lsn = range.fromLsn;
    while (lsn <= range.untilLsn) {
      const segment = set.live[set.holding(lsn)];
      if (segment === undefined) return;
      lsn = yield* readSegment(store, scanner, set, segment, { ...range, fromLsn: lsn });
    }
  } finally {
    scanner.close();
  }
}

/** Batches of one segment; returns the LSN to go on with in the next one. */
async function* readSegment(
  store: FileStore,
  scanner: RecordScanner,
  set: SegmentSet,
  segment: LogSegment,
  range: ReadRange,
): AsyncGenerator<LoggedBatch, number, undefined> {
  segment.readers += 1;
  const own = segment.file === null ? await openOwn(store, segment) : null;
  try {
    const point = segment.pointBefore(range.fromLsn);
    let { lsn, offset, previousChecksum } = point;
    scanner.use(own ?? segment.writable, segment.endOffset);
    while (lsn <= range.untilLsn && lsn < segment.endLsn && !startsNext(set, segment, lsn)) {
      const found = await scanner.record(offset);
      const problem = isBad(found) ? found.detail : mismatch(found.header, range.line, lsn, previousChecksum);
      if (problem !== null || isBad(found)) {
        // A repair may have moved these records to another segment while they were read here.
        if (set.live[set.holding(lsn)] !== segment) return lsn;
        if (isBad(found) && (found.fault === "version" || found.fault === "flags")) {
          throw newerFormat(segment.path, offset, found.detail);
        }
        throw damage({ file: segment.path, offset, lsn }, problem ?? "");
      }
      const { header, batch } = found;
      if (header.lastLsn >= range.fromLsn) yield batch;
      lsn = header.lastLsn + 1;
      offset += header.recordBytes;
      previousChecksum = header.checksum;
    }
    return lsn;
  } finally {
    segment.readers -= 1;
    if (own !== null) await own.close();
  }
}

async function openOwn(store: FileStore, segment: LogSegment) {
  try {
    return await store.open(segment.path, { readOnly: true, access: "buffered" });
  } catch (cause) {
    segment.readers -= 1;
    throw cause;
  }
}

function startsNext(set: SegmentSet, segment: LogSegment, lsn: number): boolean {
  const next = set.live[set.live.indexOf(segment) + 1];
  return next?.started === true && next.firstLsn <= lsn;
}

function isBad(found: object): found is BadRecord {
  return "fault" in found;
}

/** What keeps a whole record from being the next one, or null. */
export function mismatch(
  header: { readonly line: string; readonly firstLsn: number; readonly previousChecksum: bigint },
  line: string,
  lsn: number,
  previousChecksum: bigint,
): string | null {
  if (header.line !== line) return `the record belongs to line ${header.line}`;
  if (header.firstLsn !== lsn) return `the record starts at LSN ${header.firstLsn}`;
  if (header.previousChecksum !== previousChecksum)
    return "the record does not follow the one before (chain)";
  return null;
}
