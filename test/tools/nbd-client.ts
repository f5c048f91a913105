// An asynchronous NBD client for tests: handshake by GO, any number of requests in flight, simple, structured and
// extended replies, strict about what the protocol promises (exact cover of reads, final chunk last, known cookies).
// Callers: block-checker.ts, crash rounds, soak, gateway tests. Next on data's way: the server under test.

import {
  chunkFlagDone,
  chunkType,
  command,
  commandFlag,
  encodeGo,
  encodeMetaQuery,
  encodeOption,
  encodeRequest,
  errnoName,
  info,
  magic,
  NbdConnectionClosed,
  NbdProtocolError,
  NbdSocket,
  option,
  optionReply,
} from "./nbd-wire.ts";

export interface NbdClientOptions {
  /** Header style to negotiate; "extended" implies structured replies. */
  readonly replies?: "simple" | "structured" | "extended";
  /** Meta contexts to select, e.g. `base:allocation`; wants structured or extended replies. */
  readonly contexts?: readonly string[];
}

export interface BlockDescriptor {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

/** An error that the server answered for one request; the session goes on. */
export class NbdRequestError extends Error {
  readonly _tag = "NbdRequestError";
  readonly errno: number;
  readonly code: string;
  constructor(errno: number, request: string, message: string) {
    super(`${errnoName[errno] ?? `errno ${errno}`} for ${request}${message ? `: ${message}` : ""}`);
    this.errno = errno;
    this.code = errnoName[errno] ?? `errno ${errno}`;
  }
}

/** The server refused an option of the handshake. */
export class NbdOptionError extends Error {
  readonly _tag = "NbdOptionError";
  readonly reply: number;
  constructor(reply: number, message: string) {
    super(`option refused with 0x${reply.toString(16)}${message ? `: ${message}` : ""}`);
    this.reply = reply;
  }
}

interface Pending {
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  data: Buffer | undefined;
  covered: { from: number; to: number }[];
  readonly extents: Map<number, BlockDescriptor[]>;
  error: { errno: number; message: string } | undefined;
  readonly resolve: (done: Pending) => void;
  readonly reject: (why: Error) => void;
}

interface ReplyChunk {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly length: number;
}

export class NbdClient {
  size = 0;
  transmissionFlags = 0;
  blockSizes: { minimum: number; preferred: number; maximum: number } | undefined;
  /** Name of each selected meta context by its id. */
  readonly contexts = new Map<number, string>();
  readonly wire: NbdSocket;
  private readonly replies: "simple" | "structured" | "extended";
  private readonly pending = new Map<bigint, Pending>();
  private nextCookie = 1n;
  private failure: Error | undefined;

  private constructor(wire: NbdSocket, replies: "simple" | "structured" | "extended") {
    this.wire = wire;
    this.replies = replies;
  }

  static async connect(
    address: string,
    exportName: string,
    options: NbdClientOptions = {},
  ): Promise<NbdClient> {
    const wire = await NbdSocket.connect(address);
    const client = new NbdClient(wire, options.replies ?? "structured");
    try {
      await client.handshake(exportName, options.contexts ?? []);
    } catch (cause) {
      wire.destroy();
      throw cause;
    }
    void client.readReplies();
    return client;
  }

  get inFlight(): number {
    return this.pending.size;
  }

  async read(offset: number, length: number, flags = 0): Promise<Buffer> {
    const done = await this.request(command.read, flags, offset, length);
    return done.data ?? Buffer.alloc(0);
  }

