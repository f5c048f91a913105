// The NBD protocol as the tests speak it: numbers, request and option encoders, and a socket with exact reads.
// Written from the protocol text on its own, on purpose: it must not share a mistake with shared/formats.
// Callers: nbd-client.ts on top of it, and hostile-input tests that send raw bytes through NbdSocket.

import { connect, type Socket } from "node:net";

export const magic = {
  init: 0x4e42444d41474943n, // "NBDMAGIC"
  option: 0x49484156454f5054n, // "IHAVEOPT"
  optionReply: 0x3e889045565a9n,
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
  blockSizeRequired: 0x80000008,
  tooBig: 0x80000009,
  extendedHeadersRequired: 0x8000000a,
} as const;

export const info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = {
  fua: 1,
  noHole: 2,
  dontFragment: 4,
  reqOne: 8,
  fastZero: 16,
  payloadLength: 32,
} as const;

export const transmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  rotational: 16,
  sendTrim: 32,
  sendWriteZeroes: 64,
  sendDf: 128,
  canMultiConn: 256,
  sendResize: 512,
  sendCache: 1024,
  sendFastZero: 2048,
} as const;

export const chunkType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 32769,
  errorOffset: 32770,
} as const;

export const chunkFlagDone = 1;

export const errnoName: Readonly<Record<number, string>> = {
  1: "EPERM",
  5: "EIO",
  12: "ENOMEM",
  22: "EINVAL",
  28: "ENOSPC",
  75: "EOVERFLOW",
  95: "ENOTSUP",
  108: "ESHUTDOWN",
};

export class NbdProtocolError extends Error {
  readonly _tag = "NbdProtocolError";
}

export class NbdConnectionClosed extends Error {
  readonly _tag = "NbdConnectionClosed";
}

export function encodeOption(number: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(16 + data.length);
  bytes.writeBigUInt64BE(magic.option, 0);
  bytes.writeUInt32BE(number, 8);
  bytes.writeUInt32BE(data.length, 12);
  bytes.set(data, 16);
  return bytes;
}

/** Data of GO and INFO: export name and the information types that are asked for. */
export function encodeGo(exportName: string, infoTypes: readonly number[] = []): Buffer {
  const name = Buffer.from(exportName, "utf8");
  const bytes = Buffer.alloc(6 + name.length + 2 * infoTypes.length);
  bytes.writeUInt32BE(name.length, 0);
  name.copy(bytes, 4);
  bytes.writeUInt16BE(infoTypes.length, 4 + name.length);
  for (const [index, type] of infoTypes.entries()) bytes.writeUInt16BE(type, 6 + name.length + 2 * index);
  return bytes;
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function encodeMetaQuery(exportName: string, queries: readonly string[]): Buffer {
  const parts = [exportName, ...queries].map((text) => Buffer.from(text, "utf8"));
  const bytes = Buffer.alloc(parts.reduce((sum, part) => sum + 4 + part.length, 4));
  let at = 0;
  for (const [index, part] of parts.entries()) {
    at = bytes.writeUInt32BE(part.length, at);
    at += part.copy(bytes, at);
    if (index === 0) at = bytes.writeUInt32BE(queries.length, at);
  }
  return bytes;
}

export interface RequestHeader {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: number | bigint;
  readonly length: number | bigint;
}

export function encodeRequest(header: RequestHeader, extended: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(extended ? 32 : 28);
  bytes.writeUInt32BE(extended ? magic.extendedRequest : magic.request, 0);
  bytes.writeUInt16BE(header.flags, 4);
  bytes.writeUInt16BE(header.type, 6);
  bytes.writeBigUInt64BE(header.cookie, 8);
  bytes.writeBigUInt64BE(BigInt(header.offset), 16);
  if (extended) bytes.writeBigUInt64BE(BigInt(header.length), 24);
  else bytes.writeUInt32BE(Number(header.length), 24);
  return bytes;
}

/** `unix:PATH` or `HOST:PORT`, the way `varve up --nbd` takes it. */
export function connectOptions(address: string): { path: string } | { host: string; port: number } {
  if (address.startsWith("unix:")) return { path: address.slice("unix:".length) };
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

/** A connected socket that yields exactly as many bytes as are asked for, in order. */
export class NbdSocket {
  readonly socket: Socket;
  /** Settles when the connection is gone, by either side. */
  readonly closed: Promise<void>;
  private chunks: Buffer[] = [];
  private bytesHeld = 0;
  private failure: Error | undefined;
  private wanted:
    | { bytes: number; resolve: (data: Buffer) => void; reject: (why: Error) => void }
    | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => {
      this.chunks.push(chunk);
      this.bytesHeld += chunk.length;
      if (this.bytesHeld > 8 * 1024 * 1024 && this.wanted === undefined) socket.pause();
      this.deliver();
    });
    socket.on("error", (cause) => this.fail(new NbdConnectionClosed(`connection failed: ${cause.message}`)));
    socket.on("end", () => this.fail(new NbdConnectionClosed("the server closed the connection")));
    this.closed = new Promise((resolve) => {
      socket.on("close", () => {
        this.fail(new NbdConnectionClosed("the connection is closed"));
        resolve();
      });
    });
  }

  static async connect(address: string): Promise<NbdSocket> {
    const socket = connect({ ...connectOptions(address), allowHalfOpen: false });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    socket.removeAllListeners("error");
    return new NbdSocket(socket);
  }

  send(...parts: readonly Uint8Array[]): void {
    if (parts.length === 1 && parts[0]) {
      this.socket.write(parts[0]);
      return;
    }
    this.socket.cork();
    for (const part of parts) this.socket.write(part);
    process.nextTick(() => this.socket.uncork());
  }

  /** One receive at a time: the protocol has one reader. Rejects when the stream ends before enough arrived. */
  receive(bytes: number): Promise<Buffer> {
    if (this.wanted) throw new NbdProtocolError("two receives at once");
    return new Promise((resolve, reject) => {
      this.wanted = { bytes, resolve, reject };
      this.deliver();
      if (this.wanted && this.failure) this.rejectWanted(this.failure);
      else if (this.socket.isPaused()) this.socket.resume();
    });
  }

  destroy(): void {
    this.socket.destroy();
  }

  private deliver(): void {
    const wanted = this.wanted;
    if (!wanted || this.bytesHeld < wanted.bytes) return;
    this.wanted = undefined;
    this.bytesHeld -= wanted.bytes;
    const first = this.chunks[0];
    if (first && first.length > wanted.bytes) {
      this.chunks[0] = first.subarray(wanted.bytes);
      wanted.resolve(first.subarray(0, wanted.bytes));
      return;
    }
    wanted.resolve(this.take(wanted.bytes));
  }

  private take(bytes: number): Buffer {
    const target = Buffer.allocUnsafe(bytes);
    let at = 0;
    let used = 0;
    while (at < bytes) {
      const chunk = this.chunks[used] as Buffer;
      const part = Math.min(chunk.length, bytes - at);
      chunk.copy(target, at, 0, part);
      at += part;
      if (part === chunk.length) used += 1;
      else this.chunks[used] = chunk.subarray(part);
    }
    this.chunks.splice(0, used);
    return target;
  }

  private fail(why: Error): void {
    this.failure ??= why;
    this.deliver();
    this.rejectWanted(this.failure);
  }

  private rejectWanted(why: Error): void {
    const wanted = this.wanted;
    this.wanted = undefined;
    wanted?.reject(why);
  }
}
