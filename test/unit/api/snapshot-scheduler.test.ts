// Scheduled snapshots under a clock of the test: one a slot, the newest kept, none twice whoever else looks, and trouble told once.
import { beforeEach, describe, expect, test } from "vitest";
import type { SnapshotRecord } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { noOrders } from "#shared/domain/volume-orders.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import { SnapshotScheduler } from "../../../services/api/engine/snapshot-scheduler.ts";

const minuteMs = 60_000;
const schedules = [
  { name: "often", everyMs: minuteMs, keep: 2 },
  { name: "hourly", everyMs: 60 * minuteMs, keep: 3 },
];
const volume = { name: "disk0", orders: { ...noOrders, schedules } } as unknown as VolumeView;
const plain = { name: "plain", orders: noOrders } as unknown as VolumeView;

let nowMs: number;
let lsn: number;
let snapshots: SnapshotRecord[];
let notes: string[];
let trouble: VarveError | null;
let mine: boolean;

const past = {
  snapshots: (name: string) => {
    expect(name).toBe("disk0");
    return snapshots;
  },
  createSnapshot: async (_volume: string, name: string) => {
    if (trouble !== null) throw trouble;
    if (snapshots.some((one) => one.name === name))
      throw new VarveError("SnapshotExistsError", "Invalid", "");
    lsn += 1;
    const made = { name, lsn, wallTimeMs: nowMs };
    snapshots = [...snapshots, made];
    return made;
  },
  deleteSnapshot: async (_volume: string, name: string) => {
    snapshots = snapshots.filter((one) => one.name !== name);
  },
};
const clock = { wallTimeMs: () => nowMs } as Clock;
const made = (): SnapshotScheduler =>
  new SnapshotScheduler({
    clock,
    past,
    volumes: () => [plain, volume],
    mayLook: async () => mine,
    onNote: (text) => notes.push(text),
  });
const names = (): readonly string[] => snapshots.map(({ name }) => name);

beforeEach(() => {
  nowMs = Date.parse("2026-11-28T17:58:30Z");
  lsn = 0;
  [snapshots, notes, trouble, mine] = [[], [], null, true];
});

describe("a scheduler", () => {
  test("takes one a slot and keeps the newest", async () => {
    const scheduler = made();
    await scheduler.look();
    await scheduler.look();
    expect(names()).toEqual(["often.20261128-175800", "hourly.20261128-170000"]);
    for (let minute = 0; minute < 3; minute += 1) {
      nowMs += minuteMs;
      await scheduler.look();
    }
    expect(names()).toEqual([
      "hourly.20261128-170000",
      "often.20261128-180000",
      "hourly.20261128-180000",
      "often.20261128-180100",
    ]);
    // Down for a day: the present slots, and none of those that were missed.
    nowMs += 24 * 60 * minuteMs;
    await scheduler.look();
    expect(names().slice(-2)).toEqual(["often.20261129-180100", "hourly.20261129-180000"]);
    expect(snapshots).toHaveLength(5);
  });

  test("touches no other snapshot, and takes none twice with another one", async () => {
    snapshots = [{ name: "often", lsn: 1, wallTimeMs: 1 }];
    const [one, two] = [made(), made()];
    for (let minute = 0; minute < 5; minute += 1) {
      await Promise.all([one.look(), two.look()]);
      nowMs += minuteMs;
    }
    expect(names().filter((name) => name.startsWith("often"))).toHaveLength(3);
    expect(names()).toContain("often");
    expect(new Set(names()).size).toBe(names().length);
    expect(notes).toEqual([]);
  });

  test("looks only where it is the one that may", async () => {
    mine = false;
    await made().look();
    expect(snapshots).toEqual([]);
  });

  test("tells trouble once, tries on, and is silent about volumes that were never written", async () => {
    const scheduler = made();
    trouble = new VarveError("NothingWritten", "Invalid", "never opened");
    await scheduler.look();
    expect(notes).toEqual([]);
    trouble = new VarveError("HolderAnswerError", "Retry", "no answer");
    await scheduler.look();
    await scheduler.look();
    expect(notes).toEqual(["warning: a scheduled snapshot of disk0 is late: no answer"]);
    trouble = null;
    await scheduler.look();
    expect(snapshots).toHaveLength(2);
  });
});
