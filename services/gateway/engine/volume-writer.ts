/*
 * The writer of one volume: gathers all writes that arrive while the log is busy into the next batch (group commit), gives
 * batches to the log, and answers when the log says so. Called by volume-export.ts for each NBD write, zero, trim, flush;
 * next on data's way: LogWriter (append, pump) → overlay.ts (acknowledged) → services/storage/engine/image-applier.ts.
 *
 * Who is answered when (promise 2): `write` volumes and every FUA after durable(); `flush` volumes after stored().
 * A batch enters the overlay just before its first answer leaves, so that no read ever sees a write that may still fail.
 *
 *   open draft ─endOfInput / log free─► log queue ─stored─► overlay ─durable─► applier ─applied─► slab back to the pool
 */
import { entryKind } from "#shared/domain/entry.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { imageRoomBytes } from "#shared/domain/write-admission.ts";
import type { SlabPool } from "#shared/memory/slab-pool.ts";
import type { Completion, WriteSlot } from "#shared/ports/block-export.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import type { Durability, LogWriter } from "#shared/ports/write-log.ts";
import { LogRoom } from "./log-room.ts";
import type { Overlay } from "./overlay.ts";
import { gatherBytesMin, PendingBatch, pieceBytes, slabBytesFor } from "./pending-batch.ts";

export interface VolumeWriterOptions {
  readonly log: LogWriter;
  readonly durability: Durability;
  readonly overlay: Overlay;
  readonly pool: SlabPool;
  readonly admission: SpaceAdmission;
  /** The whole range takes space in the image now, and nothing on its way there gives it back. */
  readonly holdsSpace: (offset: number, length: number) => boolean;
  /** A durable batch, in order. */
  readonly onDurable: (batch: PendingBatch) => void;
  /** Log room that was promised to a draft or a reserved slot was not used: who waits for room may ask again. */
  readonly onRoomReturned: () => void;
}

/** Answered batches of a `flush` volume that wait for a sync: 512 of the smallest slabs are 35 MB. */
const answeredBatchesMax = 512;

export class VolumeWriter {
  private readonly options: VolumeWriterOptions;
  private readonly log: LogWriter;
  private open: PendingBatch | null = null;
  /** Appended, not yet durable; in LSN order. `storedCount` of them, from the front, are stored. */
  private readonly pending: PendingBatch[] = [];
  private storedCount = 0;
  private batchBytesAverage = gatherBytesMin;
  private readonly logRoom: LogRoom;
  private syncing = false;
  /** Something was appended since the last pump. */
  private pumpWanted = false;
  private stopped: VarveError | null = null;
  private readonly durability: Durability;
  readonly counters = { writes: 0, writeBytes: 0, zeroes: 0, trims: 0, flushes: 0, batches: 0, refused: 0 };

  constructor(options: VolumeWriterOptions) {
    this.options = options;
    this.log = options.log;
    this.logRoom = new LogRoom(options.log, options.onRoomReturned);
    this.durability = options.durability;
  }

  get busy(): boolean {
    return this.pending.length > 0 || this.open !== null;
  }

  /** The last request that found no memory was in fact waiting for log room (LogListener.room). Asking clears it. */
  takeWaitsForLog(): boolean {
    return this.logRoom.takeWaits();
  }

  /** See BlockExport.write. */
  write(
    offset: number,
    source: Slab,
    sourceStart: number,
    length: number,
    fua: boolean,
    done: Completion,
  ): boolean {
    const roomBytes = this.roomFor(entryKind.write, offset, length);
    if (this.refuse(roomBytes, length, done)) return true;
    const draft = this.draftFor(length);
    if (draft === null) return false;
    const position = draft.addWrite(offset, length);
    this.keepRoom(draft, roomBytes);
    source.bytes.copy(draft.slab.bytes, position, sourceStart, sourceStart + length);
    this.counters.writes += 1;
    this.counters.writeBytes += length;
    this.wait(draft, fua, done);
    return true;
  }

