/*
 * Reads a closed log for people: each segment, each record, where reading stops, and a verdict. Opens files read-only and changes
 * nothing, so it may be used on a damaged log. `varve log inspect` prints what it gives; the rules are those of recovery
 * (recovery-files.ts, recovery-scan.ts), which gives the verdict.
 */
import type { Batch } from "#shared/domain/batch.ts";
import { isVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { RecordFault } from "#shared/formats/log-record.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { mismatch } from "./log-reader.ts";
import { RecordScanner } from "./record-scanner.ts";
import {
  type FoundFile,
  type FoundFiles,
  findFiles,
  type HeaderState,
  type LogPart,
} from "./recovery-files.ts";
import { scanLog } from "./recovery-scan.ts";
import { ScanMemory } from "./scan-memory.ts";
import { segmentBodyStart } from "./segment-file.ts";

export interface InspectRequest {
  readonly store: FileStore;
  readonly directory: string;
  /** Checked where it is known; else the files must agree among themselves. */
  readonly volumeId?: string;
  /** Records that end before it are counted, not given. */
  readonly fromLsn?: number;
}

export type InspectedItem =
  | {
      readonly kind: "segment";
      readonly file: string;
      readonly sequence: number;
      readonly sizeBytes: number;
      /** "replaced": a later segment holds all of its records. */
      readonly state: HeaderState | "replaced";
      /** 0 where it has not started. */
      readonly firstLsn: number;
      readonly durableLsn: number;
    }
  | {
      readonly kind: "record";
      readonly file: string;
      readonly offset: number;
      readonly bytes: number;
      readonly lastLsn: number;
      /** Its payload is valid until the next item is asked for. */
      readonly batch: Batch;
    }
  | {
      /**
       * No record that follows stands here. Behind the last record that is the log's end (notARecord and chain: prepared
       * or stale blocks; else a torn tail); elsewhere it is damage, and the summary has the refusal.
       */
      readonly kind: "stop";
      readonly file: string;
      readonly offset: number;
      /** The entry that was expected there. */
      readonly lsn: number;
      readonly fault: RecordFault | "chain" | "gap";
      readonly what: string;
    }
  | {
      readonly kind: "summary";
      readonly line: string | null;
      readonly epoch: number;
      readonly oldestLsn: number;
      /** Where the log ends: what recovery would keep. */
      readonly lastLsn: number;
      readonly records: number;
      readonly entries: number;
      readonly recordBytes: number;
      readonly diskBytes: number;
      /** Why Varve would refuse this log; null where it would open it. A torn tail is no reason. */
      readonly refusal: VarveError | null;
    };

interface Sums {
  records: number;
  entries: number;
  recordBytes: number;
  epoch: number;
  lastLsn: number;
}

/** Segments in order, each with its records; where reading stops; a summary at the end. Rejects only where files can't be read. */
export async function* inspectLog(request: InspectRequest): AsyncGenerator<InspectedItem, void, undefined> {
  const { store, directory } = request;
  const memory = new ScanMemory(store);
  const sums: Sums = { records: 0, entries: 0, recordBytes: 0, epoch: 0, lastLsn: 0 };
  let found: FoundFiles;
  try {
    found = await findFiles(store, directory, request.volumeId ?? null, memory);
  } catch (cause) {
    if (!isVarveError(cause) || cause.kind === "Internal") throw cause;
    yield summary({ files: [], parts: [], line: null }, sums, cause);
    return;
  }
  const scanner = new RecordScanner(memory);
  try {
    for (const file of found.files) {
      const part = found.parts.find((candidate) => candidate.file === file);
      yield segmentItem(file, part);
      if (part !== undefined) yield* inspectPart(request, scanner, found, part, sums);
    }
  } finally {
    scanner.close();
  }
  const refusal = await verdict(request, found, memory);
  yield summary(found, sums, refusal);
}

function segmentItem(file: FoundFile, part: LogPart | undefined): InspectedItem {
  return {
    kind: "segment",
    file: file.path,
    sequence: file.sequence,
    sizeBytes: file.sizeBytes,
    state: file.state === "started" && part === undefined ? "replaced" : file.state,
    firstLsn: file.state === "started" ? (file.header?.firstLsn ?? 0) : 0,
    durableLsn: file.state === "started" ? (file.header?.durableLsn ?? 0) : 0,
  };
}

async function* inspectPart(
  request: InspectRequest,
  scanner: RecordScanner,
  found: FoundFiles,
  part: LogPart,
  sums: Sums,
): AsyncGenerator<InspectedItem, void, undefined> {
  const { path, sizeBytes } = part.file;
  const file = await request.store.open(path, { readOnly: true, access: "buffered" });
  let lsn = part.header.firstLsn;
  let previousChecksum = part.header.previousChecksum;
  try {
    if (sums.lastLsn > 0 && lsn !== sums.lastLsn + 1) {
      const what = `the segment starts at LSN ${lsn}`;
      yield { kind: "stop", file: path, offset: 0, lsn: sums.lastLsn + 1, fault: "gap", what };
    }
    scanner.use(file, sizeBytes);
    for (let offset = segmentBodyStart; offset < sizeBytes && lsn < part.endLsn; ) {
      const record = await scanner.record(offset);
      if ("fault" in record) {
        yield { kind: "stop", file: path, offset, lsn, fault: record.fault, what: record.detail };
        return;
      }
      const what = mismatch(record.header, found.line ?? "", lsn, previousChecksum);
      if (what !== null) {
        yield { kind: "stop", file: path, offset, lsn, fault: "chain", what };
        return;
      }
      const { header, batch } = record;
      sums.records += 1;
      sums.entries += header.entries.length;
      sums.recordBytes += header.recordBytes;
      sums.epoch = header.epoch;
      sums.lastLsn = header.lastLsn;
      if (header.lastLsn >= (request.fromLsn ?? 0)) {
        yield {
          kind: "record",
          file: path,
          offset,
          bytes: header.recordBytes,
          lastLsn: header.lastLsn,
          batch,
        };
      }
      lsn = header.lastLsn + 1;
      offset += header.recordBytes;
      previousChecksum = header.checksum;
    }
  } finally {
    await file.close();
  }
}

/** What recovery would say. */
async function verdict(
  request: InspectRequest,
  found: FoundFiles,
  memory: ScanMemory,
): Promise<VarveError | null> {
  const volumeId = request.volumeId ?? found.parts[0]?.header.volumeId ?? "";
  const knownLsn = (found.parts[0]?.header.firstLsn ?? 1) - 1;
  try {
    await scanLog({ store: request.store, directory: request.directory, volumeId, knownLsn, memory });
    return null;
  } catch (cause) {
    if (isVarveError(cause) && cause.kind !== "Internal") return cause;
    throw cause;
  }
}

function summary(found: FoundFiles, sums: Sums, refusal: VarveError | null): InspectedItem {
  return {
    kind: "summary",
    line: found.line,
    epoch: sums.epoch,
    oldestLsn: found.parts[0]?.header.firstLsn ?? 0,
    lastLsn: sums.lastLsn,
    records: sums.records,
    entries: sums.entries,
    recordBytes: sums.recordBytes,
    diskBytes: found.files.reduce((sum, file) => sum + Math.max(file.sizeBytes, limits.blockBytes), 0),
    refusal,
  };
}
