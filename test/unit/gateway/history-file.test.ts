// The history file on a disk that loses power, is killed and fails, at every step of a change (docs/formats/volume-history.md, "On disk"):
// what was answered is there after every start, and nothing that nobody asked for. Then how a change is written, and what a damaged file costs.
import { describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { noFaults, SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { HistoryFile } from "../../../services/gateway/engine/history-file.ts";
import { Scheduler, SeededRandom } from "../../simulation/scheduler.ts";
import { intercept } from "../write-log/file-interception.ts";

const directory = "/data/volumes/disk0";
const path = `${directory}/history.json`;
const copyPath = `${directory}/history.copy.json`;
const volume: VolumeRecord = {
  id: "00000000000000aa",
  name: "disk0",
  sizeBytes: 4096,
  durability: "write",
  createdAtMs: 0,
  state: "active",
};
const fresh = newHistoryRecord(volume.id, volume.sizeBytes);

const namesOf = (record: HistoryRecord): string => record.snapshots.map((one) => one.name).join();

/** With `count` snapshots more. */
function longer(record: HistoryRecord, count: number): HistoryRecord {
  const from = (record.snapshots.at(-1)?.lsn ?? 0) + 1;
  const more = Array.from({ length: count }, (_, index) => from + index);
  return {
    ...record,
    snapshots: [
      ...record.snapshots,
      ...more.map((lsn) => ({ name: `s${String(lsn).padStart(6, "0")}`, lsn, wallTimeMs: lsn })),
    ],
  };
}

/** Lives of a process on one disk, each cut off somewhere. */
class Lives {
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly disk: SimulatedDisk;
  /** What may be found at the next start: what was answered last, and what was asked for since. */
  private allowed = new Set<string>([""]);
  /** Answers, those to changes in place, and starts that found what was asked for and not answered. */
  readonly seen = { answered: 0, unanswered: 0 };

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.scheduler = new Scheduler(this.random.fork());
    this.disk = new SimulatedDisk({ random: this.random.fork(), schedule: this.scheduler.schedule });
  }

  async begin(): Promise<void> {
    const store = this.disk.store();
    await this.wait(store.makeDirectory(directory));
    await this.wait(HistoryFile.create(store, path, fresh));
  }

  async live(faulty: boolean): Promise<void> {
    const file = await this.wait(HistoryFile.read(this.disk.store(), path, volume));
    const found = namesOf(file.current);
    expect([...this.allowed]).toContain(found);
    if ([...this.allowed][0] !== found) this.seen.unanswered += 1;
    this.allowed = new Set([found]);
    if (faulty) Object.assign(this.disk.faults, { writeError: 0.1, syncError: 0.05, nameError: 0.1 });
    void this.work(file);
    await this.scheduler.run(this.random.integer(1, 80));
    Object.assign(this.disk.faults, noFaults);
    if (this.random.chance(0.7)) this.disk.crash();
    else this.disk.kill();
    this.scheduler.reset();
  }

  private async work(file: HistoryFile): Promise<void> {
    for (;;) {
      const count = this.random.pick([1, 1, 1, 1, 2, 90]);
      const fewer = file.current.snapshots.length > 300 || this.random.chance(0.2);
      const edit = (record: HistoryRecord): HistoryRecord => {
        const next = fewer
          ? { ...record, snapshots: record.snapshots.slice(Math.ceil(record.snapshots.length / 2)) }
          : longer(record, count);
        this.allowed.add(namesOf(next));
        return next;
      };
      await file.change(edit).then(
        () => {
          this.allowed = new Set([namesOf(file.current)]);
          this.seen.answered += 1;
        },
        () => undefined, // refused: the next start may find it all the same
      );
    }
  }

  private async wait<T>(work: Promise<T>): Promise<T> {
    return await this.scheduler.until(work, "history file");
  }
}

describe("the history file", () => {
  test.each([
    ["loses power and is killed", false],
    ["fails, too", true],
  ])("has what was answered after every start on a disk that %s", async (_, faulty) => {
    const seen = { answered: 0, unanswered: 0 };
    for (let seed = 1; seed <= 40; seed += 1) {
      const lives = new Lives(seed);
      await lives.begin();
      for (let life = 0; life < 12; life += 1) await lives.live(faulty);
      seen.answered += lives.seen.answered;
      seen.unanswered += lives.seen.unanswered;
    }
    expect(seen.answered).toBeGreaterThan(2000);
    expect(seen.unanswered).toBeGreaterThan(20);
  });

  test("is overwritten from the second change on; the answer waits for it, the next change for its copy", async () => {
    const memory = new MemoryFileStore();
    await memory.makeDirectory(directory);
    await HistoryFile.create(memory, path, fresh);
    const writes: { path: string; go: () => void }[] = [];
    const store = intercept(memory, async (call, proceed) => {
      expect(call).toMatchObject({ method: "writeDurable", offset: 0, bytes: 16 * 1024 });
      await new Promise<void>((resolve) => writes.push({ path: call.path, go: resolve }));
      await proceed();
    });
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    const file = await HistoryFile.read(store, path, volume);
    await file.change((record) => longer(record, 1));
    expect(writes).toEqual([]);
    let answered = false;
    const second = file
      .change((record) => longer(record, 1))
      .then(() => {
        answered = true;
      });
    await turn();
    expect(writes.map((write) => write.path)).toEqual([path]);
    expect([answered, file.current.snapshots.length]).toEqual([false, 1]);
    writes[0]?.go();
    await second;
    await turn();
    expect(writes.map((write) => write.path)).toEqual([path, copyPath]);
    const third = file.change((record) => longer(record, 1));
    await turn();
    expect([writes.length, file.current.snapshots.length]).toEqual([2, 2]);
    writes[1]?.go();
    await turn();
    writes[2]?.go();
    await third;
    await turn();
    writes[3]?.go();
    await file.settled();
    expect(await memory.readWhole(path)).toEqual(await memory.readWhole(copyPath));
    expect(namesOf((await HistoryFile.read(memory, path, volume)).current)).toBe("s000001,s000002,s000003");
  });

  test("stands as it was after a write that failed, however much of it was written", async () => {
    const memory = new MemoryFileStore();
    await memory.makeDirectory(directory);
    await HistoryFile.create(memory, path, fresh);
    let fails = false;
    const store = intercept(memory, async (call, proceed) => {
      await proceed();
      if (fails) throw new FileStoreError("write", call.path, "EIO");
    });
    const file = await HistoryFile.read(store, path, volume);
    for (let round = 0; round < 2; round += 1) await file.change((record) => longer(record, 1));
    await file.settled();
    fails = true;
    await expect(file.change((record) => longer(record, 1))).rejects.toThrow("EIO");
    expect(namesOf(file.current)).toBe("s000001,s000002");
    const found = await HistoryFile.read(memory, path, volume);
    expect(namesOf(found.current)).toBe("s000001,s000002");
    await file.change((record) => longer(record, 2));
    expect(await memory.readWhole(path)).toEqual(await memory.readWhole(copyPath));
  });

  test("costs nothing where one of the two is damaged, and is whole again after the next change", async () => {
    const memory = new MemoryFileStore();
    await memory.makeDirectory(directory);
    await HistoryFile.create(memory, path, fresh);
    const before = await HistoryFile.read(memory, path, volume);
    for (let round = 0; round < 3; round += 1) await before.change((record) => longer(record, 1));
    await before.settled();
    for (const damaged of [path, copyPath]) {
      const bytes = Buffer.from((await memory.readWhole(damaged)) ?? "");
      bytes[100] = (bytes[100] ?? 0) ^ 1;
      await memory.replaceWhole(damaged, bytes);
      const file = await HistoryFile.read(memory, path, volume);
      expect(file.current.snapshots.length).toBeGreaterThanOrEqual(3);
      await file.change((record) => longer(record, 1));
      expect(await memory.readWhole(path)).toEqual(await memory.readWhole(copyPath));
    }
  });

  test("has no copy rather than an old one where the copy can't be written", async () => {
    const memory = new MemoryFileStore();
    await memory.makeDirectory(directory);
    await HistoryFile.create(memory, path, fresh);
    let full = false;
    const store = intercept(memory, async (call, proceed) => {
      if (full && call.path === copyPath) throw new FileStoreError("write", call.path, "ENOSPC");
      await proceed();
    });
    const file = await HistoryFile.read(store, path, volume);
    for (let round = 0; round < 2; round += 1) await file.change((record) => longer(record, 1));
    await file.settled();
    full = true;
    await file.change((record) => longer(record, 1));
    await file.settled();
    expect(await memory.list(directory)).toEqual(["history.json"]);
    expect(namesOf((await HistoryFile.read(memory, path, volume)).current)).toBe("s000001,s000002,s000003");
    full = false;
    for (let round = 0; round < 2; round += 1) await file.change((record) => longer(record, 1));
    await file.settled();
    expect(await memory.readWhole(path)).toEqual(await memory.readWhole(copyPath));
  });

  test("of a volume that is made where another stood has nothing of that one's copy", async () => {
    const memory = new MemoryFileStore();
    await memory.makeDirectory(directory);
    await HistoryFile.create(memory, path, fresh);
    const before = await HistoryFile.read(memory, path, volume);
    await before.change((record) => longer(record, 1));
    expect(await memory.list(directory)).toEqual(["history.copy.json", "history.json"]);
    await HistoryFile.create(memory, path, fresh);
    expect(await memory.list(directory)).toEqual(["history.json"]);
    expect((await HistoryFile.read(memory, path, volume)).current).toEqual(fresh);
  });
});
