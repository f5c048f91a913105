/*
 * A run of at most 128 sorted ranges in columns: what extent-map.ts is made of. Plain storage: the map decides what goes
 * where, this class moves it. Values of removed ranges are forgotten at once, because they hold slabs.
 */

/** Small enough that moving half of it is cheaper than a cache miss or two; large enough that few chunks exist. */
export const chunkRangesMax = 128;

export class ExtentChunk<V extends object> {
  count = 0;
  private readonly starts = new Float64Array(chunkRangesMax);
  private readonly ends = new Float64Array(chunkRangesMax);
  private readonly positions = new Float64Array(chunkRangesMax);
  private readonly values: (V | undefined)[] = [];

  start(index: number): number {
    return this.starts[index] as number;
  }

  end(index: number): number {
    return this.ends[index] as number;
  }

  /** Position of the range's first byte. */
  position(index: number): number {
    return this.positions[index] as number;
  }

  value(index: number): V {
    return this.values[index] as V;
  }

  /** End of the last range. The chunk is not empty. */
  get lastEnd(): number {
    return this.ends[this.count - 1] as number;
  }

  /** Index of the first range at or after `from` that ends after `offset`; count where none does. */
  firstEndingAfter(offset: number, from = 0): number {
    let low = from;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.ends[middle] as number) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The chunk is not full and the order stays. */
  insert(index: number, start: number, end: number, value: V, position: number): void {
    const { starts, ends, positions, values } = this;
    for (let at = this.count; at > index; at -= 1) {
      starts[at] = starts[at - 1] as number;
      ends[at] = ends[at - 1] as number;
      positions[at] = positions[at - 1] as number;
      values[at] = values[at - 1];
    }
    starts[index] = start;
    ends[index] = end;
    positions[index] = position;
    values[index] = value;
    this.count += 1;
  }

  /** Removes ranges [from, to). */
  removeRange(from: number, to: number): void {
    const { starts, ends, positions, values } = this;
    const removed = to - from;
    if (removed === 0) return;
    for (let at = to; at < this.count; at += 1) {
      starts[at - removed] = starts[at] as number;
      ends[at - removed] = ends[at] as number;
      positions[at - removed] = positions[at] as number;
      values[at - removed] = values[at];
    }
    for (let at = this.count - removed; at < this.count; at += 1) values[at] = undefined;
    this.count -= removed;
  }

  /** Moves the range's start up to `start` where it lies below; its bytes keep their positions. */
  trimStart(index: number, start: number): void {
    const before = this.starts[index] as number;
    if (before >= start) return;
    this.positions[index] = (this.positions[index] as number) + (start - before);
    this.starts[index] = start;
  }

  /** Sets the range's end. */
  trimEnd(index: number, end: number): void {
    this.ends[index] = end;
  }

  /** Moves ranges [from, count) behind the last range of `target`, which has room. */
  moveTail(from: number, target: ExtentChunk<V>): void {
    for (let at = from; at < this.count; at += 1) {
      target.insert(target.count, this.start(at), this.end(at), this.value(at), this.position(at));
    }
    this.removeRange(from, this.count);
  }
}