  /** See BlockExport.reserveWrite: a draft of its own, so that a slow sender holds nobody else's write up. */
  reserveWrite(wanted: number): WriteSlot | null {
    const length = pieceBytes(wanted, this.log.batchPayloadBytesMax);
    const recordBytes =
      limits.batchHeaderBytesMax + Math.ceil(length / limits.blockBytes) * limits.blockBytes;
    if (this.stopped !== null) {
      // Taken in to be refused: a halted volume's own slabs stay lent out, so it can't wait for them.
      const slab = this.options.pool.acquireBeyond(recordBytes);
      if (slab === null) return null;
      this.logRoom.leaveOut(slab);
      return { slab, start: limits.batchHeaderBytesMax, length };
    }
    const lacksRoom = this.logRoom.lacks(recordBytes);
    if (this.logRoom.wait(lacksRoom && this.log.state().refusal === null)) return null;
    const slab = this.options.pool.acquire(recordBytes);
    if (slab === null) return null;
    // Without room the payload is still taken in, so that the request is answered with ENOSPC and the session goes on.
    if (lacksRoom) this.logRoom.leaveOut(slab);
    else this.logRoom.promise(slab);
    return { slab, start: limits.batchHeaderBytesMax, length };
  }

  writeReserved(slot: WriteSlot, offset: number, fua: boolean, done: Completion): void {
    const roomBytes = this.roomFor(entryKind.write, offset, slot.length);
    const error =
      this.stopped ?? this.options.admission.refuse(roomBytes) ?? this.logRoom.refusalOf(slot.slab);
    if (error !== null) {
      this.answerRefused(error, done);
      this.cancelReserved(slot);
      return;
    }
    // What came before it goes to the log before it.
    this.appendOpen();
    const draft = new PendingBatch(slot.slab);
    const position = draft.addWrite(offset, slot.length);
    this.keepRoom(draft, roomBytes);
    invariant(position === slot.start, "a reserved payload stands where its draft wants it");
    this.counters.writes += 1;
    this.counters.writeBytes += slot.length;
    this.open = draft;
    this.wait(draft, fua, done);
    this.appendOpen();
  }

  cancelReserved(slot: WriteSlot): void {
    this.logRoom.cancel(slot.slab);
    this.options.pool.release(slot.slab);
  }

  /** A zero or trim entry: one entry whatever its length. False: no memory now. */
  range(kind: 1 | 2 | 3, offset: number, length: number, fua: boolean, done: Completion): boolean {
    // Only NO_HOLE zeroes take room in the image; the others give it back.
    const roomBytes = this.roomFor(kind, offset, length);
    if (this.refuse(roomBytes, 0, done)) return true;
    const draft = this.draftFor(0);
    if (draft === null) return false;
    draft.addRange(kind, offset, length);
    this.keepRoom(draft, roomBytes);
    if (kind === entryKind.trim) this.counters.trims += 1;
    else this.counters.zeroes += 1;
    this.wait(draft, fua, done);
    return true;
  }

  /**
   * Marks, resizes and rebases, in one batch of their own. Resolves with the last one's LSN when it is durable; null where there is no
   * room in the log now, or no memory even beyond what writers may use. Throws what refuses them for longer.
   */
  appendValues(
    entries: readonly (readonly [kind: 5 | 6 | 7, value: string | number])[],
  ): Promise<number> | null {
    if (this.stopped !== null) throw this.stopped;
    this.appendOpen();
    const { refusal } = this.log.state();
    const bytes = slabBytesFor(0, 0, this.log.batchPayloadBytesMax);
    if (refusal !== null && this.logRoom.lacks(bytes)) throw refusal;
    const draft = this.openDraft(bytes, true);
    if (draft === null) return null;
    for (const [kind, value] of entries) draft.addValue(kind, value);
    return new Promise<number>((resolve, reject) => {
      draft.onDurable.push({
        complete: (error) => (error === null ? resolve(draft.lastLsn) : reject(error)),
      });
      this.appendOpen();
      this.log.pump(false);
    });
  }

