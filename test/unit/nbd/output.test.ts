// The order of bytes towards a client, whatever the socket takes: NbdOutput with system calls that take some, all or none of
// the bytes, and a stream that finishes late. The oracle is the sequence of what was pushed. Reply memory beside it: its bound,
// its alignment, and that every slab comes back.

import { describe, expect, test } from "vitest";
import { NbdOutput } from "../../../services/gateway/engine/nbd-output.ts";
import { NbdMemory, type ReplySlab, ReplySpace } from "../../../services/gateway/engine/nbd-reply-memory.ts";
import type { SystemCalls } from "../../../services/gateway/engine/nbd-system-calls.ts";
import { limits } from "../../../shared/domain/limits.ts";
import type { Slab } from "../../../shared/ports/slab.ts";

const EAGAIN = -11;
const EINTR = -4;
const EPIPE = -32;

/** Slabs with made-up addresses, so that the calls can find the bytes again. */
class Memory {
  readonly slabs: Slab[] = [];

  allocateSlab(bytes: number): Slab {
    const slab = { bytes: Buffer.alloc(bytes), address: (this.slabs.length + 1) * 2 ** 32 };
    this.slabs.push(slab);
    return slab;
  }

  readonly shrunk: Slab[] = [];

  shrinkSlab(slab: Slab): void {
    this.shrunk.push(slab);
  }

  at(address: number, length: number): Buffer {
    const slab = this.slabs[Math.floor(address / 2 ** 32) - 1];
    const start = address % 2 ** 32;
    return slab?.bytes.subarray(start, start + length) ?? Buffer.alloc(0);
  }
}

class Bench {
  readonly memory = new Memory();
  readonly nbd = new NbdMemory(this.memory);
  readonly space = new ReplySpace(this.nbd);
  readonly received: Buffer[] = [];
  /** What the next calls answer: bytes taken at most, or a negated errno. Then everything is taken. */
  answers: number[] = [];
  calls = 0;
  moved = 0;
  failed = 0;
  readonly output: NbdOutput;
  private readonly late: { bytes: Buffer; done: (error?: Error | null) => void }[] = [];

  constructor(fd = 5) {
    const pieces: [number, number][] = [];
    const take = (parts: readonly Buffer[]): number => {
      this.calls += 1;
      const all = Buffer.concat(parts);
      const answer = this.answers.shift() ?? all.length;
      if (answer < 0) return answer;
      const taken = Math.min(answer, all.length);
      this.received.push(Buffer.from(all.subarray(0, taken)));
      return taken;
    };
    const calls: SystemCalls = {
      send: (_fd, address, length) => take([this.memory.at(address, length)]),
      setPiece: (index, address, length) => void (pieces[index] = [address, length]),
      sendPieces: (_fd, count) =>
        take(pieces.slice(0, count).map(([address, length]) => this.memory.at(address, length))),
      receive: () => 0,
      setSendBuffer: () => {},
    };
    const socket = {
      write: (bytes: Uint8Array, done: (error?: Error | null) => void): boolean => {
        this.late.push({ bytes: Buffer.from(bytes), done });
        return true;
      },
      cork: () => {},
      uncork: () => {},
    };
    this.output = new NbdOutput(socket as never, fd, calls, this.space, {
      outputMoved: () => void (this.moved += 1),
      outputFailed: () => void (this.failed += 1),
    });
  }

  /** Pushes `bytes` bytes of that value, as a reply of its own. */
  push(value: number, bytes: number): void {
    const slab = this.space.takeAlways(bytes);
    const start = this.space.start;
    slab.slab.bytes.fill(value, start, start + bytes);
    this.output.push(slab, start, bytes);
  }

  /** The stream has written what it held. */
  finishStream(error: Error | null = null): void {
    for (const { bytes, done } of this.late.splice(0)) {
      if (error === null) this.received.push(bytes);
      done(error);
    }
  }

  /** Runs of equal bytes that arrived: [value, count]. */
  runs(): [number, number][] {
    const runs: [number, number][] = [];
    for (const byte of Buffer.concat(this.received)) {
      const last = runs.at(-1);
      if (last?.[0] === byte) last[1] += 1;
      else runs.push([byte, 1]);
    }
    return runs;
  }
}

const three: [number, number][] = [
  [1, 100],
  [2, 200],
  [3, 300],
];

function pushThree(bench: Bench): void {
  for (const [value, bytes] of three) {
    bench.push(value, bytes);
    // A gap, as alignment leaves it: the pieces are not neighbours.
    const gap = bench.space.takeAlways(8);
    bench.space.release(gap);
  }
}

