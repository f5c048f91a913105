/*
 * The segments of one log in order: live ones (the last of them is written to) and the ones made ready ahead. Gives records
 * their places, first fit, so that append knows beforehand whether there is room. The embedded writer and group-writer.ts
 * ask it, segment-supply.ts adds and recycles, log-reader.ts finds its start here.
 */
import { invariant } from "#shared/domain/invariant.ts";
import type { LogSetup } from "./log-options.ts";
import { recordBytesMax } from "./record-scanner.ts";
import { type LogSegment, segmentBodyStart } from "./segment-file.ts";

export class SegmentSet {
  readonly #setup: LogSetup;
  /** Started segments in order; the last one is written to. */
  readonly live: LogSegment[];
  /** Secured segments that follow, in order. */
  readonly ahead: LogSegment[];
  /** Where the next appended record will go: 0 = the current segment, n = ahead[n - 1]. */
  #planIndex = 0;
  #planOffset: number;
  /** Segments that were begun, ever: tells whether the log is in use. */
  begun = 0;
  #lastSequence: number;
  /** What segments of another size, made under another setting, take more or less than the usual. */
  #otherSizesBytes = 0;

  constructor(setup: LogSetup, live: LogSegment[], ahead: LogSegment[]) {
    invariant(live.length > 0, "a log has a current segment");
    this.#setup = setup;
    this.live = live;
    this.ahead = ahead;
    this.#planOffset = this.current.endOffset;
    for (const segment of live) this.#otherSizesBytes += segment.sizeBytes - setup.segmentBytes;
    this.#lastSequence = (ahead.at(-1) ?? this.current).sequence;
  }

  get current(): LogSegment {
    const current = this.live.at(-1);
    invariant(current !== undefined, "a log has a current segment");
    return current;
  }

  get oldestLsn(): number {
    return this.live.find((segment) => !segment.retired)?.firstLsn ?? 0;
  }

  /** Never given twice, so that a name whose fate is unknown is not taken again. */
  takeSequence(): number {
    this.#lastSequence += 1;
    return this.#lastSequence;
  }

  /** Cheap: asked for each batch. */
  get diskBytes(): number {
    return (this.live.length + this.ahead.length) * this.#setup.segmentBytes + this.#otherSizesBytes;
  }

  /** The oldest segment leaves: it is recycled or removed. */
  takeOldest(): LogSegment {
    const oldest = this.live.shift();
    invariant(oldest !== undefined && this.live.length > 0, "the current segment stays");
    this.#otherSizesBytes -= oldest.sizeBytes - this.#setup.segmentBytes;
    return oldest;
  }

  get #planSize(): number {
    return this.#planIndex === 0 ? this.current.sizeBytes : this.#setup.segmentBytes;
  }

  /** Secured segments into which nothing was planned yet. */
  get untouchedAhead(): number {
    return this.ahead.length - this.#planIndex;
  }

  /** Takes room for a record, in the order of appends. False, with nothing taken, where there is none. */
  plan(recordBytes: number, isEpoch: boolean): boolean {
    const { segmentBytes, epochReserveBytes } = this.#setup;
    invariant(recordBytes <= segmentBytes - segmentBodyStart, "a record fits a segment");
    const reserve = isEpoch || this.untouchedAhead > 0 ? 0 : epochReserveBytes;
    if (this.#planOffset + recordBytes + reserve <= this.#planSize) {
      this.#planOffset += recordBytes;
      return true;
    }
    const reserveNext = isEpoch || this.untouchedAhead > 1 ? 0 : epochReserveBytes;
    if (this.untouchedAhead === 0 || segmentBodyStart + recordBytes + reserveNext > segmentBytes)
      return false;
    this.#planIndex += 1;
    this.#planOffset = segmentBodyStart + recordBytes;
    return true;
  }

  /** Bytes of records, in whatever pieces, that plan() will take with certainty. */
  get roomBytes(): number {
    const { segmentBytes, epochReserveBytes } = this.#setup;
    const body = segmentBytes - segmentBodyStart;
    const rest = this.#planSize - this.#planOffset;
    const wasteMax = Math.min(recordBytesMax, body);
    const whole = this.untouchedAhead;
    if (whole === 0) return Math.max(0, rest - epochReserveBytes);
    return Math.max(0, rest - wasteMax) + (whole - 1) * (body - wasteMax) + body - epochReserveBytes;
  }

  /** Takes the last secured segment away, where `keep` untouched ones are left; null where not. */
  dropSpare(keep: number): LogSegment | null {
    return this.untouchedAhead > keep ? (this.ahead.pop() ?? null) : null;
  }

  /** The segment that holds the place of the next record to be written, or null until one is secured (after a repair). */
  place(recordBytes: number): LogSegment | null {
    const current = this.current;
    if (current.open && current.endOffset + recordBytes <= current.sizeBytes) return current;
    const next = this.ahead.shift();
    if (next === undefined) return null;
    this.live.push(next);
    this.begun += 1;
    if (this.#planIndex > 0) this.#planIndex -= 1;
    return next;
  }

  /**
   * Plans again from the current segment: `recordBytes` of the records that wait, in order. False where secured room does not
   * suffice; more must be secured before they are written.
   */
  replan(waiting: Iterable<number>): boolean {
    this.#planIndex = 0;
    this.#planOffset = this.current.open ? this.current.endOffset : this.current.sizeBytes;
    for (const recordBytes of waiting) {
      if (!this.plan(recordBytes, true)) return false;
    }
    return true;
  }

  /** Live segments that hold nothing at or past `beforeLsn`, oldest first. */
  releasable(beforeLsn: number): LogSegment[] {
    const found: LogSegment[] = [];
    for (let index = 0; index + 1 < this.live.length; index += 1) {
      const segment = this.live[index];
      const next = this.live[index + 1];
      if (segment === undefined || next === undefined || !next.started || next.firstLsn > beforeLsn) break;
      found.push(segment);
    }
    return found;
  }

  /** Index in `live` of the segment that holds `lsn`. */
  holding(lsn: number): number {
    let found = 0;
    for (let index = 0; index < this.live.length; index += 1) {
      const segment = this.live[index];
      if (segment !== undefined && segment.started && segment.firstLsn <= lsn && lsn < segment.endLsn)
        found = index;
    }
    return found;
  }
}
