/*
 * A point's map: which range of the disk has its bytes where (a segment, the hot log), and which is zero. What it does not
 * name is the base's. Built by applying runs of log in order; point-source.ts reads through it, on a structure of
 * shared/domain/extent-map.ts.
 */
import { type EntryKindNumber, entryKind } from "#shared/domain/entry.ts";
import { ExtentMap, type ExtentVisitor } from "#shared/domain/extent-map.ts";
import { limits } from "#shared/domain/limits.ts";
import type { SegmentPlace } from "./frame-reader.ts";
import { historyIncomplete } from "./history-errors.ts";
import type { HotPlace } from "./hot-tail.ts";
import type { LogPart } from "./log-parts.ts";

export interface ZeroPlace {
  readonly kind: "zero";
}

export type RangePlace = SegmentPlace | HotPlace | ZeroPlace;

const zero: ZeroPlace = { kind: "zero" };

/** Past every disk's end. */
const endOfAll = limits.volumeBytesMax;

export class FoldMap {
  private readonly map = new ExtentMap<RangePlace>();
  private size: number;

  /** `sizeBytes`: of what lies below, the base or nothing. */
  constructor(sizeBytes: number) {
    this.size = sizeBytes;
    this.zero(sizeBytes, endOfAll);
  }

  get sizeBytes(): number {
    return this.size;
  }

  get rangeCount(): number {
    return this.map.size;
  }

  /** Applies the part's entries (afterLsn, toLsn]. */
  apply(volumeId: string, part: LogPart, afterLsn: number, toLsn: number): void {
    const { firstLsn, kinds, offsets, lengths, places, place } = part;
    const start = Math.max(0, afterLsn + 1 - firstLsn);
    const end = Math.min(kinds.length, toLsn + 1 - firstLsn);
    for (let index = start; index < end; index += 1) {
      const offset = offsets[index] as number;
      const rangeEnd = offset + (lengths[index] as number);
      switch (kinds[index] as EntryKindNumber) {
        case entryKind.write:
          this.expectInside(volumeId, firstLsn + index, rangeEnd);
          this.map.insert(offset, rangeEnd, place, places[index] as number);
          break;
        case entryKind.zero:
        case entryKind.zeroAllocated:
        case entryKind.trim:
          this.expectInside(volumeId, firstLsn + index, rangeEnd);
          this.zero(offset, rangeEnd);
          break;
        case entryKind.resize:
          this.resize(offset);
          break;
        case entryKind.rebase:
          throw historyIncomplete(volumeId, firstLsn + index, "a rollback that the manifest does not name");
        case entryKind.epoch:
        case entryKind.mark:
          break;
      }
    }
  }

  /** Shrinking makes everything past the new end zero, for good; growing changes nothing, because all past the end is zero. */
  resize(sizeBytes: number): void {
    if (sizeBytes < this.size) this.zero(sizeBytes, endOfAll);
    this.size = sizeBytes;
  }

  /** Mapped pieces of [start, end), in order. `position`: of the piece's first byte within its place. */
  visit(start: number, end: number, visitor: ExtentVisitor<RangePlace>): void {
    this.map.visit(start, end, visitor);
  }

  /** Position = offset, so that neighbouring zeroes become one range. */
  private zero(start: number, end: number): void {
    if (start < end) this.map.insert(start, end, zero, start);
  }

  private expectInside(volumeId: string, lsn: number, end: number): void {
    if (end <= this.size) return;
    throw historyIncomplete(volumeId, lsn, `an entry up to byte ${end} in a disk of ${this.size} bytes`);
  }
}
