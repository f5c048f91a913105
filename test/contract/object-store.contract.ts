// What every ObjectStore promises, whatever is below it: whole objects, ranges, conditional puts, listings, keys, errors,
// counters, the probe. Run by object-store.test.ts on memory, directory and the simulated store, and by the servers of
// test/s3 on real S3 servers.
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { ObjectFacts, ObjectStore } from "#shared/ports/object-store.ts";

export interface ObjectStoreBench {
  readonly store: ObjectStore;
  /** Another client of the same bucket. */
  readonly other: ObjectStore;
  /** What the probe must find; "whatever" where the server's version decides. */
  readonly conditionalPut: boolean | "whatever";
  dispose(): Promise<void>;
}

const KiB = 1024;
const MiB = 1024 * KiB;

function content(bytes: number, seed: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  for (let index = 0; index < bytes; index += 1)
    buffer[index] = (index * 31 + seed * 17 + (index >> 8)) % 253;
  return buffer;
}

async function all(store: ObjectStore, prefix: string): Promise<ObjectFacts[]> {
  const found: ObjectFacts[] = [];
  for await (const facts of store.list(prefix)) found.push(facts);
  return found.toSorted((left, right) => (left.key < right.key ? -1 : 1));
}

async function failure(promise: Promise<unknown>): Promise<ObjectStoreError> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(ObjectStoreError);
    return error as ObjectStoreError;
  }
  throw new Error("it succeeded");
}

