// Strict reads: an answer leaves only inside the lease, as it is when the bytes are in hand; else the read waits, then gets EIO. On real
// processes: test/cluster/reads.test.ts.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { BootClock } from "#shared/adapters/clock/boot.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Completion } from "#shared/ports/block-export.ts";
import { StrictReads } from "../../../services/gateway/engine/strict-reads.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

const slab = { bytes: Buffer.alloc(8), address: 0 };

function bench() {
  const clock = new SteppedClock(1);
  const endMs: number = limits.leaseMsDefault;
  const lease = {
    endMs,
    remainingMs: () => lease.endMs - clock.monotonicMs(),
  };
  const reads = new StrictReads({ clock, lease, wanted: () => true });
  const answers: string[] = [];
  const done = (name: string): Completion => ({
    complete: (error) => answers.push(`${name} ${error?._tag ?? "ok"}`),
  });
  const inline = { read: () => true };
  const late: Completion[] = [];
  const cold = {
    read: (_offset: number, _length: number, _slab: unknown, _start: number, end: Completion) => {
      late.push(end);
      return false;
    },
  };
  const read = (name: string, reader: typeof inline | typeof cold): boolean =>
    reads.read(reader, 0, 8, slab, 0, done(name));
  const passes = async (ms: number): Promise<void> => {
    clock.after(ms, () => undefined);
    const endMs = clock.monotonicMs() + ms;
    while (clock.monotonicMs() < endMs && (await clock.step()));
  };
  return { clock, lease, reads, answers, inline, cold, late, read, passes };
}

describe("strict reads", () => {
  test("inside the lease an answer is not held up", () => {
    const { read, inline, cold, late, answers, reads, clock } = bench();
    expect(read("overlay", inline)).toBe(true);
    expect(read("replica", cold)).toBe(false);
    late[0]?.complete(null);
    expect(answers).toEqual(["replica ok"]);
    expect([reads.counters.unprovenReads, clock.pendingTasks]).toEqual([0, 0]);
  });

  test("bytes that come when the lease has run out wait until it is whole again", async () => {
    const { read, inline, cold, late, answers, lease, passes, reads, clock } = bench();
    read("asked before", cold);
    await passes(limits.leaseMsDefault - limits.leaseMarginMs);
    late[0]?.complete(null);
    expect(read("asked after", inline)).toBe(false);
    await passes(5000);
    expect(answers).toEqual([]);
    lease.endMs = clock.monotonicMs() + limits.leaseMsDefault;
    await passes(50);
    expect(answers).toEqual(["asked before ok", "asked after ok"]);
    expect([reads.counters.unprovenReads, clock.pendingTasks]).toEqual([2, 0]);
  });

  test("without proof a read fails after its patience, and at once when the lease is known to be lost", async () => {
    const { read, inline, answers, passes, reads } = bench();
    await passes(limits.leaseMsDefault);
    read("patient", inline);
    await passes(limits.strictReadPatienceMs - 100);
    expect(answers).toEqual([]);
    await passes(200);
    read("late", inline);
    reads.fail(new VarveError("LeaseLostError", "Fenced", "lost"));
    await passes(50);
    read("later", inline);
    await passes(50);
    expect(answers).toEqual(["patient ReadNotProven", "late LeaseLostError", "later LeaseLostError"]);
  });

  test("a failed read of the image is answered with its own error", () => {
    const { read, cold, late, answers } = bench();
    read("broken", cold);
    late[0]?.complete(new VarveError("NoReplicaError", "Retry", "none"));
    expect(answers).toEqual(["broken NoReplicaError"]);
  });
});

test("the clock of leases counts what the kernel counts since the machine was started", () => {
  const upMs = (): number => Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000;
  const [before, now] = [upMs(), new BootClock().monotonicMs()];
  expect(now).toBeGreaterThan(before - 11);
  expect(now).toBeLessThan(upMs() + 11);
});
