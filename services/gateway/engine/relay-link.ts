/*
 * A connection to the gateway that holds a volume, as a client of its NBD server: handshake, requests, replies. relay-export.ts makes an
 * export of it. Lost with its socket: its own client is cut off then, and comes back to whoever serves the volume next.
 */
import { connect, type Socket } from "node:net";
import { VarveError } from "#shared/domain/errors.ts";
import {
  decodeOptionReplyHead,
  decodeReplyHead,
  encodeGo,
  encodeRequest,
  greetingBytes,
  isGreeting,
  isRefusal,
  optionReplyHeadBytes,
  replyHeadBytes,
  sizeOfInfo,
} from "#shared/formats/nbd-client.ts";
import { nbdCommand, nbdErrno, nbdOptionReply } from "#shared/formats/nbd-numbers.ts";
import type { Clock } from "#shared/ports/clock.ts";

export interface RelayTarget {
  /** HOST:PORT or unix:PATH, as the holder's lease says. */
  readonly address: string;
  readonly exportName: string;
}

/** `target`: where a read's bytes go; null for everything else. */
interface Waiting {
  readonly target: Buffer | null;
  readonly done: (error: VarveError | null) => void;
}

const handshakeMs = 10_000;

export class RelayLink {
  readonly sizeBytes: number;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onLost: (error: VarveError) => void;
  #cookie = 0;
  #lost: VarveError | null = null;
  /** Head of the next reply, as far as it came. */
  readonly #head = Buffer.alloc(replyHeadBytes);
  #headBytes = 0;
  /** The read whose bytes are arriving. */
  #reading: Waiting | null = null;
  #readBytes = 0;

