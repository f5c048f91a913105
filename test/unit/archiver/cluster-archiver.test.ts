// Which of its volumes an archiver process keeps: by what the catalogue says of them now, not when they were begun; and up to where it
// archives at once.
import { expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import type { PointPin } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord, withPin } from "#shared/domain/history-record.ts";
import type { ArchiverHome, VolumeArchive } from "#shared/ports/archive.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import { ClusterArchiver } from "../../../services/archiver/engine/cluster-archiver.ts";
import { factsOf, factsUpTo } from "../../../services/archiver/engine/manifest-facts.ts";

const id = "00112233aabbccdd";
const end = {
  line: "a".repeat(16),
  epoch: 1,
  oldestLsn: 1,
  lastLsn: 1,
  checksum: 0n,
  sequence: 1,
  diskBytes: 0,
  limitBytes: 2 ** 30,
};
/** A log of one entry that nothing follows. */
const log: LogFollower = {
  end: async () => end,
  follow: async function* (_from, signal) {
    await new Promise((resolve) => {
      signal.addEventListener("abort", resolve);
    });
    yield* [];
  },
  read: async function* () {
    yield* [];
  },
};
const demanded: number[] = [];
const archive = {
  archive: async (lsn: number) => void demanded.push(lsn),
  status: () => ({ state: "running", archivedLsn: 1, heldLsn: 1, lastBaseLsn: 0, error: null, counters: {} }),
  manifest: () => null,
  factsChanged: async () => undefined,
  stop: () => undefined,
  close: async () => undefined,
} as unknown as VolumeArchive;

const size = { sizeBytes: 2 ** 20, durability: "write", createdAtMs: 0 } as const;

/** An archiver alone with a volume that has a history record. */
async function archiverOver(clock: Clock, logOf: () => LogFollower, home: Partial<ArchiverHome> = {}) {
  const emptyTable = (): MemoryKeyTable => new MemoryKeyTable(new MemoryKeys());
  const catalog = new MemoryVolumeCatalog();
  const past = new KeyTablePastRecords(emptyTable());
  await past.ready();
  await past.changeHistory(id, () => newHistoryRecord(id, 2 ** 20));
  const leases = new KeyTableLeases({
    table: emptyTable(),
    clock,
    random: new SystemRandom(),
    prefix: "archive.",
  });
  const archiver = new ClusterArchiver({
    name: "one",
    only: null,
    clock,
    leases,
    past,
    catalog,
    bus: new MemoryMessageBus(),
    map: { placementOf: () => null },
    archiver: { open: async () => archive, uploadsInFlight: () => [], close: async () => undefined, ...home },
    logOf,
    onNote: () => undefined,
  });
  const close = async (): Promise<void> => {
    await archiver.close();
    leases.close();
  };
  return { archiver, catalog, past, close };
}

test("a volume that arrived is kept, and one that goes no more, while the same archiver has it", async () => {
  const { archiver, catalog, past, close } = await archiverOver(new SystemClock(), () => log);
  const kept = () => archiver.kept(() => ({}) as VolumeHistory).map(({ volumeId, name }) => [volumeId, name]);
  await catalog.put({
    id,
    name: "disk0",
    ...size,
    state: "arriving",
    move: { volumeId: id, place: "a:/srv" },
  });
  archiver.reconcile();
  await expect.poll(() => archiver.archived()[0]?.tenure?.archive).toBe(archive);
  expect(kept()).toEqual([]);
  await catalog.put({ id, name: "disk0", ...size, state: "active" });
  archiver.reconcile();
  expect(kept()).toEqual([[id, "disk0"]]);
  // Who pins a point waits for the bucket to have it; what it has already is not asked for.
  await past.changeHistory(id, (one) => one && withPin(one, { lsn: 1, holder: "f".repeat(16) }));
  await past.changeHistory(id, (one) => one && withPin(one, { lsn: 9, holder: "e".repeat(16) }));
  await expect.poll(() => demanded).toEqual([9]);
  await catalog.put({ id, name: "disk0", ...size, state: "deleting" });
  expect(kept()).toEqual([]);
  await close();
});

/** Jumps on command. */
class JumpingClock extends SystemClock {
  ahead = 0;
  override monotonicMs(): number {
    return super.monotonicMs() + this.ahead;
  }
}

test("servers that say for a moment that there is no log do not make a deleted volume forgotten", async () => {
  const clock = new JumpingClock();
  const looks: ("gone" | "away")[] = [];
  let answer: "gone" | "away" = "gone";
  const missing: LogFollower = {
    ...log,
    end: async () => {
      looks.push(answer);
      if (answer === "away") throw new VarveError("LogAway", "Retry", "nobody answers");
      return null;
    },
  };
  const { archiver, catalog, past, close } = await archiverOver(clock, () => missing);
  await past.putArchive(id, {
    archiver: "another",
    archiverEpoch: 1,
    line: end.line,
    archivedLsn: 1,
    heldLsn: 1,
    lastBaseLsn: 0,
    state: "running",
    error: "",
  });
  await catalog.put({ id, name: "disk0", ...size, state: "deleting" });
  const lookAgain = async (): Promise<void> => {
    looks.length = 0;
    archiver.reconcile();
    await expect.poll(() => looks.length).toBeGreaterThan(0);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  };
  await lookAgain();
  clock.ahead += 20_000;
  await lookAgain();
  expect(past.historyOf(id)).not.toBe(null);
  // An answer of another kind in between: it counts from the beginning.
  answer = "away";
  await lookAgain();
  answer = "gone";
  clock.ahead += 20_000;
  await lookAgain();
  expect(past.historyOf(id)).not.toBe(null);
  clock.ahead += 31_000;
  archiver.reconcile();
  await expect.poll(() => past.historyOf(id)).toBe(null);
  await close();
});

