/*
 * Ordered, non-overlapping half-open ranges of a disk, each mapped to a value and a position: the structure beneath the
 * overlay (services/gateway/engine/overlay.ts), which maps disk ranges to slab bytes. Newest wins; older ranges are cut.
 *
 * A list of sorted chunks (extent-chunk.ts): every operation is two binary searches and moves within one chunk of at most
 * 128 ranges. Insert on 100,000 ranges: about 1 µs. Neither queries nor steady-state inserts allocate.
 */
import { chunkRangesMax, ExtentChunk } from "./extent-chunk.ts";
import { invariant } from "./invariant.ts";

export type ExtentVisitor<V> = (start: number, end: number, value: V, position: number) => void;

/** Empty chunks kept for reuse. */
const spareChunksMax = 16;

export class ExtentMap<V extends object> {
  private readonly chunks: ExtentChunk<V>[] = [];
  private readonly spare: ExtentChunk<V>[] = [];
  private rangeCount = 0;
  /** Where seek() stopped: chunk and index within it. */
  private chunkAt = 0;
  private indexAt = 0;

  /** Ranges now. Neighbours with the same value and continuing positions are one range. */
  get size(): number {
    return this.rangeCount;
  }

  /** Maps [start, end) to value; byte b of it stands at position + (b - start), through all later cuts. Newest wins. */
  insert(start: number, end: number, value: V, position: number): void {
    invariant(start >= 0 && start < end && Number.isSafeInteger(end), "a range is not empty and safe");
    this.carve(start, end);
    // carve() left the cursor where the new range belongs: behind everything below `start`.
    if (this.extendPrevious(start, end, value, position)) return;
    this.place(start, end, value, position);
  }

  /** Forgets [start, end) where it still maps to that very value. */
  remove(start: number, end: number, value: V): void {
    this.seek(start);
    for (;;) {
      const chunk = this.chunks[this.chunkAt];
      if (chunk === undefined) return;
      const index = this.indexAt;
      const rangeStart = chunk.start(index);
      if (rangeStart >= end) return;
      const rangeEnd = chunk.end(index);
      if (chunk.value(index) !== value) {
        this.step(chunk);
      } else if (rangeStart >= start && rangeEnd <= end) {
        this.removeAt(chunk);
      } else {
        this.cutAt(chunk, Math.max(start, rangeStart), Math.min(end, rangeEnd));
        if (rangeEnd >= end) return;
      }
    }
  }

  /**
   * Calls the visitor for each mapped piece of [start, end), in order, clipped to it; `position` is that of the piece's
   * first byte. The visitor must not change the map.
   */
  visit(start: number, end: number, visitor: ExtentVisitor<V>): void {
    this.seek(start);
    let chunkAt = this.chunkAt;
    let index = this.indexAt;
    for (;;) {
      const chunk = this.chunks[chunkAt];
      if (chunk === undefined) return;
      for (; index < chunk.count; index += 1) {
        const rangeStart = chunk.start(index);
        if (rangeStart >= end) return;
        const from = Math.max(start, rangeStart);
        visitor(
          from,
          Math.min(end, chunk.end(index)),
          chunk.value(index),
          chunk.position(index) + (from - rangeStart),
        );
      }
      chunkAt += 1;
      index = 0;
    }
  }

  /** Whether every byte of [start, end) is mapped. */
  covers(start: number, end: number): boolean {
    this.seek(start);
    let covered = start;
    while (covered < end) {
      const chunk = this.chunks[this.chunkAt];
      if (chunk === undefined || chunk.start(this.indexAt) > covered) return false;
      covered = chunk.end(this.indexAt);
      this.step(chunk);
    }
    return true;
  }

  clear(): void {
    this.chunks.length = 0;
    this.spare.length = 0;
    this.rangeCount = 0;
  }

