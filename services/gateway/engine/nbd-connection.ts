/*
 * One client's socket: where its next bytes land, when reading stops and goes on, which stage handles them, and how it ends.
 * nbd-server.ts accepts and sweeps; negotiation first, then transmission. Bytes come by Node's `onread` straight into our own
 * slab, or into the volume's write slot; after an answer a lone client is polled for a moment (see poll()).
 */
import type { Socket } from "node:net";
import { limits } from "#shared/domain/limits.ts";
import { encodeGreeting } from "#shared/formats/nbd-option.ts";
import type { ExportDirectory } from "#shared/ports/block-export.ts";
import type { Clock } from "#shared/ports/clock.ts";
import { NbdCounters } from "./nbd-counters.ts";
import { NbdInput } from "./nbd-input.ts";
import type { AcceptedSocket } from "./nbd-listener.ts";
import { NbdNegotiation } from "./nbd-negotiation.ts";
import { NbdOutput } from "./nbd-output.ts";
import { PollGauge } from "./nbd-poll-gauge.ts";
import { type NbdMemory, ReplySpace } from "./nbd-reply-memory.ts";
import type { SystemCalls } from "./nbd-system-calls.ts";
import { NbdTransmission } from "./nbd-transmission.ts";

/** What a connection needs of its server. */
export interface ConnectionHost {
  readonly directory: ExportDirectory;
  readonly clock: Clock;
  readonly memory: NbdMemory;
  readonly calls: SystemCalls;
  /** Requests in flight on all connections. */
  readonly inFlight: number;
  countInFlight(change: number): void;
  /** The connection that had the last round of input. */
  lastRound: NbdConnection | null;
  closed(connection: NbdConnection, reason: CloseReason): void;
}

/** client: it left, or vanished. finished: drained. broken: it broke the protocol. stalled: it owed bytes for too long. */
export type CloseReason = "client" | "finished" | "broken" | "stalled" | "server";

const nowhere = Buffer.alloc(1);

export interface ConnectionFacts {
  readonly exportName: string | null;
  readonly peer: string;
  readonly inFlight: number;
  readonly unsentBytes: number;
  readonly counters: Readonly<NbdCounters>;
}

export class NbdConnection {
  readonly counters = new NbdCounters();
  readonly memory: NbdMemory;
  readonly space: ReplySpace;
  readonly output: NbdOutput;
  private readonly host: ConnectionHost;
  private readonly socket: Socket;
  private readonly fd: number;
  private readonly peer: string;
  private readonly input: NbdInput;
  private readonly negotiation: NbdNegotiation;
  private readonly gauge: PollGauge;
  private transmission: NbdTransmission | null = null;
  private stage: "handshake" | "transmission" | "closing" | "closed" = "handshake";
  private reason: CloseReason = "client";
  /** The next bytes go to the payload's slot, not to the input. */
  private direct = false;
  /** The socket was told to stop reading. */
  private paused = false;
  private draining = false;
  /** Rounds in a row that held one request, with no other connection's between. */
  private loneRounds = 0;
  private resumeAsked = false;
  private flushAsked = false;
  /** When the client last made progress: handshake begun, bytes came, bytes taken. */
  private progressMs: number;
  private readonly openedMs: number;

  constructor(host: ConnectionHost, accepted: AcceptedSocket) {
    this.host = host;
    this.fd = accepted.fd;
    this.peer = accepted.peer;
    this.memory = host.memory;
    this.space = new ReplySpace(host.memory);
    this.input = new NbdInput(host.memory.takeInput());
    // Asks nextBuffer() at once, so the input stands before the socket does.
    this.socket = accepted.wrap({ buffer: this.nextBuffer, callback: this.arrived });
    this.output = new NbdOutput(this.socket, this.fd, host.calls, this.space, this);
    this.gauge = new PollGauge();
    this.openedMs = host.clock.monotonicMs();
    this.progressMs = this.openedMs;
    this.negotiation = new NbdNegotiation({
      directory: host.directory,
      send: (bytes) => this.output.writeBytes(bytes),
      inputMayContinue: () => this.inputMayContinue(),
    });
    this.socket.on("end", () => this.peerEnded());
    this.socket.on("error", () => this.destroy("client"));
    this.socket.on("close", () => this.destroy("client"));
  }

  /** Sends the greeting and starts reading. */
  open(): void {
    this.output.writeBytes(encodeGreeting());
    this.socket.resume();
  }

  facts(): ConnectionFacts {
    return {
      exportName: this.transmission?.exportName ?? null,
      peer: this.peer,
      inFlight: this.transmission?.inFlight ?? 0,
      unsentBytes: this.output.unsentBytes,
      counters: this.counters,
    };
  }

  /** For the socket's onread: where the next bytes shall land. */
  readonly nextBuffer = (): Buffer => {
    if (this.stage === "closed") return nowhere;
    const slot = this.input.waiting === 0 ? (this.transmission?.payload.directTarget() ?? null) : null;
    this.direct = slot !== null;
    return slot ?? this.input.target();
  };

  /** For the socket's onread: bytes have landed there. False stops reading. */
  readonly arrived = (bytes: number): boolean => {
    if (this.stage === "handshake" || this.stage === "transmission") {
      const sole = this.host.lastRound === this;
      this.round(bytes);
      this.loneRounds = sole && this.transmission?.roundRequests === 1 ? this.loneRounds + 1 : 0;
      if (this.loneRounds >= limits.nbdLoneRoundsMin) this.poll();
    }
    this.paused = !this.wantsInput();
    return !this.paused;
  };

