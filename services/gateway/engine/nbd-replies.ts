/*
 * Replies of one connection in the style that was negotiated: success, errors, read headers, holes, block status. Each is
 * written into reply memory and pushed to the output; nothing is sent here. Called by nbd-transmission.ts and
 * nbd-read-stream.ts; next on data's way is nbd-output.ts.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import { type NbdReplyStyle, nbdAllocation, nbdChunk, nbdChunkDone } from "#shared/formats/nbd-numbers.ts";
import {
  encodeExtendedReply,
  encodeSimpleReply,
  encodeStructuredReply,
  encodeUint64,
  extendedReplyBytes,
  type RequestHeader,
  simpleReplyBytes,
  structuredReplyBytes,
} from "#shared/formats/nbd-transmission.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { FlaggedRun } from "./nbd-meta-contexts.ts";
import type { NbdOutput } from "./nbd-output.ts";
import type { ReplySlab, ReplySpace } from "./nbd-reply-memory.ts";
import { errnoOf } from "./nbd-request-rules.ts";

const messageLengthMax = 1000;

export class NbdReplies {
  /** Bytes in front of a read's data. */
  readonly readHeaderBytes: number;
  private readonly style: NbdReplyStyle;
  private readonly headerBytes: number;
  private readonly space: ReplySpace;
  private readonly output: NbdOutput;

  constructor(style: NbdReplyStyle, space: ReplySpace, output: NbdOutput) {
    this.style = style;
    this.space = space;
    this.output = output;
    this.headerBytes =
      style === "simple"
        ? simpleReplyBytes
        : style === "structured"
          ? structuredReplyBytes
          : extendedReplyBytes;
    this.readHeaderBytes = style === "simple" ? simpleReplyBytes : this.headerBytes + 8;
  }

  success(request: Readonly<RequestHeader>): void {
    const slab = this.space.takeAlways(this.headerBytes);
    const at = this.space.start;
    this.header(slab.view, at, nbdChunkDone, nbdChunk.none, request, 0);
    this.output.push(slab, at, this.headerBytes);
  }

  /** The last chunk of a refused or failed request. */
  error(request: Readonly<RequestHeader>, errno: number, message: string): void {
    if (this.style === "simple") {
      const slab = this.space.takeAlways(simpleReplyBytes);
      const at = this.space.start;
      encodeSimpleReply(slab.view, at, errno, request.cookieHigh, request.cookieLow);
      this.output.push(slab, at, simpleReplyBytes);
      return;
    }
    this.errorChunk(request, nbdChunkDone, errno, message, -1);
  }

  failure(request: Readonly<RequestHeader>, error: VarveError): void {
    this.error(request, errnoOf(error), error.message);
  }

  /** A part of a large read failed: an error chunk with the offset where; others may follow unless it is the last. */
  partFailure(request: Readonly<RequestHeader>, offset: number, last: boolean, error: VarveError): void {
    this.errorChunk(request, last ? nbdChunkDone : 0, errnoOf(error), error.message, offset);
  }

  /**
   * Writes the header in front of a read's data, which stands (or will be pushed) behind it. `offset` and `length` are the
   * chunk's, not the request's.
   */
  readHeader(
    slab: ReplySlab,
    at: number,
    request: Readonly<RequestHeader>,
    offset: number,
    length: number,
    last: boolean,
  ): void {
    if (this.style === "simple") {
      encodeSimpleReply(slab.view, at, 0, request.cookieHigh, request.cookieLow);
      return;
    }
    this.header(slab.view, at, last ? nbdChunkDone : 0, nbdChunk.offsetData, request, 8 + length);
    encodeUint64(slab.view, at + this.headerBytes, offset);
  }

  hole(request: Readonly<RequestHeader>, offset: number, length: number, last: boolean): void {
    const bytes = this.headerBytes + 12;
    const slab = this.space.takeAlways(bytes);
    const at = this.space.start;
    this.header(slab.view, at, last ? nbdChunkDone : 0, nbdChunk.offsetHole, request, 12);
    encodeUint64(slab.view, at + this.headerBytes, offset);
    slab.view.setUint32(at + this.headerBytes + 8, length);
    this.output.push(slab, at, bytes);
  }

  /** One block status chunk: the runs as descriptors of base:allocation, clipped to the request. */
  allocation(
    request: Readonly<RequestHeader>,
    id: number,
    runs: readonly AllocationRun[],
    last: boolean,
  ): void {
    const slab = this.statusChunk(request, id, runs.length, last);
    let at = this.space.start + this.headerBytes + (this.style === "extended" ? 8 : 4);
    let left = request.length;
    for (const run of runs) {
      const length = Math.min(run.length, left);
      at = this.descriptor(
        slab.view,
        at,
        length,
        run.allocated ? nbdAllocation.data : nbdAllocation.holeAndZero,
      );
      left -= length;
    }
    this.pushStatus(slab, runs.length);
  }

  /** One block status chunk with the runs as descriptors; they begin at the request's offset and end within it. */
  flagged(request: Readonly<RequestHeader>, id: number, runs: readonly FlaggedRun[], last: boolean): void {
    const slab = this.statusChunk(request, id, runs.length, last);
    let at = this.space.start + this.headerBytes + (this.style === "extended" ? 8 : 4);
    for (const { length, flags } of runs) at = this.descriptor(slab.view, at, length, flags);
    this.pushStatus(slab, runs.length);
  }

  private statusBytes(descriptors: number): number {
    return this.style === "extended" ? 8 + 16 * descriptors : 4 + 8 * descriptors;
  }

  private statusChunk(request: Readonly<RequestHeader>, id: number, count: number, last: boolean): ReplySlab {
    const payloadBytes = this.statusBytes(count);
    const slab = this.space.takeAlways(this.headerBytes + payloadBytes);
    const at = this.space.start;
    const type = this.style === "extended" ? nbdChunk.blockStatusExtended : nbdChunk.blockStatus;
    this.header(slab.view, at, last ? nbdChunkDone : 0, type, request, payloadBytes);
    slab.view.setUint32(at + this.headerBytes, id);
    if (this.style === "extended") slab.view.setUint32(at + this.headerBytes + 4, count);
    return slab;
  }

  private descriptor(view: DataView, at: number, length: number, flags: number): number {
    if (this.style === "extended") {
      encodeUint64(view, at, length);
      encodeUint64(view, at + 8, flags);
      return at + 16;
    }
    view.setUint32(at, length);
    view.setUint32(at + 4, flags);
    return at + 8;
  }

  private pushStatus(slab: ReplySlab, descriptors: number): void {
    this.output.push(slab, this.space.start, this.headerBytes + this.statusBytes(descriptors));
  }

  private errorChunk(
    request: Readonly<RequestHeader>,
    flags: number,
    errno: number,
    message: string,
    offset: number,
  ): void {
    const text = Buffer.from(message.slice(0, messageLengthMax), "utf8");
    const payloadBytes = 6 + text.length + (offset < 0 ? 0 : 8);
    const bytes = this.headerBytes + payloadBytes;
    const slab = this.space.takeAlways(bytes);
    const at = this.space.start;
    const type = offset < 0 ? nbdChunk.error : nbdChunk.errorOffset;
    this.header(slab.view, at, flags, type, request, payloadBytes);
    const body = at + this.headerBytes;
    slab.view.setUint32(body, errno);
    slab.view.setUint16(body + 4, text.length);
    slab.slab.bytes.set(text, body + 6);
    if (offset >= 0) encodeUint64(slab.view, body + 6 + text.length, offset);
    this.output.push(slab, at, bytes);
  }

  private header(
    view: DataView,
    at: number,
    flags: number,
    type: number,
    request: Readonly<RequestHeader>,
    payloadBytes: number,
  ): void {
    if (this.style === "simple") {
      encodeSimpleReply(view, at, 0, request.cookieHigh, request.cookieLow);
    } else if (this.style === "structured") {
      encodeStructuredReply(view, at, flags, type, request.cookieHigh, request.cookieLow, payloadBytes);
    } else {
      encodeExtendedReply(view, at, flags, type, request, payloadBytes);
    }
  }
}
