/*
 * Reads that are larger than a piece. Structured ones go out in chunks: each piece is read while it fits the processor's
 * cache and sent before the next, holes become hole chunks, cold pieces are read side by side. Simple replies and DF want
 * one run of data: all pieces are read, then sent behind one header. Called by nbd-transmission.ts; next is nbd-output.ts.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { type NbdReplyStyle, nbdCommandFlag } from "#shared/formats/nbd-numbers.ts";
import type { RequestHeader } from "#shared/formats/nbd-transmission.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import { HoleFinder } from "./nbd-hole-finder.ts";
import type { NbdOutput } from "./nbd-output.ts";
import type { NbdReplies } from "./nbd-replies.ts";
import type { ReplySpace } from "./nbd-reply-memory.ts";
import { type NbdRequest, type RequestPool, requestRole } from "./nbd-request.ts";

const pieceBytes = limits.nbdReadPieceBytes;

export type PumpProgress = "done" | "unsent" | "memory";

export class NbdReadStream {
  private readonly volume: BlockExport;
  private readonly style: NbdReplyStyle;
  private readonly space: ReplySpace;
  private readonly replies: NbdReplies;
  private readonly output: NbdOutput;
  private readonly pool: RequestPool;
  /** The streamed read whose pieces are being started; issued: bytes of it that were. */
  private request: NbdRequest | null = null;
  private issuedBytes = 0;
  /** The run at the present place. */
  private runEnd = 0;
  private readonly holes: HoleFinder;

  constructor(
    volume: BlockExport,
    style: NbdReplyStyle,
    space: ReplySpace,
    replies: NbdReplies,
    output: NbdOutput,
    pool: RequestPool,
  ) {
    this.volume = volume;
    this.holes = new HoleFinder(volume);
    this.style = style;
    this.space = space;
    this.replies = replies;
    this.output = output;
    this.pool = pool;
  }

  /** A streamed read has pieces to start. */
  get active(): boolean {
    return this.request !== null;
  }

  /** Whether this read goes out in chunks (else by gather(), when it is larger than a piece). */
  streams(request: Readonly<RequestHeader>): boolean {
    return this.style !== "simple" && (request.flags & nbdCommandFlag.dontFragment) === 0;
  }

  begin(request: NbdRequest): void {
    request.role = requestRole.streamed;
    this.request = request;
    this.issuedBytes = 0;
    this.runEnd = request.offset;
    this.holes.begin(request.offset, request.length);
  }

  /** Starts pieces until all are, or the client must take some first, or memory is used up. */
  pump(): PumpProgress {
    const request = this.request;
    if (request === null) return "done";
    while (this.issuedBytes < request.length && request.error === null) {
      if (this.output.unsentBytes >= limits.nbdUnsentBytesMax) return "unsent";
      const offset = request.offset + this.issuedBytes;
      const remaining = request.length - this.issuedBytes;
      if (offset >= this.runEnd) {
        const hole = this.holes.holeAt(offset);
        if (hole > 0) {
          this.issuedBytes += hole;
          this.replies.hole(request, offset, hole, this.isLast(request));
          continue;
        }
        this.runEnd = Math.min(this.holes.dataEnd, offset + Math.min(remaining, pieceBytes));
      }
      if (!this.startPiece(request, offset, this.runEnd - offset)) return "memory";
    }
    if (request.error !== null && request.pending === 1) this.replies.success(request);
    return "done";
  }

  /** The request whose pieces are all started; idle from then on. */
  finish(): NbdRequest {
    const request = this.request;
    invariant(request !== null, "a read ends that had begun");
    this.request = null;
    return request;
  }

  /** The client is gone: no further piece is started. */
  abort(): NbdRequest | null {
    const request = this.request;
    this.request = null;
    return request;
  }

  /** A piece was read by another thread. */
  chunkDone(chunk: NbdRequest): void {
    const { parent, slab } = chunk;
    invariant(parent !== null && slab !== null, "a chunk has its request and its memory");
    parent.pending -= 1;
    const last = parent.pending === 0;
    if (chunk.error === null) {
      this.replies.readHeader(slab, chunk.start, parent, chunk.offset, chunk.length, last);
      this.output.push(slab, chunk.start, this.replies.readHeaderBytes + chunk.length);
    } else {
      parent.error ??= chunk.error;
      this.space.release(slab);
      this.replies.partFailure(parent, chunk.offset, last, chunk.error);
    }
  }

  /** Whether gather() would find memory for all pieces now. */
  canGather(request: Readonly<RequestHeader>): boolean {
    const piecesPerSlab = Math.floor(limits.nbdReplySlabBytes / pieceBytes);
    return this.space.hasSlabs(Math.ceil(request.length / pieceBytes / piecesPerSlab) + 2);
  }

  /** Starts reading all pieces of a read that is answered by one run of data. */
  gather(request: NbdRequest): void {
    request.role = requestRole.gathered;
    request.slab = this.space.takeAlways(this.replies.readHeaderBytes);
    request.start = this.space.start;
    for (let done = 0; done < request.length; done += pieceBytes) {
      const length = Math.min(pieceBytes, request.length - done);
      const slab = this.space.takeForRead(0, length);
      invariant(slab !== null, "gathering was asked for room");
      request.partSlabs.push(slab);
      request.partStarts.push(this.space.start);
      request.partLengths.push(length);
      request.pending += 1;
      if (this.volume.read(request.offset + done, length, slab.slab, this.space.start, request)) {
        request.pending -= 1;
      }
    }
  }

  /** All pieces of a gathered read are done: pushes them, or gives them back. True where data was pushed. */
  pushGathered(request: NbdRequest): boolean {
    const { slab } = request;
    invariant(slab !== null, "a gathered read has its header's memory");
    const good = request.error === null;
    if (good) {
      this.replies.readHeader(slab, request.start, request, request.offset, request.length, true);
      this.output.push(slab, request.start, this.replies.readHeaderBytes);
    } else {
      this.space.release(slab);
    }
    for (const [index, part] of request.partSlabs.entries()) {
      if (good) this.output.push(part, request.partStarts[index] ?? 0, request.partLengths[index] ?? 0);
      else this.space.release(part);
    }
    request.clearParts();
    return good;
  }

  private isLast(request: Readonly<NbdRequest>): boolean {
    return this.issuedBytes === request.length && request.pending === 1;
  }

  private startPiece(request: NbdRequest, offset: number, length: number): boolean {
    const headerBytes = this.replies.readHeaderBytes;
    const slab = this.space.takeForRead(headerBytes, length);
    if (slab === null) return false;
    const start = this.space.start;
    const chunk = this.pool.take(request);
    chunk.role = requestRole.chunk;
    chunk.parent = request;
    chunk.slab = slab;
    chunk.start = start;
    chunk.offset = offset;
    chunk.length = length;
    request.pending += 1;
    this.issuedBytes += length;
    if (!this.volume.read(offset, length, slab.slab, start + headerBytes, chunk)) return true;
    request.pending -= 1;
    this.pool.give(chunk);
    this.replies.readHeader(slab, start, request, offset, length, this.isLast(request));
    this.output.push(slab, start, headerBytes + length);
    if (this.output.pendingBytes >= pieceBytes) this.output.flush();
    return true;
  }
}
