// An NBD server that is a disk with a volatile write cache: what was written lies in memory until FLUSH or
// FUA, and a power cut loses it, in whole or in parts, sector by sector. The power-cut proof attaches it to
// the machine in which Varve runs (test/vm/power-cut.ts); the unit of loss and of tearing is 512 bytes.
// It shares no code with Varve's own NBD gateway on purpose: a mistake in one can't hide one in the other.
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";

const sectorBytes = 512;
/** Beyond this much unflushed data the oldest half is written to the medium, as any disk does when it has time. */
const cacheBytesMax = 32 * 1024 * 1024;
const requestBytesMax = 32 * 1024 * 1024;

/** `drop` loses everything unflushed; `scatter` keeps a random part of it: whole writes, none, or single sectors. */
export type CutMode = "drop" | "scatter";

/** What a power cut did to the writes that no flush had covered. */
export interface CutReport {
  readonly mode: CutMode;
  readonly writes: number;
  readonly sectorsLost: number;
  readonly sectorsKept: number;
}

interface CachedWrite {
  readonly offset: number;
  readonly data: Buffer;
  /** Written with FUA: on the medium already, and put there again in order with its neighbours. */
  readonly durable: boolean;
}

/** The disk itself: a file is the medium, a list of writes in order is the cache. */
export class VolatileDisk {
  readonly size: number;
  /** A disk that lies answers FLUSH and FUA and does nothing: the negative control of the proof. */
  lying = false;
  readonly counts = { writes: 0, flushes: 0, fuaWrites: 0, destaged: 0 };
  readonly #fd: number;
  #cached: CachedWrite[] = [];
  #cachedBytes = 0;
  /** How many writes have left the cache since the disk was made. */
  #leftCache = 0;
  #latest = new Map<number, Buffer>();