export function objectStoreContract(name: string, setUp: () => Promise<ObjectStoreBench>): void {
  describe(`object store: ${name}`, () => {
    let bench: ObjectStoreBench;
    let store: ObjectStore;
    beforeAll(async () => {
      bench = await setUp();
      ({ store } = bench);
    });
    afterAll(() => bench.dispose());

    test("what is put is got, by every client, until it is removed", async () => {
      const bytes = content(100_000, 1);
      expect(await store.get("a/first")).toBeNull();
      expect(await store.head("a/first")).toBeNull();
      expect(await store.put("a/first", bytes)).toBe("stored");
      expect((await store.get("a/first"))?.equals(bytes)).toBe(true);
      expect((await bench.other.get("a/first"))?.equals(bytes)).toBe(true);
      expect(await store.head("a/first")).toMatchObject({ key: "a/first", bytes: 100_000 });
      await bench.other.remove("a/first");
      expect(await store.get("a/first")).toBeNull();
      expect(await store.head("a/first")).toBeNull();
      await store.remove("a/first");
      await store.remove("nothing/was/ever/here");
    });

    test("an object of zero bytes and one of the largest size", async () => {
      await store.put("sizes/none", Buffer.alloc(0));
      expect(await store.get("sizes/none")).toEqual(Buffer.alloc(0));
      expect((await store.head("sizes/none"))?.bytes).toBe(0);
      expect(await store.get("sizes/none", { start: 0, length: 10 })).toEqual(Buffer.alloc(0));
      const largest = content(32 * MiB, 2);
      await store.put("sizes/most", largest);
      expect((await store.get("sizes/most"))?.equals(largest)).toBe(true);
      expect((await failure(store.put("sizes/more", Buffer.alloc(32 * MiB + 1)))).kind).toBe("Internal");
      await store.remove("sizes/most");
      await store.remove("sizes/none");
    });

    test("a view of a larger buffer is stored as the view, and later changes of the buffer are not", async () => {
      const around = content(5000, 3);
      const view = around.subarray(1000, 2000);
      const expected = Buffer.from(view);
      await store.put("view", view);
      around.fill(0);
      expect(await store.get("view")).toEqual(expected);
      const plain = new Uint8Array(expected.buffer.slice(0, 300));
      await store.put("view", plain);
      expect(await store.get("view")).toEqual(Buffer.from(plain));
      await store.remove("view");
    });

    test("memory that threads share, with its SHA-256, is stored as it was when the put resolved", async () => {
      const memory = new Uint8Array(new SharedArrayBuffer(300_000));
      memory.set(content(200_000, 8), 1000);
      const view = memory.subarray(1000, 201_000);
      const sha256 = createHash("sha256").update(view).digest("hex");
      expect(await store.put("views/shared", view, { sha256 })).toBe("stored");
      memory.fill(9);
      expect((await store.get("views/shared"))?.equals(content(200_000, 8))).toBe(true);
      await store.remove("views/shared");
    });

    test("ranges: inside, across the end, past the end, of nothing, of no object", async () => {
      const bytes = content(300 * KiB, 4);
      await store.put("ranged", bytes);
      const cases = [
        [0, 1],
        [0, 300 * KiB],
        [1, 4096],
        [256 * KiB - 1, 2],
        [300 * KiB - 1, 1],
        [300 * KiB - 10, 100],
        [300 * KiB, 10],
        [400 * KiB, 10],
        [5, 0],
      ] as const;
      for (const [start, length] of cases) {
        const got = await store.get("ranged", { start, length });
        expect(got?.equals(bytes.subarray(start, start + length)), `${start}+${length}`).toBe(true);
      }
      expect(await store.get("unranged", { start: 0, length: 10 })).toBeNull();
      expect(await store.get("unranged", { start: 5, length: 0 })).toBeNull();
      await store.remove("ranged");
    });

    test("a put without a condition replaces; readers meanwhile see one or the other, whole", async () => {
      const versions = [content(200_000, 5), content(150_000, 6)];
      await store.put("replaced", versions[0]!);
      const writing = { goesOn: true };
      const readers = [1, 2].map(async () => {
        while (writing.goesOn) {
          const got = await bench.other.get("replaced");
          expect(versions.some((version) => got?.equals(version) === true)).toBe(true);
        }
      });
      for (let round = 1; round <= 20; round += 1) await store.put("replaced", versions[round % 2]!);
      writing.goesOn = false;
      await Promise.all(readers);
      await store.remove("replaced");
    });

    listContract(() => bench);
    limitsContract(() => bench);

    test("the probe says what the store can do and leaves nothing behind", async () => {
      const found = await store.probe();
      expect(await all(store, "probe/")).toEqual([]);
      if (bench.conditionalPut !== "whatever") expect(found.conditionalPut).toBe(bench.conditionalPut);
      if (!found.conditionalPut) return;
      expect(await store.put("only/new", Buffer.from("first"), { onlyNew: true })).toBe("stored");
      expect(await bench.other.put("only/new", Buffer.from("second"), { onlyNew: true })).toBe("exists");
      expect(String(await store.get("only/new"))).toBe("first");
      await store.remove("only/new");
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, index) =>
          (index % 2 === 0 ? store : bench.other).put("only/new", Buffer.from(`${index}`), { onlyNew: true }),
        ),
      );
      expect(answers.filter((answer) => answer === "stored")).toHaveLength(1);
      expect(String(await store.get("only/new"))).toBe(String(answers.indexOf("stored")));
      await store.remove("only/new");
    });
  });
}

