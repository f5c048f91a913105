/*
 * Appends a file's content to a log: data runs as writes, holes as trims, in batches of at most 1 MiB through two slabs, one
 * being filled while the other is made durable. image-adopt.ts runs it over a whole image; when the log has no room, its
 * `forget` lets the log go up to the last durable batch and the append is tried again.
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { RepairLog } from "./image-files.ts";

/** Where a log stands behind its last durable batch: what a checkpoint says of it. */
export interface DurableEnd {
  readonly lsn: number;
  readonly epoch: number;
  readonly checksum: bigint;
}

/** Payload of a batch. */
const payloadBytesMax = 1024 * 1024;
/** Data is looked at in pieces of this size: one that is all zero goes to the log as a zero entry. */
const pieceBytes = 128 * 1024;
export const appenderSlabBytes = limits.batchHeaderBytesMax + payloadBytesMax;
/** A log that makes room says so at once; one that is full may be asked again after a second. */
const roomWaitMs = 1200;
const roomWaitsMax = 10;

interface Slot {
  readonly draft: BatchDraft<Slab>;
  durable: Promise<void>;
}

export class ContentAppender {
  readonly counters = { dataBytes: 0, zeroBytes: 0, holeBytes: 0, batches: 0 };
  readonly #log: RepairLog;
  readonly #forget: (end: DurableEnd) => Promise<void>;
  readonly #slots: readonly Slot[];
  readonly #zeroes = Buffer.alloc(pieceBytes);
  #slot: Slot;
  #end: DurableEnd;

  /** `end`: where the log stands now. */
  constructor(
    log: RepairLog,
    slabs: readonly Slab[],
    end: DurableEnd,
    forget: (end: DurableEnd) => Promise<void>,
  ) {
    this.#log = log;
    this.#end = end;
    this.#forget = forget;
    this.#slots = slabs.map((slab) => ({ draft: new BatchDraft(slab), durable: Promise.resolve() }));
    const first = this.#slots[0];
    invariant(first !== undefined, "an appender has memory");
    this.#slot = first;
  }

  /** All of the file, in order. */
  async addFile(file: BlockFile, sizeBytes: number): Promise<void> {
    let at = 0;
    while (at < sizeBytes) {
      const found = file.nextData(at);
      const dataStart = found === -1 ? sizeBytes : Math.min(found, sizeBytes);
      if (dataStart > at) await this.#addHole(at, dataStart - at);
      if (dataStart === sizeBytes) return;
      const dataEnd = Math.min(sizeBytes, file.nextHole(dataStart));
      await this.#addData(file, dataStart, dataEnd);
      at = dataEnd;
    }
  }

  async addSize(sizeBytes: number): Promise<void> {
    const draft = await this.#draftFor(0);
    draft.addValue(entryKind.resize, sizeBytes);
  }

  /** Everything added is durable when it resolves, with the log's end. */
  async finish(): Promise<DurableEnd> {
    await this.#submit();
    return await this.#settle();
  }

  async #addHole(offset: number, length: number): Promise<void> {
    const draft = await this.#draftFor(0);
    draft.addRange(entryKind.trim, offset, length);
    this.counters.holeBytes += length;
  }

  async #addData(file: BlockFile, start: number, end: number): Promise<void> {
    for (let offset = start; offset < end; ) {
      const length = Math.min(pieceBytes, end - offset);
      const draft = await this.#draftFor(length);
      // Where addWrite will put it.
      const position = limits.batchHeaderBytesMax + draft.payloadBytes;
      await file.read(draft.slab, position, length, offset);
      const bytes = draft.slab.bytes.subarray(position, position + length);
      if (bytes.equals(this.#zeroes.subarray(0, length))) {
        draft.addRange(entryKind.zeroAllocated, offset, length);
        this.counters.zeroBytes += length;
      } else {
        invariant(draft.addWrite(offset, length) === position, "a payload stands where it was read to");
        this.counters.dataBytes += length;
      }
      offset += length;
    }
  }

  async #draftFor(payloadBytes: number): Promise<BatchDraft<Slab>> {
    if (!this.#slot.draft.fits(payloadBytes)) await this.#submit();
    return this.#slot.draft;
  }

  /** Hands the batch to the log and goes on with the other slab. */
  async #submit(): Promise<void> {
    const slot = this.#slot;
    if (slot.draft.entryCount === 0) return;
    await this.#append(slot.draft);
    this.counters.batches += 1;
    slot.durable = this.#log.writer.sync();
    // Awaited when the slab is wanted again.
    slot.durable.catch(() => undefined);
    const next = this.#slots[(this.#slots.indexOf(slot) + 1) % this.#slots.length];
    invariant(next !== undefined, "slabs take turns");
    await this.#empty(next);
    this.#slot = next;
  }

  async #append(draft: BatchDraft<Slab>): Promise<void> {
    for (let waits = 0; ; waits += 1) {
      try {
        this.#log.writer.append(draft);
        return;
      } catch (cause) {
        const error = this.#log.halted ?? toVarveError(cause, "append to the log");
        if (waits === roomWaitsMax || (error.kind !== "Retry" && error.kind !== "Full")) throw error;
        // Listens before it asks for room, so that no answer is missed.
        const changed = this.#log.roomChanged(roomWaitMs);
        if (error.kind === "Full") await this.#forget(await this.#settle());
        if (this.#log.writer.state().refusal !== null || error.kind === "Retry") await changed;
      }
    }
  }

  /** Waits for all that was appended. */
  async #settle(): Promise<DurableEnd> {
    for (const slot of this.#slots)
      if (slot !== this.#slot || slot.draft.firstLsn > 0) await this.#empty(slot);
    return this.#end;
  }

  async #empty(slot: Slot): Promise<void> {
    await slot.durable;
    const { draft } = slot;
    if (draft.firstLsn === 0) return;
    if (draft.lastLsn > this.#end.lsn) {
      this.#end = { lsn: draft.lastLsn, epoch: draft.epoch, checksum: draft.checksum };
    }
    draft.reset();
  }
}
