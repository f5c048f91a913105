// Makes chained batches of random entries, as drafts in slabs and as batches read back, without a log: what replica tests
// feed to images and to the reference fold. Checksums are counters: a replica compares them, it does not compute them.
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { type Entry, entryKind } from "#shared/domain/entry.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { SteppedRandom } from "../file-store/stepped-clock.ts";

export const line = "0f1e2d3c4b5a6978";

export interface MadeBatch {
  readonly batch: Batch;
  readonly draft: BatchDraft<Slab>;
}

export class BatchMaker {
  sizeBytes: number;
  #nextLsn: number;
  #checksum = 0n;
  readonly #random: SteppedRandom;
  readonly #store: FileStore;

  /** `lastLsn`: what the first batch follows, chained to nothing. */
  constructor(store: FileStore, random: SteppedRandom, sizeBytes: number, lastLsn = 0) {
    this.#store = store;
    this.#nextLsn = lastLsn + 1;
    this.#random = random;
    this.sizeBytes = sizeBytes;
  }

  /** The entry that every log starts with. */
  epoch(number = 1): MadeBatch {
    const draft = this.#newDraft(4096);
    draft.addValue(entryKind.epoch, "test");
    return this.#finish(draft, number);
  }

  random(): MadeBatch {
    const draft = this.#newDraft(256 * 1024);
    const entries = this.#random.integer(1, 8);
    for (let index = 0; index < entries; index += 1) this.#addEntry(draft);
    return this.#finish(draft, 1);
  }

  resize(sizeBytes: number): MadeBatch {
    const draft = this.#newDraft(4096);
    draft.addValue(entryKind.resize, sizeBytes);
    this.sizeBytes = sizeBytes;
    return this.#finish(draft, 1);
  }

  /** Back to `toLsn`, when the disk had so many bytes. */
  rebase(toLsn: number, sizeBytes: number): MadeBatch {
    const draft = this.#newDraft(4096);
    if (sizeBytes !== this.sizeBytes) draft.addValue(entryKind.resize, sizeBytes);
    draft.addValue(entryKind.rebase, toLsn);
    this.sizeBytes = sizeBytes;
    return this.#finish(draft, 1);
  }

  write(offset: number, bytes: Uint8Array): MadeBatch {
    const draft = this.#newDraft(bytes.length);
    draft.slab.bytes.set(bytes, draft.addWrite(offset, bytes.length));
    return this.#finish(draft, 1);
  }

  range(kind: 1 | 2 | 3, offset: number, length: number): MadeBatch {
    const draft = this.#newDraft(4096);
    draft.addRange(kind, offset, length);
    return this.#finish(draft, 1);
  }

  #newDraft(payloadBytes: number): BatchDraft<Slab> {
    return new BatchDraft(this.#store.allocateSlab(4096 + Math.ceil(payloadBytes / 4096) * 4096));
  }

  #addEntry(draft: BatchDraft<Slab>): void {
    const random = this.#random;
    const offset = random.integer(0, this.sizeBytes);
    const length = random.integer(1, Math.min(30_000, this.sizeBytes - offset) + 1);
    if (random.chance(0.6)) {
      const at = draft.addWrite(offset, length);
      const value = random.integer(1, 256);
      for (let index = 0; index < length; index += 1) draft.slab.bytes[at + index] = (value + index) % 256;
      // Now and then a neighbour, so that writes are joined.
      const end = offset + length;
      if (end + 100 < this.sizeBytes && random.chance(0.3)) {
        const next = draft.addWrite(end, 100);
        draft.slab.bytes.fill(value, next, next + 100);
      }
    } else if (random.chance(0.9)) {
      const kinds = [entryKind.zero, entryKind.zeroAllocated, entryKind.trim] as const;
      draft.addRange(kinds[random.integer(0, 3)] ?? entryKind.trim, offset, length);
    } else draft.addValue(entryKind.mark, "m");
  }

  #finish(draft: BatchDraft<Slab>, epoch: number): MadeBatch {
    draft.firstLsn = this.#nextLsn;
    draft.epoch = epoch;
    draft.previousChecksum = this.#checksum;
    this.#checksum = BigInt(this.#nextLsn) * 1000n + 7n;
    draft.checksum = this.#checksum;
    this.#nextLsn += draft.entryCount;
    const payload = Uint8Array.from(draft.slab.bytes.subarray(4096, 4096 + draft.payloadBytes));
    return { draft, batch: batchOf(draft, payload) };
  }
}

function batchOf(draft: BatchDraft<Slab>, payload: Uint8Array): Batch {
  return {
    line,
    epoch: draft.epoch,
    firstLsn: draft.firstLsn,
    wallTimeMs: 0,
    durableLsn: draft.firstLsn - 1,
    previousChecksum: draft.previousChecksum,
    checksum: draft.checksum,
    entries: draft.kinds.map((_, index) => entryOf(draft, index)),
    payload,
  };
}

function entryOf(draft: BatchDraft<Slab>, index: number): Entry {
  const kind = draft.kinds[index];
  const offset = draft.offsets[index] ?? 0;
  const length = draft.lengths[index] ?? 0;
  if (kind === entryKind.write)
    return { kind: "write", offset, length, payloadStart: draft.payloadStarts[index] ?? 0 };
  if (kind === entryKind.epoch) return { kind: "epoch", writer: "test" };
  if (kind === entryKind.mark) return { kind: "mark", name: "m" };
  if (kind === entryKind.resize) return { kind: "resize", sizeBytes: Number(draft.values.get(index)) };
  if (kind === entryKind.rebase) return { kind: "rebase", lsn: Number(draft.values.get(index)) };
  if (kind === entryKind.zero) return { kind: "zero", offset, length };
  return { kind: kind === entryKind.trim ? "trim" : "zeroAllocated", offset, length };
}
