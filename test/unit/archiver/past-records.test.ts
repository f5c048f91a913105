// The shared records of a volume's past: an archiver of an earlier epoch can say nothing more once a later one has begun, whatever it still
// has to say; history records are changed by several at once without losing a change; log is released by the first word on.
import { beforeEach, describe, expect, test } from "vitest";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import { newHistoryRecord, withSnapshot } from "#shared/domain/history-record.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";
import { LogRelease } from "../../../services/gateway/engine/log-release.ts";

const id = "00000000000000a1";
const said = (archiver: string, archiverEpoch: number, heldLsn: number): ArchiveRecord => ({
  archiver,
  archiverEpoch,
  heldLsn,
  line: "0f1e2d3c4b5a6978",
  archivedLsn: heldLsn,
  lastBaseLsn: 0,
  state: "running",
  error: "",
});

describe("records of a volume's past", () => {
  let keys: MemoryKeys;
  let one: KeyTablePastRecords;
  let two: KeyTablePastRecords;

  beforeEach(async () => {
    keys = new MemoryKeys();
    one = new KeyTablePastRecords(new MemoryKeyTable(keys));
    two = new KeyTablePastRecords(new MemoryKeyTable(keys));
    await Promise.all([one.ready(), two.ready()]);
  });

  test("a later archiver's claim ends what an earlier one may say", async () => {
    await one.putArchive(id, said("one", 1, 100));
    await two.putArchive(id, said("two", 2, 100));
    await expect(one.putArchive(id, said("one", 1, 500))).rejects.toMatchObject({ kind: "Fenced" });
    // The same epoch under another name: a process that was copied.
    await expect(one.putArchive(id, said("one", 2, 500))).rejects.toMatchObject({ kind: "Fenced" });
    await two.putArchive(id, said("two", 2, 200));
    await expect.poll(() => one.archiveOf(id)?.heldLsn).toBe(200);
  });

  test("what another one changed right behind an own change is not forgotten when the own answer comes late", async () => {
    await one.changeHistory(id, () => newHistoryRecord(id, 4096));
    const table = new MemoryKeyTable(keys);
    const put = table.put.bind(table);
    table.put = async (...args) => {
      const revision = await put(...args);
      const snapshot = { name: "late", lsn: 2, wallTimeMs: 0 };
      await two.changeHistory(id, (present) => present && withSnapshot(present, snapshot));
      await two.changeHistory(id, (present) => present && { ...present, historyMs: 5000 });
      return revision;
    };
    const three = new KeyTablePastRecords(table);
    await three.ready();
    await three.changeHistory(id, (present) => present && { ...present, archiverEpoch: 7 });
    const seen = three.historyOf(id);
    expect(seen).toMatchObject({ archiverEpoch: 7, historyMs: 5000, snapshots: [{ name: "late" }] });
  });

  test("an edit is made again on what somebody else stored meanwhile", async () => {
    await one.changeHistory(id, () => newHistoryRecord(id, 4096));
    const add = (past: KeyTablePastRecords, from: number): Promise<unknown>[] =>
      [0, 1, 2, 3].map(async (at) => {
        const snapshot = { name: `s${from + at}`, lsn: from + at, wallTimeMs: 0 };
        return past.changeHistory(id, (present) =>
          present === null ? null : withSnapshot(present, snapshot),
        );
      });
    await Promise.all([...add(one, 1), ...add(two, 5)]);
    await expect
      .poll(() => one.historyOf(id)?.snapshots.map(({ lsn }) => lsn))
      .toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const refused = two.changeHistory(id, () => {
      throw new Error("no");
    });
    await expect(refused).rejects.toThrow("no");
    await two.forget(id);
    await expect.poll(() => [one.historyOf(id), one.archiveOf(id)]).toEqual([null, null]);
  });

  test("log that nothing archived goes by checkpoints, and from an archiver's first word on by what is held", async () => {
    const released: number[] = [];
    const log = { release: async (lsn: number) => void released.push(lsn) } as unknown as LogWriter;
    const release = new LogRelease(false);
    release.start(log, 0);
    const settle = async (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    release.checkpointed(10);
    await settle();
    release.held(0);
    release.checkpointed(20);
    await settle();
    expect(Math.max(...released)).toBe(11);
    release.held(15);
    await settle();
    expect(released.at(-1)).toBe(16);
  });
});
