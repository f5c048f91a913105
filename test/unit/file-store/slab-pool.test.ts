// The slab pool keeps its budget, serves waiters in order, and gives idle memory back; a thread gate keeps its width.
// Both are driven by a hand-turned clock and counted against a model of what was lent.
import { expect, test } from "vitest";
import { type ColdRead, coldReadWidth, ThreadGate } from "#shared/adapters/file-store/thread-gate.ts";
import { InvariantError } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { SlabPool, slabClassBytes } from "#shared/memory/slab-pool.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { SteppedClock, SteppedRandom } from "./stepped-clock.ts";

const MiB = 1024 * 1024;
const largest = slabClassBytes.at(-1) ?? 0;
const smallest = slabClassBytes[0] ?? 0;

function bench(budgetBytes: number) {
  const scheduler = new SteppedClock(1);
  const shrunk: Slab[] = [];
  const memory = {
    allocateSlab: (bytes: number): Slab => ({ bytes: Buffer.alloc(bytes), address: 0 }),
    shrinkSlab: (slab: Slab): void => {
      shrunk.push(slab);
    },
  };
  return { pool: new SlabPool(memory, scheduler, budgetBytes), scheduler, shrunk };
}

test("slabs fit what was asked, are whole blocks, and the budget is never passed", () => {
  const { pool } = bench(8 * MiB);
  const random = new SteppedRandom(5);
  const lent: Slab[] = [];
  for (let step = 0; step < 5000; step += 1) {
    if (random.chance(0.55)) {
      const bytes = random.integer(1, largest + 1);
      const slab = pool.acquire(bytes);
      if (slab === null) continue;
      expect(slab.bytes.length).toBeGreaterThanOrEqual(bytes);
      expect(slab.bytes.length % 4096).toBe(0);
      expect(lent.includes(slab)).toBe(false);
      lent.push(slab);
    } else if (lent.length > 0) {
      const [slab] = lent.splice(random.integer(0, lent.length), 1);
      if (slab !== undefined) pool.release(slab);
    }
    const { lentBytes, idleBytes } = pool.statistics();
    expect(lentBytes).toBe(lent.reduce((sum, slab) => sum + slab.bytes.length, 0));
    expect(lentBytes + idleBytes).toBeLessThanOrEqual(8 * MiB);
  }
});

test("waiters are served first come first served, and nobody passes them", async () => {
  const { pool, scheduler } = bench(largest);
  const first = pool.acquire(largest);
  expect([first === null, pool.acquire(1) === null]).toEqual([false, true]);
  const order: string[] = [];
  const got: Slab[] = [];
  const want = (name: string, bytes: number): void => {
    pool.onRoom(() => {
      const slab = pool.acquire(bytes);
      if (slab === null) want(name, bytes);
      else {
        order.push(name);
        got.push(slab);
      }
    });
  };
  want("large", largest);
  want("small", smallest);
  want("other", smallest);
  expect(pool.statistics().waiting).toBe(3);
  if (first !== null) pool.release(first);
  expect(pool.acquire(1) === null).toBe(true);
  expect(order).toEqual([]);
  await scheduler.run(1);
  expect(order).toEqual(["large"]);
  await scheduler.run(5);
  expect(order).toEqual(["large"]);
  for (const slab of got.splice(0)) pool.release(slab);
  await scheduler.run(5);
  expect(order).toEqual(["large", "small", "other"]);
  expect(pool.statistics().waiting).toBe(0);
  expect(pool.acquire(1) === null).toBe(false);
});

test("a waiter that comes while there is room is called soon, not at once", async () => {
  const { pool, scheduler } = bench(largest);
  let called = 0;
  pool.onRoom(() => (called += 1));
  expect(called).toBe(0);
  await scheduler.run(1);
  expect(called).toBe(1);
});

test("what is taken in to be refused has a limit of its own, and waits apart from those who wait for the budget", async () => {
  const { pool, scheduler } = bench(largest);
  const held = pool.acquire(largest);
  const beyond: Slab[] = [];
  for (let slab = pool.acquireBeyond(largest); slab !== null; slab = pool.acquireBeyond(largest)) {
    beyond.push(slab);
  }
  expect(beyond.length).toBe(Math.floor(limits.payloadBytesBeyondMax / largest));
  expect(pool.statistics().lentBytes).toBeLessThanOrEqual(largest + limits.payloadBytesBeyondMax);
  const called: string[] = [];
  pool.onRoom(() => called.push("budget"));
  pool.onRoom(() => called.push("beyond"), true);
  await scheduler.run(5);
  expect(called).toEqual([]);
  const first = beyond.pop();
  if (first !== undefined) pool.release(first);
  await scheduler.run(5);
  expect(called).toEqual(["beyond"]);
  expect(pool.acquireBeyond(largest)?.bytes.length).toBe(largest);
  for (const slab of beyond) pool.release(slab);
  if (held !== null) pool.release(held);
  await scheduler.run(5);
  expect(called).toEqual(["beyond"]);
  pool.onRoom(() => called.push("later"), true);
  expect(pool.acquireBeyond(1) === null).toBe(false);
});

