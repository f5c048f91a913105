/*
 * A volume that another gateway serves, as an export of this one: every request goes to the holder over relay-link.ts, and its answer
 * comes back. So clients may be given any gateway's address. Opened by cluster-exports.ts, one link for each client.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { nbdCommand, nbdCommandFlag } from "#shared/formats/nbd-numbers.ts";
import type { BlockExport, Completion, WriteSlot } from "#shared/ports/block-export.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { RelayLink } from "./relay-link.ts";

/** Payload that waits for the holder to take it: beyond this the client's requests are not read. */
const unsentBytesMax = 16 * 1024 * 1024;
/** A longer zero or trim is several requests: their length has 32 bits. */
const rangeBytesMax = 1024 ** 3;

export class RelayExport implements BlockExport {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly preferredBlockBytes = limits.blockBytes;
  readonly #link: RelayLink;
  #reservedBytes = 0;

  constructor(name: string, holder: string, link: RelayLink) {
    this.name = name;
    this.description = `relayed to gateway ${holder}`;
    this.sizeBytes = link.sizeBytes;
    this.#link = link;
  }

  read(offset: number, length: number, slab: Slab, start: number, done: Completion): boolean {
    const target = slab.bytes.subarray(start, start + length);
    this.#link.request(nbdCommand.read, 0, { offset, length }, { target }, (error) => done.complete(error));
    return false;
  }

  write(
    offset: number,
    source: Slab,
    sourceStart: number,
    length: number,
    fua: boolean,
    done: Completion,
  ): boolean {
    if (this.#isFull) return false;
    this.#send(offset, Buffer.from(source.bytes.subarray(sourceStart, sourceStart + length)), fua, done);
    return true;
  }

  reserveWrite(length: number): WriteSlot | null {
    if (this.#isFull) return null;
    this.#reservedBytes += length;
    return { slab: { bytes: Buffer.allocUnsafeSlow(length), address: 0 }, start: 0, length };
  }

  writeReserved(slot: WriteSlot, offset: number, fua: boolean, done: Completion): void {
    this.#reservedBytes -= slot.length;
    this.#send(offset, slot.slab.bytes, fua, done);
  }

  cancelReserved(slot: WriteSlot): void {
    this.#reservedBytes -= slot.length;
  }

  onRoom(callback: () => void): void {
    this.#link.onDrain(callback);
  }

  zero(offset: number, length: number, allocate: boolean, fua: boolean, done: Completion): boolean {
    const flags = allocate ? nbdCommandFlag.noHole : 0;
    this.#range(nbdCommand.writeZeroes, flags | fuaFlag(fua), offset, length, done);
    return true;
  }

  trim(offset: number, length: number, fua: boolean, done: Completion): boolean {
    this.#range(nbdCommand.trim, fuaFlag(fua), offset, length, done);
    return true;
  }

  flush(done: Completion): void {
    this.#link.request(nbdCommand.flush, 0, { offset: 0, length: 0 }, {}, (error) => done.complete(error));
  }

  cache(offset: number, length: number, done: Completion): void {
    this.#range(nbdCommand.cache, 0, offset, length, done);
  }

  blockStatus(offset: number, length: number): readonly AllocationRun[] {
    return [{ offset, length, allocated: true }];
  }

  /** Requests leave at the end of each round by themselves. */
  endOfInput(): void {}

  close(): void {
    this.#link.close();
  }

  get #isFull(): boolean {
    return this.#link.unsentBytes + this.#reservedBytes > unsentBytesMax;
  }

  #send(offset: number, payload: Buffer, fua: boolean, done: Completion): void {
    const range = { offset, length: payload.length };
    this.#link.request(nbdCommand.write, fuaFlag(fua), range, { payload }, (error) => done.complete(error));
  }

  #range(type: number, flags: number, offset: number, length: number, done: Completion): void {
    let waiting = Math.ceil(length / rangeBytesMax);
    let failure: VarveError | null = null;
    for (let at = 0; at < length; at += rangeBytesMax) {
      const range = { offset: offset + at, length: Math.min(rangeBytesMax, length - at) };
      this.#link.request(type, flags, range, {}, (error) => {
        failure ??= error;
        waiting -= 1;
        if (waiting === 0) done.complete(failure);
      });
    }
  }
}

function fuaFlag(fua: boolean): number {
  return fua ? nbdCommandFlag.fua : 0;
}
