/*
 * Which bytes of a partly local extent are in the file: whole blocks as a bitmap, parts of blocks as exact ranges, so that
 * an extent costs 128 bytes however many block-aligned writes hit it, and no byte is ever guessed. Pure.
 * Held by adapters/replica-image/extent-table.ts, stored by formats/extent-table.ts (docs/formats/checkpoint.md).
 */
import { invariant } from "./invariant.ts";
import { limits } from "./limits.ts";

const blockBytes = limits.blockBytes;
/** Blocks of an extent: 1024. */
export const extentBlocks = limits.extentBytes / blockBytes;

/** Calls come in order, without gaps; `local` alternates. */
export type LocalRunVisitor = (start: number, end: number, local: boolean) => void;

export class LocalBlocks {
  /** Block b is bit b mod 8 of byte b / 8. */
  readonly bitmap = new Uint8Array(extentBlocks / 8);
  private wholeBlocks = 0;
  /** Start and end, start and end, …: ascending, each in one block that is not whole, touching none of the same block. */
  private readonly edges: number[] = [];

  /** True when every byte is local. */
  get full(): boolean {
    return this.wholeBlocks === extentBlocks;
  }

  get empty(): boolean {
    return this.wholeBlocks === 0 && this.edges.length === 0;
  }

  get edgeCount(): number {
    return this.edges.length / 2;
  }

  /** Parts of blocks, as start and end in turns. */
  get parts(): readonly number[] {
    return this.edges;
  }

  isWhole(block: number): boolean {
    return ((this.bitmap[block >>> 3] as number) & (1 << (block & 7))) !== 0;
  }

  /** Bytes [start, end) of the extent are local now. */
  add(start: number, end: number): void {
    invariant(start >= 0 && start < end && end <= limits.extentBytes, "a local range lies in its extent");
    const from = Math.ceil(start / blockBytes);
    const to = Math.floor(end / blockBytes);
    if (from > to) {
      this.addPart(start, end);
      return;
    }
    if (start < from * blockBytes) this.addPart(start, from * blockBytes);
    if (from < to) {
      this.dropParts(from * blockBytes, to * blockBytes);
      for (let block = from; block < to; block += 1) this.setWhole(block);
    }
    if (end > to * blockBytes) this.addPart(to * blockBytes, end);
  }

  /** Local and other runs of [start, end), each as long as it gets. */
  visit(start: number, end: number, visitor: LocalRunVisitor): void {
    let runStart = start;
    let runLocal: boolean | null = null;
    const add = (from: number, local: boolean): void => {
      if (runLocal === local) return;
      if (runLocal !== null && from > runStart) visitor(runStart, from, runLocal);
      runStart = from;
      runLocal = local;
    };
    let edge = this.firstPartEndingAfter(start);
    for (let at = start; at < end; ) {
      const block = Math.floor(at / blockBytes);
      const blockEnd = Math.min(end, (block + 1) * blockBytes);
      if (this.isWhole(block)) add(at, true);
      else {
        for (; edge < this.edges.length && (this.edges[edge] as number) < blockEnd; edge += 2) {
          const from = Math.max(at, this.edges[edge] as number);
          if (from > at) add(at, false);
          add(from, true);
          at = Math.min(blockEnd, this.edges[edge + 1] as number);
          if ((this.edges[edge + 1] as number) > blockEnd) break;
        }
        if (at < blockEnd) add(at, false);
      }
      at = blockEnd;
    }
    if (runLocal !== null && end > runStart) visitor(runStart, end, runLocal);
  }

  /** Whether [start, end) is local as a whole. */
  covers(start: number, end: number): boolean {
    let covered = true;
    this.visit(start, end, (_start, _end, local) => {
      covered &&= local;
    });
    return covered;
  }

  copy(): LocalBlocks {
    const twin = new LocalBlocks();
    twin.bitmap.set(this.bitmap);
    twin.wholeBlocks = this.wholeBlocks;
    twin.edges.push(...this.edges);
    return twin;
  }

  private setWhole(block: number): void {
    if (this.isWhole(block)) return;
    this.bitmap[block >>> 3] = (this.bitmap[block >>> 3] as number) | (1 << (block & 7));
    this.wholeBlocks += 1;
  }

  /** [start, end) lies in one block. Joins what it touches there; a block that becomes whole is one. */
  private addPart(start: number, end: number): void {
    const block = Math.floor(start / blockBytes);
    if (this.isWhole(block)) return;
    const blockStart = block * blockBytes;
    const blockEnd = blockStart + blockBytes;
    let from = start;
    let to = end;
    const first = this.firstPartEndingAfter(Math.max(blockStart, start - 1));
    let last = first;
    for (; last < this.edges.length; last += 2) {
      const partStart = this.edges[last] as number;
      if (partStart > to || partStart >= blockEnd) break;
      from = Math.min(from, partStart);
      to = Math.max(to, this.edges[last + 1] as number);
    }
    if (from === blockStart && to === blockEnd) {
      this.edges.splice(first, last - first);
      this.setWhole(block);
    } else this.edges.splice(first, last - first, from, to);
  }

  private dropParts(start: number, end: number): void {
    const first = this.firstPartEndingAfter(start);
    let last = first;
    while (last < this.edges.length && (this.edges[last] as number) < end) last += 2;
    this.edges.splice(first, last - first);
  }

  /** Index (of its start) of the first part that ends after `offset`. */
  private firstPartEndingAfter(offset: number): number {
    let low = 0;
    let high = this.edges.length / 2;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.edges[2 * middle + 1] as number) > offset) high = middle;
      else low = middle + 1;
    }
    return 2 * low;
  }
}