test("idle slabs lose their pages after a while, and then no timer is left", async () => {
  const { pool, scheduler, shrunk } = bench(16 * MiB);
  const slabs = [pool.acquire(1), pool.acquire(MiB), pool.acquire(4 * MiB)];
  for (const slab of slabs) if (slab !== null) pool.release(slab);
  expect(pool.statistics().idleBytes).toBeGreaterThan(5 * MiB);
  await scheduler.run(10);
  expect(shrunk.length).toBe(3);
  expect(pool.statistics()).toMatchObject({ idleBytes: 0, lentBytes: 0 });
  expect(scheduler.pendingTasks).toBe(0);
  const mappedBytes = pool.statistics().mappedBytes;
  expect(pool.acquire(4 * MiB) === slabs[2]).toBe(true);
  expect(pool.statistics().mappedBytes).toBe(mappedBytes);
});

test("a slab that was not lent, or is too large, is a defect", () => {
  const { pool } = bench(largest);
  const slab = pool.acquire(1);
  if (slab !== null) pool.release(slab);
  expect(() => slab !== null && pool.release(slab)).toThrow(InvariantError);
  expect(() => pool.acquire(largest + 1)).toThrow(InvariantError);
  expect(() => bench(largest - 1)).toThrow(InvariantError);
});

/** Reads of a gate; those in `come` are answered when asked. */
function coldReads(gate: ThreadGate): {
  readonly started: number[];
  readonly answered: number[];
  readonly come: Set<number>;
  enter: (index: number, askable: boolean) => void;
  leave: (index: number) => void;
} {
  const reads = new Map<number, ColdRead>();
  const started: number[] = [];
  const answered: number[] = [];
  const come = new Set<number>();
  const enter = (index: number, askable: boolean): void => {
    const read: ColdRead = {
      askable,
      ask: () => come.has(index) && answered.push(index) > 0,
      start: () => started.push(index),
    };
    reads.set(index, read);
    gate.enter(read);
  };
  const leave = (index: number): void => {
    const read = reads.get(index);
    if (read !== undefined) gate.leave(read);
  };
  return { started, answered, come, enter, leave };
}

test("a thread gate runs at most its width at once, in order", () => {
  const { started, enter, leave } = coldReads(new ThreadGate(2));
  for (let index = 0; index < 6; index += 1) enter(index, false);
  expect(started).toEqual([0, 1]);
  leave(0);
  expect(started).toEqual([0, 1, 2]);
  for (let left = 1; left < 6; left += 1) leave(left);
  expect(started).toEqual([0, 1, 2, 3, 4, 5]);
  enter(6, false);
  expect(started.at(-1)).toBe(6);
  expect([coldReadWidth(undefined), coldReadWidth("32"), coldReadWidth("1"), coldReadWidth("x")]).toEqual([
    2, 16, 1, 2,
  ]);
});

test("of askable reads two wait on threads, and those whose pages came are answered without one", () => {
  const { started, answered, come, enter, leave } = coldReads(new ThreadGate(16));
  for (let index = 0; index < 10; index += 1) enter(index, true);
  expect(started).toEqual([0, 1]);
  enter(10, false);
  expect(started).toEqual([0, 1, 10]);
  for (const index of [2, 3, 5, 9]) come.add(index);
  leave(0);
  // 4, 6, 7 and 8 were asked in vain, so 9 was not asked; the oldest goes to a thread.
  expect([answered, started]).toEqual([
    [2, 3, 5],
    [0, 1, 10, 4],
  ]);
  for (const index of [1, 4, 6, 7, 8, 9, 10]) leave(index);
  expect(started.length + answered.length).toBe(11);
});

test("where asking never helps, reads get all the threads there are", () => {
  const { started, enter, leave } = coldReads(new ThreadGate(16));
  for (let index = 0; index < 40; index += 1) enter(index, true);
  for (let index = 0; index < 8; index += 1) leave(index);
  expect(started.length).toBe(8 + 16);
  for (let index = 8; index < 40; index += 1) leave(index);
  expect(started).toEqual(Array.from({ length: 40 }, (_, index) => index));
});
