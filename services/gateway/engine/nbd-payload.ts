/*
 * The payload of the WRITE that is arriving. A short one waits in the input and is handed over whole; a long one goes into
 * slots that the volume reserves, received there by the kernel itself where it can; a refused one is read and dropped.
 * Called by nbd-transmission.ts between two request headers; next on data's way is the volume's batch.
 *
 *   idle ─begin─► gathering (short) ─all here─► idle      idle ─discard─► dropping ─all read─► idle
 *          └────► filling slot ─full─► submitted ─rest─► filling slot … ─► idle
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { nbdCommandFlag } from "#shared/formats/nbd-numbers.ts";
import type { BlockExport, WriteSlot } from "#shared/ports/block-export.ts";
import type { NbdInput } from "./nbd-input.ts";
import type { NbdRequest } from "./nbd-request.ts";
import type { Refusal } from "./nbd-request-rules.ts";

/** done: nothing is arriving now. more: needs further input. full: needs payload memory. */
export type PayloadProgress = "done" | "more" | "full";

export class NbdPayload {
  private readonly volume: BlockExport;
  /** Something went to the volume that endOfInput() must follow. The caller clears it. */
  submitted = false;
  private request: NbdRequest | null = null;
  /** Why the payload that arrives is dropped, or null. */
  refusal: Refusal | null = null;
  private remainingBytes = 0;
  /** Where the next byte of the payload belongs in the volume. */
  private offset = 0;
  private slot: WriteSlot | null = null;
  private slotFilledBytes = 0;

  constructor(volume: BlockExport) {
    this.volume = volume;
  }

  get active(): boolean {
    return this.request !== null;
  }

  begin(request: NbdRequest): void {
    this.request = request;
    this.refusal = null;
    this.remainingBytes = request.length;
    this.offset = request.offset;
  }

  discard(request: NbdRequest, refusal: Refusal, bytes: number): void {
    this.request = request;
    this.refusal = refusal;
    this.remainingBytes = bytes;
  }

  /** The request whose payload is complete; idle from then on. */
  finish(): NbdRequest {
    const request = this.request;
    invariant(request !== null, "a payload ends that had begun");
    this.request = null;
    return request;
  }

  take(input: NbdInput): PayloadProgress {
    const request = this.request;
    if (request === null) return "done";
    if (this.refusal !== null) return this.drop(input);
    while (this.remainingBytes > 0 || this.slot !== null) {
      if (this.slot === null) {
        const here = this.remainingBytes <= input.waiting;
        if (here || this.remainingBytes <= limits.nbdGatheredPayloadBytesMax) {
          return here ? this.submitWhole(request, input) : "more";
        }
        this.slot = this.volume.reserveWrite(this.remainingBytes);
        this.slotFilledBytes = 0;
        if (this.slot === null) return "full";
      }
      this.copyIntoSlot(this.slot, input);
      if (this.slotFilledBytes < this.slot.length) return "more";
      this.submitSlot(request, this.slot);
    }
    return "done";
  }

  /** Where the kernel may put the next bytes, while nothing waits in the input; null where they belong in the input. */
  directTarget(): Buffer | null {
    const slot = this.slot;
    if (slot === null) return null;
    return slot.slab.bytes.subarray(slot.start + this.slotFilledBytes, slot.start + slot.length);
  }

  directAddress(): number {
    const slot = this.slot;
    if (slot === null || slot.slab.address === 0) return 0;
    return slot.slab.address + slot.start + this.slotFilledBytes;
  }

  /** Bytes arrived at directTarget(). */
  received(bytes: number): void {
    this.slotFilledBytes += bytes;
    this.remainingBytes -= bytes;
  }

  /** The client went away in the middle. Returns the request, which has parts under way or none. */
  abort(): NbdRequest | null {
    if (this.slot !== null) this.volume.cancelReserved(this.slot);
    this.slot = null;
    const request = this.request;
    this.request = null;
    return request;
  }

  private drop(input: NbdInput): PayloadProgress {
    const bytes = Math.min(this.remainingBytes, input.waiting);
    input.parsed += bytes;
    this.remainingBytes -= bytes;
    return this.remainingBytes === 0 ? "done" : "more";
  }

  private submitWhole(request: NbdRequest, input: NbdInput): PayloadProgress {
    const bytes = this.remainingBytes;
    const fua = (request.flags & nbdCommandFlag.fua) !== 0;
    request.pending += 1;
    if (!this.volume.write(this.offset, input.slab, input.parsed, bytes, fua, request)) {
      request.pending -= 1;
      return "full";
    }
    this.submitted = true;
    input.parsed += bytes;
    this.remainingBytes = 0;
    return "done";
  }

  private copyIntoSlot(slot: WriteSlot, input: NbdInput): void {
    const bytes = Math.min(slot.length - this.slotFilledBytes, input.waiting);
    if (bytes === 0) return;
    const to = slot.start + this.slotFilledBytes;
    slot.slab.bytes.set(input.slab.bytes.subarray(input.parsed, input.parsed + bytes), to);
    input.parsed += bytes;
    this.received(bytes);
  }

  private submitSlot(request: NbdRequest, slot: WriteSlot): void {
    request.pending += 1;
    this.submitted = true;
    this.slot = null;
    this.volume.writeReserved(slot, this.offset, (request.flags & nbdCommandFlag.fua) !== 0, request);
    this.offset += slot.length;
  }
}
