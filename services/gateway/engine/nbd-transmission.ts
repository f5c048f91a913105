/*
 * The transmission phase of one connection: parses requests where they stand in the input, checks them, lets nbd-commands.ts
 * hand them to the export, and turns completions into replies. Called by nbd-connection.ts for each round of input; next on
 * data's way are the BlockExport port and, backwards, nbd-replies.ts. States are drawn in docs/specs/nbd-gateway.md.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { nbdCommand } from "#shared/formats/nbd-numbers.ts";
import { decodeRequest, RequestHeader, requestHeaderBytes } from "#shared/formats/nbd-transmission.ts";
import { NbdCommands, type Session } from "./nbd-commands.ts";
import type { NbdCounters } from "./nbd-counters.ts";
import type { NbdInput } from "./nbd-input.ts";
import type { NbdOutput } from "./nbd-output.ts";
import { NbdPayload } from "./nbd-payload.ts";
import { NbdReadStream } from "./nbd-read-stream.ts";
import { NbdReplies } from "./nbd-replies.ts";
import type { NbdMemory, ReplySpace } from "./nbd-reply-memory.ts";
import { type NbdRequest, type RequestOwner, RequestPool, requestRole } from "./nbd-request.ts";
import { payloadBytesOf, type Refusal, refuse, type SessionFacts } from "./nbd-request-rules.ts";

/** What a transmission needs of its connection and server. */
export interface TransmissionHost {
  readonly counters: NbdCounters;
  readonly memory: NbdMemory;
  readonly space: ReplySpace;
  readonly output: NbdOutput;
  /** The number of requests in flight changed. */
  countInFlight(change: number): void;
  /** No other connection of the server has requests in flight. */
  isAlone(): boolean;
  /** A limit that had stopped the input may be gone: handleInput() is to be called, but not from inside this call. */
  inputMayContinue(): void;
  /** A reply was made outside of a round: flush when this turn of the loop ends. */
  flushSoon(): void;
  /** Runs the callback when other connections had their turn. */
  yieldTurn(callback: () => void): void;
  /** finished: nothing is in flight and the end was asked for. broken: the client left the protocol. May be told twice. */
  ended(reason: "finished" | "broken"): void;
}

/** Replies are handed to the socket in the middle of a round from here on: what waits longer leaves the cache. */
const flushAtBytes = 256 * 1024;

/** next: go on parsing. wait: for more input. stop: for room; reading stops too. */
type Step = "next" | "wait" | "stop";

export class NbdTransmission implements RequestOwner {
  /** Input stands unhandled because of a limit; reading is stopped meanwhile. */
  stopped = false;
  /** Requests that the last round of input held. */
  roundRequests = 0;
  readonly payload: NbdPayload;
  private readonly session: Session;
  private readonly host: TransmissionHost;
  private readonly facts: SessionFacts;
  private readonly pool: RequestPool;
  private readonly replies: NbdReplies;
  private readonly stream: NbdReadStream;
  private readonly commands: NbdCommands;
  private readonly header = new RequestHeader();
  private readonly headerBytes: number;
  private readonly extended: boolean;
  private inRound = false;
  private waitsForVolume = false;
  /** After DISC, the end of the stream, or when the server stops: finish what is in flight, handle nothing more. */
  private leaving = false;
  private broken = false;
  private aborted = false;
  private released = false;

  constructor(session: Session, host: TransmissionHost) {
    const { volume, style, contexts } = session;
    const { counters, space, output } = host;
    this.session = session;
    this.host = host;
    this.facts = {
      style,
      sizeBytes: volume.sizeBytes,
      readOnly: volume.readOnly,
      hasContexts: contexts.length > 0,
    };
    this.extended = style === "extended";
    this.headerBytes = requestHeaderBytes(style);
    const pool = new RequestPool(this, (change) => host.countInFlight(change));
    const replies = new NbdReplies(style, space, output);
    const payload = new NbdPayload(volume);
    const stream = new NbdReadStream(volume, style, space, replies, output, pool);
    this.pool = pool;
    this.replies = replies;
    this.payload = payload;
    this.stream = stream;
    this.commands = new NbdCommands({ session, counters, space, output, replies, payload, stream, pool });
  }

