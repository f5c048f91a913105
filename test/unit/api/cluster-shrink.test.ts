// A smaller size for a cluster's volume: who is refused before anything is written, what is in the log, and what a process that dies behind
// each write leaves. docs/specs/cluster.md#a-new-size.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { MemoryWriteLog } from "#shared/adapters/write-log/memory.ts";
import { volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { encodeMessage } from "#shared/formats/replica-message.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import { ClusterShrink, type ClusterShrinkOptions } from "../../../services/api/engine/cluster-shrink.ts";
import { FastClock } from "../../tools/fast-clock.ts";

/** What nobody answers within half a minute is waited for as many milliseconds. */
class HastyClock extends FastClock {
  override after(delayMs: number, task: () => void) {
    return super.after(delayMs / 100, task);
  }
}

const record: VolumeRecord = {
  id: "00112233aabbccdd",
  name: "disk0",
  sizeBytes: 2 ** 23,
  durability: "write",
  createdAtMs: 0,
  state: "active",
};
const smaller = 2 ** 22;
const lease = `volume.${record.id}`;
const listener = { stored: () => undefined, durable: () => undefined, halted: () => undefined };
let catalog: MemoryVolumeCatalog;
let bus: MemoryMessageBus;
let leases: KeyTableLeases;
let log: MemoryWriteLog;

const shrink = async (parts: Partial<ClusterShrinkOptions> = {}): Promise<string> =>
  new ClusterShrink({
    writer: "api",
    catalog,
    leases,
    bus,
    clock: new HastyClock(),
    logOf: () => ({
      end: async () => (log.records.length === 0 ? null : ({ lastLsn: log.lastLsn } as LogEnd)),
    }),
    openLog: async () => log,
    allocateSlab: (bytes) => new MemoryFileStore().allocateSlab(bytes),
    ...parts,
  })
    .shrink(record, smaller)
    .then(
      () => "none",
      (cause: unknown) => (cause instanceof VarveError ? `${cause._tag}: ${cause.message}` : String(cause)),
    );

/** Behind the first entry: epochs of writers, and sizes. */
async function entries(): Promise<readonly string[]> {
  const reader = await log.open({ writer: "reader", durability: "write", listener, knownLsn: 0 });
  const found: string[] = [];
  for await (const { entries: all, epoch } of reader.read(1)) {
    for (const entry of all) {
      if (entry.kind === "resize") found.push(`resize ${entry.sizeBytes}`);
      if (entry.kind === "epoch" && entry.writer === "api") found.push(`epoch ${epoch} api`);
    }
  }
  await log.close();
  return found;
}

const died = async (): Promise<never> => {
  throw new VarveError("Died", "Internal", "the process died");
};

beforeEach(async () => {
  bus = new MemoryMessageBus();
  catalog = new MemoryVolumeCatalog();
  await catalog.load();
  await catalog.put(record);
  const table = new MemoryKeyTable(new MemoryKeys());
  leases = new KeyTableLeases({ table, clock: new SystemClock(), random: new SystemRandom(), leaseMs: 100 });
  await leases.ready();
  await (await leases.take(lease, { holder: "gate", address: "g:1" })).release();
  log = new MemoryWriteLog({ clock: new SystemClock(), random: new SystemRandom() });
  await log.open({ writer: "gate", durability: "write", listener, knownLsn: 0 });
  await log.close();
});

afterEach(() => leases.close());

describe("a smaller size", () => {
  test("is one entry under the lease's epoch, then the catalogue's", async () => {
    expect(await shrink()).toBe("none");
    expect(await entries()).toEqual(["epoch 2 api", `resize ${smaller}`]);
    expect(catalog.find("disk0")?.sizeBytes).toBe(smaller);
    expect(leases.view(lease)?.state).toBe("released");
  });

  test("that a process died on is either not begun, or in the log: told again it is the same", async () => {
    expect(await shrink({ openLog: died })).toContain("Died");
    expect(await entries()).toEqual([]);
    const forgetful = Object.assign(Object.create(catalog) as MemoryVolumeCatalog, { change: died });
    expect(await shrink({ catalog: forgetful })).toBe("none");
    expect((await entries()).at(-1)).toBe(`resize ${smaller}`);
    expect(catalog.find("disk0")?.sizeBytes).toBe(record.sizeBytes);
    // The last two openings were the reader's.
    expect(await shrink()).toBe("none");
    expect((await entries()).filter((entry) => entry.startsWith("resize"))).toEqual([
      `resize ${smaller}`,
      `resize ${smaller}`,
    ]);
    expect(catalog.find("disk0")?.sizeBytes).toBe(smaller);
  });

  test("is refused while clients are attached, of a volume without a log, and of one that goes", async () => {
    const gate = await leases.take(lease, { holder: "gate", address: "g:1" });
    const refused = { type: "refused", kind: "Invalid", tag: "VolumeAttachedError", epoch: 0 } as const;
    bus.serve(volumeHolderSubject(record.id), async () =>
      encodeMessage({ ...refused, message: "volume disk0 has 1 connection" }),
    );
    await expect.poll(() => leases.view(lease)?.state).toBe("held");
    expect(await shrink()).toBe("VolumeAttachedError: volume disk0 has 1 connection; it is not shrunk");
    await gate.release();
    await expect.poll(() => leases.view(lease)?.state).toBe("released");
    expect(await shrink({ logOf: () => ({ end: async () => null }) })).toContain("NothingWritten");
    await catalog.change(record.id, (one) => ({ ...one, state: "settling" }));
    expect(await shrink()).toContain("UnknownVolumeError");
    expect(await entries()).toEqual([]);
    expect(catalog.find("disk0")?.sizeBytes).toBe(record.sizeBytes);
    expect(leases.view(lease)?.state).toBe("released");
  });

  test("whose entry is not answered may be there: that is said", async () => {
    const silent = {
      open: async () => ({
        append: () => undefined,
        pump: () => undefined,
        sync: async () => new Promise(() => undefined),
      }),
      close: async () => undefined,
    } as never;
    expect(await shrink({ openLog: async () => silent })).toContain(
      "ShrinkUnknown: whether volume disk0 has 4194304 bytes now is not known",
    );
    expect(catalog.find("disk0")?.sizeBytes).toBe(record.sizeBytes);
  });
});
