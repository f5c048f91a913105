// The contract of the Leases port: one suite for every kind of key table (shared/ports/lease.ts is its text). Called by
// lease.test.ts on memory and by test/nats/lease.test.ts on JetStream. Real time: a lease of 600 ms.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { KeyTableLeases } from "#shared/adapters/lease/key-table.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { KeyTable } from "#shared/ports/key-table.ts";

export interface LeaseSubject {
  /** The same table as another process sees it. */
  table(): KeyTable;
  close(): Promise<void>;
}

const leaseMs = 600;
const key = "volume.5ca1ab1e00c0ffee";
const terms = (holder: string): { holder: string; address: string } => ({
  holder,
  address: `${holder}:10809`,
});
const sleep = async (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

export function leaseContract(what: string, make: () => Promise<LeaseSubject>): void {
  describe(`Leases: ${what}`, () => {
    let subject: LeaseSubject;
    let opened: KeyTableLeases[];
    const gateway = (): KeyTableLeases => {
      const leases = new KeyTableLeases({
        table: subject.table(),
        clock: new SystemClock(),
        random: new SystemRandom(),
        leaseMs,
      });
      opened.push(leases);
      return leases;
    };
    beforeEach(async () => {
      opened = [];
      subject = await make();
    });
    afterEach(async () => {
      for (const leases of opened) leases.close();
      await subject.close();
    });

    test("a free lease is taken at once, renewed, and shows its holder", async () => {
      const one = gateway();
      const lease = await one.take(key, terms("one"));
      expect(lease.epoch).toBe(1);
      for (let step = 0; step < 4; step += 1) {
        await sleep(leaseMs / 2);
        expect(lease.remainingMs()).toBeGreaterThan(0);
        expect(lease.remainingMs()).toBeLessThanOrEqual(leaseMs);
      }
      const other = gateway();
      await other.ready();
      expect(other.view(key)).toMatchObject({ holder: "one", state: "held", epoch: 1 });
    });

    test("a lease that is renewed is refused to others, with holder and address", async () => {
      await gateway().take(key, terms("one"));
      const error: VarveError = (await gateway()
        .take(key, terms("two"))
        .catch((cause: VarveError) => cause)) as VarveError;
      expect([error._tag, error.kind, error.fields]).toEqual([
        "LeaseHeldError",
        "Retry",
        { holder: "one", address: "one:10809" },
      ]);
    });

    test("a released lease is taken at once, with a greater epoch", async () => {
      const lease = await gateway().take(key, terms("one"));
      await lease.release();
      const second = await gateway().take(key, terms("two"));
      expect(second.epoch).toBe(2);
      expect(lease.remainingMs()).toBe(0);
    });

    test("a holder that stops renewing loses it after a full lease, not before its own has run out", async () => {
      const one = gateway();
      const lease = await one.take(key, terms("one"));
      one.close();
      const left = lease.remainingMs();
      const startMs = performance.now();
      const second = await gateway().take(key, terms("two"));
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(Math.max(left, leaseMs) - 1);
      expect(lease.remainingMs()).toBeLessThanOrEqual(0);
      expect(second.epoch).toBe(2);
    });

    test("of several takers one gets it", async () => {
      const one = gateway();
      await one.take(key, terms("one"));
      one.close();
      const results = await Promise.allSettled(
        ["a", "b", "c"].map(async (name) => gateway().take(key, terms(name))),
      );
      expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
    });

    test("of several that take a key which nobody ever had one gets it, the others are sent to it", async () => {
      const names = ["a", "b", "c"];
      const gateways = names.map(() => gateway());
      await Promise.all(gateways.map(async (one) => one.ready()));
      const results = await Promise.allSettled(
        gateways.map(async (one, at) => one.take(key, terms(names[at] ?? ""))),
      );
      const tags = results.map((result) =>
        result.status === "fulfilled" ? "taken" : (result.reason as VarveError)._tag,
      );
      expect(tags.sort()).toEqual(["LeaseHeldError", "LeaseHeldError", "taken"]);
    });

    test("a revoked lease is lost by its holder soon, and free a full lease later", async () => {
      const lease = await gateway().take(key, terms("one"));
      const lost = new Promise<VarveError>((resolve) => {
        lease.onLost(resolve);
      });
      const two = gateway();
      const startMs = performance.now();
      expect(await two.revoke(key)).toBe(true);
      expect((await lost)._tag).toBe("LeaseLostError");
      await two.take(key, terms("two"));
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(leaseMs - 1);
      expect(await lease.raiseEpoch(1)).toBeNull();
      expect(await gateway().revoke("volume.0000000000000000")).toBe(false);
    });

    test("the epoch is raised while the lease is held", async () => {
      const lease = await gateway().take(key, terms("one"));
      expect(await lease.raiseEpoch(41)).toBe(42);
      expect(lease.epoch).toBe(42);
      await lease.release();
      expect((await gateway().take(key, terms("two"))).epoch).toBe(43);
    });
  });
}
