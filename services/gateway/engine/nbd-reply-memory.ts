/*
 * Memory that replies stand in until the socket took them: slabs of one size, shared by all connections of a server and
 * bounded, beside one home slab that each connection owns, so that a client that never reads can't starve the others.
 * nbd-transmission.ts takes space, export reads land in it, nbd-output.ts sends from it and gives it back.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

export type SlabSource = Pick<FileStore, "allocateSlab" | "shrinkSlab">;

/** A slab filled from its start; empty again when nothing in it waits to be sent. */
export class ReplySlab {
  readonly slab: Slab;
  readonly view: DataView;
  /** On the heap, for one small reply; belongs to no pool. */
  readonly spare: boolean;
  used = 0;
  /** Pieces that are being filled or wait to be sent. */
  held = 0;

  constructor(slab: Slab, spare = false) {
    this.slab = slab;
    this.spare = spare;
    this.view = new DataView(slab.bytes.buffer, slab.bytes.byteOffset, slab.bytes.byteLength);
  }
}

/** What all connections of a server share: reply slabs, and the slabs that sockets are read into. */
export class NbdMemory {
  private readonly source: SlabSource;
  private readonly sharedSlabsMax: number;
  private readonly freeReplies: ReplySlab[] = [];
  private readonly freeHomes: ReplySlab[] = [];
  private readonly freeInputs: Slab[] = [];
  private readonly waiting = new Set<() => void>();
  private sharedSlabs = 0;
  /** Of freeReplies: the least number since the last trim, and how many from the bottom have no pages. */
  private leastFree = 0;
  private withoutPages = 0;

  constructor(source: SlabSource, replyMemoryBytesMax: number = limits.nbdReplyMemoryBytesMax) {
    this.source = source;
    this.sharedSlabsMax = Math.floor(replyMemoryBytesMax / limits.nbdReplySlabBytes);
    invariant(this.sharedSlabsMax > 0, "reply memory holds a slab");
  }

  /** Shared slabs that take() could give now. */
  get freeSlabs(): number {
    return this.sharedSlabsMax - this.sharedSlabs + this.freeReplies.length;
  }

  get replyBytesLent(): number {
    return (this.sharedSlabs - this.freeReplies.length) * limits.nbdReplySlabBytes;
  }

  take(): ReplySlab | null {
    const free = this.freeReplies.pop();
    this.leastFree = Math.min(this.leastFree, this.freeReplies.length);
    this.withoutPages = Math.min(this.withoutPages, this.freeReplies.length);
    if (free !== undefined) return free;
    if (this.sharedSlabs === this.sharedSlabsMax) return null;
    this.sharedSlabs += 1;
    return new ReplySlab(this.source.allocateSlab(limits.nbdReplySlabBytes));
  }

  give(slab: ReplySlab): void {
    invariant(slab.held === 0, "a reply slab is given back when nothing holds it");
    slab.used = 0;
    this.freeReplies.push(slab);
    if (this.waiting.size === 0) return;
    const callbacks = [...this.waiting];
    this.waiting.clear();
    for (const callback of callbacks) callback();
  }

  /** Calls back once when a shared slab is free again. */
  onRoom(callback: () => void): void {
    this.waiting.add(callback);
  }

  forget(callback: () => void): void {
    this.waiting.delete(callback);
  }

  takeHome(): ReplySlab {
    return this.freeHomes.pop() ?? new ReplySlab(this.source.allocateSlab(limits.nbdReplySlabBytes));
  }

  giveHome(slab: ReplySlab): void {
    invariant(slab.held === 0, "a home slab is given back when nothing holds it");
    slab.used = 0;
    this.freeHomes.push(slab);
  }

  takeInput(): Slab {
    const bytes = limits.nbdInputBytes + limits.nbdInputSpareBytes;
    return this.freeInputs.pop() ?? this.source.allocateSlab(bytes);
  }

  giveInput(slab: Slab): void {
    this.freeInputs.push(slab);
  }

  /** Called by the sweep: gives pages of slabs back that nobody took since the last call, a few at a time. */
  trim(): void {
    const end = Math.min(this.leastFree, this.withoutPages + limits.nbdSlabsShrunkPerSweepMax);
    for (const free of this.freeReplies.slice(this.withoutPages, end)) this.source.shrinkSlab(free.slab);
    this.withoutPages = Math.max(this.withoutPages, end);
    this.leastFree = this.freeReplies.length;
  }

