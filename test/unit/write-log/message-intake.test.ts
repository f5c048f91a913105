// Bytes of a NATS connection as they land (adapters/nats/message-intake.ts): whatever pieces they come in, the client's own parser gets every
// message whole and unchanged, and memory that was given back is used again, never memory that somebody still holds.
import { Parser } from "@nats-io/transport-node";
import { expect, test } from "vitest";
import { MessageIntake } from "#shared/adapters/nats/message-intake.ts";
import { MessageMemory } from "#shared/memory/message-memory.ts";

/** As servers send them: without and with a header, between other lines. */
function message(index: number, bytes: number): Buffer {
  const body = Buffer.alloc(bytes, `${index} MSG a 1 9\r\n`);
  if (index % 2 === 0)
    return Buffer.concat([Buffer.from(`MSG s.${index} 1 ${bytes}\r\n`), body, Buffer.from("\r\n")]);
  const line = `hmsg s.${index} 1 reply.${index} ${Math.min(12, bytes)} ${bytes} \r\n`;
  return Buffer.concat([Buffer.from(`PING\r\n${line}`), body, Buffer.from("\r\n+OK\r\n")]);
}

function land(intake: MessageIntake, bytes: Buffer, pieceBytes: (index: number) => number): void {
  for (let at = 0, index = 0; at < bytes.length; index += 1) {
    const space = intake.space();
    expect(space.length).toBeGreaterThan(0);
    const count = Math.min(space.length, Math.max(1, pieceBytes(index)), bytes.length - at);
    space.set(bytes.subarray(at, at + count));
    intake.landed(count);
    at += count;
  }
}

const sizes = [0, 5, 70_000, 64 * 1024, 1, 600_000, 65_000, 60_000, 200_000, 12, 1_000_000, 40_000, 30_000];

test.each([
  { name: "as much as there is room for", piece: () => Number.MAX_SAFE_INTEGER },
  { name: "a few bytes at a time", piece: (index: number) => (index % 7) + (index % 50 === 0 ? 40_000 : 0) },
  { name: "an odd number", piece: () => 8191 },
])("messages that come in pieces reach the parser whole: $name", ({ piece }) => {
  const memory = new MessageMemory();
  const got: string[] = [];
  const chunks: Uint8Array[] = [];
  const parser = new Parser({
    push: (event: { kind: number; msg?: { subject: Uint8Array }; data?: Uint8Array }) => {
      const { msg, data } = event;
      if (msg === undefined || data === undefined) return;
      const chunk = chunks.at(-1) as Uint8Array;
      // Not copied on the way: it is the very memory it landed in.
      expect(data.length === 0 || data.buffer === chunk.buffer).toBe(true);
      got.push(`${Buffer.from(msg.subject).toString()}:${Buffer.from(data).toString("latin1")}`);
      memory.giveBack(data);
    },
  } as never);
  const intake = new MessageIntake(memory, (chunk) => {
    chunks.push(chunk);
    parser.parse(chunk);
  });
  const messages = sizes.map((bytes, index) => message(index, bytes));
  land(intake, Buffer.concat(messages), piece);
  const wanted = sizes.map(
    (bytes, index) => `s.${index}:${Buffer.alloc(bytes, `${index} MSG a 1 9\r\n`).toString("latin1")}`,
  );
  expect(got).toEqual(wanted);
});

test("what somebody holds is not used again; what was given back is, once", () => {
  const memory = new MessageMemory();
  const first = memory.take(100_000);
  const second = memory.take(100_000);
  expect(second.buffer).not.toBe(first.buffer);
  memory.giveBack(first.subarray(500));
  memory.giveBack(first);
  const third = memory.take(90_000);
  expect(third.buffer).toBe(first.buffer);
  expect(memory.take(90_000).buffer).not.toBe(first.buffer);
  memory.giveBack(Buffer.alloc(100_000));
  expect(memory.take(100_000).buffer.byteLength).toBe(2 * 64 * 1024);
});

test("an answer's memory goes back once it was sent, or once its bytes are in their place", () => {
  const memory = new MessageMemory();
  const answer = memory.takeToSend(100_000);
  expect(memory.isToSend(answer.subarray(7))).toBe(true);
  memory.giveBack(answer);
  expect(memory.isToSend(answer)).toBe(false);
  const received = memory.take(100_000);
  expect(received.buffer).toBe(answer.buffer);
  expect(memory.isToSend(received)).toBe(false);
  const target = Buffer.alloc(10);
  memory.place(received.fill(3).subarray(20, 24), target, 5);
  expect(target.toString("hex")).toBe("00000000000303030300");
  expect(memory.takeToSend(90_000).buffer).toBe(received.buffer);
  expect(memory.isToSend(memory.takeToSend(60_000))).toBe(false);
});

test("a size that can't be goes to the parser, which refuses it", () => {
  const chunks: Uint8Array[] = [];
  const intake = new MessageIntake(new MessageMemory(), (chunk) => chunks.push(chunk));
  land(intake, Buffer.from("MSG a 1 999999999999\r\nabc"), () => 1000);
  expect(Buffer.concat(chunks).toString()).toBe("MSG a 1 999999999999\r\nabc");
});
