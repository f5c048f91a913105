// Which archiver of a cluster collects, by real lease rules over the memory table: one at a time, the next one when it is gone; and the runs
// that somebody asks for by message: begun once, told of until done.
import { describe, expect, it, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { CollectReport } from "#shared/ports/bucket-administration.ts";
import type { Lease } from "#shared/ports/lease.ts";
import { CollectCalls } from "../../../services/archiver/engine/collect-calls.ts";
import { CollectorTurn } from "../../../services/archiver/engine/collector-turn.ts";
import { HandClock } from "./small-bucket.ts";

class TaskClock extends HandClock {
  tasks: (() => void)[] = [];
  override after(_delayMs = 0, task: () => void = () => undefined) {
    this.tasks.push(task);
    return {
      cancel: () => {
        this.tasks = this.tasks.filter((one) => one !== task);
      },
    };
  }
  async turnOfTime(): Promise<void> {
    for (const task of this.tasks.splice(0)) task();
    await settled();
  }
}

const settled = async (): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, 1);
  });

/** One lease for all turns of a test. */
class OneLease {
  holder: string | null = null;
  lost: (() => void) | null = null;
  async take(_key: string, { holder }: { readonly holder: string }): Promise<Lease> {
    if (this.holder !== null) throw new VarveError("LeaseHeldError", "Retry", "held");
    this.holder = holder;
    return {
      key: "archive.collector",
      epoch: 1,
      remainingMs: () => (this.holder === holder ? 1000 : 0),
      onLost: (listener) => {
        this.lost = () => listener(new VarveError("LeaseLost", "Fenced", "lost"));
      },
      raiseEpoch: async () => null,
      release: async () => {
        if (this.holder === holder) this.holder = null;
      },
    };
  }
}

describe("the turn to collect", () => {
  it("is one process's; another one has it when it was let go or lost", async () => {
    const clock = new TaskClock();
    const lease = new OneLease();
    const serving: string[] = [];
    const turnOf = (name: string): CollectorTurn =>
      new CollectorTurn({
        name,
        clock,
        leases: lease,
        begin: () => {
          serving.push(name);
          return () => void serving.splice(serving.indexOf(name), 1);
        },
        onNote: () => undefined,
      });
    const [one, two] = [turnOf("one"), turnOf("two")];
    one.start();
    await settled();
    two.start();
    await settled();
    expect([one.isMine, two.isMine, serving]).toEqual([true, false, ["one"]]);
    // Paused past its lease, and told of it later.
    const told = lease.lost;
    lease.holder = null;
    expect(one.isMine).toBe(false);
    await clock.turnOfTime();
    told?.();
    await clock.turnOfTime();
    expect([one.isMine, two.isMine, serving]).toEqual([false, true, ["two"]]);
    await two.close();
    await clock.turnOfTime();
    expect([one.isMine, two.isMine, lease.holder]).toEqual([true, false, "one"]);
    await one.close();
    expect([serving, lease.holder, clock.tasks]).toEqual([[], null, []]);
  });
});

test("one that can't begin lets the lease go, says why, and tries again", async () => {
  const clock = new TaskClock();
  const lease = new OneLease();
  const notes: string[] = [];
  let begins = 0;
  const turn = new CollectorTurn({
    name: "one",
    clock,
    leases: lease,
    begin: () => {
      begins += 1;
      if (begins === 1) throw new VarveError("BusAway", "Retry", "no connection");
      return () => undefined;
    },
    onNote: (text) => notes.push(text),
  });
  turn.start();
  await settled();
  expect([turn.isMine, lease.holder]).toEqual([false, null]);
  expect(notes).toEqual([expect.stringContaining("no connection")]);
  await clock.turnOfTime();
  expect([turn.isMine, lease.holder, begins]).toEqual([true, "one", 2]);
  await turn.close();
});

describe("a collection by message", () => {
  const asked = (run: string) => encodeMessage({ type: "collect", run, dryRun: false, acceptClock: true });
  const answerOf = (data: Uint8Array | null) => {
    const decoded = decodeMessage(data ?? Buffer.alloc(0));
    if (isBadMessage(decoded)) throw new Error(decoded.detail);
    return decoded;
  };

  it("is begun once, told of until it is done, and refused beside another one", async () => {
    const ends: ((report: CollectReport | Error) => void)[] = [];
    const calls = new CollectCalls(
      async (options) =>
        new Promise((resolve, reject) => {
          expect(options).toEqual({ dryRun: false, acceptClock: true });
          ends.push((end) => (end instanceof Error ? reject(end) : resolve(end)));
        }),
    );
    expect(calls.answer(encodeMessage({ type: "ask" }))).toBe(null);
    for (const _ of [1, 2]) {
      expect(answerOf(calls.answer(asked("a"))).message).toEqual({ type: "collected", isDone: false });
    }
    expect(ends).toHaveLength(1);
    expect(answerOf(calls.answer(asked("b"))).message).toMatchObject({ type: "refused", kind: "Retry" });
    const keys = Array.from({ length: 900 }, (_, at) => `chunks/${at}`);
    ends[0]?.({ deleted: 7, keys, findings: [] } as unknown as CollectReport);
    await settled();
    const { message, payload } = answerOf(calls.answer(asked("a")));
    expect(message).toEqual({ type: "collected", isDone: true });
    const report = JSON.parse(payload.toString("utf8")) as CollectReport;
    expect([report.deleted, report.keys.length]).toEqual([7, 500]);
    calls.answer(asked("b"));
    ends[1]?.(new VarveError("CollectorBusyError", "Retry", "another collector is at work"));
    await settled();
    expect(answerOf(calls.answer(asked("b"))).message).toMatchObject({
      type: "refused",
      tag: "CollectorBusyError",
      kind: "Retry",
    });
  });
});
