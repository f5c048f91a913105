// Runs the contract of leases on the memory key table, and what only a table that fails at will can show: lost answers, a table that
// is away, and clocks that stand still. test/nats/lease.test.ts runs the contract on a real server.
import { describe, expect, test } from "vitest";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import { SteppedClock } from "../unit/file-store/stepped-clock.ts";
import { leaseContract } from "./lease.contract.ts";

leaseContract("memory", async () => {
  const keys = new MemoryKeys();
  return { table: () => new MemoryKeyTable(keys), close: async () => {} };
});

const key = "volume.5ca1ab1e00c0ffee";
const leaseMs = 3000;

/** Two gateways with tables of their own on the same keys, and one clock that the test moves. */
function twoGateways(): {
  readonly clock: SteppedClock;
  readonly tables: readonly [MemoryKeyTable, MemoryKeyTable];
  readonly gateways: readonly [KeyTableLeases, KeyTableLeases];
} {
  const clock = new SteppedClock(7);
  const keys = new MemoryKeys();
  const tables = [new MemoryKeyTable(keys), new MemoryKeyTable(keys)] as const;
  const leasesOf = (table: MemoryKeyTable): KeyTableLeases =>
    new KeyTableLeases({ table, clock, random: clock.random, leaseMs });
  return { clock, tables, gateways: [leasesOf(tables[0]), leasesOf(tables[1])] };
}
const terms = (holder: string): { holder: string; address: string } => ({ holder, address: "127.0.0.1:1" });

describe("a lease whose table fails", () => {
  test("renewals without an answer count from when they were sent, once they are found stored", async () => {
    const { clock, tables, gateways } = twoGateways();
    const lease = await clock.until(gateways[0].take(key, terms("one")));
    tables[0].state = "deaf";
    await clock.run(2);
    // Sent and stored, but nobody said so.
    expect(clock.monotonicMs()).toBe(2000);
    expect(lease.remainingMs()).toBe(1000);
    tables[0].heal();
    await clock.run(1);
    expect(lease.remainingMs()).toBe(leaseMs);
    expect(gateways[1].view(key)).toMatchObject({ holder: "one", epoch: 1 });
  });

  test("a lease that ran out while the table was away is whole again, if nobody took it", async () => {
    const { clock, tables, gateways } = twoGateways();
    const lease = await clock.until(gateways[0].take(key, terms("one")));
    let lost = false;
    lease.onLost(() => (lost = true));
    tables[0].state = "away";
    await clock.run(5);
    expect(lease.remainingMs()).toBeLessThanOrEqual(0);
    tables[0].heal();
    await clock.run(1);
    expect([lease.remainingMs(), lost]).toEqual([leaseMs, false]);
  });

  test("it is lost when another took it meanwhile, and the former holder learns it by its first renewal", async () => {
    const { clock, tables, gateways } = twoGateways();
    const lease = await clock.until(gateways[0].take(key, terms("one")));
    const lost: string[] = [];
    lease.onLost((error) => lost.push(error.kind));
    tables[0].state = "away";
    const second = await clock.until(gateways[1].take(key, terms("two")));
    expect(lease.remainingMs()).toBeLessThanOrEqual(0);
    expect([second.epoch, lost]).toEqual([2, []]);
    tables[0].heal();
    await clock.run(3);
    expect(lost).toEqual(["Fenced"]);
    expect(await clock.until(lease.raiseEpoch(5))).toBeNull();
    expect(gateways[0].view(key)).toMatchObject({ holder: "two", state: "held" });
  });

  test("taking it with the answer lost takes it", async () => {
    const { clock, tables, gateways } = twoGateways();
    await clock.until(gateways[0].ready());
    tables[0].state = "deaf";
    await expect(clock.until(gateways[0].take(key, terms("one")))).rejects.toMatchObject({ kind: "Retry" });
    tables[0].heal();
    // Nobody renews what was stored then: it is free after its time, for its own taker as for others.
    const lease = await clock.until(gateways[0].take(key, terms("one")));
    expect([lease.epoch, clock.monotonicMs()]).toEqual([2, leaseMs]);
  });

  test("a taker never takes before the holder's own clock says that it ran out", async () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const { clock, tables, gateways } = twoGateways();
      const random = new SteppedClock(seed).random;
      const lease = await clock.until(gateways[0].take(key, terms("one")));
      for (let step = 0; step < 1 + random.integer(0, 6); step += 1) {
        tables[0].state = (["fine", "deaf", "away"] as const)[random.integer(0, 3)] ?? "fine";
        await clock.run(1);
      }
      tables[0].state = "away";
      await clock.until(gateways[1].take(key, terms("two")));
      expect(lease.remainingMs()).toBeLessThanOrEqual(0);
    }
  });
});
