// Background work gives way to clients: it waits while requests are in flight, is woken when the last one is answered, and never waits
// longer than it may.
import { expect, test } from "vitest";
import { GiveWay, giveWayMs } from "#shared/adapters/archive-worker/give-way.ts";
import { ForegroundLoad, foregroundCell } from "#shared/memory/foreground-load.ts";

function timed(work: () => void): number {
  const startedMs = performance.now();
  work();
  return performance.now() - startedMs;
}

test("while nothing is in flight each piece sleeps for a moment, so that the thread leaves its processor", () => {
  const giveWay = new GiveWay(new ForegroundLoad().cells);
  giveWay.begin(false);
  const before = process.resourceUsage().voluntaryContextSwitches;
  const pieces = 20;
  const tookMs = timed(() => {
    for (let piece = 0; piece < pieces; piece += 1) giveWay.wait();
  });
  expect(tookMs).toBeGreaterThanOrEqual(pieces * giveWayMs.pause);
  expect(tookMs).toBeLessThan(pieces * giveWayMs.piece);
  expect(process.resourceUsage().voluntaryContextSwitches - before).toBeGreaterThanOrEqual(pieces);
});

test("a piece waits its time, and all pieces of a task the task's time", () => {
  const load = new ForegroundLoad();
  load.tell(3);
  const giveWay = new GiveWay(load.cells);
  giveWay.begin(false);
  expect(timed(() => giveWay.wait())).toBeGreaterThanOrEqual(giveWayMs.piece);
  giveWay.begin(false);
  const pieces = 100;
  const tookMs = timed(() => {
    for (let piece = 0; piece < pieces; piece += 1) giveWay.wait();
  });
  expect(tookMs).toBeGreaterThanOrEqual(giveWayMs.task);
  expect(tookMs).toBeLessThan(pieces * giveWayMs.piece);
  expect(Atomics.load(load.cells, foregroundCell.waiting)).toBe(0);
});

test("a task that is behind does not wait", () => {
  const load = new ForegroundLoad();
  load.tell(1);
  const giveWay = new GiveWay(load.cells);
  giveWay.begin(false);
  giveWay.begin(true);
  const pieces = 100;
  const tookMs = timed(() => {
    for (let piece = 0; piece < pieces; piece += 1) giveWay.wait();
  });
  expect(tookMs).toBeLessThan(giveWayMs.task);
});

test("the last answer wakes who waits, and no other change of the count", async () => {
  const load = new ForegroundLoad();
  load.tell(2);
  Atomics.add(load.cells, foregroundCell.waiting, 1);
  const waits = Atomics.waitAsync(load.cells, foregroundCell.requests, 2, 60_000);
  let isAwake = false;
  const woken = Promise.resolve(waits.value).then((how) => {
    isAwake = true;
    return how;
  });
  load.tell(1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(isAwake).toBe(false);
  load.tell(0);
  expect(await woken).toBe("ok");
});
