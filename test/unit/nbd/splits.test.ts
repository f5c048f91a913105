// The parser does not care how the bytes are cut: one script of requests, sent byte by byte, in random pieces and at once,
// must reach the export as the same calls and give the same replies. NbdTransmission alone, without a socket: the pieces are
// put into its input exactly as cut. Random cuts come from a seed that the failure names.

import { describe, expect, test } from "vitest";
import { NbdCounters } from "../../../services/gateway/engine/nbd-counters.ts";
import { NbdInput } from "../../../services/gateway/engine/nbd-input.ts";
import { NbdOutput } from "../../../services/gateway/engine/nbd-output.ts";
import { NbdMemory, ReplySpace } from "../../../services/gateway/engine/nbd-reply-memory.ts";
import { loadSystemCalls } from "../../../services/gateway/engine/nbd-system-calls.ts";
import { NbdTransmission } from "../../../services/gateway/engine/nbd-transmission.ts";
import { MemoryExport } from "../../tools/memory-export.ts";
import { command, commandFlag, encodeRequest } from "../../tools/nbd-wire.ts";
import { heapSlabs, pattern, type Style } from "./gateway.ts";

const calls = loadSystemCalls();

/** A small generator of our own, so that a seed means the same for ever. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

class Harness {
  readonly volume = new MemoryExport("disk0", { sizeBytes: 2 * 1024 * 1024 });
  readonly sent: Buffer[] = [];
  ended: string | null = null;
  private readonly input: NbdInput;
  private readonly transmission: NbdTransmission;
  private again = false;

  constructor(style: Style) {
    const memory = new NbdMemory(heapSlabs);
    const space = new ReplySpace(memory);
    const written: ((error?: Error | null) => void)[] = [];
    const socket = {
      write: (bytes: Uint8Array, done: (error?: Error | null) => void): boolean => {
        this.sent.push(Buffer.from(bytes));
        written.push(done);
        setImmediate(() => written.shift()?.(null));
        return true;
      },
      cork: (): void => {},
      uncork: (): void => {},
    };
    const output = new NbdOutput(socket as never, -1, calls, space, {
      outputMoved: () => this.resume(),
      outputFailed: () => {},
    });
    this.input = new NbdInput(memory.takeInput());
    this.transmission = new NbdTransmission(
      { volume: this.volume, style, contexts: [] },
      {
        counters: new NbdCounters(),
        memory,
        space,
        output,
        countInFlight: () => {},
        isAlone: () => true,
        inputMayContinue: () => this.resume(),
        flushSoon: () => setImmediate(() => output.flush()),
        yieldTurn: (callback) => void setImmediate(callback),
        ended: (reason) => {
          this.ended ??= reason;
        },
      },
    );
  }

  /** Puts the pieces in one after the other, as reads of a socket would. */
  async feed(pieces: readonly Buffer[]): Promise<void> {
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; ) {
        while (this.transmission.stopped) await new Promise((resolve) => setImmediate(resolve));
        const slot = this.input.waiting === 0 ? this.transmission.payload.directTarget() : null;
        const target = slot ?? this.input.target();
        const bytes = piece.copy(target, 0, at);
        if (slot === null) this.input.filled += bytes;
        else this.transmission.payload.received(bytes);
        at += bytes;
        this.transmission.handleInput(this.input);
      }
    }
    while (this.transmission.stopped || this.unfinished > 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** The client went away, perhaps in the middle of a payload. */
  abort(): void {
    this.transmission.abort();
  }

  /** Requests whose payload is complete and that have no answer yet. */
  private get unfinished(): number {
    return this.transmission.inFlight - (this.transmission.payload.active ? 1 : 0);
  }

  private resume(): void {
    if (this.again) return;
    this.again = true;
    setImmediate(() => {
      this.again = false;
      if (this.transmission.stopped) this.transmission.handleInput(this.input);
    });
  }
}

