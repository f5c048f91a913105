/*
 * From a good request to the export: one method per command. Inline reads are answered here, everything else by the
 * completion that comes back to nbd-transmission.ts. Called by nbd-transmission.ts after the rules have passed; next on
 * data's way is the BlockExport port.
 */
import { limits } from "#shared/domain/limits.ts";
import { type NbdReplyStyle, nbdCommand, nbdCommandFlag } from "#shared/formats/nbd-numbers.ts";
import type { RequestHeader } from "#shared/formats/nbd-transmission.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { NbdCounters } from "./nbd-counters.ts";
import { changedRuns, contextKind, type MetaContextChoice, residencyRuns } from "./nbd-meta-contexts.ts";
import type { NbdOutput } from "./nbd-output.ts";
import type { NbdPayload } from "./nbd-payload.ts";
import type { NbdReadStream } from "./nbd-read-stream.ts";
import type { NbdReplies } from "./nbd-replies.ts";
import type { ReplySpace } from "./nbd-reply-memory.ts";
import type { RequestPool } from "./nbd-request.ts";

/** What the negotiation agreed on. */
export interface Session {
  readonly volume: BlockExport;
  readonly style: NbdReplyStyle;
  readonly contexts: readonly MetaContextChoice[];
}

/** done: answered on the spot or in the export's hands. Else nothing was done, for want of reply or payload memory. */
export type CommandProgress = "done" | "noReplyMemory" | "noPayloadMemory";

export interface CommandParts {
  readonly session: Session;
  readonly counters: NbdCounters;
  readonly space: ReplySpace;
  readonly output: NbdOutput;
  readonly replies: NbdReplies;
  readonly payload: NbdPayload;
  readonly stream: NbdReadStream;
  readonly pool: RequestPool;
}

export class NbdCommands {
  /** Something was handed over that endOfInput() must follow. */
  submitted = false;
  private readonly parts: CommandParts;
  private readonly volume: BlockExport;

  constructor(parts: CommandParts) {
    this.parts = parts;
    this.volume = parts.session.volume;
  }

  begin(header: Readonly<RequestHeader>): CommandProgress {
    if (header.type === nbdCommand.read) return this.read(header);
    const { counters, payload, pool } = this.parts;
    switch (header.type) {
      case nbdCommand.write:
        counters.writeRequests += 1;
        counters.writtenBytes += header.length;
        payload.begin(pool.start(header));
        return "done";
      case nbdCommand.trim:
      case nbdCommand.writeZeroes:
        return this.range(header);
      case nbdCommand.flush:
        counters.flushRequests += 1;
        this.submitted = true;
        this.volume.flush(pool.start(header));
        return "done";
      case nbdCommand.cache:
        counters.otherRequests += 1;
        if (header.length === 0) this.parts.replies.success(header);
        else this.volume.cache(header.offset, header.length, pool.start(header));
        return "done";
      default:
        counters.otherRequests += 1;
        this.status(header);
        return "done";
    }
  }

  private read(header: Readonly<RequestHeader>): CommandProgress {
    const { offset, length } = header;
    const { space, output, replies, pool, stream } = this.parts;
    if (length === 0) {
      replies.success(header);
      return this.countRead(0);
    }
    if (length >= limits.nbdHoleProbeBytesMin && stream.streams(header)) {
      stream.begin(pool.start(header));
      return this.countRead(length);
    }
    if (length > limits.nbdReadPieceBytes) {
      if (!stream.canGather(header)) return "noReplyMemory";
      const request = pool.start(header);
      stream.gather(request);
      request.complete(null);
      return this.countRead(length);
    }
    const slab = space.takeForRead(replies.readHeaderBytes, length);
    if (slab === null) return "noReplyMemory";
    const start = space.start;
    const request = pool.take(header);
    if (this.volume.read(offset, length, slab.slab, start + replies.readHeaderBytes, request)) {
      replies.readHeader(slab, start, header, offset, length, true);
      output.push(slab, start, replies.readHeaderBytes + length);
      pool.give(request);
    } else {
      request.slab = slab;
      request.start = start;
      pool.count(1);
    }
    return this.countRead(length);
  }

  private countRead(bytes: number): CommandProgress {
    this.parts.counters.readRequests += 1;
    this.parts.counters.readBytes += bytes;
    return "done";
  }

  /** TRIM and WRITE_ZEROES. */
  private range(header: Readonly<RequestHeader>): CommandProgress {
    const { type, flags, offset, length } = header;
    const { counters, pool, replies } = this.parts;
    if (length === 0) {
      replies.success(header);
      return "done";
    }
    const fua = (flags & nbdCommandFlag.fua) !== 0;
    const request = pool.start(header);
    const taken =
      type === nbdCommand.trim
        ? this.volume.trim(offset, length, fua, request)
        : this.volume.zero(offset, length, (flags & nbdCommandFlag.noHole) !== 0, fua, request);
    if (!taken) {
      pool.retire(request);
      return "noPayloadMemory";
    }
    if (type === nbdCommand.trim) counters.trimRequests += 1;
    else counters.zeroRequests += 1;
    this.submitted = true;
    return "done";
  }

  private status(header: Readonly<RequestHeader>): void {
    const { session, replies } = this.parts;
    const runsMax = (header.flags & nbdCommandFlag.requestOne) !== 0 ? 1 : limits.nbdExtentsMax;
    for (const [index, context] of session.contexts.entries()) {
      const last = index === session.contexts.length - 1;
      if (context.kind === contextKind.allocation) {
        const runs = this.volume.blockStatus(header.offset, header.length, runsMax);
        replies.allocation(header, context.id, runs, last);
      } else {
        const { offset, length } = header;
        const runs =
          context.kind === contextKind.changed
            ? changedRuns(context.ranges, offset, length, runsMax)
            : residencyRuns(this.volume, offset, length, runsMax);
        replies.flagged(header, context.id, runs, last);
      }
    }
  }
}
