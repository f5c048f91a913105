// A gateway for one test: an NbdServer on a unix socket of its own in front of memory exports, a clock that the test moves,
// and a raw client that sends what a well-behaved one never would. Used by all files in this folder.
// The client's encoders are the tests' own (test/tools/nbd-wire.ts), so that a mistake in the product is not repeated here.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SlabSource } from "../../../services/gateway/engine/nbd-reply-memory.ts";
import { NbdServer } from "../../../services/gateway/engine/nbd-server.ts";
import { dropPages, mapSlab } from "../../../shared/adapters/file-store/native-memory.ts";
import { ForegroundLoad } from "../../../shared/memory/foreground-load.ts";
import type { Clock, Timer } from "../../../shared/ports/clock.ts";
import { MemoryDirectory, type MemoryExport } from "../../tools/memory-export.ts";
import {
  chunkFlagDone,
  chunkType,
  encodeGo,
  encodeMetaQuery,
  encodeOption,
  encodeRequest,
  magic,
  NbdSocket,
  option,
  optionReply,
} from "../../tools/nbd-wire.ts";

/** Time that stands still until the test moves it. */
export class ManualClock implements Clock {
  nowMs = 1000;
  private timers: { atMs: number; task: () => void }[] = [];

  wallTimeMs(): number {
    return this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  after(delayMs: number, task: () => void): Timer {
    const timer = { atMs: this.nowMs + delayMs, task };
    this.timers.push(timer);
    return { cancel: () => void (this.timers = this.timers.filter((other) => other !== timer)) };
  }

  soon(task: () => void): void {
    setImmediate(task);
  }

  get pending(): number {
    return this.timers.length;
  }

  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      const next = this.timers.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      this.timers = this.timers.filter((timer) => timer !== next);
      next.task();
    }
    this.nowMs = endMs;
  }
}

/** Slabs as the native file store has them, and without a native address: both occur. */
export const nativeSlabs: SlabSource = { allocateSlab: mapSlab, shrinkSlab: dropPages };
export const heapSlabs: SlabSource = {
  allocateSlab: (bytes) => ({ bytes: Buffer.alloc(bytes), address: 0 }),
  shrinkSlab: () => {},
};

export interface Gateway {
  readonly server: NbdServer;
  readonly foreground: ForegroundLoad;
  readonly clock: ManualClock;
  readonly address: string;
  readonly path: string;
  readonly directory: MemoryDirectory;
  close(): void;
}

export async function startGateway(
  exports: readonly MemoryExport[],
  options: { readonly slabs?: SlabSource; readonly connectionsMax?: number; readonly tcp?: boolean } = {},
): Promise<Gateway> {
  const dir = mkdtempSync(join(tmpdir(), "varve-nbd-"));
  const path = join(dir, "nbd.sock");
  const clock = new ManualClock();
  const directory = new MemoryDirectory(exports);
  const foreground = new ForegroundLoad();
  const server = new NbdServer({
    foreground,
    directory,
    listen: [options.tcp === true ? { host: "127.0.0.1", port: 0 } : { path }],
    clock,
    slabs: options.slabs ?? nativeSlabs,
    ...(options.connectionsMax === undefined ? {} : { connectionsMax: options.connectionsMax }),
  });
  await server.start();
  const listening = server.addresses()[0];
  const address =
    listening !== undefined && "port" in listening ? `${listening.host}:${listening.port}` : `unix:${path}`;
  const close = (): void => {
    server.close();
    rmSync(dir, { recursive: true, force: true });
  };
  return { server, foreground, clock, address, path, directory, close };
}

export interface OptionAnswer {
  readonly type: number;
  readonly data: Buffer;
}

export interface Chunk {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: bigint | null;
  readonly payload: Buffer;
}

export type Style = "simple" | "structured" | "extended";

/** Speaks NBD byte by byte as the test says; every wait fails when the server hangs up. */
export class RawClient {
  readonly wire: NbdSocket;
  style: Style = "simple";

  private constructor(wire: NbdSocket) {
    this.wire = wire;
  }

  /** Connected, greeting read, nothing sent. */
  static async connect(address: string): Promise<RawClient> {
    const wire = await NbdSocket.connect(address);
    const greeting = await wire.receive(18);
    if (greeting.readBigUInt64BE(0) !== magic.init || greeting.readUInt16BE(16) !== 3) {
      throw new Error(`unexpected greeting ${greeting.toString("hex")}`);
    }
    return new RawClient(wire);
  }

  /** In the middle of haggling. */
  static async haggling(address: string): Promise<RawClient> {
    const client = await RawClient.connect(address);
    client.sendFlags(3);
    return client;
  }

  /** In transmission, in the style that is wanted. */
  static async transmitting(
    address: string,
    style: Style = "structured",
    contexts: readonly string[] = [],
    exportName = "disk0",
  ): Promise<RawClient> {
    const client = await RawClient.haggling(address);
    if (style === "structured") await client.ask(option.structuredReply);
    if (style === "extended") await client.ask(option.extendedHeaders);
    if (contexts.length > 0) await client.ask(option.setMetaContext, encodeMetaQuery(exportName, contexts));
    const answers = await client.ask(option.go, encodeGo(exportName));
    if (answers.at(-1)?.type !== optionReply.ack) throw new Error("GO was refused");
    client.style = style;
    return client;
  }