/** A script with every kind of request, good and refused, with short and long payloads. */
function script(style: Style): Buffer {
  const parts: Buffer[] = [];
  let cookie = 1n;
  const add = (type: number, offset: number, length: number, flags = 0, payload?: Buffer): void => {
    const withPayload = style === "extended" && payload !== undefined ? commandFlag.payloadLength : 0;
    const header = { flags: flags | withPayload, type, cookie: cookie++, offset, length };
    parts.push(encodeRequest(header, style === "extended"), payload ?? Buffer.alloc(0));
  };
  for (const bytes of [1, 512, 4096, 33_000, 100_000, 7, 400_000]) {
    add(command.write, bytes, bytes, 0, pattern(bytes, bytes));
    add(command.read, bytes, Math.min(bytes, 4096));
  }
  add(command.write, 0, 5000, commandFlag.noHole, pattern(5000));
  add(99, 0, 0);
  add(command.writeZeroes, 4096, 4096);
  add(command.trim, 65536, 65536);
  add(command.flush, 0, 0);
  add(command.read, 2 * 1024 * 1024, 1);
  add(command.cache, 0, 4096);
  add(command.write, 12345, 50_000, commandFlag.fua, pattern(50_000, 9));
  add(command.disconnect, 0, 0);
  parts.push(Buffer.from("what follows DISC is nobody's"));
  return Buffer.concat(parts);
}

/** Replies by cookie, whatever their order: a completion may overtake an inline answer. */
async function outcome(
  style: Style,
  pieces: readonly Buffer[],
): Promise<{ calls: string[]; replies: string; data: Buffer }> {
  const harness = new Harness(style);
  await harness.feed(pieces);
  expect(harness.ended).toBe("finished");
  expect(harness.volume.slotsLent).toBe(0);
  const headerBytes = style === "simple" ? 16 : style === "structured" ? 20 : 32;
  const all = Buffer.concat(harness.sent);
  const replies: string[] = [];
  for (let at = 0; at < all.length; ) {
    const cookie = all.readBigUInt64BE(at + 8);
    if (style === "simple") {
      const errno = all.readUInt32BE(at + 4);
      const read = cookie % 2n === 0n && cookie <= 14n;
      const sizes = [1, 512, 4096, 4096, 4096, 7, 4096];
      const bytes = read && errno === 0 ? (sizes[Number(cookie) / 2 - 1] ?? 0) : 0;
      replies.push(`${cookie} ${errno} ${all.toString("hex", at + 16, at + 16 + Math.min(bytes, 32))}`);
      at += headerBytes + bytes;
    } else {
      const length = style === "extended" ? Number(all.readBigUInt64BE(at + 24)) : all.readUInt32BE(at + 16);
      const from = at + headerBytes;
      replies.push(
        `${cookie} ${all.readUInt16BE(at + 6)} ${all.toString("hex", from, from + Math.min(length, 64))}`,
      );
      at = from + length;
    }
  }
  return {
    calls: harness.volume.calls.map((call) => call.replace("writeReserved", "write")),
    replies: replies.sort().join("\n"),
    data: harness.volume.data,
  };
}

function randomPieces(bytes: Buffer, seed: number): Buffer[] {
  const random = randomOf(seed);
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = random() < 0.5 ? 1 + Math.floor(random() * 60) : 1 + Math.floor(random() * 90_000);
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

for (const style of ["simple", "structured", "extended"] as const) {
  describe(`${style} requests`, () => {
    test("are the same in one piece, byte by byte and in random pieces", async () => {
      const bytes = script(style);
      const whole = await outcome(style, [bytes]);
      expect(whole.calls).toContain("write 12345+50000 fua");
      expect(whole.calls.filter((call) => call.startsWith("write")).length).toBe(8);
      const single = await outcome(
        style,
        Array.from(bytes, (_, at) => bytes.subarray(at, at + 1)),
      );
      expect(single.replies).toBe(whole.replies);
      expect(single.calls).toEqual(whole.calls);
      expect(single.data.equals(whole.data)).toBe(true);
      for (let seed = 1; seed <= 40; seed += 1) {
        const cut = await outcome(style, randomPieces(bytes, seed));
        expect(cut.calls, `seed ${seed}`).toEqual(whole.calls);
        expect(cut.replies, `seed ${seed}`).toBe(whole.replies);
        expect(cut.data.equals(whole.data), `seed ${seed}`).toBe(true);
      }
    });

    test("random bytes never do more than end the session", async () => {
      for (let seed = 1; seed <= 60; seed += 1) {
        const random = randomOf(seed);
        const good = script(style);
        const at = Math.floor(random() * 3000);
        const harness = new Harness(style);
        const noise = Buffer.from(Array.from({ length: 400 }, () => Math.floor(random() * 256)));
        await harness.feed([good.subarray(0, at), noise]);
        harness.abort();
        expect(harness.volume.slotsLent, `seed ${seed}`).toBe(0);
        expect(harness.volume.sessions, `seed ${seed}`).toBe(-1);
        expect([null, "broken", "finished"], `seed ${seed}`).toContain(harness.ended);
      }
    });
  });
}
