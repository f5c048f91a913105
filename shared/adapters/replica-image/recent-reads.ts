/*
 * Which extents were read from their points a moment ago: what the filler takes first. Newest first, bounded. Owned by
 * image-extents.ts, which is told by partial-read.ts.
 */

const most = 256;

export class RecentReads {
  /** Newest last: a set keeps the order of insertion. */
  readonly #extents = new Set<number>();

  add(extent: number): void {
    this.#extents.delete(extent);
    this.#extents.add(extent);
    if (this.#extents.size <= most) return;
    for (const oldest of this.#extents) {
      this.#extents.delete(oldest);
      return;
    }
  }

  /** Those since the last call. */
  take(): readonly number[] {
    const recent = [...this.#extents].reverse();
    this.#extents.clear();
    return recent;
  }
}
