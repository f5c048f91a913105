// A volume without a disk for the gateway's tests: a Buffer behind the BlockExport port, with switches for what a real one
// does only under stress: answers that come later, failures, no room for payload. Also the directory that hands exports out.
// Callers: test/unit/nbd and conformance scripts. It keeps a list of calls, so that a test can say what must not happen.

import { limits } from "#shared/domain/limits.ts";
import type { VarveError } from "../../shared/domain/errors.ts";
import type { BlockExport, Completion, ExportDirectory, WriteSlot } from "../../shared/ports/block-export.ts";
import type { AllocationRun } from "../../shared/ports/replica-image.ts";
import type { Slab } from "../../shared/ports/slab.ts";

const blockBytes = 4096;

export interface MemoryExportOptions {
  readonly sizeBytes?: number;
  readonly readOnly?: boolean;
  readonly description?: string;
}

export class MemoryExport implements BlockExport {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly preferredBlockBytes = 4096;
  readonly data: Buffer;
  /** One byte per block: 1 where data was written. */
  readonly allocated: Uint8Array;
  readonly calls: string[] = [];
  /** Reads are answered later, as a cold page is. */
  lateReads = false;
  /** Completions wait until release(). */
  holdAll = false;
  /** The next calls fail with this. */
  failReads: VarveError | null = null;
  failWrites: VarveError | null = null;
  /** Payload bytes that may still be lent. */
  roomBytes = Number.POSITIVE_INFINITY;
  slotsLent = 0;
  sessions = 0;
  endsOfInput = 0;
  private held: (() => void)[] = [];
  private waiting: (() => void)[] = [];
  private queued: (() => void)[] = [];

  constructor(name: string, options: MemoryExportOptions = {}) {
    this.name = name;
    this.description = options.description ?? "";
    this.sizeBytes = options.sizeBytes ?? 1024 * 1024;
    this.readOnly = options.readOnly ?? false;
    this.data = Buffer.alloc(this.sizeBytes);
    this.allocated = new Uint8Array(Math.ceil(this.sizeBytes / blockBytes));
  }

  read(offset: number, length: number, slab: Slab, start: number, done: Completion): boolean {
    this.calls.push(`read ${offset}+${length}`);
    const failure = this.failReads;
    const copy = (): void => {
      if (failure === null) this.data.copy(slab.bytes, start, offset, offset + length);
      else slab.bytes.fill(0xee, start, start + length);
    };
    if (!this.lateReads && !this.holdAll && failure === null) {
      copy();
      return true;
    }
    this.later(() => {
      copy();
      done.complete(failure);
    });
    return false;
  }

  write(
    offset: number,
    source: Slab,
    start: number,
    length: number,
    fua: boolean,
    done: Completion,
  ): boolean {
    if (length > this.roomBytes) return false;
    const slot = this.reserveWrite(length);
    if (slot === null) return false;
    source.bytes.copy(slot.slab.bytes, slot.start, start, start + length);
    this.submit(slot, offset, fua, done, "write");
    return true;
  }

  reserveWrite(wanted: number): WriteSlot | null {
    const length = Math.min(wanted, limits.batchPayloadBytesMax);
    if (length > this.roomBytes) return null;
    this.roomBytes -= length;
    this.slotsLent += 1;
    return { slab: { bytes: Buffer.alloc(length + 64), address: 0 }, start: 64, length };
  }

  writeReserved(slot: WriteSlot, offset: number, fua: boolean, done: Completion): void {
    this.submit(slot, offset, fua, done, "writeReserved");
  }

  cancelReserved(slot: WriteSlot): void {
    this.calls.push(`cancel ${slot.length}`);
    this.giveBack(slot.length);
  }

  onRoom(callback: () => void): void {
    this.waiting.push(callback);
  }

  zero(offset: number, length: number, allocate: boolean, fua: boolean, done: Completion): boolean {
    if (this.roomBytes <= 0) return false;
    this.range(`zero ${offset}+${length}${allocate ? " allocate" : ""}${fua ? " fua" : ""}`, done, () => {
      this.data.fill(0, offset, offset + length);
      this.mark(offset, length, allocate);
    });
    return true;
  }

