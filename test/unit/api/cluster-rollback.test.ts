// The api's part of a rollback in a cluster: what is written in which order, so that a crash behind any of it leaves the disk as it was or
// rolled back, and never a gateway that can't serve it; who is refused, and what is changed by then. docs/specs/cluster.md#rollback.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { MemoryWriteLog } from "#shared/adapters/write-log/memory.ts";
import type { PointPin } from "#shared/domain/archive.ts";
import { replicaCopySubject, volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { encodeMessage, type ReplicaMessage } from "#shared/formats/replica-message.ts";
import type { Timer } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { PointSource, VolumeHistory } from "#shared/ports/history.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import type { JobView, StartedChange } from "#shared/ports/past-administration.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { ApiJob } from "../../../services/api/engine/cluster-bucket.ts";
import {
  ClusterRollback,
  type ClusterRollbackOptions,
} from "../../../services/api/engine/cluster-rollback.ts";
import { FastClock } from "../../tools/fast-clock.ts";

/** A second lasts a millisecond. */
class HastyClock extends FastClock {
  override monotonicMs(): number {
    return super.monotonicMs() * 1000;
  }

  override after(delayMs: number, task: () => void): Timer {
    return super.after(delayMs / 100, task);
  }
}

const id = "00112233aabbccdd";
const lease = `volume.${id}`;
const lsn = 2;
const listener = { stored: () => undefined, durable: () => undefined, halted: () => undefined };
let catalog: MemoryVolumeCatalog;
let past: KeyTablePastRecords;
let bus: MemoryMessageBus;
let leaseKeys: MemoryKeys;
let leases: KeyTableLeases;
let log: MemoryWriteLog;
/** Writes until the process "dies": nothing of what comes then is stored. */
let left: number;
let archivedLsn: number;
let report: ReplicaReport;
let jobs: string[];
let closers: (() => void)[];

function dying<T extends object>(real: T, writes: readonly (keyof T)[]): T {
  return new Proxy(real, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      return (...args: readonly unknown[]): unknown => {
        if (writes.includes(name as keyof T)) {
          left -= 1;
          if (left < 0) return Promise.reject(new VarveError("Died", "Internal", "the process died"));
        }
        return Reflect.apply(value, target, args);
      };
    },
  });
}

const leasesOf = (): KeyTableLeases => {
  const table = new MemoryKeyTable(leaseKeys);
  const made = new KeyTableLeases({
    table,
    clock: new SystemClock(),
    random: new SystemRandom(),
    leaseMs: 100,
  });
  closers.push(() => made.close());
  return made;
};

/** What the log holds behind the first entries: its epochs, resizes and rebases. */
async function entries(): Promise<readonly string[]> {
  const reader = await log.open({ writer: "test", durability: "write", listener, knownLsn: 0 });
  const found: string[] = [];
  for await (const batch of reader.read(1)) {
    for (const entry of batch.entries) {
      if (entry.kind === "rebase") found.push(`rebase ${entry.lsn}`);
      else if (entry.kind === "resize") found.push(`resize ${entry.sizeBytes}`);
      else if (entry.kind === "epoch") found.push(`epoch ${batch.epoch} ${entry.writer}`);
    }
  }
  await log.close();
  // The reader's own is the last.
  return found.slice(1, -1);
}

function rollbacks(parts: Partial<ClusterRollbackOptions> = {}): ClusterRollback {
  const pins = (): readonly PointPin[] =>
    (past.historyOf(id)?.pins ?? []).filter((pin) => pin.lsn <= archivedLsn);
  const own = { report, node: "shelf" } as ReplicaView;
  return new ClusterRollback({
    writer: "api",
    require: () => catalog.find("disk0") as VolumeRecord,
    show: () => ({ name: "disk0" }) as VolumeView,
    replicasOf: () => [{ ...own, report }],
    catalog: dying(catalog, ["change"]),
    map: {
      placementOf: () => ({ volumeId: id, beginBytes: 0, replicas: [{ node: "shelf", pool: "main" }] }),
    },
    past: dying(past, ["changeHistory"]),
    leases: dying(leases, ["take"]),
    bus,
    clock: new HastyClock(),
    historyOf: () =>
      ({
        resolve: async () => ({ lsn, wallTimeMs: 9 }),
        sizeAt: async () => 2 ** 22,
      }) as unknown as VolumeHistory,
    images: {
      newest: async () => ({ line: "", epoch: 1, lsn: archivedLsn, checksum: 1n, pins: pins() }),
      point: async () => ({ close: async () => undefined }) as PointSource,
    },
    logOf: () => ({ end: async () => ({ lastLsn: log.durableLsn }) as LogEnd }),
    openLog: async () => dying(log, ["open"]),
    allocateSlab: (bytes) => new MemoryFileStore().allocateSlab(bytes),
    jobs: {
      start: () =>
        ({
          view: () => ({ volume: "disk0" }) as JobView,
          progress: (done: number, all: number) => jobs.push(`${done}/${all}`),
          done: (note: string) => jobs.push(note),
          failed: () => jobs.push("failed"),
        }) as unknown as ApiJob,
    },
    ...parts,
  });
}