  /** Lets the system have the memory of all slabs that nobody uses; they stay in the lists. */
  shrink(): void {
    for (const free of this.freeReplies.slice(this.withoutPages)) this.source.shrinkSlab(free.slab);
    for (const free of this.freeHomes) this.source.shrinkSlab(free.slab);
    for (const free of this.freeInputs) this.source.shrinkSlab(free);
    this.withoutPages = this.freeReplies.length;
  }
}

const alignmentBytes = 64;

function startOf(slab: ReplySlab, headerBytes: number, dataBytes: number): number {
  if (dataBytes === 0) return slab.used;
  const data = slab.used + headerBytes + alignmentBytes - 1;
  return data - (data % alignmentBytes) - headerBytes;
}

/** One connection's space for replies. */
export class ReplySpace {
  private readonly memory: NbdMemory;
  private readonly home: ReplySlab;
  private current: ReplySlab;
  private borrowed = 0;
  private closing = false;
  private closed = false;
  private readonly borrowedMax = Math.floor(limits.nbdReplyBytesQueuedMax / limits.nbdReplySlabBytes);
  /** Where the space of the last take() begins in its slab. */
  start = 0;

  constructor(memory: NbdMemory) {
    this.memory = memory;
    this.home = memory.takeHome();
    this.current = this.home;
  }

  /** Space for `bytes`, at this.start of the slab that is returned; null where memory is used up. Held until release(). */
  take(bytes: number): ReplySlab | null {
    return this.takeForRead(bytes, 0);
  }

  /**
   * Space for a header and, behind it, for data that a file is read into. The data begins on a boundary of 64 bytes: the
   * kernel's copy out of the page cache takes two to four times as long where it is not on one of 8 (ADR 005).
   */
  takeForRead(headerBytes: number, dataBytes: number): ReplySlab | null {
    let slab = this.current;
    let start = startOf(slab, headerBytes, dataBytes);
    if (start + headerBytes + dataBytes > limits.nbdReplySlabBytes) {
      const next = this.next();
      if (next === null) return null;
      slab = next;
      start = startOf(slab, headerBytes, dataBytes);
    }
    this.start = start;
    slab.used = start + headerBytes + dataBytes;
    slab.held += 1;
    return slab;
  }

  /** The same for the small replies that must not wait: from the heap where memory is used up. */
  takeAlways(bytes: number): ReplySlab {
    const slab = this.take(bytes);
    if (slab !== null) return slab;
    const spare = new ReplySlab({ bytes: Buffer.allocUnsafeSlow(bytes), address: 0 }, true);
    spare.used = bytes;
    spare.held = 1;
    this.start = 0;
    return spare;
  }

  /** Whether pieces of a large reply, `slabs` slabs full, would all find room. */
  hasSlabs(slabs: number): boolean {
    return slabs <= this.memory.freeSlabs && slabs <= this.borrowedMax - this.borrowed;
  }

  release(slab: ReplySlab): void {
    slab.held -= 1;
    if (slab.held > 0 || slab.spare) return;
    slab.used = 0;
    if (slab !== this.home && slab !== this.current) this.giveBack(slab);
    this.settle();
  }

  /** Gives everything back, at once or when the last held piece is released. */
  close(): void {
    this.closing = true;
    this.settle();
  }

  private next(): ReplySlab | null {
    if (this.current !== this.home && this.home.held === 0) {
      this.current = this.home;
      return this.home;
    }
    if (this.borrowed >= this.borrowedMax) return null;
    const slab = this.memory.take();
    if (slab === null) return null;
    this.borrowed += 1;
    this.current = slab;
    return slab;
  }

  /** Returns to the home slab when nothing waits any more: an idle connection borrows nothing. */
  private settle(): void {
    if (this.home.held > 0 || this.current.held > 0) return;
    if (this.current !== this.home) this.giveBack(this.current);
    this.current = this.home;
    if (!this.closing || this.closed || this.borrowed > 0) return;
    this.closed = true;
    this.memory.giveHome(this.home);
  }

  private giveBack(slab: ReplySlab): void {
    this.borrowed -= 1;
    this.memory.give(slab);
  }
}
