/*
 * The content of a file with holes, in memory: pages of 4 KiB, the missing ones read as zero. Shared by the memory store and
 * the simulated disk; the kernel's rules for holes (a punch frees whole blocks and zeroes the parts of others, a shorter
 * file forgets what it cut off) are written down here once and checked against the kernel by the contract suite.
 */
const pageBytes = 4096;
/** A block that is allocated and was never written: copied before the first write into it. */
const unwrittenPage = new Uint8Array(pageBytes);

export class SparseBytes {
  sizeBytes = 0;
  readonly #pages = new Map<number, Uint8Array>();

  get allocatedBytes(): number {
    return this.#pages.size * pageBytes;
  }

  /** Copies [offset, offset + target.length); what lies past the end is zero. */
  read(target: Uint8Array, offset: number): void {
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const within = at % pageBytes;
      const part = Math.min(pageBytes - within, target.length - done);
      const page = this.#pages.get((at - within) / pageBytes);
      if (page === undefined) target.fill(0, done, done + part);
      else target.set(page.subarray(within, within + part), done);
      done += part;
    }
  }

  write(source: Uint8Array, offset: number): void {
    for (let done = 0; done < source.length; ) {
      const at = offset + done;
      const within = at % pageBytes;
      const part = Math.min(pageBytes - within, source.length - done);
      this.#writable((at - within) / pageBytes).set(source.subarray(done, done + part), within);
      done += part;
    }
    this.sizeBytes = Math.max(this.sizeBytes, offset + source.length);
  }

  punch(offset: number, length: number): void {
    const end = offset + length;
    for (const index of this.#pagesWithin(offset, end)) {
      const from = Math.max(offset - index * pageBytes, 0);
      const to = Math.min(end - index * pageBytes, pageBytes);
      if (from === 0 && to === pageBytes) this.#pages.delete(index);
      else this.#writable(index).fill(0, from, to);
    }
  }

  /** Reads as zero afterwards, every block of the range is allocated. */
  zero(offset: number, length: number): void {
    this.punch(offset, length);
    this.allocate(offset, length);
  }

  /** May reach past the end; the size stays. */
  allocate(offset: number, length: number): void {
    for (let index = Math.floor(offset / pageBytes); index * pageBytes < offset + length; index += 1) {
      if (!this.#pages.has(index)) this.#pages.set(index, unwrittenPage);
    }
  }

  truncate(sizeBytes: number): void {
    // Also without a new size: blocks that were allocated past the end go.
    if (sizeBytes <= this.sizeBytes) {
      for (const index of this.#pages.keys()) if (index * pageBytes >= sizeBytes) this.#pages.delete(index);
      const within = sizeBytes % pageBytes;
      const last = (sizeBytes - within) / pageBytes;
      if (within > 0 && this.#pages.has(last)) this.#writable(last).fill(0, within);
    }
    this.sizeBytes = sizeBytes;
  }

  nextData(offset: number): number {
    if (offset >= this.sizeBytes) return -1;
    const first = Math.floor(offset / pageBytes);
    if (this.#pages.has(first)) return offset;
    let best = Number.POSITIVE_INFINITY;
    for (const index of this.#pages.keys()) if (index > first && index < best) best = index;
    return best * pageBytes < this.sizeBytes ? best * pageBytes : -1;
  }

  nextHole(offset: number): number {
    if (offset >= this.sizeBytes) return offset;
    let index = Math.floor(offset / pageBytes);
    while (this.#pages.has(index)) index += 1;
    return Math.min(Math.max(offset, index * pageBytes), this.sizeBytes);
  }

  /** Bytes that a write or an allocation of the range would newly take. */
  missingBytes(offset: number, length: number): number {
    let missing = 0;
    for (let index = Math.floor(offset / pageBytes); index * pageBytes < offset + length; index += 1) {
      if (!this.#pages.has(index)) missing += pageBytes;
    }
    return missing;
  }

  flipBit(offset: number, bit: number): void {
    const within = offset % pageBytes;
    const page = this.#writable((offset - within) / pageBytes);
    page[within] = (page[within] ?? 0) ^ (1 << bit);
  }

  clone(): SparseBytes {
    const copy = new SparseBytes();
    for (const [index, page] of this.#pages)
      copy.#pages.set(index, page === unwrittenPage ? page : page.slice());
    copy.sizeBytes = this.sizeBytes;
    return copy;
  }

  #writable(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page !== undefined && page !== unwrittenPage) return page;
    const fresh = new Uint8Array(pageBytes);
    this.#pages.set(index, fresh);
    return fresh;
  }

  /** Indices of the pages there are that touch the range: by the range or by the map, whichever is shorter. */
  #pagesWithin(offset: number, end: number): number[] {
    const first = Math.floor(offset / pageBytes);
    const behind = Math.ceil(end / pageBytes);
    if (behind - first > this.#pages.size) {
      return [...this.#pages.keys()].filter((index) => index >= first && index < behind);
    }
    const found: number[] = [];
    for (let index = first; index < behind; index += 1) if (this.#pages.has(index)) found.push(index);
    return found;
  }
}
