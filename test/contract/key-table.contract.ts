// The contract of the KeyTable port: one suite for every adapter (shared/ports/key-table.ts is its text). Called by
// key-table.test.ts for the memory twin and by test/nats/key-table.test.ts for JetStream. `other` gives the same table as another
// process sees it.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { KeyRow, KeyTable } from "#shared/ports/key-table.ts";

export interface KeyTableSubject {
  readonly table: KeyTable;
  readonly other: KeyTable;
  close(): Promise<void>;
}

const bytes = (text: string): Uint8Array => Buffer.from(text);
const textOf = (row: KeyRow | null): string | null =>
  row === null || row.value === null ? null : Buffer.from(row.value).toString();

/** Waits for what a watch brings. */
async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error("it did not come to pass within 5 s");
    await new Promise((resolve) => {
      setTimeout(resolve, 5);
    });
  }
}

export function keyTableContract(what: string, make: () => Promise<KeyTableSubject>): void {
  describe(`KeyTable: ${what}`, () => {
    let subject: KeyTableSubject;
    beforeEach(async () => {
      subject = await make();
    });
    afterEach(async () => subject.close());

    test("a key is made once, changed by revision, and read by everybody", async () => {
      const { table, other } = subject;
      expect(await table.get("a.one")).toBeNull();
      const first = await table.put("a.one", bytes("1"), 0);
      expect(first).toBeGreaterThan(0);
      expect(await other.put("a.one", bytes("x"), 0)).toBeNull();
      const second = await other.put("a.one", bytes("2"), first ?? 0);
      expect(second).toBeGreaterThan(first ?? 0);
      expect(await table.put("a.one", bytes("y"), first ?? 0)).toBeNull();
      const row = await table.get("a.one");
      expect([textOf(row), row?.revision]).toEqual(["2", second]);
    });

    test("of many who change one revision, one wins", async () => {
      const { table, other } = subject;
      const first = (await table.put("race", bytes("0"), 0)) ?? 0;
      const results = await Promise.all(
        Array.from({ length: 8 }, async (_, index) =>
          (index % 2 === 0 ? table : other).put("race", bytes(String(index)), first),
        ),
      );
      const winners = results.flatMap((revision, index) => (revision === null ? [] : [index]));
      expect(winners).toHaveLength(1);
      expect(textOf(await other.get("race"))).toBe(String(winners[0]));
    });

    test("a key is removed by revision, and made again", async () => {
      const { table, other } = subject;
      const first = (await table.put("gone", bytes("1"), 0)) ?? 0;
      const second = (await table.put("gone", bytes("2"), first)) ?? 0;
      expect(await table.remove("gone", first)).toBe(false);
      expect(textOf(await other.get("gone"))).toBe("2");
      expect(await table.remove("gone", second)).toBe(true);
      expect(await other.get("gone")).toBeNull();
      expect(await table.put("gone", bytes("3"), second)).toBeNull();
      expect(await table.put("gone", bytes("3"), 0)).toBeGreaterThan(second);
      expect(textOf(await other.get("gone"))).toBe("3");
    });

    test("a watch tells what is there, then each change of its prefix, to the last one", async () => {
      const { table, other } = subject;
      const first = (await table.put("p.one", bytes("1"), 0)) ?? 0;
      await table.put("q.one", bytes("not mine"), 0);
      const seen = new Map<string, string | null>();
      let caughtUp = false;
      let seenBefore: unknown = null;
      const watch = other.watch("p.", {
        row: (row) => seen.set(row.key, textOf(row)),
        caughtUp: () => {
          caughtUp = true;
          seenBefore = [...seen];
        },
      });
      await until(() => caughtUp);
      expect(seenBefore).toEqual([["p.one", "1"]]);
      const second = (await table.put("p.one", bytes("2"), first)) ?? 0;
      await table.put("p.two", bytes("1"), 0);
      await until(() => seen.get("p.one") === "2" && seen.get("p.two") === "1");
      await table.remove("p.one", second);
      await until(() => seen.get("p.one") === null);
      expect(seen.has("q.one")).toBe(false);
      watch.close();
      await table.put("p.three", bytes("late"), 0);
      await new Promise((resolve) => {
        setTimeout(resolve, 50);
      });
      expect(seen.has("p.three")).toBe(false);
    });

    test("a watch on an empty table catches up at once", async () => {
      await new Promise<void>((resolve) => {
        subject.other.watch("p.", { row: () => undefined, caughtUp: resolve });
      });
      expect(await subject.table.get("p.none")).toBeNull();
    });
  });
}