  /** Puts the cursor on the first range that ends after `offset` (or behind the last range). */
  private seek(offset: number): void {
    let low = 0;
    let high = this.chunks.length;
    // The first chunk whose last range ends after `offset`.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.chunks[middle] as ExtentChunk<V>).lastEnd > offset) high = middle;
      else low = middle + 1;
    }
    this.chunkAt = low;
    const chunk = this.chunks[low];
    this.indexAt = chunk === undefined ? 0 : chunk.firstEndingAfter(offset);
  }

  /** Cursor to the next range. */
  private step(chunk: ExtentChunk<V>): void {
    this.indexAt += 1;
    if (this.indexAt < chunk.count) return;
    this.chunkAt += 1;
    this.indexAt = 0;
  }

  /** Unmaps [start, end), whatever is there; the cursor ends on the first range at or after `end`. */
  private carve(start: number, end: number): void {
    this.seek(start);
    const first = this.chunks[this.chunkAt];
    if (first === undefined || first.start(this.indexAt) >= end) return;
    if (first.start(this.indexAt) < start) {
      const tailLeft = first.end(this.indexAt) > end;
      this.cutAt(first, start, Math.min(end, first.end(this.indexAt)));
      if (tailLeft) return;
    }
    for (;;) {
      const chunk = this.chunks[this.chunkAt];
      if (chunk === undefined) return;
      const from = this.indexAt;
      const to = chunk.firstEndingAfter(end, from);
      if (from === 0 && to === chunk.count) {
        this.dropChunks(end);
        continue;
      }
      chunk.removeRange(from, to);
      this.rangeCount -= to - from;
      if (from < chunk.count) {
        chunk.trimStart(from, end);
        this.joinNext(this.chunkAt);
        return;
      }
      this.chunkAt += 1;
      this.indexAt = 0;
    }
  }

  /** Removes the run of whole chunks from the cursor on that end at or before `end`: one splice, however many. */
  private dropChunks(end: number): void {
    let to = this.chunkAt;
    for (;;) {
      const chunk = this.chunks[to];
      if (chunk === undefined || chunk.lastEnd > end) break;
      this.rangeCount -= chunk.count;
      this.recycle(chunk);
      to += 1;
    }
    this.chunks.splice(this.chunkAt, to - this.chunkAt);
  }

  /** Cuts [from, to) out of the range at the cursor, of which something stays; cursor behind the cut. */
  private cutAt(chunk: ExtentChunk<V>, from: number, to: number): void {
    const index = this.indexAt;
    const rangeStart = chunk.start(index);
    const rangeEnd = chunk.end(index);
    if (rangeStart >= from) {
      chunk.trimStart(index, to);
      return;
    }
    const value = chunk.value(index);
    const tailPosition = chunk.position(index) + (to - rangeStart);
    chunk.trimEnd(index, from);
    this.step(chunk);
    if (rangeEnd > to) this.place(to, rangeEnd, value, tailPosition);
  }

  /** Removes the range at the cursor; cursor on the next one. */
  private removeAt(chunk: ExtentChunk<V>): void {
    this.rangeCount -= 1;
    if (chunk.count === 1) {
      this.chunks.splice(this.chunkAt, 1);
      this.recycle(chunk);
      return;
    }
    chunk.removeRange(this.indexAt, this.indexAt + 1);
    if (this.indexAt < chunk.count) {
      this.joinNext(this.chunkAt);
      return;
    }
    this.chunkAt += 1;
    this.indexAt = 0;
  }

  /** Grows the range before the cursor where the new one continues it. */
  private extendPrevious(start: number, end: number, value: V, position: number): boolean {
    const before = this.indexAt > 0 ? this.chunks[this.chunkAt] : this.chunks[this.chunkAt - 1];
    if (before === undefined) return false;
    const index = this.indexAt > 0 ? this.indexAt - 1 : before.count - 1;
    if (before.end(index) !== start || before.value(index) !== value) return false;
    if (before.position(index) + (start - before.start(index)) !== position) return false;
    before.trimEnd(index, end);
    return true;
  }

  /** Inserts a range before the cursor; the cursor ends on the new range. */
  private place(start: number, end: number, value: V, position: number): void {
    this.rangeCount += 1;
    // At a chunk's head the chunk before takes it where it has room: sequential inserts fill chunks.
    const before = this.indexAt === 0 ? this.chunks[this.chunkAt - 1] : undefined;
    if (before !== undefined && before.count < chunkRangesMax) {
      this.chunkAt -= 1;
      this.indexAt = before.count;
    }
    let chunk = this.chunks[this.chunkAt];
    if (chunk === undefined) {
      chunk = this.takeChunk();
      this.chunks.push(chunk);
    }
    if (chunk.count === chunkRangesMax) chunk = this.split(chunk);
    chunk.insert(this.indexAt, start, end, value, position);
  }

  /** Halves the full chunk at the cursor; returns the half where the cursor then is. */
  private split(chunk: ExtentChunk<V>): ExtentChunk<V> {
    const keep = chunkRangesMax / 2;
    const next = this.takeChunk();
    this.chunks.splice(this.chunkAt + 1, 0, next);
    chunk.moveTail(keep, next);
    if (this.indexAt <= keep) return chunk;
    this.chunkAt += 1;
    this.indexAt -= keep;
    return next;
  }

  /** Joins a chunk with the next where both together are at most half full, so that removals leave no trail of tiny chunks. */
  private joinNext(chunkAt: number): void {
    const chunk = this.chunks[chunkAt];
    const next = this.chunks[chunkAt + 1];
    if (chunk === undefined || next === undefined || chunk.count + next.count > chunkRangesMax / 2) return;
    next.moveTail(0, chunk);
    this.chunks.splice(chunkAt + 1, 1);
    this.recycle(next);
  }

  private takeChunk(): ExtentChunk<V> {
    return this.spare.pop() ?? new ExtentChunk<V>();
  }

  private recycle(chunk: ExtentChunk<V>): void {
    chunk.removeRange(0, chunk.count);
    if (this.spare.length < spareChunksMax) this.spare.push(chunk);
  }
}
