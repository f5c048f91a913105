/*
 * Second half of recovery: walks the records of a log folder, finds where the log ends and judges that end: a torn tail, or
 * damage. Changes nothing. embedded-file.ts calls it at open; recovery-repair.ts does what it found necessary. The steps are
 * numbered in docs/specs/embedded-log.md, "Recovery".
 */

import { limits } from "#shared/domain/limits.ts";
import { isBadRecord, type RecordHeader } from "#shared/formats/log-record.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { LogBeginning } from "#shared/ports/write-log.ts";
import { damage, endsEarly, newerFormat, startsLate } from "./log-errors.ts";
import { mismatch } from "./log-reader.ts";
import { RecordScanner } from "./record-scanner.ts";
import { type FoundFile, type FoundFiles, findFiles, type LogPart } from "./recovery-files.ts";
import type { ScanMemory } from "./scan-memory.ts";
import { LogSegment, segmentBodyStart } from "./segment-file.ts";

/** Bytes [from, to) of a segment that must be written again before use. */
export interface RewriteRange {
  readonly segment: LogSegment;
  from: number;
  to: number;
}

export interface FoundLog {
  /** Null where the folder holds no log yet. */
  readonly line: string | null;
  readonly lastLsn: number;
  readonly epoch: number;
  /** Checksum of the last record. */
  readonly chain: bigint;
  /** Segments that hold the log, in order; the last one goes on behind its end. */
  readonly live: readonly LogSegment[];
  readonly rewrite: readonly RewriteRange[];
  /** Started, but only behind the end, or with a torn header: their headers are zeroed. */
  readonly behindEnd: readonly FoundFile[];
  /** Replaced as a whole, or never used and older than the log's end: removed. */
  readonly dead: readonly FoundFile[];
  /** Blank or of a former life, newer than the log's end: room for what comes. */
  readonly unused: readonly FoundFile[];
}

export interface ScanRequest {
  readonly store: FileStore;
  readonly directory: string;
  readonly volumeId: string;
  readonly knownLsn: number;
  readonly memory: ScanMemory;
  /** What an empty folder's log follows. */
  readonly begin?: LogBeginning;
}

interface PlacedRecord {
  readonly segment: LogSegment;
  readonly offset: number;
  readonly bytes: number;
  readonly lastLsn: number;
}

/** What the walk knows so far. */
class Walk {
  readonly live: LogSegment[] = [];
  /** Records past the mark, in order. */
  unmarked: PlacedRecord[] = [];
  mark: number;
  /** The next LSN expected. */
  lsn: number;
  chain: bigint;
  epoch = 0;
  /** Where the record of `lsn` was looked for, and what was there instead. */
  end: { file: FoundFile; offset: number; detail: string } | null = null;

  constructor(first: LogPart) {
    this.mark = 0;
    this.lsn = first.header.firstLsn;
    this.chain = first.header.previousChecksum;
  }

  raise(mark: number): void {
    if (mark <= this.mark) return;
    this.mark = mark;
    const keep = this.unmarked.findIndex((record) => record.lastLsn > mark);
    this.unmarked = keep < 0 ? [] : this.unmarked.slice(keep);
  }
}

/** Reads the whole log folder. Rejects Corrupt for damage, Invalid for a newer format; else says what is to be done. */
export async function scanLog(request: ScanRequest): Promise<FoundLog> {
  const { store, directory, volumeId, knownLsn, memory } = request;
  const found = await findFiles(store, directory, volumeId, memory);
  const first = found.parts[0];
  if (first === undefined) return judgeNothing(request, found);
  if (first.header.firstLsn > knownLsn + 1) {
    throw startsLate(first.file.path, first.header.firstLsn, knownLsn);
  }
  // Parts that the image has wholly applied are checked when they are read; but the last record says the epoch.
  let startAt = Math.max(
    0,
    found.parts.findIndex((part) => part.endLsn > knownLsn + 1),
  );
  let walk = await walkParts(request, found, first, startAt);
  while (walk.epoch === 0 && startAt > 0) {
    startAt -= 1;
    walk = await walkParts(request, found, first, startAt);
  }
  await judgeEnd(request, found, walk);
  return result(found, walk);
}

async function walkParts(
  request: ScanRequest,
  found: FoundFiles,
  first: LogPart,
  startAt: number,
): Promise<Walk> {
  const walk = new Walk(first);
  const scanner = new RecordScanner(request.memory);
  try {
    await walkWith(scanner, request, found, startAt, walk);
  } finally {
    scanner.close();
  }
  return walk;
}

