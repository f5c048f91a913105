// Memory of followed batches is lent to one batch at a time, whatever is given back and how often.
import { expect, test } from "vitest";
import { PayloadMemory } from "../../../services/storage/engine/payload-memory.ts";

const bytes = (value: number): Buffer => Buffer.alloc(64 * 1024, value);

test("a piece that is given back is lent again, to one only, also when it is given back twice", () => {
  const memory = new PayloadMemory();
  const first = memory.copyOf(bytes(1));
  memory.giveBack(first);
  memory.giveBack(first);
  const [second, third] = [memory.copyOf(bytes(2)), memory.copyOf(bytes(3))];
  expect(second.buffer).toBe(first.buffer);
  expect([second.equals(bytes(2)), third.equals(bytes(3))]).toEqual([true, true]);
});

test("what was not lent here is not taken, nor are small ones and those beyond a piece", () => {
  const memory = new PayloadMemory();
  const foreign = Buffer.allocUnsafeSlow(1024 * 1024);
  memory.giveBack(foreign);
  expect(memory.copyOf(bytes(1)).buffer).not.toBe(foreign.buffer);
  for (const length of [10, 1024 * 1024 + 1]) {
    const one = memory.copyOf(Buffer.alloc(length, 5));
    memory.giveBack(one);
    expect(memory.copyOf(bytes(2)).buffer).not.toBe(one.buffer);
  }
});

test("what is given back is kept as far as one busy replica may have waiting, and freed at once beyond that", () => {
  const memory = new PayloadMemory();
  const lent = Array.from({ length: 40 }, (_, index) => memory.copyOf(bytes(index)));
  for (const one of lent) memory.giveBack(one);
  expect(lent.map(({ buffer }) => buffer.byteLength > 0)).toEqual(lent.map((_, index) => index < 32));
});
