/*
 * A batch under construction on the write path: columns instead of objects, payload already in the slab where the log will
 * write it from. The volume session fills it, LogWriter.append numbers and frames it, the image applier reads it again.
 * The header goes into slab bytes [0, batchHeaderBytesMax), the payload follows (docs/formats/log-record.md).
 */
import { type EntryKindNumber, entryKind, isEntryRange, isEntryValue } from "./entry.ts";
import { invariant } from "./invariant.ts";
import { limits } from "./limits.ts";

/** Structural twin of ports/slab.ts, so that the domain imports no port. */
export interface DraftSlab {
  readonly bytes: Uint8Array;
  readonly address: number;
}

export class BatchDraft<S extends DraftSlab = DraftSlab> {
  readonly slab: S;
  /** Payload bytes that fit behind the header room; the record's padding to a block fits too. */
  readonly payloadCapacityBytes: number;
  payloadBytes = 0;
  entryCount = 0;
  /** Upper bound of the packed header's bytes, so that no draft can outgrow its header room. */
  headerBytesBound: number = limits.recordPreludeBytesMax;
  /** Per entry: kind, offset, length (0 for entries without a range), payload start (writes only). */
  readonly kinds: EntryKindNumber[] = [];
  readonly offsets: number[] = [];
  readonly lengths: number[] = [];
  readonly payloadStarts: number[] = [];
  /** Value of epoch (writer), mark (name), resize (bytes) and rebase (LSN) entries, by entry index. */
  readonly values: Map<number, string | number> = new Map();
  /** Set by LogWriter.append. */
  firstLsn = 0;
  epoch = 0;
  wallTimeMs = 0;
  previousChecksum = 0n;
  checksum = 0n;
  /** Bytes of the record on disk; set when it is framed. */
  recordBytes = 0;

  constructor(slab: S) {
    this.slab = slab;
    this.payloadCapacityBytes = Math.min(
      limits.batchPayloadBytesMax,
      slab.bytes.byteLength - limits.batchHeaderBytesMax,
    );
    invariant(this.payloadCapacityBytes > 0, "a draft's slab holds header room and payload");
    invariant(slab.bytes.byteLength % limits.blockBytes === 0, "a draft's slab is whole blocks");
  }

  get lastLsn(): number {
    return this.firstLsn + (this.entryCount - 1);
  }

  /** Whether one more entry with that much payload (0 for all but writes) fits. */
  fits(payloadBytes: number): boolean {
    return (
      this.entryCount < limits.batchEntriesMax &&
      this.payloadBytes + payloadBytes <= this.payloadCapacityBytes &&
      this.headerBytesBound + limits.recordEntryBytesMax <= headerRoomBytes
    );
  }

  /** Whether an entry with this value (writer, name, size, LSN) fits. */
  fitsValue(value: string | number): boolean {
    return (
      this.entryCount < limits.batchEntriesMax &&
      this.headerBytesBound + valueBytesBound(value) <= headerRoomBytes
    );
  }

  /** Adds a write whose bytes the caller puts at the returned slab position (before append). */
  addWrite(offset: number, length: number): number {
    invariant(this.fits(length), "a write fits its draft");
    invariant(isEntryRange(offset, length), "a write's range lies within the largest volume");
    const start = this.payloadBytes;
    this.push(entryKind.write, offset, length, start);
    this.payloadBytes += length;
    return limits.batchHeaderBytesMax + start;
  }

  addRange(kind: 1 | 2 | 3, offset: number, length: number): void {
    invariant(this.fits(0), "a range entry fits its draft");
    invariant(isEntryRange(offset, length), "a range entry lies within the largest volume");
    this.push(kind, offset, length, 0);
  }

  addValue(kind: 4 | 5 | 6 | 7, value: string | number): void {
    invariant(this.fitsValue(value), "an entry fits its draft");
    invariant(isEntryValue(kind, value), "an entry's value is one that a log may hold");
    this.values.set(this.entryCount, value);
    this.push(kind, 0, 0, 0);
    if (typeof value === "string")
      this.headerBytesBound += valueBytesBound(value) - limits.recordEntryBytesMax;
  }

  /** Empty again, for the next batch in the same slab. */
  reset(): void {
    this.payloadBytes = 0;
    this.entryCount = 0;
    this.headerBytesBound = limits.recordPreludeBytesMax;
    this.kinds.length = 0;
    this.offsets.length = 0;
    this.lengths.length = 0;
    this.payloadStarts.length = 0;
    this.values.clear();
    this.firstLsn = 0;
    this.epoch = 0;
    this.wallTimeMs = 0;
    this.previousChecksum = 0n;
    this.checksum = 0n;
    this.recordBytes = 0;
  }

  private push(kind: EntryKindNumber, offset: number, length: number, payloadStart: number): void {
    this.kinds.push(kind);
    this.offsets.push(offset);
    this.lengths.push(length);
    this.payloadStarts.push(payloadStart);
    this.entryCount += 1;
    this.headerBytesBound += limits.recordEntryBytesMax;
  }
}

const headerRoomBytes = limits.batchHeaderBytesMax - limits.recordFixedBytes;

/** Kind, then a string's own header of at most two bytes (ASCII, at most 128) or a number. */
function valueBytesBound(value: string | number): number {
  return typeof value === "string" ? 1 + 2 + value.length : limits.recordEntryBytesMax;
}
