/*
 * The bytes on their way to one client, in order: replies are pushed as pieces of reply slabs and sent together, by one
 * sendmsg that never waits. What the socket does not take goes to Node's stream, and while the stream holds bytes all later
 * ones queue behind them. nbd-replies.ts pushes, nbd-transmission.ts flushes at the end of a round; then the client has it.
 */
import type { Socket } from "node:net";
import type { ReplySlab, ReplySpace } from "./nbd-reply-memory.ts";
import { gatheredPiecesMax, type SystemCalls, systemErrno } from "./nbd-system-calls.ts";

export interface OutputListener {
  /** The socket took bytes that had been waiting. */
  outputMoved(): void;
  /** Nothing more can be sent. */
  outputFailed(): void;
}

/** The part of a socket that sending needs; tests stand in for it. */
export type OutputSocket = Pick<Socket, "write" | "cork" | "uncork">;

export class NbdOutput {
  sentBytes = 0;
  /** Pushed and not yet taken by the socket. */
  unsentBytes = 0;
  private readonly socket: OutputSocket;
  private readonly fd: number;
  private readonly calls: SystemCalls;
  private readonly space: ReplySpace;
  private readonly listener: OutputListener;
  private readonly slabs: ReplySlab[] = [];
  private readonly starts: number[] = [];
  private readonly lengths: number[] = [];
  private readonly streamSlabs: (ReplySlab | null)[] = [];
  private readonly streamLengths: number[] = [];
  private streamHead = 0;
  private failed = false;
  /** Bytes that wait for flush(). */
  pendingBytes = 0;

  /** `fd` -1: the socket has no descriptor of its own (or none is wanted), everything goes through the stream. */
  constructor(
    socket: OutputSocket,
    fd: number,
    calls: SystemCalls,
    space: ReplySpace,
    listener: OutputListener,
  ) {
    this.socket = socket;
    this.fd = fd;
    this.calls = calls;
    this.space = space;
    this.listener = listener;
  }

  private get streaming(): boolean {
    return this.streamHead < this.streamLengths.length;
  }

  /** Queues a piece that is held in its slab; the hold passes to the output. */
  push(slab: ReplySlab, start: number, length: number): void {
    if (this.failed) {
      this.space.release(slab);
      return;
    }
    this.unsentBytes += length;
    this.pendingBytes += length;
    const last = this.slabs.length - 1;
    if (last >= 0 && this.slabs[last] === slab) {
      const lastLength = this.lengths[last] ?? 0;
      if ((this.starts[last] ?? 0) + lastLength === start) {
        this.lengths[last] = lastLength + length;
        slab.held -= 1;
        return;
      }
    }
    this.slabs.push(slab);
    this.starts.push(start);
    this.lengths.push(length);
  }

  /** Bytes outside of the reply slabs (the handshake's), sent at once by the stream. */
  writeBytes(bytes: Uint8Array): void {
    if (this.failed) return;
    this.unsentBytes += bytes.length;
    this.toStream(null, bytes);
  }

  /** Hands over what was pushed: to the socket at once where it has room. */
  flush(): void {
    if (this.pendingBytes === 0 || this.failed) return;
    let done = 0;
    if (this.fd >= 0 && !this.streaming) done = this.sendNow();
    if (done < this.slabs.length) this.queueFrom(done);
    this.slabs.length = 0;
    this.starts.length = 0;
    this.lengths.length = 0;
    this.pendingBytes = 0;
  }

  /** Drops everything that waits: the socket is gone. */
  fail(): void {
    if (this.failed) return;
    this.failed = true;
    for (const slab of this.slabs) this.space.release(slab);
    this.slabs.length = 0;
    this.pendingBytes = 0;
    this.listener.outputFailed();
  }

  /** Sends as much as the socket takes. Returns how many pieces are finished; a piece sent in part was shortened. */
  private sendNow(): number {
    let done = 0;
    while (done < this.slabs.length) {
      const count = Math.min(this.slabs.length - done, gatheredPiecesMax);
      const sent = this.sendSome(done, count);
      if (sent < 0) {
        if (sent === -systemErrno.EINTR) continue;
        if (sent === -systemErrno.EAGAIN) return done;
        this.slabs.splice(0, done);
        this.fail();
        return 0;
      }
      this.sentBytes += sent;
      this.unsentBytes -= sent;
      const finished = this.advance(done, count, sent);
      if (finished < done + count) return finished;
      done = finished;
    }
    return done;
  }

  private sendSome(from: number, count: number): number {
    for (let index = 0; index < count; index += 1) {
      const address = this.slabs[from + index]?.slab.address ?? 0;
      if (address === 0) {
        if (index === 0) return -systemErrno.EAGAIN;
        return this.calls.sendPieces(this.fd, index);
      }
      const start = address + (this.starts[from + index] ?? 0);
      const length = this.lengths[from + index] ?? 0;
      if (count === 1) return this.calls.send(this.fd, start, length);
      this.calls.setPiece(index, start, length);
    }
    return this.calls.sendPieces(this.fd, count);
  }

  /** Releases the pieces that `sent` bytes cover and shortens the one in which they end. */
  private advance(from: number, count: number, sent: number): number {
    let left = sent;
    let at = from;
    while (at < from + count) {
      const length = this.lengths[at] ?? 0;
      if (left < length) {
        this.starts[at] = (this.starts[at] ?? 0) + left;
        this.lengths[at] = length - left;
        return at;
      }
      left -= length;
      const slab = this.slabs[at];
      if (slab !== undefined) this.space.release(slab);
      at += 1;
    }
    return at;
  }

  private queueFrom(from: number): void {
    this.socket.cork();
    for (let at = from; at < this.slabs.length; at += 1) {
      const slab = this.slabs[at];
      const start = this.starts[at] ?? 0;
      if (slab === undefined) continue;
      this.toStream(slab, slab.slab.bytes.subarray(start, start + (this.lengths[at] ?? 0)));
    }
    this.socket.uncork();
  }

  private toStream(slab: ReplySlab | null, bytes: Uint8Array): void {
    this.streamSlabs.push(slab);
    this.streamLengths.push(bytes.length);
    this.socket.write(bytes, this.written);
  }

  /** The stream calls back in the order of its writes, also when it is destroyed. */
  private readonly written = (error?: Error | null): void => {
    const length = this.streamLengths[this.streamHead] ?? 0;
    const slab = this.streamSlabs[this.streamHead];
    this.streamHead += 1;
    if (this.streamHead === this.streamLengths.length) {
      this.streamSlabs.length = 0;
      this.streamLengths.length = 0;
      this.streamHead = 0;
    } else if (this.streamHead === gatheredPiecesMax) {
      this.streamSlabs.splice(0, this.streamHead);
      this.streamLengths.splice(0, this.streamHead);
      this.streamHead = 0;
    }
    this.unsentBytes -= length;
    if (slab !== null && slab !== undefined) this.space.release(slab);
    if (error !== null && error !== undefined) {
      this.fail();
      return;
    }
    this.sentBytes += length;
    this.listener.outputMoved();
  };
}