const back = async (isForced = false, parts: Partial<ClusterRollbackOptions> = {}): Promise<StartedChange> =>
  rollbacks(parts).rollback("disk0", "lsn:2", isForced);
const tagOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (cause: unknown) => (cause instanceof VarveError ? cause._tag : (cause as Error).message),
  );
/** The gateway or node behind a subject answers so. */
const answers = (subject: string, answer: (asked: number) => ReplicaMessage): void => {
  let asked = 0;
  bus.serve(subject, async () => {
    asked += 1;
    return encodeMessage(answer(asked));
  });
};

beforeEach(async () => {
  [left, archivedLsn, jobs, closers] = [Number.MAX_SAFE_INTEGER, 9, [], []];
  leaseKeys = new MemoryKeys();
  leases = leasesOf();
  await leases.ready();
  past = new KeyTablePastRecords(new MemoryKeyTable(new MemoryKeys()));
  await past.ready();
  bus = new MemoryMessageBus();
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  const record = { id, name: "disk0", sizeBytes: 2 ** 23, durability: "write", createdAtMs: 0 } as const;
  await catalog.put({ ...record, state: "active" });
  await past.changeHistory(id, () => newHistoryRecord(id, 2 ** 23));
  log = new MemoryWriteLog({ clock: new SystemClock(), random: new SystemRandom() });
  await log.open({ writer: "gate", durability: "write", listener, knownLsn: 0 });
  await log.close();
  const size = { sizeBytes: 2 ** 23, allocatedBytes: 0, roomBytes: 0 };
  const place = { appliedLsn: 1, checkpointLsn: 1, epoch: 1 };
  report = { node: "shelf", host: "shelf", condition: "following", reason: "", ...place, ...size };
  answers(replicaCopySubject(id, "shelf"), () => ({ type: "reached", lsn }));
});

afterEach(() => {
  for (const close of closers) close();
});

