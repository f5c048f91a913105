/*
 * One segment file of a log: its name, its open descriptor, how far its blocks were written before, and a sparse index of
 * its records. Segment-set.ts owns the order of segments, segment-supply.ts prepares them, group-writer.ts writes into the
 * current one, log-reader.ts reads.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";

/** First byte of the first record: behind the header block. */
export const segmentBodyStart = limits.blockBytes;
/** Distance of index points. */
const indexStepBytes = 1024 * 1024;
const namePattern = /^(\d{8,15})\.log$/;

export function segmentName(sequence: number): string {
  return `${String(sequence).padStart(8, "0")}.log`;
}

/** The sequence in a file name, or null where it is no segment's name. */
export function sequenceOfName(name: string): number | null {
  const digits = namePattern.exec(name)?.[1];
  if (digits === undefined) return null;
  const sequence = Number(digits);
  return sequence > 0 && segmentName(sequence) === name ? sequence : null;
}

/** A record's place: from here a reader can start with its chain known. */
export interface IndexPoint {
  readonly lsn: number;
  readonly offset: number;
  readonly previousChecksum: bigint;
}

export class LogSegment {
  readonly directory: string;
  readonly sizeBytes: number;
  sequence: number;
  /** Open for writing while secured, prepared, current or not yet synced; else null. */
  file: BlockFile | null = null;
  /** LSN of its first record; 0 while it has not started. */
  firstLsn = 0;
  /** LSN before which records here count: a later segment replaces the rest. */
  endLsn = Number.MAX_SAFE_INTEGER;
  /** Checksum of the record before its first. */
  previousChecksum = 0n;
  /** End of its records; the next one starts here. */
  endOffset = segmentBodyStart;
  /** Blocks in [0, preparedBytes) were written before. */
  preparedBytes = 0;
  /** Zeroes are being written into [preparedBytes, preparingEnd). */
  preparingEnd = 0;
  /** It refused its zeroes: used as it is. */
  unprepared = false;
  /** Released: on its way to another name or out, and not read any more. */
  retired = false;
  /** Readers that have it in hand: not recycled or closed meanwhile. */
  readers = 0;
  /** Groups and syncs under way on it. */
  writers = 0;
  /** Holds stored bytes that no sync has covered (`durability: flush`). */
  dirty = false;
  readonly #index: IndexPoint[] = [];

  constructor(directory: string, sequence: number, sizeBytes: number) {
    this.directory = directory;
    this.sequence = sequence;
    this.sizeBytes = sizeBytes;
  }

  /** True while records may be placed here: no later segment replaces what would stand behind its end. */
  get open(): boolean {
    return this.endLsn === Number.MAX_SAFE_INTEGER;
  }

  get path(): string {
    return `${this.directory}/${segmentName(this.sequence)}`;
  }

  get started(): boolean {
    return this.firstLsn > 0;
  }

  /** The open file of a segment that is written to. */
  get writable(): BlockFile {
    invariant(this.file !== null, "a segment that is written to is open");
    return this.file;
  }

  /** True while nobody needs the open file: it is sealed, written and synced. */
  get idle(): boolean {
    return this.writers === 0 && this.readers === 0 && !this.dirty;
  }

  /** Closes the file; a reader opens another one. */
  async closeFile(): Promise<void> {
    const file = this.file;
    this.file = null;
    if (file !== null) await file.close();
  }

  start(firstLsn: number, previousChecksum: bigint): void {
    invariant(!this.started && firstLsn > 0, "a segment starts once");
    this.firstLsn = firstLsn;
    this.previousChecksum = previousChecksum;
    this.endOffset = segmentBodyStart;
  }

  /** A record was placed at `offset`; called in order. */
  notePlaced(lsn: number, offset: number, recordBytes: number, previousChecksum: bigint): void {
    const last = this.#index.at(-1);
    if (last === undefined || offset - last.offset >= indexStepBytes) {
      this.#index.push({ lsn, offset, previousChecksum });
    }
    this.endOffset = offset + recordBytes;
  }

  /** The greatest known point at or before `lsn`. */
  pointBefore(lsn: number): IndexPoint {
    let found: IndexPoint = {
      lsn: this.firstLsn,
      offset: segmentBodyStart,
      previousChecksum: this.previousChecksum,
    };
    for (const point of this.#index) {
      if (point.lsn > lsn) break;
      found = point;
    }
    return found;
  }

  /** Records at or past `lsn` are replaced by a later segment. */
  cutAt(lsn: number): void {
    this.endLsn = Math.min(this.endLsn, lsn);
    while ((this.#index.at(-1)?.lsn ?? 0) >= lsn) this.#index.pop();
  }

  /** Ready for its next life under another name: the header of the old one no longer fits. */
  recycleAs(sequence: number): void {
    invariant(this.readers === 0, "a segment that is read is not recycled");
    this.sequence = sequence;
    this.retired = false;
    this.unprepared = false;
    this.firstLsn = 0;
    this.endLsn = Number.MAX_SAFE_INTEGER;
    this.previousChecksum = 0n;
    this.endOffset = segmentBodyStart;
    this.#index.length = 0;
  }
}