  trim(offset: number, length: number, fua: boolean, done: Completion): boolean {
    if (this.roomBytes <= 0) return false;
    this.range(`trim ${offset}+${length}${fua ? " fua" : ""}`, done, () => {
      this.data.fill(0, offset, offset + length);
      this.mark(offset, length, false);
    });
    return true;
  }

  flush(done: Completion): void {
    this.range("flush", done, () => {});
  }

  cache(offset: number, length: number, done: Completion): void {
    this.calls.push(`cache ${offset}+${length}`);
    this.later(() => done.complete(null));
  }

  blockStatus(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    const runs: AllocationRun[] = [];
    let at = offset;
    while (at < offset + length && runs.length < runsMax) {
      const allocated = this.allocated[Math.floor(at / blockBytes)] === 1;
      let end = at;
      while (end < offset + length && (this.allocated[Math.floor(end / blockBytes)] === 1) === allocated) {
        end = Math.min(offset + length, (Math.floor(end / blockBytes) + 1) * blockBytes);
      }
      runs.push({ offset: at, length: end - at, allocated });
      at = end;
    }
    return runs;
  }

  endOfInput(): void {
    this.endsOfInput += 1;
    for (const task of this.queued.splice(0)) this.later(task);
  }

  close(): void {
    this.sessions -= 1;
  }

  /** Lets held completions go, in their order. */
  release(): void {
    this.holdAll = false;
    for (const task of this.held.splice(0)) task();
  }

  /** Payload memory is there again. */
  addRoom(bytes: number): void {
    this.roomBytes += bytes;
    for (const callback of this.waiting.splice(0)) callback();
  }

  get heldCount(): number {
    return this.held.length;
  }

  private submit(slot: WriteSlot, offset: number, fua: boolean, done: Completion, how: string): void {
    const failure = this.failWrites;
    this.calls.push(`${how} ${offset}+${slot.length}${fua ? " fua" : ""}`);
    this.queued.push(() => {
      if (failure === null) {
        slot.slab.bytes.copy(this.data, offset, slot.start, slot.start + slot.length);
        this.mark(offset, slot.length, true);
      }
      this.giveBack(slot.length);
      done.complete(failure);
    });
  }

  private range(call: string, done: Completion, effect: () => void): void {
    const failure = this.failWrites;
    this.calls.push(call);
    this.queued.push(() => {
      if (failure === null) effect();
      done.complete(failure);
    });
  }

  private giveBack(bytes: number): void {
    this.slotsLent -= 1;
    this.addRoom(bytes);
  }

  private later(task: () => void): void {
    if (this.holdAll) this.held.push(task);
    else setImmediate(task);
  }

  /** Zeroing deallocates whole blocks only, as a file does. */
  private mark(offset: number, length: number, allocated: boolean): void {
    const first = allocated ? Math.floor(offset / blockBytes) : Math.ceil(offset / blockBytes);
    const end = allocated
      ? Math.ceil((offset + length) / blockBytes)
      : Math.floor((offset + length) / blockBytes);
    if (end > first) this.allocated.fill(allocated ? 1 : 0, first, end);
  }
}

export class MemoryDirectory implements ExportDirectory {
  readonly exports: readonly MemoryExport[];
  /** Thrown by open() for that name. */
  readonly refusals = new Map<string, VarveError>();
  opens = 0;

  constructor(exports: readonly MemoryExport[]) {
    this.exports = exports;
  }

  list(): readonly { readonly name: string; readonly description: string }[] {
    return this.exports.map(({ name, description }) => ({ name, description }));
  }

  async open(name: string): Promise<BlockExport | null> {
    this.opens += 1;
    await new Promise((resolve) => setImmediate(resolve));
    const refusal = this.refusals.get(name);
    if (refusal !== undefined) throw refusal;
    const found = this.exports.find((candidate) => candidate.name === name);
    if (found !== undefined) found.sessions += 1;
    return found ?? null;
  }
}