describe("a rollback in a cluster", () => {
  test("appends size and rebase under the lease's epoch, lets the lease go, and is done when the replicas are whole", async () => {
    await (await leases.take(lease, { holder: "gate", address: "g:1" })).release();
    expect(await back()).toMatchObject({ point: { lsn }, disconnected: 0 });
    expect(await entries()).toEqual(["epoch 2 api", `resize ${2 ** 22}`, `rebase ${lsn}`]);
    expect(catalog.find("disk0")?.sizeBytes).toBe(2 ** 22);
    expect(past.historyOf(id)?.pins).toEqual([{ lsn, holder: "rebase" }]);
    expect(leases.view(lease)).toMatchObject({ state: "released", address: "" });
    // A replica that has not applied it has nothing of it.
    expect(jobs).toEqual([`0/${2 ** 22}`]);
    report = { ...report, appliedLsn: 4, remoteExtents: 1 };
    await expect.poll(() => jobs.length).toBeGreaterThan(2);
    const { remoteExtents: _remote, ...whole } = report;
    report = whole;
    await expect.poll(() => jobs.at(-1)).toBe("every extent is on its storage nodes");
  });

  test("a kill behind each write leaves the disk as it was or rolled back, and the volume to whoever comes next", async () => {
    const seen: string[] = [];
    for (let writes = 0; ; writes += 1) {
      left = writes;
      const died = await tagOf(back());
      left = Number.MAX_SAFE_INTEGER;
      const held = await leases.take(lease, { holder: "gate", address: "g:1" });
      await held.release();
      const found = (await entries()).filter((entry) => entry.startsWith("rebase"));
      const { sizeBytes } = catalog.find("disk0") ?? { sizeBytes: 0 };
      seen.push(`${found.length} ${past.historyOf(id)?.pins.length} ${sizeBytes} ${died}`);
      if (died === "none") break;
    }
    const [before, pinned] = [`0 0 ${2 ** 23} Died`, `0 1 ${2 ** 23} Died`];
    // Behind the entry it has happened, though the catalogue was not told.
    expect(seen).toEqual([before, pinned, pinned, `1 1 ${2 ** 23} none`]);
    report = { ...report, sizeBytes: 2 ** 22 };
    const next = rollbacks();
    await expect.poll(async () => next.tend().then(() => catalog.find("disk0")?.sizeBytes)).toBe(2 ** 22);
  });

  test("with clients attached it is refused before anything is changed; forced, they are cut off", async () => {
    const gate = leasesOf();
    const held = await gate.take(lease, { holder: "gate", address: "g:1" });
    const refused = { type: "refused", kind: "Invalid", tag: "VolumeAttachedError", epoch: 0 } as const;
    answers(volumeHolderSubject(id), () => ({ ...refused, message: "volume disk0 has 2 connections" }));
    await expect.poll(() => leases.view(lease)?.state).toBe("held");
    await expect(back()).rejects.toMatchObject({
      _tag: "VolumeAttachedError",
      message: "volume disk0 has 2 connections; it is not rolled back",
      hint: expect.stringContaining("--force"),
    });
    expect([past.historyOf(id)?.pins, await entries()]).toEqual([[], []]);
    bus = new MemoryMessageBus();
    answers(replicaCopySubject(id, "shelf"), () => ({ type: "reached", lsn }));
    bus.serve(volumeHolderSubject(id), async () => {
      await held.release();
      return encodeMessage({ type: "yielded", disconnected: 2 });
    });
    expect(await back(true)).toMatchObject({ disconnected: 2 });
    expect((await entries()).at(-1)).toBe(`rebase ${lsn}`);
  });

  test("a gateway that lives and does not give it up keeps it; a dead one's lease runs out", async () => {
    const gate = leasesOf();
    await gate.take(lease, { holder: "gate", address: "g:1" });
    await expect.poll(() => leases.view(lease)?.state).toBe("held");
    expect(await tagOf(back(true))).toBe("VolumeServedError");
    expect(await entries()).toEqual([]);
    gate.close();
    expect(await tagOf(back(true))).toBe("none");
    expect((await entries()).at(-1)).toBe(`rebase ${lsn}`);
  });

  test("is refused, the disk as it was, where the bucket lacks the point, no node reads it, or the volume goes", async () => {
    archivedLsn = 1;
    expect(await tagOf(back())).toBe("PointNotArchived");
    archivedLsn = 9;
    const refused = { type: "refused", kind: "Invalid", tag: "FillNoBucket", epoch: 0 } as const;
    answers(replicaCopySubject(id, "shelf"), () => ({ ...refused, message: "shelf was given no bucket" }));
    await expect(back()).rejects.toMatchObject({
      _tag: "NoNodeReadsPoint",
      kind: "Retry",
      message: expect.stringContaining("shelf was given no bucket"),
    });
    answers(replicaCopySubject(id, "shelf"), () => ({ type: "reached", lsn }));
    const gone = { ...catalog.get(id), state: "deleting" } as never;
    const fetch = async (): Promise<never> => gone;
    expect(await tagOf(back(false, { catalog: Object.assign(Object.create(catalog), { fetch }) }))).toBe(
      "UnknownVolumeError",
    );
    expect(await tagOf(back(false, { images: null }))).toBe("NoHistoryInCluster");
    expect(await entries()).toEqual([]);
    expect(leases.view(lease)?.state).toBe("released");
  });

  test("a log that knows greater epochs than the lease raises it; an append without an answer is said to be unknown", async () => {
    for (let opens = 0; opens < 3; opens += 1) {
      await log.open({ writer: "gate", durability: "write", listener, knownLsn: 0 });
      await log.close();
    }
    expect(await tagOf(back())).toBe("none");
    expect((await entries()).slice(3)).toEqual(["epoch 5 api", `resize ${2 ** 22}`, `rebase ${lsn}`]);
    const silent = {
      open: async () => ({
        append: () => undefined,
        pump: () => undefined,
        sync: async () => new Promise(() => undefined),
      }),
      close: async () => undefined,
    } as never;
    await expect(back(false, { openLog: async () => silent })).rejects.toMatchObject({
      _tag: "RollbackUnknown",
      kind: "Retry",
      hint: expect.stringContaining("ask again"),
    });
  });
});
