// Orders of volumes: every mistake named at once, and when scheduled snapshots are due, what they are called and which of them go.
import { describe, expect, test } from "vitest";
import type { SnapshotRecord } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { dueSnapshot, slotName, surplusSnapshots } from "#shared/domain/snapshot-slots.ts";
import {
  newVolumeRecord,
  noOrders,
  orderedFrom,
  ordersMistakes,
  scheduleMistakes,
} from "#shared/domain/volume-orders.ts";

const dayMs = 86_400_000;
const daily = { name: "daily", everyMs: dayMs, keep: 2 };
const snapshot = (name: string, lsn: number): SnapshotRecord => ({ name, lsn, wallTimeMs: lsn });

describe("orders", () => {
  test("name every mistake", () => {
    const schedules = [
      { name: "a-name-that-is-too-long", everyMs: 60_000, keep: 1 },
      { name: "x", everyMs: 59_000, keep: 0 },
      { name: "x", everyMs: 367 * dayMs, keep: 1001 },
    ];
    expect(ordersMistakes({ lab: "Home", tags: ["a", "a"], logReplicas: 2, schedules })).toHaveLength(9);
    expect(ordersMistakes({ lab: "home", tags: ["ssd"], logReplicas: 3, schedules: [daily] })).toEqual([]);
    expect(scheduleMistakes({ ...daily, everyMs: 90_000 })).toHaveLength(1);
  });

  test("change by parts, or not at all", () => {
    const ordered = orderedFrom(noOrders, { lab: "home", schedules: [daily] });
    expect(orderedFrom(ordered, { tags: ["ssd"] })).toEqual({ ...ordered, tags: ["ssd"] });
    expect(() => orderedFrom(ordered, { tags: ["SSD"] })).toThrow(VarveError);
    const wanted = { name: "disk0", sizeBytes: 512, durability: "write" } as const;
    expect(newVolumeRecord(wanted, "00112233445566ff", 1)).not.toHaveProperty("orders");
    expect(newVolumeRecord({ ...wanted, orders: { lab: "home" } }, "00112233445566ff", 1)).toMatchObject({
      orders: { ...noOrders, lab: "home" },
    });
  });
});

describe("slots", () => {
  const at = Date.parse("2026-11-28T17:45:12.345Z");

  test("are cut from 1970 on, in UTC", () => {
    expect(slotName(daily, at)).toBe("daily.20261128-000000");
    expect(slotName({ ...daily, everyMs: 3_600_000 }, at)).toBe("daily.20261128-170000");
    expect(slotName({ ...daily, everyMs: 60_000 }, at)).toBe("daily.20261128-174500");
  });

  test("have one snapshot each", () => {
    const today = [snapshot("daily.20261128-000000", 7)];
    expect(dueSnapshot(daily, [], at)).toBe("daily.20261128-000000");
    expect(dueSnapshot(daily, today, at)).toBeNull();
    expect(dueSnapshot(daily, today, at + dayMs)).toBe("daily.20261129-000000");
    // The clock went back into a slot that is taken.
    expect(dueSnapshot(daily, [...today, snapshot("daily.20261129-000000", 9)], at)).toBeNull();
  });

  test("beyond those that are kept the oldest entries go, and no snapshot of another's", () => {
    const others = [
      snapshot("daily", 1),
      snapshot("daily.before", 2),
      snapshot("hourly.20200101-000000", 3),
      snapshot("my-daily.20200101-000000", 4),
    ];
    // The first was named by a clock that had leapt ahead.
    const own = ["20990101-000000", "20261126-000000", "20261127-000000", "20261128-000000"];
    const snapshots = [...others, ...own.map((slot, index) => snapshot(`daily.${slot}`, 10 + index))];
    expect(surplusSnapshots(daily, snapshots)).toEqual(["daily.20990101-000000", "daily.20261126-000000"]);
    expect(surplusSnapshots({ ...daily, keep: 4 }, snapshots)).toEqual([]);
    expect(surplusSnapshots(daily, others)).toEqual([]);
  });
});