async function walkWith(
  scanner: RecordScanner,
  request: ScanRequest,
  found: FoundFiles,
  startAt: number,
  walk: Walk,
): Promise<void> {
  for (const [index, part] of found.parts.entries()) {
    walk.raise(part.header.durableLsn);
    if (index < startAt) {
      const unread = segmentOf(part);
      unread.endOffset = part.file.sizeBytes;
      walk.live.push(unread);
      walk.lsn = part.endLsn;
      walk.chain = found.parts[index + 1]?.header.previousChecksum ?? 0n;
      continue;
    }
    if (part.header.firstLsn !== walk.lsn || part.header.previousChecksum !== walk.chain) break;
    const reachedNext = await walkPart(request.store, scanner, found.line ?? "", part, walk);
    if (!reachedNext) break;
  }
}

/** Walks one part's records; true where it reached the next part. */
async function walkPart(
  store: FileStore,
  scanner: RecordScanner,
  line: string,
  part: LogPart,
  walk: Walk,
): Promise<boolean> {
  const segment = segmentOf(part);
  const file = await store.open(part.file.path, { readOnly: true, access: "buffered" });
  try {
    scanner.use(file, part.file.sizeBytes);
    let offset = segmentBodyStart;
    while (walk.lsn < part.endLsn) {
      const record = offset < part.file.sizeBytes ? await scanner.record(offset) : null;
      const fault = record === null ? "the file ends" : endOf(record, line, part, walk, offset);
      if (fault !== null || record === null || isBad(record)) {
        walk.end = { file: part.file, offset, detail: fault ?? "" };
        break;
      }
      const { header } = record;
      segment.notePlaced(header.firstLsn, offset, header.recordBytes, header.previousChecksum);
      walk.unmarked.push({ segment, offset, bytes: header.recordBytes, lastLsn: header.lastLsn });
      walk.raise(header.durableLsn);
      walk.lsn = header.lastLsn + 1;
      walk.chain = header.checksum;
      walk.epoch = header.epoch;
      offset += header.recordBytes;
    }
  } finally {
    await file.close();
  }
  if (segment.endOffset > segmentBodyStart) walk.live.push(segment);
  return walk.end === null;
}

function isBad(record: object): record is { fault: string; detail: string } {
  return "fault" in record;
}

/** Why the bytes at `offset` are not the next record, or null. */
function endOf(
  record: { header: RecordHeader } | { fault: string; detail: string },
  line: string,
  part: LogPart,
  walk: Walk,
  offset: number,
): string | null {
  if (isBad(record)) {
    if (record.fault === "version" || record.fault === "flags") {
      throw newerFormat(part.file.path, offset, record.detail);
    }
    return record.detail;
  }
  const { header } = record;
  if (header.lastLsn >= part.endLsn)
    return `the record ends at LSN ${header.lastLsn}, past its part of the log`;
  return mismatch(header, line, walk.lsn, walk.chain);
}

/** Damage, or a torn tail? Looks at every mark behind the end first. */
async function judgeEnd(request: ScanRequest, found: FoundFiles, walk: Walk): Promise<void> {
  const next = found.parts.find((part) => part.header.firstLsn >= walk.lsn);
  const end = walk.end ?? {
    file: next?.file ?? lastOf(found.files),
    offset: 0,
    detail: "the segments before it are missing, or do not fit",
  };
  let mark = Math.max(walk.mark, await markInFile(request, end.file, end.offset, found.line));
  for (const file of found.files) {
    if (file.sequence <= end.file.sequence) continue;
    if (file.header !== null && file.state === "started") mark = Math.max(mark, file.header.durableLsn);
    if (await mayHoldRecords(request, file, walk.lsn)) {
      mark = Math.max(mark, await markInFile(request, file, 0, found.line));
    }
  }
  const place = { file: end.file.path, offset: end.offset, lsn: walk.lsn };
  if (walk.lsn <= mark) throw damage(place, end.detail);
  if (walk.lsn <= request.knownLsn) throw endsEarly(request.directory, place, end.detail, request.knownLsn);
  if (walk.epoch === 0 && walk.lsn > 1) throw damage(place, end.detail);
}

function lastOf(files: readonly FoundFile[]): FoundFile {
  const last = files.at(-1);
  if (last === undefined) throw new TypeError("a walk has files");
  return last;
}

