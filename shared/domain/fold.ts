/*
 * The reference fold: what a run of entries makes of an empty disk, in the plainest way that works for any size. The oracle
 * of unit tests, crash tests and the simulator; replicas do the same on a file. Never on the data path.
 */
import type { Batch } from "./batch.ts";
import type { BatchDraft } from "./batch-draft.ts";
import { entryKind } from "./entry.ts";
import { VarveError } from "./errors.ts";
import { limits } from "./limits.ts";

const pageBytes = limits.blockBytes;

/** A disk as pages that were ever written; a page that is not there reads as zero. */
export class FoldedDisk {
  /** Number → bytes; pages past the end do not exist, and bytes past the end within the last page are zero. */
  private readonly pages = new Map<number, Uint8Array>();
  private size: number;
  /** LSN of the last entry applied through applyBatch or applyDraft. */
  appliedLsn = 0;

  constructor(sizeBytes: number) {
    this.size = sizeBytes;
  }

  get sizeBytes(): number {
    return this.size;
  }

  /** Pages held: an upper bound of what is not zero, in units of 4096 bytes. */
  get pageCount(): number {
    return this.pages.size;
  }

  /** Numbers of the pages held; all others are zero. */
  pageNumbers(): Iterable<number> {
    return this.pages.keys();
  }

  /** Applies the whole batch. Throws Corrupt where it does not continue this disk, or an entry does not lie in it. */
  applyBatch(batch: Pick<Batch, "firstLsn" | "entries" | "payload">): void {
    this.expectNext(batch.firstLsn);
    for (const entry of batch.entries) {
      switch (entry.kind) {
        case "write":
          this.write(
            entry.offset,
            batch.payload.subarray(entry.payloadStart, entry.payloadStart + entry.length),
          );
          break;
        case "zero":
        case "zeroAllocated":
        case "trim":
          this.zero(entry.offset, entry.length);
          break;
        case "resize":
          this.resize(entry.sizeBytes);
          break;
        case "rebase":
          throw noRebase();
        case "epoch":
        case "mark":
          break;
      }
      this.appliedLsn += 1;
    }
  }

  /** The same for a batch on the write path, numbered by the log. */
  applyDraft(draft: BatchDraft): void {
    this.expectNext(draft.firstLsn);
    for (let index = 0; index < draft.entryCount; index += 1) {
      const kind = draft.kinds[index];
      const offset = draft.offsets[index] ?? 0;
      const length = draft.lengths[index] ?? 0;
      if (kind === entryKind.write) {
        const start = limits.batchHeaderBytesMax + (draft.payloadStarts[index] ?? 0);
        this.write(offset, draft.slab.bytes.subarray(start, start + length));
      } else if (kind === entryKind.resize) {
        this.resize(Number(draft.values.get(index)));
      } else if (kind === entryKind.rebase) {
        throw noRebase();
      } else if (kind === entryKind.zero || kind === entryKind.zeroAllocated || kind === entryKind.trim) {
        this.zero(offset, length);
      }
      this.appliedLsn += 1;
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    this.expectInside(offset, bytes.length);
    for (let done = 0; done < bytes.length; ) {
      const at = (offset + done) % pageBytes;
      const length = Math.min(pageBytes - at, bytes.length - done);
      this.page(Math.floor((offset + done) / pageBytes)).set(bytes.subarray(done, done + length), at);
      done += length;
    }
  }

  zero(offset: number, length: number): void {
    this.expectInside(offset, length);
    this.erase(offset, offset + length);
  }

  /** Growing adds zeroes; shrinking forgets what is past the new end, for good. */
  resize(sizeBytes: number): void {
    if (sizeBytes < this.size) this.erase(sizeBytes, Math.ceil(this.size / pageBytes) * pageBytes);
    this.size = sizeBytes;
  }

  /** Bytes of [offset, offset + length), as a copy. */
  read(offset: number, length: number): Uint8Array {
    this.expectInside(offset, length);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const at = (offset + done) % pageBytes;
      const count = Math.min(pageBytes - at, length - done);
      const page = this.pages.get(Math.floor((offset + done) / pageBytes));
      if (page !== undefined) bytes.set(page.subarray(at, at + count), done);
      done += count;
    }
    return bytes;
  }

  /** A disk of its own with the same bytes, size and LSN. */
  copy(): FoldedDisk {
    const twin = new FoldedDisk(this.size);
    twin.appliedLsn = this.appliedLsn;
    for (const [number, page] of this.pages) twin.pages.set(number, page.slice());
    return twin;
  }

  /** Offset of the first byte where the disks differ, -1 where none does. The shorter one's end is a difference. */
  firstDifference(other: FoldedDisk): number {
    const end = Math.min(this.size, other.size);
    let first = this.size === other.size ? Number.POSITIVE_INFINITY : end;
    for (const number of new Set([...this.pages.keys(), ...other.pages.keys()])) {
      const start = number * pageBytes;
      if (start >= first) continue;
      const mine = this.pages.get(number) ?? emptyPage;
      const theirs = other.pages.get(number) ?? emptyPage;
      const at = mine.findIndex((byte, index) => byte !== theirs[index]);
      if (at >= 0 && start + at < end) first = Math.min(first, start + at);
    }
    return first === Number.POSITIVE_INFINITY ? -1 : first;
  }

  private page(number: number): Uint8Array {
    let page = this.pages.get(number);
    if (page === undefined) {
      page = new Uint8Array(pageBytes);
      this.pages.set(number, page);
    }
    return page;
  }

  /** Whole pages go, ends are filled with zeroes. Walks the pages held where those are fewer than the range has. */
  private erase(start: number, end: number): void {
    const firstPage = Math.floor(start / pageBytes);
    const endPage = Math.ceil(end / pageBytes);
    if (endPage - firstPage > this.pages.size) {
      for (const number of this.pages.keys()) this.erasePage(number, start, end);
    } else {
      for (let number = firstPage; number < endPage; number += 1) this.erasePage(number, start, end);
    }
  }

  private erasePage(number: number, start: number, end: number): void {
    const from = Math.max(0, start - number * pageBytes);
    const to = Math.min(pageBytes, end - number * pageBytes);
    if (from === 0 && to === pageBytes) this.pages.delete(number);
    else if (from < to) this.pages.get(number)?.fill(0, from, to);
  }

  private expectNext(firstLsn: number): void {
    if (firstLsn === this.appliedLsn + 1) return;
    throw new VarveError("FoldOrderError", "Corrupt", `batch at LSN ${firstLsn} after ${this.appliedLsn}`, {
      hint: "Batches are folded in order, without gaps.",
      fields: { firstLsn, appliedLsn: this.appliedLsn },
    });
  }

  private expectInside(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.size) return;
    const range = `[${offset}, ${offset + length})`;
    throw new VarveError("FoldRangeError", "Corrupt", `${range} is not in a disk of ${this.size} bytes`, {
      hint: "An admitted entry lies within the disk; this one was not admitted.",
      fields: { offset, length, sizeBytes: this.size },
    });
  }
}

const emptyPage = new Uint8Array(pageBytes);

/** fold(t) past a rebase needs the history before it, which a single pass has not. */
function noRebase(): VarveError {
  return new VarveError("FoldRebaseError", "Invalid", "a rebase entry can't be folded without the history", {
    hint: "This version appends no rebase entries.",
  });
}
