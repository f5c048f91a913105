/*
 * The payload memory of a process: slabs in four size classes, lent out under one budget, and a little beyond it for marks and for payloads
 * that are only taken in to be refused. Owns who holds which slab and who waits for room. The volume sessions and NBD connections acquire and release; the slabs come from the FileStore, so that
 * the kernel reads and writes them directly. Idle memory goes back to the system after some seconds.
 *
 *   free ─acquire─► lent ─release─► free ─idle for trimAfterMs, or the budget is needed─► free without pages
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

const KiB = 1024;

/** Header room plus 64 KiB, 256 KiB, 1 MiB and 4 MiB; the large ones have a block more for a reader's own header. */
export const slabClassBytes: readonly number[] = [
  limits.batchHeaderBytesMax + 64 * KiB,
  limits.batchHeaderBytesMax + 256 * KiB,
  limits.batchHeaderBytesMax + 1024 * KiB + limits.blockBytes,
  limits.batchHeaderBytesMax + limits.batchPayloadBytesMax + limits.blockBytes,
];

/** Free slabs that nobody took for this long lose their pages. */
const trimAfterMs = 3000;

export interface SlabPoolStatistics {
  readonly lentBytes: number;
  /** Free, but with memory behind them. */
  readonly idleBytes: number;
  /** Address space of all slabs ever made; the memory behind it is lent plus idle. */
  readonly mappedBytes: number;
  readonly waiting: number;
}

interface FreeSlab {
  readonly slab: Slab;
  readonly sinceMs: number;
}

class SlabClass {
  readonly bytes: number;
  /** With pages; the one released last is lent first, so the front grows old. */
  readonly idle: FreeSlab[] = [];
  /** Without pages. */
  readonly bare: Slab[] = [];

  constructor(bytes: number) {
    this.bytes = bytes;
  }
}

export class SlabPool {
  readonly #store: Pick<FileStore, "allocateSlab" | "shrinkSlab">;
  readonly #clock: Clock;
  readonly #budgetBytes: number;
  readonly #classes: readonly SlabClass[];
  readonly #lent = new Set<Slab>();
  #lentBytes = 0;
  #idleBytes = 0;
  #mappedBytes = 0;
  readonly #beyond = new Set<Slab>();
  #beyondBytes = 0;
  #waiting: (() => void)[] = [];
  #waitingBeyond: (() => void)[] = [];
  #wakeScheduled = false;
  #waking = false;
  #trimming = false;

  constructor(store: Pick<FileStore, "allocateSlab" | "shrinkSlab">, clock: Clock, budgetBytes: number) {
    const largest = slabClassBytes.at(-1) ?? 0;
    invariant(budgetBytes >= largest, "a pool's budget holds one largest slab");
    this.#store = store;
    this.#clock = clock;
    this.#budgetBytes = budgetBytes;
    this.#classes = slabClassBytes.map((bytes) => new SlabClass(bytes));
  }