function listContract(bench: () => ObjectStoreBench): void {
  test("list: every object below a prefix once, with its facts, and no other", async () => {
    const { store } = bench();
    const keys = [
      "list/a",
      "list/ab",
      "list/b/c",
      "list/b/d.seg",
      "list/b/d/e_f-g",
      "list/0000000000000001.x",
      "lis",
      "list2/a",
    ];
    const beganMs = Date.now();
    await Promise.all(keys.map((key, index) => store.put(key, content(index * 10, index))));
    const found = await all(bench().other, "list/");
    expect(found.map((facts) => facts.key)).toEqual(keys.filter((key) => key.startsWith("list/")).toSorted());
    for (const facts of found) {
      expect(facts.bytes).toBe(keys.indexOf(facts.key) * 10);
      if (!store.place.startsWith("sim")) {
        // Stores count in seconds, some round.
        expect(facts.modifiedMs).toBeGreaterThan(beganMs - 2_000);
        expect(facts.modifiedMs).toBeLessThan(Date.now() + 2_000);
      }
      expect((await store.head(facts.key))?.bytes).toBe(facts.bytes);
    }
    expect((await all(store, "list/b/d")).map((facts) => facts.key)).toEqual([
      "list/b/d.seg",
      "list/b/d/e_f-g",
    ]);
    expect((await all(store, "list/0000")).map((facts) => facts.key)).toEqual(["list/0000000000000001.x"]);
    expect((await all(store, "lis")).map((facts) => facts.key)).toEqual(keys.toSorted());
    expect((await all(store, "")).map((facts) => facts.key)).toEqual(keys.toSorted());
    expect(await all(store, "list/a/")).toEqual([]);
    expect(await all(store, "nowhere/")).toEqual([]);
    await Promise.all(keys.map((key) => store.remove(key)));
    expect(await all(store, "")).toEqual([]);
  });

  test("list goes on over several pages", async () => {
    const { store } = bench();
    const keys = Array.from({ length: 1203 }, (_, index) => `pages/${String(index).padStart(5, "0")}`);
    for (let at = 0; at < keys.length; at += 100) {
      await Promise.all(keys.slice(at, at + 100).map((key) => store.put(key, Buffer.from("x"))));
    }
    expect((await all(store, "pages/")).map((facts) => facts.key)).toEqual(keys);
    for (let at = 0; at < keys.length; at += 100) {
      await Promise.all(keys.slice(at, at + 100).map((key) => store.remove(key)));
    }
    expect(await all(store, "pages/")).toEqual([]);
  });
}

function limitsContract(bench: () => ObjectStoreBench): void {
  test("a bad key is Invalid and reaches no store", async () => {
    const { store } = bench();
    const bad = [
      "",
      "/",
      "a//b",
      "/a",
      "a/",
      ".",
      "..",
      "a/../b",
      "a/./b",
      "ä",
      "a b",
      "~tmp/x",
      "a\0b",
      "a\nb",
      "a%2e",
    ];
    for (const key of [...bad, "k".repeat(513), "k".repeat(256)]) {
      expect((await failure(store.put(key, Buffer.from("x")))).kind, key).toBe("Invalid");
      expect((await failure(store.get(key))).kind, key).toBe("Invalid");
      expect((await failure(store.head(key))).kind, key).toBe("Invalid");
      expect((await failure(store.remove(key))).kind, key).toBe("Invalid");
    }
    expect((await failure(all(store, "../"))).kind).toBe("Invalid");
    expect((await failure(all(store, "/"))).kind).toBe("Invalid");
    const longest = `${"d".repeat(255)}/${"f".repeat(254)}/x`;
    await store.put(longest, Buffer.from("long"));
    expect(String(await store.get(longest))).toBe("long");
    expect((await all(store, "d")).map((facts) => facts.key)).toEqual([longest]);
    await store.remove(longest);
  });

  test("many at once, each with its own bytes", async () => {
    const { store, other } = bench();
    const keys = Array.from({ length: 64 }, (_, index) => `many/${index % 7}/${index}`);
    await Promise.all(keys.map((key, index) => store.put(key, content(5000 + index, index))));
    const back = await Promise.all(keys.map((key) => other.get(key)));
    for (const [index, got] of back.entries()) expect(got?.equals(content(5000 + index, index))).toBe(true);
    await Promise.all(keys.map((key) => store.remove(key)));
    expect(await all(store, "many/")).toEqual([]);
  });

  test("requests are counted by kind, with the bytes of content", async () => {
    const { store } = bench();
    const before = { ...store.counters };
    await store.put("counted", content(1000, 1));
    await store.get("counted", { start: 100, length: 50 });
    await store.head("counted");
    await all(store, "counted");
    await store.remove("counted");
    const grown = (kind: keyof ObjectStore["counters"]): number => store.counters[kind] - before[kind];
    expect([grown("put"), grown("get"), grown("head"), grown("list"), grown("delete")]).toEqual([
      1, 1, 1, 1, 1,
    ]);
    expect([grown("putBytes"), grown("getBytes"), grown("retries")]).toEqual([1000, 50, 0]);
  });
}