  async write(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    const payloadFlag = this.replies === "extended" ? commandFlag.payloadLength : 0;
    await this.request(command.write, flags | payloadFlag, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.request(command.flush, 0, 0, 0);
  }

  async trim(offset: number, length: number, flags = 0): Promise<void> {
    await this.request(command.trim, flags, offset, length);
  }

  async writeZeroes(offset: number, length: number, flags = 0): Promise<void> {
    await this.request(command.writeZeroes, flags, offset, length);
  }

  async cache(offset: number, length: number): Promise<void> {
    await this.request(command.cache, 0, offset, length);
  }

  /** Descriptors by context name, with absolute offsets. */
  async blockStatus(offset: number, length: number, flags = 0): Promise<Map<string, BlockDescriptor[]>> {
    const done = await this.request(command.blockStatus, flags, offset, length);
    const named = new Map<string, BlockDescriptor[]>();
    for (const [id, extents] of done.extents) named.set(this.contexts.get(id) ?? `context ${id}`, extents);
    return named;
  }

  /** Any request, also a wrong one: type, flags, range and payload go out as they are. */
  request(
    type: number,
    flags: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
  ): Promise<Pending> {
    if (this.failure) return Promise.reject(this.failure);
    const cookie = this.nextCookie++;
    return new Promise((resolve, reject) => {
      const data = type === command.read ? Buffer.allocUnsafe(length) : undefined;
      this.pending.set(cookie, {
        type,
        offset,
        length,
        data,
        covered: [],
        extents: new Map(),
        error: undefined,
        resolve,
        reject,
      });
      const header = encodeRequest({ flags, type, cookie, offset, length }, this.replies === "extended");
      if (payload && payload.length > 0) this.wire.send(header, payload);
      else this.wire.send(header);
    });
  }

  /** DISC, then waits until the server closed. */
  async disconnect(): Promise<void> {
    const cookie = this.nextCookie++;
    const header = { flags: 0, type: command.disconnect, cookie, offset: 0, length: 0 };
    this.wire.send(encodeRequest(header, this.replies === "extended"));
    await this.wire.closed;
  }

  /** Drops the connection as a dying client does. */
  destroy(): void {
    this.wire.destroy();
  }

  private async handshake(exportName: string, contexts: readonly string[]): Promise<void> {
    const hello = await this.wire.receive(18);
    if (hello.readBigUInt64BE(0) !== magic.init || hello.readBigUInt64BE(8) !== magic.option) {
      throw new NbdProtocolError("not a newstyle NBD server");
    }
    if ((hello.readUInt16BE(16) & 1) === 0) throw new NbdProtocolError("not fixed newstyle");
    const clientFlags = Buffer.alloc(4);
    clientFlags.writeUInt32BE(3, 0); // fixed newstyle, no zeroes
    this.wire.send(clientFlags);
    if (this.replies === "extended") await this.negotiate(option.extendedHeaders);
    if (this.replies === "structured") await this.negotiate(option.structuredReply);
    if (contexts.length > 0) {
      await this.negotiate(option.setMetaContext, encodeMetaQuery(exportName, contexts), (type, data) => {
        if (type === optionReply.metaContext)
          this.contexts.set(data.readUInt32BE(0), data.toString("utf8", 4));
      });
    }
    await this.negotiate(option.go, encodeGo(exportName, [info.blockSize]), (type, data) => {
      if (type !== optionReply.info) return;
      const kind = data.readUInt16BE(0);
      if (kind === info.export) {
        this.size = Number(data.readBigUInt64BE(2));
        this.transmissionFlags = data.readUInt16BE(10);
      } else if (kind === info.blockSize) {
        this.blockSizes = {
          minimum: data.readUInt32BE(2),
          preferred: data.readUInt32BE(6),
          maximum: data.readUInt32BE(10),
        };
      }
    });
  }

  private async negotiate(
    number: number,
    data?: Uint8Array,
    onReply?: (type: number, data: Buffer) => void,
  ): Promise<void> {
    this.wire.send(encodeOption(number, data));
    for (;;) {
      const header = await this.wire.receive(20);
      if (header.readBigUInt64BE(0) !== magic.optionReply)
        throw new NbdProtocolError("bad option reply magic");
      if (header.readUInt32BE(8) !== number) throw new NbdProtocolError("reply to another option");
      const type = header.readUInt32BE(12);
      const body = await this.wire.receive(header.readUInt32BE(16));
      if (type >= 0x80000000) throw new NbdOptionError(type, body.toString("utf8"));
      if (type === optionReply.ack) return;
      onReply?.(type, body);
    }
  }

  private async readReplies(): Promise<void> {
    try {
      for (;;) await this.readReply();
    } catch (cause) {
      this.failure = cause instanceof Error ? cause : new NbdConnectionClosed(String(cause));
      for (const waiting of this.pending.values()) waiting.reject(this.failure);
      this.pending.clear();
      this.wire.destroy();
    }
  }

  private async readReply(): Promise<void> {
    const start = await this.wire.receive(4);
    const found = start.readUInt32BE(0);
    if (found === magic.simpleReply && this.replies !== "extended") return await this.readSimple();
    if (found === magic.structuredReply && this.replies === "structured") {
      const rest = await this.wire.receive(16);
      return await this.readChunk({
        flags: rest.readUInt16BE(0),
        type: rest.readUInt16BE(2),
        cookie: rest.readBigUInt64BE(4),
        length: rest.readUInt32BE(12),
      });
    }
    if (found === magic.extendedReply && this.replies === "extended") {
      const rest = await this.wire.receive(28);
      const cookie = rest.readBigUInt64BE(4);
      const echoed = Number(rest.readBigUInt64BE(12));
      if (echoed !== this.waiting(cookie).offset)
        throw new NbdProtocolError("extended reply echoes another offset");
      const [flags, type] = [rest.readUInt16BE(0), rest.readUInt16BE(2)];
      return await this.readChunk({ flags, type, cookie, length: Number(rest.readBigUInt64BE(20)) });
    }
    throw new NbdProtocolError(`reply magic 0x${found.toString(16)} does not fit what was negotiated`);
  }

  private async readSimple(): Promise<void> {
    const rest = await this.wire.receive(12);
    const errno = rest.readUInt32BE(0);
    const cookie = rest.readBigUInt64BE(4);
    const waiting = this.waiting(cookie);
    if (
      this.replies === "structured" &&
      (waiting.type === command.read || waiting.type === command.blockStatus)
    ) {
      throw new NbdProtocolError("a simple reply where a structured one was agreed");
    }
    if (errno !== 0) waiting.error = { errno, message: "" };
    else if (waiting.type === command.read) {
      const data = await this.wire.receive(waiting.length);
      data.copy(waiting.data as Buffer);
      waiting.covered.push({ from: 0, to: waiting.length });
    }
    this.finish(cookie, waiting);
  }

  private async readChunk(chunk: ReplyChunk): Promise<void> {
    const waiting = this.waiting(chunk.cookie);
    const payload = await this.wire.receive(chunk.length);
    if (chunk.type === chunkType.offsetData) {
      const at = Number(payload.readBigUInt64BE(0)) - waiting.offset;
      cover(waiting, at, at + payload.length - 8);
      payload.copy(waiting.data as Buffer, at, 8);
    } else if (chunk.type === chunkType.offsetHole) {
      const at = Number(payload.readBigUInt64BE(0)) - waiting.offset;
      cover(waiting, at, at + payload.readUInt32BE(8));
      waiting.data?.fill(0, at, at + payload.readUInt32BE(8));
    } else if (chunk.type === chunkType.blockStatus || chunk.type === chunkType.blockStatusExtended) {
      takeExtents(waiting, payload, chunk.type === chunkType.blockStatusExtended);
    } else if (chunk.type === chunkType.error || chunk.type === chunkType.errorOffset) {
      const message = payload.toString("utf8", 6, 6 + payload.readUInt16BE(4));
      waiting.error ??= { errno: payload.readUInt32BE(0), message };
    } else if (chunk.type !== chunkType.none) {
      throw new NbdProtocolError(`unknown reply chunk type ${chunk.type}`);
    }
    if ((chunk.flags & chunkFlagDone) !== 0) this.finish(chunk.cookie, waiting);
  }

  private waiting(cookie: bigint): Pending {
    const waiting = this.pending.get(cookie);
    if (!waiting) throw new NbdProtocolError(`reply with cookie ${cookie}, which is not in flight`);
    return waiting;
  }

  private finish(cookie: bigint, waiting: Pending): void {
    this.pending.delete(cookie);
    const request = `${requestName(waiting.type)} at ${waiting.offset} of ${waiting.length}`;
    if (waiting.error) {
      return waiting.reject(new NbdRequestError(waiting.error.errno, request, waiting.error.message));
    }
    const bytes = waiting.covered.reduce((sum, range) => sum + range.to - range.from, 0);
    if (waiting.type === command.read && bytes !== waiting.length) {
      return waiting.reject(new NbdProtocolError(`${request}: chunks cover ${bytes} bytes`));
    }
    waiting.resolve(waiting);
  }
}

function cover(waiting: Pending, from: number, to: number): void {
  const overlaps = waiting.covered.some((range) => from < range.to && range.from < to);
  if (waiting.type !== command.read || from < 0 || to > waiting.length || overlaps) {
    throw new NbdProtocolError(`read chunk ${from}..${to} outside of the request or twice`);
  }
  waiting.covered.push({ from, to });
}

function takeExtents(waiting: Pending, payload: Buffer, extended: boolean): void {
  const context = payload.readUInt32BE(0);
  if (waiting.extents.has(context)) throw new NbdProtocolError(`two status chunks for context ${context}`);
  const extents: BlockDescriptor[] = [];
  let offset = waiting.offset;
  for (let at = extended ? 8 : 4; at < payload.length; at += extended ? 16 : 8) {
    const length = extended ? Number(payload.readBigUInt64BE(at)) : payload.readUInt32BE(at);
    const flags = extended ? Number(payload.readBigUInt64BE(at + 8)) : payload.readUInt32BE(at + 4);
    if (length === 0) throw new NbdProtocolError("a status descriptor of length 0");
    extents.push({ offset, length, flags });
    offset += length;
  }
  waiting.extents.set(context, extents);
}

function requestName(type: number): string {
  return Object.entries(command).find(([, number]) => number === type)?.[0] ?? `command ${type}`;
}