/** A file behind the end can hold records of this log's present only if it started, is torn, or its first record says so. */
async function mayHoldRecords(request: ScanRequest, file: FoundFile, lsn: number): Promise<boolean> {
  if (file.state === "started" || file.state === "torn") return true;
  if (file.sizeBytes <= segmentBodyStart) return false;
  const reader = await request.store.open(file.path, { readOnly: true, access: "buffered" });
  const scanner = new RecordScanner(request.memory);
  try {
    scanner.use(reader, file.sizeBytes);
    const header = await scanner.header(segmentBodyStart);
    return !isBadRecord(header) && header.firstLsn >= lsn;
  } finally {
    scanner.close();
    await reader.close();
  }
}

/** The greatest durable mark of any whole record header at or behind `from`. */
async function markInFile(
  request: ScanRequest,
  file: FoundFile,
  from: number,
  line: string | null,
): Promise<number> {
  const reader = await request.store.open(file.path, { readOnly: true, access: "buffered" });
  const scanner = new RecordScanner(request.memory);
  let mark = 0;
  try {
    scanner.use(reader, file.sizeBytes);
    for (
      let offset = Math.max(from, segmentBodyStart);
      offset < file.sizeBytes;
      offset += limits.blockBytes
    ) {
      const header = await scanner.header(offset);
      if (isBadRecord(header) || (line !== null && header.line !== line)) continue;
      mark = Math.max(mark, header.durableLsn);
    }
  } finally {
    scanner.close();
    await reader.close();
  }
  return mark;
}

/** No segment has started: a new log, unless something shows that there was one. */
async function judgeNothing(request: ScanRequest, found: FoundFiles): Promise<FoundLog> {
  for (const file of found.files) {
    if (!(await mayHoldRecords(request, file, 1))) continue;
    const mark = await markInFile(request, file, 0, null);
    if (mark > 0) {
      const detail = file.detail === "" ? "the segment's header is gone" : file.detail;
      throw damage({ file: file.path, offset: 0, lsn: 1 }, detail);
    }
  }
  const { begin } = request;
  const lastLsn = begin?.lastLsn ?? 0;
  const place = { file: request.directory, offset: 0, lsn: lastLsn + 1 };
  if (request.knownLsn > lastLsn) throw endsEarly(request.directory, place, "no record", request.knownLsn);
  return { ...nothing, ...begin, unused: found.files };
}

const nothing: FoundLog = {
  line: null,
  lastLsn: 0,
  epoch: 0,
  chain: 0n,
  live: [],
  rewrite: [],
  behindEnd: [],
  dead: [],
  unused: [],
};

function segmentOf(part: LogPart): LogSegment {
  const { path } = part.file;
  const segment = new LogSegment(
    path.slice(0, path.lastIndexOf("/")),
    part.file.sequence,
    part.header.segmentBytes,
  );
  segment.start(part.header.firstLsn, part.header.previousChecksum);
  segment.preparedBytes = Math.min(part.file.sizeBytes, part.header.segmentBytes);
  return segment;
}

function result(found: FoundFiles, walk: Walk): FoundLog {
  for (const [index, segment] of walk.live.entries()) {
    const next = walk.live[index + 1];
    if (next !== undefined) segment.endLsn = next.firstLsn;
  }
  const endSequence = walk.live.at(-1)?.sequence ?? 0;
  const liveSequences = new Set(walk.live.map((segment) => segment.sequence));
  const others = found.files.filter((file) => !liveSequences.has(file.sequence));
  const newer = others.filter((file) => file.sequence > endSequence);
  return {
    line: walk.epoch === 0 ? null : found.line,
    lastLsn: walk.lsn - 1,
    epoch: walk.epoch,
    chain: walk.chain,
    live: walk.live,
    rewrite: rewriteRanges(walk.unmarked),
    // A header that can't be read now and can be read later would replace what is appended meanwhile.
    behindEnd: newer.filter((file) => file.state === "started" || file.state === "torn"),
    dead: others.filter((file) => file.sequence < endSequence),
    unused: newer.filter((file) => file.state !== "started" && file.state !== "torn"),
  };
}

function rewriteRanges(records: readonly PlacedRecord[]): RewriteRange[] {
  const ranges: RewriteRange[] = [];
  for (const { segment, offset, bytes } of records) {
    const last = ranges.at(-1);
    if (last?.segment === segment) {
      last.to = offset + bytes;
      continue;
    }
    // The header block went with the first record, so it may be as little on disk as that.
    ranges.push({ segment, from: offset === segmentBodyStart ? 0 : offset, to: offset + bytes });
  }
  return ranges;
}