/** What the bucket was told last, by whichever archiver, and how long it takes until it holds that. */
interface ToldBucket {
  readonly home: Partial<ArchiverHome>;
  deletedAtMs: number | null;
  pins: readonly PointPin[];
  heldInMs: number;
  published: number;
  beforeArchive: () => Promise<void>;
  beforePublish: () => Promise<void>;
}

function toldBucket(): ToldBucket {
  const bucket: ToldBucket = {
    deletedAtMs: null,
    pins: [],
    heldInMs: 300_000,
    published: 0,
    beforeArchive: async () => undefined,
    beforePublish: async () => undefined,
    home: {
      open: async (subject) =>
        ({
          ...archive,
          archive: async () => bucket.beforeArchive(),
          manifest: () => ({
            ...factsUpTo(factsOf(newHistoryRecord(id, 2 ** 20), bucket.deletedAtMs), 1),
            pins: bucket.pins,
            archivedLsn: 1,
            rebases: [],
          }),
          heldInMs: () => bucket.heldInMs,
          factsChanged: async () => {
            await bucket.beforePublish();
            bucket.deletedAtMs = subject.facts().deletedAtMs;
            bucket.pins = factsUpTo(subject.facts(), 1).pins;
            bucket.published += 1;
          },
        }) as unknown as VolumeArchive,
    },
  };
  return bucket;
}

const often = { timeout: 8000 };

test("what changed while nobody archived a volume is told when an archiver opens it, and not again", async () => {
  const bucket = toldBucket();
  const first = await archiverOver(new SystemClock(), () => log, bucket.home);
  await first.past.changeHistory(id, (one) => one && withPin(one, { lsn: 1, holder: "rebase" }));
  await first.catalog.put({ id, name: "disk0", ...size, state: "active" });
  first.archiver.reconcile();
  await expect.poll(() => bucket.pins, often).toEqual([{ lsn: 1, holder: "rebase" }]);
  await first.close();
  expect(bucket.published).toBe(1);
  const second = await archiverOver(new SystemClock(), () => log, bucket.home);
  await second.past.changeHistory(id, (one) => one && withPin(one, { lsn: 1, holder: "rebase" }));
  await second.catalog.put({ id, name: "disk0", ...size, state: "active" });
  second.archiver.reconcile();
  await expect.poll(() => second.archiver.archived()[0]?.tenure?.archive, often).toBeTruthy();
  await second.close();
  expect(bucket.published).toBe(1);
});

test("a deleted volume settles until the bucket holds all of it: then it may go, and its history record with it", async () => {
  const bucket = toldBucket();
  const { archiver, catalog, past, close } = await archiverOver(new SystemClock(), () => log, bucket.home);
  await catalog.put({ id, name: "disk0", ...size, state: "settling" });
  archiver.reconcile();
  await expect.poll(() => bucket.deletedAtMs, often).not.toBeNull();
  const { published } = bucket;
  await new Promise((resolve) => {
    setTimeout(resolve, 1200);
  });
  // It is not told again and again, and nothing of the volume goes.
  expect([bucket.published, catalog.get(id)?.state]).toEqual([published, "settling"]);
  expect(past.historyOf(id)).not.toBeNull();
  bucket.heldInMs = 0;
  await expect.poll(() => catalog.get(id)?.state, often).toBe("deleting");
  await expect.poll(() => past.historyOf(id), often).toBeNull();
  await close();
});

test.each(["beforeArchive", "beforePublish"] as const)(
  "one that is taken back while the bucket is told of its deletion is in the bucket as what it is: %s",
  async (at) => {
    const bucket = toldBucket();
    const { archiver, catalog, past, close } = await archiverOver(new SystemClock(), () => log, bucket.home);
    bucket[at] = async () => {
      if (bucket.published > 0) return;
      await catalog.change(id, (one) => ({ ...one, state: "active" }));
      archiver.reconcile();
    };
    await catalog.put({ id, name: "disk0", ...size, state: "settling" });
    archiver.reconcile();
    await expect.poll(() => [bucket.published > 1, bucket.deletedAtMs], often).toEqual([true, null]);
    bucket.heldInMs = 0;
    archiver.reconcile();
    expect([catalog.get(id)?.state, past.historyOf(id) === null]).toEqual(["active", false]);
    await close();
  },
);

test("an archiver that finds an active volume marked as deleted tells the bucket that it lives, and one that goes stays marked", async () => {
  const bucket = toldBucket();
  bucket.deletedAtMs = 7;
  const first = await archiverOver(new SystemClock(), () => log, bucket.home);
  await first.catalog.put({ id, name: "disk0", ...size, state: "settling" });
  first.archiver.reconcile();
  await expect.poll(() => first.archiver.archived()[0]?.tenure?.archive, often).toBeDefined();
  await first.close();
  expect([bucket.published, bucket.deletedAtMs]).toEqual([0, 7]);
  const second = await archiverOver(new SystemClock(), () => log, bucket.home);
  await second.catalog.put({ id, name: "disk0", ...size, state: "active" });
  second.archiver.reconcile();
  await expect.poll(() => bucket.deletedAtMs, often).toBeNull();
  await second.close();
});
