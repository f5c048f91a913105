/*
 * Drafts between append and durable, in order: [head, issued) is written or being written, [issued, tail) waits. A ring that
 * grows; no object per draft. Owned by the embedded writer; the group writer takes from the middle, the repair after a failed
 * sync reads from the head, because until it is durable a draft's slab is the only sure copy.
 */
import { invariant } from "#shared/domain/invariant.ts";
import type { RecordDraft } from "./record-draft.ts";

export class DraftQueue {
  #ring: (RecordDraft | null)[] = Array.from({ length: 256 }, () => null);
  /** Running counters, never reset: position in the ring is counter modulo its length. */
  #head = 0;
  #issued = 0;
  #tail = 0;

  /** Drafts appended but not yet taken into a group. */
  get waiting(): number {
    return this.#tail - this.#issued;
  }

  /** Drafts in a group or written, not yet durable. */
  get undurable(): number {
    return this.#issued - this.#head;
  }

  push(draft: RecordDraft): void {
    if (this.#tail - this.#head === this.#ring.length) this.#grow();
    this.#ring[this.#tail % this.#ring.length] = draft;
    this.#tail += 1;
  }

  /** The next draft that waits, or null. */
  peekWaiting(): RecordDraft | null {
    return this.#issued === this.#tail ? null : this.#at(this.#issued);
  }

  takeWaiting(): RecordDraft {
    const draft = this.peekWaiting();
    invariant(draft !== null, "a draft waits when one is taken");
    this.#issued += 1;
    return draft;
  }

  /** The waiting draft `index` places after the next one. */
  waitingAt(index: number): RecordDraft {
    invariant(index >= 0 && index < this.waiting, "a waiting draft's index");
    return this.#at(this.#issued + index);
  }

  /** The draft `index` places after the oldest that is not durable. */
  undurableAt(index: number): RecordDraft {
    invariant(index >= 0 && index < this.undurable, "an undurable draft's index");
    return this.#at(this.#head + index);
  }

  /** Forgets drafts up to `lsn`, which are durable now, and gives the bytes of their records. */
  dropThrough(lsn: number): number {
    let bytes = 0;
    while (this.#head < this.#issued) {
      const draft = this.#at(this.#head);
      if (draft.lastLsn > lsn) break;
      bytes += draft.recordBytes;
      this.#ring[this.#head % this.#ring.length] = null;
      this.#head += 1;
    }
    return bytes;
  }

  /** What was issued and is not durable waits again. */
  reissue(): void {
    this.#issued = this.#head;
  }

  /** Forgets all: the log stopped. */
  clear(): void {
    this.#ring.fill(null);
    this.#head = 0;
    this.#issued = 0;
    this.#tail = 0;
  }

  #at(counter: number): RecordDraft {
    const draft = this.#ring[counter % this.#ring.length];
    invariant(draft !== null && draft !== undefined, "a counter between head and tail has its draft");
    return draft;
  }

  #grow(): void {
    const ring: (RecordDraft | null)[] = Array.from({ length: this.#ring.length * 2 }, () => null);
    for (let counter = this.#head; counter < this.#tail; counter += 1) {
      ring[counter % ring.length] = this.#at(counter);
    }
    this.#ring = ring;
  }
}
