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

test("nobody waits while nothing is in flight", () => {
  const giveWay = new GiveWay(new ForegroundLoad().cells);
  giveWay.begin();
  expect(timed(() => giveWay.wait())).toBeLessThan(giveWayMs.frame);
});

test("a frame waits its time, and all frames of a task the task's time", () => {
  const load = new ForegroundLoad();
  load.tell(3);
  const giveWay = new GiveWay(load.cells);
  giveWay.begin();
  expect(timed(() => giveWay.wait())).toBeGreaterThanOrEqual(giveWayMs.frame);
  giveWay.begin();
  const frames = 100;
  const tookMs = timed(() => {
    for (let frame = 0; frame < frames; frame += 1) giveWay.wait();
  });
  expect(tookMs).toBeGreaterThanOrEqual(giveWayMs.task);
  expect(tookMs).toBeLessThan(frames * giveWayMs.frame);
  expect(Atomics.load(load.cells, foregroundCell.waiting)).toBe(0);
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