  get exportName(): string {
    return this.session.volume.name;
  }

  get inFlight(): number {
    return this.pool.inFlight;
  }

  /** In the middle of a request: the client owes the rest of a header or payload. */
  expectsMore(input: NbdInput): boolean {
    return !this.stopped && (this.payload.active || (!this.leaving && input.waiting > 0));
  }

  /** Handles what stands in the input until it needs more input, or a limit stops it. */
  handleInput(input: NbdInput): void {
    if (this.inRound || this.aborted) return;
    this.inRound = true;
    this.stopped = false;
    this.roundRequests = 0;
    let step: Step = "next";
    while (step === "next" && !this.aborted) {
      if (this.roundRequests === limits.nbdRequestsPerRoundMax) {
        this.host.yieldTurn(this.mayContinue);
        step = "stop";
      } else {
        step = this.step(input);
      }
    }
    this.stopped = step === "stop";
    this.endRound();
  }

  /**
   * The client closed its side, or the server stops: what is in flight is finished first. What comes after is not answered: a client that
   * connects again asks again, and an answer with an error would end in the programs above it.
   */
  leave(): void {
    this.leaving = true;
    this.leaveWhenIdle();
  }

  /** The socket is gone. Completions that still come only give memory back; the last one closes the export. */
  abort(): void {
    if (this.aborted) return;
    this.aborted = true;
    this.host.memory.forget(this.mayContinue);
    this.payload.abort()?.complete(null);
    this.stream.abort()?.complete(null);
    this.releaseWhenIdle();
  }

  finished(request: NbdRequest): void {
    if (this.aborted) {
      this.forget(request);
      return;
    }
    if (request.role === requestRole.chunk) this.chunkFinished(request);
    else if (request.role === requestRole.gathered) this.gatheredFinished(request);
    else this.wholeFinished(request);
    if (this.inRound) return;
    this.host.flushSoon();
    if (this.stopped) this.host.inputMayContinue();
    this.leaveWhenIdle();
  }

  private readonly mayContinue = (): void => {
    if (this.stopped && !this.aborted) this.host.inputMayContinue();
  };

  private readonly volumeHasRoom = (): void => {
    this.waitsForVolume = false;
    this.mayContinue();
  };

  private step(input: NbdInput): Step {
    if (this.payload.active) return this.stepPayload(input);
    if (this.stream.active) return this.stepStream();
    if (this.leaving) {
      input.parsed = input.filled;
      return "wait";
    }
    const { output } = this.host;
    if (output.pendingBytes >= flushAtBytes) output.flush();
    if (output.unsentBytes >= limits.nbdUnsentBytesMax) return "stop";
    if (this.pool.inFlight >= limits.nbdRequestsInFlightMax) return "stop";
    if (input.waiting < this.headerBytes) return "wait";
    this.roundRequests += 1;
    const { header } = this;
    if (!decodeRequest(input.view, input.parsed, this.extended, header)) return this.breakOff();
    if (header.type === nbdCommand.disconnect) {
      this.leaving = true;
      return "next";
    }
    const refusal = refuse(header, this.facts);
    if (refusal !== null) return this.refuse(input, refusal);
    const progress = this.commands.begin(header);
    if (progress === "noReplyMemory") return this.waitForMemory();
    if (progress === "noPayloadMemory") return this.waitForVolume();
    input.parsed += this.headerBytes;
    return "next";
  }

  private stepPayload(input: NbdInput): Step {
    const progress = this.payload.take(input);
    if (progress === "more") return "wait";
    if (progress === "full") return this.waitForVolume();
    const { refusal } = this.payload;
    const request = this.payload.finish();
    if (refusal === null) {
      request.complete(null);
    } else {
      this.answerRefusal(request, refusal);
      this.pool.retire(request);
    }
    return "next";
  }