describe("sending", () => {
  test("everything at once by one call", () => {
    const bench = new Bench();
    pushThree(bench);
    expect(bench.output.unsentBytes).toBe(600);
    bench.output.flush();
    expect(bench.calls).toBe(1);
    expect(bench.runs()).toEqual(three);
    expect(bench.output.unsentBytes).toBe(0);
    expect(bench.output.sentBytes).toBe(600);
  });

  test("neighbours are one piece", () => {
    const bench = new Bench();
    for (const [value, bytes] of three) bench.push(value, bytes);
    bench.output.flush();
    expect(bench.calls).toBe(1);
    expect(bench.runs()).toEqual(three);
  });

  for (const first of [0, 1, 99, 100, 101, 299, 300, 301, 599, 600]) {
    test(`a socket that takes ${first} bytes, then none: the stream gets the rest, later bytes wait behind it`, () => {
      const bench = new Bench();
      bench.answers = [first, EAGAIN];
      pushThree(bench);
      bench.output.flush();
      bench.push(4, 50);
      bench.output.flush();
      bench.finishStream();
      bench.push(5, 60);
      bench.output.flush();
      bench.finishStream();
      expect(bench.runs()).toEqual([...three, [4, 50], [5, 60]]);
      expect(bench.output.unsentBytes).toBe(0);
      expect(bench.output.sentBytes).toBe(710);
    });
  }

  test("an interrupted call is made again", () => {
    const bench = new Bench();
    bench.answers = [EINTR, EINTR];
    pushThree(bench);
    bench.output.flush();
    expect(bench.runs()).toEqual(three);
  });

  test("more pieces than one call takes", () => {
    const bench = new Bench();
    const pushed: [number, number][] = [];
    for (let index = 0; index < 600; index += 1) {
      bench.push(index % 251, 10);
      pushed.push([index % 251, 10]);
      bench.space.release(bench.space.takeAlways(2));
    }
    bench.output.flush();
    expect(bench.calls).toBe(3);
    expect(bench.runs()).toEqual(pushed);
  });

  test("without a descriptor the stream gets all, and memory comes back when it has written", () => {
    const bench = new Bench(-1);
    pushThree(bench);
    bench.output.flush();
    expect(bench.calls).toBe(0);
    expect(bench.output.unsentBytes).toBe(600);
    bench.finishStream();
    expect(bench.runs()).toEqual(three);
    expect(bench.moved).toBe(3);
  });

  test("handshake bytes go in front of what follows", () => {
    const bench = new Bench();
    bench.output.writeBytes(Buffer.alloc(20, 9));
    bench.push(1, 10);
    bench.output.flush();
    expect(bench.calls).toBe(0);
    bench.finishStream();
    expect(bench.runs()).toEqual([
      [9, 20],
      [1, 10],
    ]);
  });

  for (const answers of [[EPIPE], [150, EPIPE], [100, EAGAIN]]) {
    test(`a socket that dies after ${answers.join(" and ")}: told once, all memory back`, () => {
      const bench = new Bench();
      bench.answers = [...answers];
      for (let count = 0; count < 6; count += 1) bench.push(count, 200_000);
      bench.output.flush();
      bench.finishStream(new Error("gone"));
      bench.push(7, 100);
      bench.output.flush();
      bench.output.fail();
      expect(bench.failed).toBe(1);
      expect(bench.nbd.replyBytesLent).toBe(0);
    });
  }
});

describe("reply memory", () => {
  test("a read's data begins on 64 bytes, its header right in front", () => {
    const space = new ReplySpace(new NbdMemory(new Memory()));
    for (const [header, data] of [
      [28, 4096],
      [28, 512],
      [16, 1],
      [40, 70_000],
    ] as const) {
      const slab = space.takeForRead(header, data);
      expect((space.start + header) % 64).toBe(0);
      expect(slab?.used).toBe(space.start + header + data);
    }
  });

  test("is bounded, and a connection's home serves when the shared part is used up", () => {
    const memory = new NbdMemory(new Memory(), 40 * limits.nbdReplySlabBytes);
    const greedy = new ReplySpace(memory);
    const held: ReplySlab[] = [];
    for (;;) {
      const slab = greedy.take(300_000);
      if (slab === null) break;
      held.push(slab);
    }
    expect(held).toHaveLength(41);
    expect(memory.freeSlabs).toBe(0);
    const modest = new ReplySpace(memory);
    const own = modest.take(300_000);
    expect(own).not.toBeNull();
    expect(modest.take(300_000)).toBeNull();
    expect(modest.takeAlways(300_000).spare).toBe(true);
    let called = 0;
    memory.onRoom(() => (called += 1));
    for (const slab of held) greedy.release(slab);
    expect(called).toBe(1);
    expect(modest.take(300_000)).not.toBeNull();
  });

  test("slabs that nobody takes for a sweep lose their pages, a few at a time, and only once", () => {
    const source = new Memory();
    const memory = new NbdMemory(source);
    const lend = (count: number): void => {
      const taken = Array.from({ length: count }, () => memory.take());
      for (const slab of taken) if (slab !== null) memory.give(slab);
    };
    lend(20);
    memory.trim();
    expect(source.shrunk).toHaveLength(0);
    lend(5);
    memory.trim();
    expect(source.shrunk).toHaveLength(8);
    for (let sweep = 0; sweep < 5; sweep += 1) memory.trim();
    expect(new Set(source.shrunk).size).toBe(20);
    expect(source.shrunk).toHaveLength(20);
    lend(3);
    memory.trim();
    memory.trim();
    expect(source.shrunk).toHaveLength(23);
  });

  test("an idle connection borrows nothing, a closed one gives its home back when the last piece is sent", () => {
    const memory = new NbdMemory(new Memory());
    const space = new ReplySpace(memory);
    const pieces = [1, 2, 3, 4].map(() => space.take(200_000));
    expect(memory.replyBytesLent).toBeGreaterThan(0);
    space.close();
    for (const slab of pieces) if (slab !== null) space.release(slab);
    expect(memory.replyBytesLent).toBe(0);
    const home = memory.takeHome();
    expect(home.held).toBe(0);
    expect(home.used).toBe(0);
    expect(pieces).toContain(home);
  });
});