  constructor(path: string) {
    this.#fd = openSync(path, "r+");
    this.size = fstatSync(this.#fd).size;
    if (this.size === 0 || this.size % sectorBytes !== 0)
      throw new Error(`${path}: not a whole number of sectors`);
  }

  /** Writes that a power cut could take now. */
  get unflushedWrites(): number {
    return this.#cached.reduce((count, write) => count + (write.durable ? 0 : 1), 0);
  }

  read(offset: number, length: number): Buffer {
    const out = Buffer.alloc(length);
    readSync(this.#fd, out, 0, length, offset);
    if (this.#latest.size === 0) return out;
    for (let at = 0; at < length; at += sectorBytes) {
      const cached = this.#latest.get((offset + at) / sectorBytes);
      if (cached) cached.copy(out, at);
    }
    return out;
  }

  /** `data` must not change afterwards. */
  write(offset: number, data: Buffer, fua: boolean): void {
    const durable = fua && !this.lying;
    this.counts.writes++;
    if (fua) this.counts.fuaWrites++;
    if (durable) this.#put(offset, data);
    this.#cached.push({ offset, data, durable });
    this.#cachedBytes += data.length;
    for (let at = 0; at < data.length; at += sectorBytes) {
      this.#latest.set((offset + at) / sectorBytes, data.subarray(at, at + sectorBytes));
    }
    if (this.#cachedBytes <= cacheBytesMax || this.lying) return;
    const before = this.#leftCache;
    this.#destage(() => this.#cachedBytes > cacheBytesMax / 2);
    this.counts.destaged += this.#leftCache - before;
  }

  /** What a flush that begins now has to cover. */
  mark(): number {
    return this.#leftCache + this.#cached.length;
  }

  /** Puts on the medium what was written before the mark, and no more: later writes stay at risk. */
  flush(mark = this.mark()): void {
    this.counts.flushes++;
    if (!this.lying) this.#destage(() => this.#leftCache < mark);
  }

  /** The power goes: unflushed sectors are lost, or reach the medium by chance. The disk can be used on. */
  powerCut(mode: CutMode, random: () => number): CutReport {
    let sectorsLost = 0;
    let sectorsKept = 0;
    const writes = this.#cached.length;
    for (const write of this.#cached) {
      const keepShare = write.durable ? 1 : mode === "drop" ? 0 : fateOf(random());
      for (let at = 0; at < write.data.length; at += sectorBytes) {
        if (random() < keepShare) {
          this.#put(write.offset + at, write.data.subarray(at, at + sectorBytes));
          sectorsKept++;
        } else sectorsLost++;
      }
    }
    this.#forget();
    return { mode, writes, sectorsLost, sectorsKept };
  }

  close(): void {
    this.flush();
    closeSync(this.#fd);
  }

  #put(offset: number, data: Buffer): void {
    if (writeSync(this.#fd, data, 0, data.length, offset) !== data.length)
      throw new Error("short write to the medium");
  }

  #destage(wanted: () => boolean): void {
    const leaving: CachedWrite[] = [];
    for (const write of this.#cached) {
      if (!wanted()) break;
      this.#put(write.offset, write.data);
      this.#cachedBytes -= write.data.length;
      this.#leftCache++;
      leaving.push(write);
    }
    this.#cached.splice(0, leaving.length);
    for (const write of leaving) {
      for (let at = 0; at < write.data.length; at += sectorBytes) {
        const sector = (write.offset + at) / sectorBytes;
        // A later write of the sector made a buffer of its own: only what is still the latest leaves the cache.
        const latest = this.#latest.get(sector);
        if (
          latest &&
          latest.buffer === write.data.buffer &&
          latest.byteOffset === write.data.byteOffset + at
        ) {
          this.#latest.delete(sector);
        }
      }
    }
  }

  #forget(): void {
    this.#leftCache += this.#cached.length;
    this.#cached = [];
    this.#cachedBytes = 0;
    this.#latest = new Map();
  }
}

/** A third of the unflushed writes vanishes, a third arrives whole, the rest is torn at sector borders. */
function fateOf(roll: number): number {
  return roll < 1 / 3 ? 0 : roll < 2 / 3 ? 1 : roll;
}

// ---- NBD, as much of it as qemu needs: fixed newstyle, EXPORT_NAME/GO/INFO, simple replies.

const optionMagic = 0x49484156454f5054n; // IHAVEOPT
const option = { exportName: 1, abort: 2, info: 6, go: 7 };
const reply = { ack: 1, info: 3, unsupported: 0x80000001 };
const flags = 0b1101; // HAS_FLAGS, SEND_FLUSH, SEND_FUA
const command = { read: 0, write: 1, disconnect: 2, flush: 3 };
const einval = 22;

/** Serves one disk, whatever export name the client asks for, until it is stopped or its power is cut. */
export class VolatileDiskServer {
  readonly disk: VolatileDisk;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #flushTimeMs: () => number;
  #frozen = false;

  private constructor(disk: VolatileDisk, server: Server, flushTimeMs: () => number) {
    this.disk = disk;
    this.#server = server;
    this.#flushTimeMs = flushTimeMs;
  }

  /**
   * A flush takes `flushTimeMs()` as it does on a real disk. Other requests go on meanwhile, so that a cut often falls
   * between a write and the end of its flush: with flushes that take no time it would nearly never.
   */
  static async listen(
    disk: VolatileDisk,
    socketPath: string,
    flushTimeMs: () => number = () => 0,
  ): Promise<VolatileDiskServer> {
    const server = createServer();
    const served = new VolatileDiskServer(disk, server, flushTimeMs);
    server.on("connection", (socket) => served.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(socketPath, resolve);
    });
    return served;
  }

  /**
   * The moment of the cut: from now on no request is carried out or answered. Kill the machine next; were its
   * connection closed instead, it would live on for a moment with a disk that fails, which is another test.
   */
  freeze(): void {
    this.#frozen = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** What is left when the machine is gone. Afterwards a new machine may connect. */
  powerCut(mode: CutMode, random: () => number): CutReport {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    this.#frozen = false;
    return this.disk.powerCut(mode, random);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.disk.close();
  }

  #flushLater(socket: Socket, answer: () => void): void {
    const mark = this.disk.mark();
    const finish = (): void => {
      if (this.#frozen || socket.destroyed) return;
      this.disk.flush(mark);
      answer();
    };
    const timeMs = this.#flushTimeMs();
    if (timeMs > 0) setTimeout(finish, timeMs);
    else finish();
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    const session = converse(socket, this.disk, (done) => this.#flushLater(socket, done));
    let wanted = session.next().value ?? 0;
    let chunks: Buffer[] = [];
    let held = 0;
    socket.on("error", () => {}); // qemu is killed on purpose
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      held += chunk.length;
      while (!this.#frozen && !socket.destroyed && held >= wanted) {
        const all = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
        const next = session.next(all.subarray(0, wanted));
        chunks = [all.subarray(wanted)];
        held = all.length - wanted;
        if (next.done) {
          socket.end();
          return;
        }
        wanted = next.value;
      }
    });
  }
}

type FlushLater = (answer: () => void) => void;

/** The whole conversation as a generator: it yields how many bytes it wants next and is resumed with them. */
function* converse(
  socket: Socket,
  disk: VolatileDisk,
  flushLater: FlushLater,
): Generator<number, void, Buffer> {
  const hello = Buffer.alloc(18);
  hello.write("NBDMAGICIHAVEOPT", "latin1");
  hello.writeUInt16BE(0b11, 16); // FIXED_NEWSTYLE, NO_ZEROES
  socket.write(hello);
  const noZeroes = ((yield 4).readUInt32BE(0) & 2) !== 0;
  for (;;) {
    const head = yield 16;
    const id = head.readUInt32BE(8);
    const length = head.readUInt32BE(12);
    if (head.readBigUInt64BE(0) !== optionMagic || length > 65536) return;
    if (length > 0) yield length;
    if (id === option.exportName) {
      const export_ = Buffer.alloc(noZeroes ? 10 : 134);
      export_.writeBigUInt64BE(BigInt(disk.size), 0);
      export_.writeUInt16BE(flags, 8);
      socket.write(export_);
      break;
    }
    if (id === option.info || id === option.go) {
      const info = Buffer.alloc(12);
      info.writeBigUInt64BE(BigInt(disk.size), 2);
      info.writeUInt16BE(flags, 10);
      const sizes = Buffer.alloc(14);
      sizes.writeUInt16BE(3, 0); // NBD_INFO_BLOCK_SIZE
      sizes.writeUInt32BE(sectorBytes, 2);
      sizes.writeUInt32BE(4096, 6);
      sizes.writeUInt32BE(requestBytesMax, 10);
      for (const data of [info, sizes]) socket.write(optionReply(id, reply.info, data));
      socket.write(optionReply(id, reply.ack, Buffer.alloc(0)));
      if (id === option.go) break;
      continue;
    }
    socket.write(optionReply(id, id === option.abort ? reply.ack : reply.unsupported, Buffer.alloc(0)));
    if (id === option.abort) return;
  }
  yield* transmit(socket, disk, flushLater);
}

function* transmit(
  socket: Socket,
  disk: VolatileDisk,
  flushLater: FlushLater,
): Generator<number, void, Buffer> {
  for (;;) {
    const head = yield 28;
    if (head.readUInt32BE(0) !== 0x25609513) return;
    const fua = (head.readUInt16BE(4) & 1) !== 0;
    const type = head.readUInt16BE(6);
    const cookie = head.readBigUInt64BE(8);
    const offset = Number(head.readBigUInt64BE(16));
    const length = head.readUInt32BE(24);
    if (type === command.disconnect || length > requestBytesMax) return;
    const payload = type === command.write && length > 0 ? Buffer.from(yield length) : undefined;
    if (type === command.flush) {
      flushLater(() => answer(socket, cookie, 0));
    } else if (offset % sectorBytes !== 0 || length % sectorBytes !== 0 || offset + length > disk.size) {
      answer(socket, cookie, einval);
    } else if (type === command.read) {
      answer(socket, cookie, 0, disk.read(offset, length));
    } else if (payload) {
      disk.write(offset, payload, fua);
      answer(socket, cookie, 0);
    } else answer(socket, cookie, einval);
  }
}

function answer(socket: Socket, cookie: bigint, error: number, data?: Buffer): void {
  const head = Buffer.alloc(16);
  head.writeUInt32BE(0x67446698, 0);
  head.writeUInt32BE(error, 4);
  head.writeBigUInt64BE(cookie, 8);
  socket.write(head);
  if (data) socket.write(data);
}

function optionReply(id: number, type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(20 + data.length);
  head.writeBigUInt64BE(0x3e889045565a9n, 0);
  head.writeUInt32BE(id, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  data.copy(head, 20);
  return head;
}