  private stepStream(): Step {
    const progress = this.stream.pump();
    if (progress === "memory") return this.waitForMemory();
    if (progress === "unsent") {
      this.host.output.flush();
      return this.host.output.unsentBytes < limits.nbdUnsentBytesMax ? "next" : "stop";
    }
    const request = this.stream.finish();
    request.pending -= 1;
    if (request.pending === 0) this.pool.retire(request);
    return "next";
  }

  private waitForMemory(): Step {
    this.host.memory.onRoom(this.mayContinue);
    return "stop";
  }

  /** Payload memory comes back only through the log: what is handed over must get there first. */
  private waitForVolume(): Step {
    if (!this.waitsForVolume) {
      this.waitsForVolume = true;
      this.session.volume.onRoom(this.volumeHasRoom);
    }
    return "stop";
  }

  private breakOff(): Step {
    this.leaving = true;
    this.broken = true;
    return "wait";
  }

  private refuse(input: NbdInput, refusal: Refusal): Step {
    const bytes = payloadBytesOf(this.header, this.facts.style);
    if (bytes > limits.nbdDrainedPayloadBytesMax) return this.breakOff();
    input.parsed += this.headerBytes;
    if (bytes > 0) {
      this.payload.discard(this.pool.start(this.header), refusal, bytes);
    } else {
      this.answerRefusal(this.header, refusal);
    }
    return "next";
  }

  private answerRefusal(header: Readonly<RequestHeader>, refusal: Refusal): void {
    this.host.counters.failedRequests += 1;
    this.replies.error(header, refusal.errno, refusal.message);
  }

  private chunkFinished(chunk: NbdRequest): void {
    const { parent, error } = chunk;
    invariant(parent !== null, "a chunk belongs to a read");
    if (error !== null && parent.error === null) this.host.counters.failedRequests += 1;
    this.stream.chunkDone(chunk);
    this.pool.give(chunk);
    if (parent.pending === 0) this.pool.retire(parent);
  }

  private gatheredFinished(request: NbdRequest): void {
    this.stream.pushGathered(request);
    if (request.error !== null) {
      this.host.counters.failedRequests += 1;
      this.replies.failure(request, request.error);
    }
    this.pool.retire(request);
  }

  private wholeFinished(request: NbdRequest): void {
    const { slab, error } = request;
    if (error !== null) {
      if (slab !== null) this.host.space.release(slab);
      this.host.counters.failedRequests += 1;
      this.replies.failure(request, error);
    } else if (slab === null) {
      this.replies.success(request);
    } else {
      this.replies.readHeader(slab, request.start, request, request.offset, request.length, true);
      this.host.output.push(slab, request.start, this.replies.readHeaderBytes + request.length);
    }
    this.pool.retire(request);
  }

  /** A completion after the socket went: gives back what the request held. */
  private forget(request: NbdRequest): void {
    const { space } = this.host;
    const { parent } = request;
    if (request.slab !== null) space.release(request.slab);
    for (const part of request.partSlabs) space.release(part);
    request.clearParts();
    if (request.role === requestRole.chunk) {
      this.pool.give(request);
      parent?.complete(null);
    } else {
      this.pool.retire(request);
    }
    this.releaseWhenIdle();
  }

  private endRound(): void {
    if ((this.commands.submitted || this.payload.submitted) && !this.released) {
      this.commands.submitted = false;
      this.payload.submitted = false;
      this.session.volume.endOfInput(this.host.isAlone());
    }
    this.host.output.flush();
    this.inRound = false;
    if (this.aborted) return;
    if (this.broken) this.host.ended("broken");
    else this.leaveWhenIdle();
  }

  private leaveWhenIdle(): void {
    if (this.inRound || this.aborted || this.pool.inFlight > 0) return;
    if (this.leaving) this.host.ended("finished");
  }

  private releaseWhenIdle(): void {
    if (this.pool.inFlight > 0 || this.released) return;
    this.released = true;
    this.host.space.close();
    this.session.volume.close();
  }
}