  /**
   * A slab of at least `bytes` (content undefined), or null where the budget is used up or others wait already: then call
   * onRoom(). Larger than the largest class is a caller's defect.
   */
  acquire(bytes: number): Slab | null {
    // Whoever waits is served first; the one that was just woken is the first.
    if (this.#waiting.length > 0 && !this.#waking) return null;
    const sizeClass = this.#classes.find((candidate) => candidate.bytes >= bytes);
    invariant(sizeClass !== undefined, "a slab of that size exists");
    if (this.#lentBytes + sizeClass.bytes > this.#budgetBytes) return null;
    return this.#lend(sizeClass);
  }

  /**
   * A slab whatever the budget says: for a mark, which waits for no writer's memory, and for a payload that is only received to be refused
   * by a volume that halted. Null where
   * `mostBytes` are lent out so: then call onRoom(callback, true).
   */
  acquireBeyond(bytes: number, mostBytes: number = limits.payloadBytesBeyondMax): Slab | null {
    const sizeClass = this.#classes.find((candidate) => candidate.bytes >= bytes);
    invariant(sizeClass !== undefined, "a slab of that size exists");
    if (this.#beyondBytes + sizeClass.bytes > mostBytes) return null;
    const slab = this.#lend(sizeClass);
    this.#beyond.add(slab);
    this.#beyondBytes += sizeClass.bytes;
    return slab;
  }

  /** Gives a slab back; waiters are woken in the next round, first come first served. */
  release(slab: Slab): void {
    invariant(this.#lent.delete(slab), "a released slab was lent");
    const sizeClass = this.#classes.find((candidate) => candidate.bytes === slab.bytes.byteLength);
    invariant(sizeClass !== undefined, "a released slab has a class");
    this.#lentBytes -= sizeClass.bytes;
    this.#idleBytes += sizeClass.bytes;
    if (this.#beyond.delete(slab)) {
      this.#beyondBytes -= sizeClass.bytes;
      if (this.#waitingBeyond.length > 0) this.#wakeBeyondSoon();
    }
    sizeClass.idle.push({ slab, sinceMs: this.#clock.monotonicMs() });
    this.#scheduleTrim();
    if (this.#waiting.length > 0) this.#scheduleWake();
  }

  /**
   * Calls back once, never from inside this call, when memory may be there again. A callback that finds too little and asks
   * again from inside keeps its place in front of all others. `beyond`: waits for acquireBeyond() instead; when a slab of it comes back
   * all such waiters are called: most hold it only for a moment.
   */
  onRoom(callback: () => void, beyond = false): void {
    if (beyond) {
      this.#waitingBeyond.push(callback);
      if (this.#beyondBytes === 0) this.#wakeBeyondSoon();
      return;
    }
    if (this.#waking) this.#waiting.unshift(callback);
    else this.#waiting.push(callback);
    if (this.#hasRoom() && !this.#waking) this.#scheduleWake();
  }

  statistics(): SlabPoolStatistics {
    return {
      lentBytes: this.#lentBytes,
      idleBytes: this.#idleBytes,
      mappedBytes: this.#mappedBytes,
      waiting: this.#waiting.length + this.#waitingBeyond.length,
    };
  }

  #lend(sizeClass: SlabClass): Slab {
    const slab = this.#take(sizeClass);
    this.#lent.add(slab);
    this.#lentBytes += sizeClass.bytes;
    return slab;
  }

  #take(sizeClass: SlabClass): Slab {
    const idle = sizeClass.idle.pop();
    if (idle !== undefined) {
      this.#idleBytes -= sizeClass.bytes;
      return idle.slab;
    }
    // Idle memory of other classes makes room, so that lent and idle together stay within the budget.
    while (this.#idleBytes > 0 && this.#lentBytes + this.#idleBytes + sizeClass.bytes > this.#budgetBytes) {
      this.#dropOldestIdle();
    }
    const bare = sizeClass.bare.pop();
    if (bare !== undefined) return bare;
    this.#mappedBytes += sizeClass.bytes;
    return this.#store.allocateSlab(sizeClass.bytes);
  }

  #hasRoom(): boolean {
    const smallest = this.#classes[0]?.bytes ?? 0;
    return this.#lentBytes + smallest <= this.#budgetBytes;
  }

  #scheduleWake(): void {
    if (this.#wakeScheduled) return;
    this.#wakeScheduled = true;
    this.#clock.soon(() => {
      this.#wakeScheduled = false;
      this.#wake();
    });
  }

  #wakeBeyondSoon(): void {
    this.#clock.soon(() => {
      for (const waiter of this.#waitingBeyond.splice(0)) waiter();
    });
  }

  /** Wakes waiters in order while there is room; stops at one that asks again. */
  #wake(): void {
    while (this.#waiting.length > 0 && this.#hasRoom()) {
      const first = this.#waiting.shift();
      const behind = this.#waiting.length;
      this.#waking = true;
      try {
        first?.();
      } finally {
        this.#waking = false;
      }
      if (this.#waiting.length > behind) return;
    }
  }

  #dropOldestIdle(): void {
    let oldest: SlabClass | null = null;
    for (const sizeClass of this.#classes) {
      const front = sizeClass.idle[0];
      const best = oldest?.idle[0];
      if (front !== undefined && (best === undefined || front.sinceMs < best.sinceMs)) oldest = sizeClass;
    }
    invariant(oldest !== null, "idle bytes belong to an idle slab");
    this.#dropFront(oldest);
  }

  #dropFront(sizeClass: SlabClass): void {
    const free = sizeClass.idle.shift();
    invariant(free !== undefined, "an idle slab is there to drop");
    this.#idleBytes -= sizeClass.bytes;
    this.#store.shrinkSlab(free.slab);
    sizeClass.bare.push(free.slab);
  }

  /** One timer while anything is idle, none when nothing is. */
  #scheduleTrim(): void {
    if (this.#trimming) return;
    this.#trimming = true;
    this.#clock.after(trimAfterMs, () => {
      this.#trimming = false;
      this.#trim();
      if (this.#idleBytes > 0) this.#scheduleTrim();
    });
  }

  #trim(): void {
    const beforeMs = this.#clock.monotonicMs() - trimAfterMs;
    for (const sizeClass of this.#classes) {
      for (let front = sizeClass.idle[0]; front !== undefined; front = sizeClass.idle[0]) {
        if (front.sinceMs > beforeMs) break;
        this.#dropFront(sizeClass);
      }
    }
  }
}
