// A log on other machines is not pinned by who reads it: it may go at any moment, as far as the bucket holds it. Points that are open, or are
// being opened, go on by what the bucket has and what the log still has, byte for byte.
import { describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { logReleased } from "#shared/adapters/history/history-errors.ts";
import { RemoteSubject } from "#shared/adapters/history/remote-subject.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import type { HistorySubject, HotLog, LoggedBatch } from "#shared/ports/history.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { expectDisk } from "./history-world.ts";

const logEnd = {
  line: "a".repeat(16),
  epoch: 1,
  oldestLsn: 1,
  lastLsn: 1,
  checksum: 0n,
  sequence: 1,
  diskBytes: 0,
  limitBytes: 2 ** 30,
};

/** A volume with LSNs 1 to 7 in the bucket and 8 to 12 in the log, which has 1 to 7, too, until release(). */
async function makeWorld() {
  const clock = new SteppedClock(1);
  const store = new MemoryObjectStore(clock);
  const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 256 * 1024 });
  const write = (count: number, value: number): void => {
    for (let at = 0; at < count; at += 1) volume.write(at * 4000, Buffer.alloc(9000, value + at));
  };
  write(6, 1);
  await volume.seal();
  await volume.publish();
  const archived = volume.manifest;
  write(5, 100);
  const world = { known: null as typeof archived, next: null as typeof archived, oldestLsn: 1 };
  const made = volume.hotLog;
  const log: HotLog = {
    line: made.line,
    state: () => ({ oldestLsn: world.known === null ? 1 : world.oldestLsn, durableLsn: volume.lastLsn }),
    async *read(fromLsn) {
      if (fromLsn < world.oldestLsn) {
        world.known = world.next;
        throw logReleased(new VarveError("LogReleased", "Invalid", `the log begins at ${world.oldestLsn}`));
      }
      yield* made.read(fromLsn);
    },
    pin: () => () => undefined,
  };
  const subject: HistorySubject = {
    volumeId: volume.volumeId,
    begin: { sizeBytes: 256 * 1024, origin: null },
    manifest: async () => world.known,
    hotLog: () => log,
    snapshots: () => [],
  };
  const histories = new Histories({ store, clock });
  histories.serve(subject);
  return { clock, volume, archived, world, history: histories.of(subject), random: new SeededRandom(3) };
}

describe("a log that is released under its readers", () => {
  it("an open point goes on by the bucket, and by the log for what is not archived yet", async () => {
    const { volume, archived, world, history, random } = await makeWorld();
    const source = await history.open(12);
    world.known = archived;
    world.next = archived;
    world.oldestLsn = 8;
    await expectDisk(source, volume.past[12] as FoldedDisk, random, "half of it released");
    const late = await history.open(11);
    await expectDisk(late, volume.past[11] as FoldedDisk, random, "opened afterwards");
    await source.close();
    await late.close();
  });

  it("one that is released while a point is opened is looked at again", async () => {
    const { volume, archived, world, history, random } = await makeWorld();
    world.oldestLsn = 8;
    // The first look still finds nothing in the bucket.
    world.next = archived;
    const source = await history.open(12);
    await expectDisk(source, volume.past[12] as FoldedDisk, random, "opened meanwhile");
    await source.close();
  });

  it("servers that are away are waited for 30 s, then that is said, and nothing goes on reading", async () => {
    const { clock } = await makeWorld();
    const ended: string[] = [];
    const log: LogFollower = {
      end: async () => ({ ...logEnd, lastLsn: 9 }),
      follow: () => expect.unreachable(),
      read: async function* (_fromLsn, _untilLsn, signal) {
        await new Promise((resolve) => {
          signal.addEventListener("abort", resolve);
        });
        ended.push("read");
        yield* [];
      },
    };
    const subject = new RemoteSubject({
      volumeId: "00000000000000a1",
      store: new MemoryObjectStore(clock),
      past: { historyOf: () => null },
      log,
      clock,
      beginBytes: 256 * 1024,
    });
    await subject.manifest();
    const first = subject.hotLog().read(1)[Symbol.asyncIterator]().next();
    const beganMs = clock.monotonicMs();
    await expect(clock.until(Promise.resolve(first))).rejects.toMatchObject({
      _tag: "LogAway",
      kind: "Retry",
    });
    expect(clock.monotonicMs() - beganMs).toBe(30_000);
    expect(ended).toEqual(["read"]);
  });

  it("a bucket that does not answer is not waited for by a log that has all from the first entry on", async () => {
    const { clock } = await makeWorld();
    const store = new MemoryObjectStore(clock);
    const answer = Promise.withResolvers<void>();
    const list = store.list.bind(store);
    store.list = async function* (prefix) {
      await answer.promise;
      yield* list(prefix);
    };
    let oldestLsn = 1;
    const log: LogFollower = {
      end: async () => ({ ...logEnd, oldestLsn, lastLsn: 9 }),
      follow: () => expect.unreachable(),
      read: () => expect.unreachable(),
    };
    const past = { historyOf: () => null };
    const subject = new RemoteSubject({
      volumeId: "00000000000000a1",
      store,
      past,
      log,
      clock,
      beginBytes: 256 * 1024,
    });
    for (const waitMs of [5000, 250]) {
      const beganMs = clock.monotonicMs();
      await expect(clock.until(subject.manifest())).rejects.toMatchObject({ kind: "Retry" });
      expect(clock.monotonicMs() - beganMs).toBe(waitMs);
      expect(subject.hotLog().state()).toEqual({ oldestLsn: 1, durableLsn: 9 });
    }
    // What was released is in the bucket only.
    oldestLsn = 5;
    const waiting = subject.manifest();
    await clock.run(20);
    answer.resolve();
    await expect(clock.until(waiting)).resolves.toBeNull();
  });

  it("a process that stood still for minutes does not count them: the log answers when it goes on", async () => {
    const { clock, volume } = await makeWorld();
    const batch = volume.hotLog.batches[0] as LoggedBatch;
    const answer = Promise.withResolvers<void>();
    const log: LogFollower = {
      end: async () => ({ ...logEnd, lastLsn: 9 }),
      follow: () => expect.unreachable(),
      read: async function* (_fromLsn, _untilLsn, signal) {
        await answer.promise;
        if (!signal.aborted) yield batch;
      },
    };
    const subject = new RemoteSubject({
      volumeId: "00000000000000a1",
      store: new MemoryObjectStore(clock),
      past: { historyOf: () => null },
      log,
      clock,
      beginBytes: 256 * 1024,
    });
    await subject.manifest();
    const first = subject.hotLog().read(1)[Symbol.asyncIterator]().next();
    await clock.run(1);
    clock.standStill(120_000);
    await clock.run(3);
    answer.resolve();
    await expect(clock.until(Promise.resolve(first))).resolves.toMatchObject({ done: false });
  });

  it("what neither has is an error, not other bytes", async () => {
    const { world, history } = await makeWorld();
    world.oldestLsn = 8;
    await expect(history.open(12)).rejects.toMatchObject({ _tag: "LogReleasedMeanwhile", kind: "Retry" });
  });
});