  /** Called by the server's sweep: closes a client that owes something for too long. */
  sweep(nowMs: number): void {
    if (this.stage === "handshake") {
      if (nowMs - this.openedMs >= limits.nbdHandshakeMs) this.destroy("stalled");
      return;
    }
    const owes =
      this.stage === "closing" ||
      this.output.unsentBytes > 0 ||
      (this.transmission?.expectsMore(this.input) ?? false);
    const leaving = this.stage === "closing" || this.draining;
    const allowedMs = leaving ? limits.nbdClosingMs : limits.nbdStalledMs;
    if (!owes) this.progressMs = nowMs;
    else if (nowMs - this.progressMs >= allowedMs) {
      this.destroy(this.stage === "closing" ? this.reason : "stalled");
    }
  }

  /** Answers what is in flight, leaves unanswered what comes, then closes. */
  drain(): void {
    this.draining = true;
    if (this.transmission !== null) this.transmission.leave();
    else this.destroy("finished");
  }

  destroy(reason: CloseReason): void {
    if (this.stage === "closed") return;
    const why = this.stage === "closing" ? this.reason : reason;
    this.stage = "closed";
    this.socket.destroy();
    this.negotiation.abort();
    this.output.fail();
    if (this.transmission !== null) this.transmission.abort();
    else this.space.close();
    this.host.memory.giveInput(this.input.slab);
    if (this.host.lastRound === this) this.host.lastRound = null;
    this.host.closed(this, why);
  }

  // What the transmission asks of its host.

  countInFlight(change: number): void {
    this.host.countInFlight(change);
  }

  isAlone(): boolean {
    return this.host.inFlight === (this.transmission?.inFlight ?? 0);
  }

  inputMayContinue(): void {
    if (this.resumeAsked) return;
    this.resumeAsked = true;
    queueMicrotask(this.resume);
  }

  flushSoon(): void {
    if (this.flushAsked) return;
    this.flushAsked = true;
    queueMicrotask(this.flush);
  }

  yieldTurn(callback: () => void): void {
    this.host.clock.soon(callback);
  }

  ended(reason: "finished" | "broken"): void {
    if (this.stage !== "transmission") return;
    if (reason === "broken") {
      this.output.flush();
      this.destroy("broken");
      return;
    }
    this.output.flush();
    this.stage = "closing";
    this.reason = "finished";
    this.progressMs = this.host.clock.monotonicMs();
    this.socket.end();
    this.continueReading();
  }

  outputMoved(): void {
    this.progressMs = this.host.clock.monotonicMs();
    if (this.transmission?.stopped === true) this.inputMayContinue();
  }

  outputFailed(): void {
    this.destroy("client");
  }

  private readonly flush = (): void => {
    this.flushAsked = false;
    this.output.flush();
  };

  private readonly resume = (): void => {
    this.resumeAsked = false;
    if (this.stage !== "handshake" && this.stage !== "transmission") return;
    this.handle();
    this.continueReading();
  };

  private continueReading(): void {
    if (!this.paused || !this.wantsInput()) return;
    this.paused = false;
    this.socket.resume();
  }

  private wantsInput(): boolean {
    if (this.stage === "transmission") return this.transmission?.stopped !== true;
    return this.stage === "closing" || (this.stage === "handshake" && !this.negotiation.waiting);
  }

  private round(bytes: number): void {
    this.progressMs = this.host.clock.monotonicMs();
    if (this.direct) this.transmission?.payload.received(bytes);
    else this.input.filled += bytes;
    this.handle();
  }

  private handle(): void {
    if (this.stage === "handshake") this.negotiate();
    if (this.stage !== "transmission" || this.transmission === null) return;
    this.host.lastRound = this;
    this.transmission.handleInput(this.input);
  }

  private negotiate(): void {
    const progress = this.negotiation.handleInput(this.input);
    if (progress === "agreed" && this.negotiation.session !== null) {
      this.transmission = new NbdTransmission(this.negotiation.session, this);
      this.stage = "transmission";
    } else if (progress === "closed") {
      this.stage = "closing";
      this.reason = "client";
      this.progressMs = this.host.clock.monotonicMs();
      this.socket.end();
    }
  }

  private peerEnded(): void {
    if (this.stage !== "transmission" || this.transmission === null) {
      this.destroy("client");
      return;
    }
    if (this.transmission.expectsMore(this.input)) this.destroy("client");
    else this.transmission.leave();
  }

  /**
   * A client with one request at a time answers within microseconds, while a wake-up by epoll costs tens: so after an answer
   * the socket is asked for a moment, as long as that keeps finding something and nobody else waits. libuv only watches
   * readiness, so bytes that are taken here are not missed there.
   */
  private poll(): void {
    const { transmission, gauge, host, output } = this;
    if (transmission === null || this.fd < 0) return;
    for (let turn = 0; turn < limits.nbdPolledRoundsMax; turn += 1) {
      const busy = this.stage !== "transmission" || transmission.roundRequests !== 1 || host.inFlight > 0;
      if (busy || output.unsentBytes > 0 || !gauge.worthwhile()) return;
      const target = this.nextBuffer();
      const address = this.addressOf(target);
      if (address === 0) return;
      const bytes = gauge.ask(host.calls, this.fd, address, target.length);
      if (bytes <= 0) return;
      this.round(bytes);
    }
  }

  private addressOf(target: Buffer): number {
    const slab = this.direct ? null : this.input.slab;
    if (slab === null) return this.transmission?.payload.directAddress() ?? 0;
    return slab.address === 0 ? 0 : slab.address + (target.byteOffset - slab.bytes.byteOffset);
  }
}