  sendFlags(flags: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(flags);
    this.wire.send(bytes);
  }

  sendOption(number: number, data?: Uint8Array): void {
    this.wire.send(encodeOption(number, data));
  }

  async answer(expectedOption: number): Promise<OptionAnswer> {
    const head = await this.wire.receive(20);
    if (head.readBigUInt64BE(0) !== magic.optionReply) throw new Error("no option reply");
    if (head.readUInt32BE(8) !== expectedOption) throw new Error("a reply to another option");
    const length = head.readUInt32BE(16);
    return {
      type: head.readUInt32BE(12),
      data: length === 0 ? Buffer.alloc(0) : await this.wire.receive(length),
    };
  }

  /** Sends an option and returns its replies up to the ACK or the error. */
  async ask(number: number, data?: Uint8Array): Promise<OptionAnswer[]> {
    this.sendOption(number, data);
    return await this.answers(number);
  }

  async answers(number: number): Promise<OptionAnswer[]> {
    const all: OptionAnswer[] = [];
    for (;;) {
      const answer = await this.answer(number);
      all.push(answer);
      if (answer.type === optionReply.ack || answer.type >= 0x80000000) return all;
    }
  }

  frame(
    type: number,
    offset: number | bigint,
    length: number | bigint,
    flags = 0,
    cookie = 7n,
    payload?: Uint8Array,
  ): Buffer {
    const header = encodeRequest({ flags, type, cookie, offset, length }, this.style === "extended");
    return payload === undefined ? header : Buffer.concat([header, payload]);
  }

  send(...parts: readonly Uint8Array[]): void {
    this.wire.send(Buffer.concat(parts));
  }

  async simpleReply(dataBytes = 0): Promise<{ errno: number; cookie: bigint; data: Buffer }> {
    const head = await this.wire.receive(16);
    if (head.readUInt32BE(0) !== magic.simpleReply) throw new Error("no simple reply");
    const errno = head.readUInt32BE(4);
    const data = errno === 0 && dataBytes > 0 ? await this.wire.receive(dataBytes) : Buffer.alloc(0);
    return { errno, cookie: head.readBigUInt64BE(8), data };
  }

  async chunk(): Promise<Chunk> {
    const extended = this.style === "extended";
    const head = await this.wire.receive(extended ? 32 : 20);
    const found = head.readUInt32BE(0);
    if (found !== (extended ? magic.extendedReply : magic.structuredReply)) {
      throw new Error(`no chunk: ${head.toString("hex")}`);
    }
    const length = extended ? Number(head.readBigUInt64BE(24)) : head.readUInt32BE(16);
    return {
      flags: head.readUInt16BE(4),
      type: head.readUInt16BE(6),
      cookie: head.readBigUInt64BE(8),
      offset: extended ? head.readBigUInt64BE(16) : null,
      payload: length === 0 ? Buffer.alloc(0) : await this.wire.receive(length),
    };
  }

  /** Chunks up to the last one of a reply. */
  async reply(): Promise<Chunk[]> {
    const chunks: Chunk[] = [];
    for (;;) {
      const chunk = await this.chunk();
      chunks.push(chunk);
      if ((chunk.flags & chunkFlagDone) !== 0) return chunks;
    }
  }

  /** Sends one request and returns the errno of its reply, 0 for success. */
  async errnoOf(
    type: number,
    offset: number | bigint,
    length: number | bigint,
    flags = 0,
    payload?: Uint8Array,
  ): Promise<number> {
    this.send(this.frame(type, offset, length, flags, 7n, payload));
    if (this.style === "simple") return (await this.simpleReply(type === 0 ? Number(length) : 0)).errno;
    const last = (await this.reply()).at(-1);
    const failed = last?.type === chunkType.error || last?.type === chunkType.errorOffset;
    return failed ? (last?.payload.readUInt32BE(0) ?? -1) : 0;
  }

  /** Resolves when the server has hung up without another byte; rejects where it still says something. */
  async hungUp(): Promise<void> {
    const said = await this.wire.receive(1).then(
      () => true,
      () => false,
    );
    if (said) throw new Error("the server still talks");
  }

  destroy(): void {
    this.wire.destroy();
  }
}

/** A payload whose blocks all differ: it repeats at a prime length only. */
export function pattern(bytes: number, seed = 1): Buffer {
  const stretch = Buffer.alloc(Math.min(bytes, 65_521));
  for (let at = 0; at < stretch.length; at += 1) stretch[at] = (at * 31 + (at >> 8) * 7 + seed * 13) & 0xff;
  return bytes === 0 ? stretch : Buffer.alloc(bytes, stretch);
}

/** Waits until the condition holds; the test's own time-out ends the wait. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}