  private constructor(socket: Socket, sizeBytes: number, onLost: (error: VarveError) => void) {
    this.#socket = socket;
    this.sizeBytes = sizeBytes;
    this.#onLost = onLost;
    socket.on("data", (bytes: Buffer) => this.#take(bytes));
    socket.on("close", () => this.#lose("its connection was closed"));
    socket.on("error", (cause) => this.#lose(cause.message));
  }

  static async open(
    target: RelayTarget,
    clock: Clock,
    onLost: (error: VarveError) => void,
  ): Promise<RelayLink> {
    const socket = connect(socketOptions(target.address));
    socket.setNoDelay(true);
    const late = clock.after(handshakeMs, () => socket.destroy(new Error("no answer to the handshake")));
    try {
      const sizeBytes = await handshake(socket, target.exportName);
      return new RelayLink(socket, sizeBytes, onLost);
    } catch (cause) {
      socket.destroy();
      throw unreachable(target.address, cause);
    } finally {
      late.cancel();
    }
  }

  /** Bytes that the socket has not taken yet. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  /** Calls back once when the socket has taken everything. */
  onDrain(callback: () => void): void {
    if (this.#lost !== null || !this.#socket.writableNeedDrain) queueMicrotask(callback);
    else this.#socket.once("drain", callback);
  }

  /** `done` is never called from inside. `payload` belongs to the link from now on. */
  request(
    type: number,
    flags: number,
    range: { readonly offset: number; readonly length: number },
    parts: { readonly payload?: Buffer; readonly target?: Buffer },
    done: (error: VarveError | null) => void,
  ): void {
    const lost = this.#lost;
    if (lost !== null) {
      queueMicrotask(() => done(lost));
      return;
    }
    this.#cookie += 1;
    this.#waiting.set(this.#cookie, { target: parts.target ?? null, done });
    this.#socket.cork();
    this.#socket.write(encodeRequest(type, flags, this.#cookie, range.offset, range.length));
    if (parts.payload !== undefined) this.#socket.write(parts.payload);
    queueMicrotask(() => this.#socket.uncork());
  }

  /** Says goodbye. What waits gets an error. */
  close(): void {
    if (this.#lost !== null) return;
    this.#socket.write(encodeRequest(nbdCommand.disconnect, 0, 0, 0, 0));
    this.#socket.end();
    this.#lost = lostLink("it was closed");
    this.#failAll(this.#lost);
  }

  #take(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length && this.#lost === null) {
      if (this.#reading !== null) {
        at += this.#takeRead(this.#reading, bytes, at);
        continue;
      }
      const part = Math.min(replyHeadBytes - this.#headBytes, bytes.length - at);
      bytes.copy(this.#head, this.#headBytes, at, at + part);
      this.#headBytes += part;
      at += part;
      if (this.#headBytes === replyHeadBytes) this.#takeHead();
    }
  }

  #takeHead(): void {
    this.#headBytes = 0;
    const head = decodeReplyHead(this.#head, 0);
    const waiting = head === null ? undefined : this.#waiting.get(head.cookie);
    if (head === null || waiting === undefined) {
      this.#lose("it answered what was not asked");
      return;
    }
    if (head.errno !== nbdErrno.none || waiting.target === null) {
      this.#waiting.delete(head.cookie);
      waiting.done(head.errno === nbdErrno.none ? null : holderError(head.errno));
      return;
    }
    this.#waiting.delete(head.cookie);
    this.#reading = waiting;
    this.#readBytes = 0;
  }

  #takeRead(reading: Waiting, bytes: Buffer, at: number): number {
    const target = reading.target ?? Buffer.alloc(0);
    const part = Math.min(target.length - this.#readBytes, bytes.length - at);
    bytes.copy(target, this.#readBytes, at, at + part);
    this.#readBytes += part;
    if (this.#readBytes === target.length) {
      this.#reading = null;
      reading.done(null);
    }
    return part;
  }

  #lose(why: string): void {
    if (this.#lost !== null) return;
    this.#lost = lostLink(why);
    this.#socket.destroy();
    // Its client is cut off before anything is answered: it asks the next gateway again, instead of seeing an error.
    this.#onLost(this.#lost);
    this.#failAll(this.#lost);
  }

  #failAll(error: VarveError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    if (this.#reading !== null) waiting.push(this.#reading);
    this.#reading = null;
    for (const one of waiting) one.done(error);
  }
}

/** Resolves with the export's size when the transmission phase has begun. */
async function handshake(socket: Socket, exportName: string): Promise<number> {
  const input = new HandshakeInput(socket);
  try {
    if (!isGreeting(await input.take(greetingBytes))) throw new Error("it is no NBD server of ours");
    socket.write(encodeGo(exportName));
    let sizeBytes: number | null = null;
    for (;;) {
      const head = decodeOptionReplyHead(await input.take(optionReplyHeadBytes));
      if (head === null) throw new Error("it answers the handshake wrongly");
      const data = await input.take(head.length);
      if (isRefusal(head)) throw new Error(data.toString("utf8") || `it refuses the export (${head.type})`);
      sizeBytes = sizeOfInfo(head, data) ?? sizeBytes;
      if (head.type === nbdOptionReply.ack && sizeBytes !== null) return sizeBytes;
    }
  } finally {
    input.end();
  }
}

/** Bytes of the handshake in pieces of the wanted length; nothing arrives behind it unasked. */
class HandshakeInput {
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #wanted: { readonly length: number; readonly resolve: (bytes: Buffer) => void } | null = null;
  #reject: (cause: Error) => void = () => undefined;
  readonly #onData = (bytes: Buffer): void => {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    this.#give();
  };
  readonly #onError = (cause: Error): void => this.#reject(cause);
  readonly #onClose = (): void => this.#reject(new Error("it closed the connection"));

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", this.#onData);
    socket.on("error", this.#onError);
    socket.on("close", this.#onClose);
  }

  async take(length: number): Promise<Buffer> {
    return await new Promise((resolve, reject) => {
      this.#wanted = { length, resolve };
      this.#reject = reject;
      this.#give();
    });
  }

  end(): void {
    this.#socket.off("data", this.#onData);
    this.#socket.off("error", this.#onError);
    this.#socket.off("close", this.#onClose);
    // Whoever listens next has its own; a late error must not end the process.
    this.#socket.on("error", () => undefined);
  }

  #give(): void {
    const wanted = this.#wanted;
    if (wanted === null || this.#bytes.length < wanted.length) return;
    this.#wanted = null;
    const taken = this.#bytes.subarray(0, wanted.length);
    this.#bytes = this.#bytes.subarray(wanted.length);
    wanted.resolve(taken);
  }
}

function socketOptions(
  address: string,
): { readonly path: string } | { readonly host: string; readonly port: number } {
  if (address.startsWith("unix:")) return { path: address.slice("unix:".length) };
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(address.slice(colon + 1)) };
}

function unreachable(address: string, cause: unknown): VarveError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new VarveError(
    "RelayError",
    "Retry",
    `the gateway at ${address} can't be reached from here: ${message}`,
    {
      hint: "Connect to it directly, or give it an address by --advertise that other gateways reach.",
      fields: { address },
      cause,
    },
  );
}

function lostLink(why: string): VarveError {
  return new VarveError("RelayLost", "Retry", `the gateway that serves the volume is gone: ${why}`, {
    hint: "Connect again: another gateway serves the volume soon.",
  });
}

function holderError(errno: number): VarveError {
  const kind = errno === nbdErrno.ENOSPC ? "Full" : errno === nbdErrno.EINVAL ? "Invalid" : "Retry";
  return new VarveError(
    "RelayedError",
    kind,
    `the gateway that serves the volume answered with errno ${errno}`,
  );
}