  /** Promise 3: done when every write acknowledged before the call, on any connection, is durable. */
  flush(done: Completion): void {
    this.counters.flushes += 1;
    // In a `write` volume acknowledged means durable.
    if (this.stopped !== null || this.durability === "write") {
      this.completeSoon(done, this.stopped);
      return;
    }
    this.log.sync().then(
      () => done.complete(null),
      (cause: unknown) => done.complete(this.asError(cause)),
    );
  }

  /** End of a round of input: what was gathered goes to the log if the log has a slot, else it gathers on. */
  endOfInput(mayBlock: boolean): void {
    if (this.open !== null && this.pending.length - this.storedCount < limits.groupsInFlightMax)
      this.appendOpen();
    if (!this.pumpWanted) return;
    this.pumpWanted = false;
    if (this.storedCount > answeredBatchesMax) this.relieve();
    this.log.pump(mayBlock && this.pending.length - this.storedCount === 1);
  }

  /**
   * Memory is short. In a `flush` volume answered batches hold their slabs until they are durable, so a sync gives memory
   * back; in a `write` volume everything is on its way already.
   */
  relieve(): void {
    if (this.durability !== "flush" || this.syncing || this.stopped !== null) return;
    this.syncing = true;
    this.log
      .sync()
      .catch(() => {
        // A failed sync halts the log, which tells everybody who waits.
      })
      .finally(() => {
        this.syncing = false;
      });
  }

  /** LogListener.stored. */
  stored(lsn: number): void {
    while (this.storedCount < this.pending.length) {
      const batch = this.pending[this.storedCount] as PendingBatch;
      if (batch.lastLsn > lsn) break;
      this.storedCount += 1;
      if (this.durability === "flush") this.acknowledge(batch, batch.onStored);
    }
    this.continueGathering();
  }

  /** LogListener.durable. */
  durable(lsn: number): void {
    let count = 0;
    for (const batch of this.pending) {
      if (batch.lastLsn > lsn) break;
      count += 1;
    }
    if (count > 0) {
      const batches = this.pending.splice(0, count);
      this.storedCount = Math.max(0, this.storedCount - count);
      for (const batch of batches) {
        this.acknowledge(batch, batch.onStored);
        this.acknowledge(batch, batch.onDurable);
        this.options.onDurable(batch);
      }
    }
    this.continueGathering();
  }

  /** LogListener.halted, and whatever else stops writing for good. Everything that waits fails; reads go on. */
  stop(error: VarveError): void {
    if (this.stopped !== null) return;
    this.stopped = error;
    const { open } = this;
    this.open = null;
    // A batch that was answered stays readable; its slab stays with the overlay.
    this.answerWaiting(error);
    if (open !== null) {
      this.logRoom.giveBack(open.slab);
      this.failBatch(open, error);
    }
  }

  /** Who waits for the log waits no longer; what they wrote may still become durable. */
  answerWaiting = (error: VarveError): void => this.pending.forEach((batch) => batch.answerAll(error));

  /** After the log was closed: the batches that never became durable. */
  takePending(): readonly PendingBatch[] {
    return this.pending.splice(0);
  }

  /** Hands everything over to the log and waits until it is durable. */
  async drain(): Promise<void> {
    this.appendOpen();
    this.log.pump(false);
    if (this.stopped === null) await this.log.sync();
  }

  /** What an entry may take in the image. With room left nobody looks closer; with none left, what only overwrites goes on. */
  private roomFor(kind: 0 | 1 | 2 | 3, offset: number, length: number): number {
    const bytes = imageRoomBytes(kind, offset, length);
    const { admission, holdsSpace } = this.options;
    if (bytes === 0 || admission.refuse(bytes) === null) return bytes;
    return admission.takesOverwrites && holdsSpace(offset, length) ? 0 : bytes;
  }

  private keepRoom(draft: PendingBatch, bytes: number): void {
    draft.imageRoomBytes += bytes;
    this.options.admission.admit(bytes);
  }

  /** Answers with the error and returns true where the entry can't be taken. */
  private refuse(imageBytes: number, payloadBytes: number, done: Completion): boolean {
    let error = this.stopped ?? this.options.admission.refuse(imageBytes);
    if (error === null && !(this.open?.fits(payloadBytes) ?? false)) {
      const state = this.log.state();
      if (state.refusal !== null && this.logRoom.lacks(this.draftBytes(payloadBytes))) error = state.refusal;
    }
    if (error === null) return false;
    this.answerRefused(error, done);
    return true;
  }

  private answerRefused(error: VarveError, done: Completion): void {
    this.counters.refused += 1;
    // A full log looks for room again when it is pumped.
    if (this.stopped === null) this.pumpWanted = true;
    this.completeSoon(done, error);
  }

  private draftBytes(payloadBytes: number): number {
    return slabBytesFor(this.batchBytesAverage, payloadBytes, this.log.batchPayloadBytesMax);
  }

  private draftFor(payloadBytes: number): PendingBatch | null {
    if (this.open !== null && this.open.fits(payloadBytes)) return this.open;
    // A full draft goes to the log first: nobody waits for memory while holding some back.
    this.appendOpen();
    return this.openDraft(this.draftBytes(payloadBytes), false);
  }

  private openDraft(bytes: number, beyond: boolean): PendingBatch | null {
    // Either way: what an earlier request lacked says nothing of this one.
    if (this.logRoom.wait(this.logRoom.lacks(bytes))) return null;
    const { pool } = this.options;
    const slab =
      pool.acquire(bytes) ?? (beyond ? pool.acquireBeyond(bytes, limits.markBytesBeyondMax) : null);
    if (slab === null) return null;
    this.logRoom.promise(slab);
    this.open = new PendingBatch(slab);
    return this.open;
  }

  private wait(draft: PendingBatch, fua: boolean, done: Completion): void {
    if (this.durability === "write" || fua) {
      draft.onDurable.push(done);
      // A FUA in a flush volume must not wait for the next flush: the sync is asked for when the batch is appended.
      if (this.durability === "flush") draft.syncWanted = true;
    } else {
      draft.onStored.push(done);
    }
  }

  private appendOpen(): void {
    const batch = this.open;
    if (batch === null) return;
    this.open = null;
    this.logRoom.giveBack(batch.slab);
    this.batchBytesAverage = 0.8 * this.batchBytesAverage + 0.2 * batch.payloadBytes;
    this.counters.batches += 1;
    this.pending.push(batch);
    try {
      this.log.append(batch);
      this.pumpWanted = true;
    } catch (cause) {
      this.pending.pop();
      this.failBatch(batch, this.asError(cause));
      return;
    }
    if (batch.syncWanted) this.log.sync().catch(() => undefined); // the listener is told of a failure
  }

  private failBatch(batch: PendingBatch, error: VarveError): void {
    for (const done of batch.onStored.splice(0)) this.completeSoon(done, error);
    for (const done of batch.onDurable.splice(0)) this.completeSoon(done, error);
    this.options.admission.withdraw(batch.imageRoomBytes);
    this.options.pool.release(batch.slab);
  }

  private acknowledge(batch: PendingBatch, waiting: Completion[]): void {
    if (!batch.inOverlay) {
      batch.inOverlay = true;
      this.options.overlay.add(batch);
    }
    for (const done of waiting) done.complete(null);
    waiting.length = 0;
  }

  private continueGathering(): void {
    if (this.open !== null && this.pending.length - this.storedCount < limits.groupsInFlightMax) {
      this.appendOpen();
      this.pumpWanted = false;
      this.log.pump(false);
    }
  }

  private completeSoon(done: Completion, error: VarveError | null): void {
    queueMicrotask(() => done.complete(error));
  }

  private asError(cause: unknown): VarveError {
    if (cause instanceof VarveError) return cause;
    return new VarveError("LogFailed", "Internal", "the log failed", { cause });
  }
}
