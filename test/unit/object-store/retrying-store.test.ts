// The retrying store on a simulated bucket with faults, in simulated time: what it must hide (errors that pass, lost answers,
// broken bodies), what it must tell (away, full, hung), and its limits. The same lines run on S3.
import { beforeEach, describe, expect, test } from "vitest";
import { RequestGate } from "#shared/adapters/object-store/request-gate.ts";
import { openSimulatedObjectStore } from "#shared/adapters/object-store/simulated.ts";
import { type BucketFaults, SimulatedBucket } from "#shared/adapters/object-store/simulated-bucket.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

let clock: SteppedClock;
let bucket: SimulatedBucket;
let store: ObjectStore;

function setUp(seed: number, faults: Partial<BucketFaults> = {}): void {
  clock = new SteppedClock(seed);
  bucket = new SimulatedBucket({ clock, random: clock.random, faults });
  store = openSimulatedObjectStore(bucket, clock, clock.random);
}

async function failure(promise: Promise<unknown>): Promise<ObjectStoreError> {
  const outcome = await clock.until(
    promise.then(
      () => null,
      (error: unknown) => error,
    ),
  );
  expect(outcome).toBeInstanceOf(ObjectStoreError);
  return outcome as ObjectStoreError;
}

function pass(ms: number): Promise<void> {
  return clock.until(
    new Promise((resolve) => {
      clock.after(ms, resolve);
    }),
  );
}

beforeEach(() => setUp(1));

describe("faults that pass", () => {
  test("are hidden: thousands of requests with errors before, lost answers, slow and broken ones", async () => {
    setUp(2, { errorBefore: 0.1, errorAfter: 0.1, slow: 0.05, brokenBody: 0.1 });
    for (let index = 0; index < 400; index += 1) {
      const key = `k/${index % 10}`;
      const content = Buffer.from(clock.random.hex(1 + (index % 50)));
      expect(await clock.until(store.put(key, content))).toBe("stored");
      expect(await clock.until(store.get(key))).toEqual(content);
      expect((await clock.until(store.head(key)))?.bytes).toBe(content.length);
      await clock.until(store.remove(key));
      expect(await clock.until(store.get(key))).toBeNull();
    }
    expect(store.counters.retries).toBeGreaterThan(200);
    expect(bucket.counters.faults).toBeGreaterThan(200);
  });

  test("a conditional put whose answer was lost is ours, one that somebody else won is not", async () => {
    let ours = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      setUp(seed, { errorAfter: 0.5 });
      const other = openSimulatedObjectStore(bucket, clock, clock.random);
      const answers = await clock.until(
        Promise.all([
          store.put("once", Buffer.from("a"), { onlyNew: true }),
          other.put("once", Buffer.from("b"), { onlyNew: true }),
        ]),
      );
      const winner = String(bucket.content("once"));
      expect(answers, `seed ${seed}`).toEqual(winner === "a" ? ["stored", "exists"] : ["exists", "stored"]);
      if (store.counters.retries > 0) ours += 1;
    }
    expect(ours).toBeGreaterThan(20);
  });
});

describe("faults that stay", () => {
  test("away: Retry, after the most attempts or the most time, and ambiguous", async () => {
    bucket.faults.away = true;
    const beganMs = clock.monotonicMs();
    const error = await failure(store.put("a", Buffer.from("x")));
    expect(error).toMatchObject({ kind: "Retry", operation: "put", key: "a", ambiguous: true });
    expect(clock.monotonicMs() - beganMs).toBeLessThan(limits.bucketRetryMs + 1_000);
    expect(store.counters.put).toBeLessThanOrEqual(limits.bucketAttemptsMax);
    expect(store.counters.put).toBeGreaterThan(4);
    bucket.faults.away = false;
    expect(await clock.until(store.put("a", Buffer.from("x")))).toBe("stored");
  });

  test("full: Full at once, without a retry", async () => {
    bucket.faults.full = true;
    expect((await failure(store.put("a", Buffer.from("x")))).kind).toBe("Full");
    expect(store.counters).toMatchObject({ put: 1, retries: 0 });
  });

  test("hung: the attempt ends when its time is up, the whole soon after", async () => {
    bucket.faults.hang = 1;
    const beganMs = clock.monotonicMs();
    const error = await failure(store.get("a", { start: 0, length: 4096 }));
    expect(error.kind).toBe("Retry");
    expect(error.message).toContain("no answer in 20 s");
    const tookMs = clock.monotonicMs() - beganMs;
    expect(tookMs).toBeGreaterThan(limits.bucketAnswerMs);
    expect(tookMs).toBeLessThan(limits.bucketRetryMs + limits.bucketAnswerMs + 10_000);
  });

  test("an answer that comes while the machine is paused counts when it goes on", async () => {
    await clock.until(store.put("a", Buffer.from("here")));
    bucket.faults.hang = 1;
    const waiting = store.get("a");
    await pass(5000);
    clock.standStill(10 * limits.bucketAnswerMs);
    await pass(limits.bucketAnswerMs / 4);
    expect(store.counters.retries).toBe(0);
    bucket.faults.hang = 0;
    expect(String(await clock.until(waiting))).toBe("here");
    expect(store.counters.retries).toBe(1);
  });

  test("a hung DELETE may land after the caller put the object again", async () => {
    let landed = 0;
    for (let seed = 1; seed <= 30; seed += 1) {
      setUp(seed);
      await clock.until(store.put("again", Buffer.from("1")));
      bucket.faults.hang = 1;
      await failure(store.remove("again"));
      bucket.faults.hang = 0;
      await clock.until(store.put("again", Buffer.from("2")));
      await clock.run(1000);
      if (bucket.content("again") === null) landed += 1;
    }
    expect(landed).toBeGreaterThan(0);
    expect(landed).toBeLessThan(30);
  });

  test("a listing goes on over pages and faults without losing or doubling a key", async () => {
    setUp(5, { errorBefore: 0.1, errorAfter: 0.1 });
    const keys = Array.from({ length: 1200 }, (_, index) => `list/${String(index).padStart(6, "0")}`);
    await clock.until(Promise.all(keys.map((key) => store.put(key, Buffer.from(key)))));
    const found: string[] = [];
    const listing = async (): Promise<void> => {
      for await (const { key } of store.list("list/")) found.push(key);
    };
    await clock.until(listing());
    expect(found).toEqual(keys);
  });
});

describe("limits", () => {
  test("so many requests at once, reads apart from writes", async () => {
    let [writing, reading, writingMost, readingMost] = [0, 0, 0, 0];
    const serve = bucket.serve.bind(bucket);
    bucket.serve = async (life, operation, key, effect) => {
      const isWrite = operation === "put";
      if (isWrite) writingMost = Math.max(writingMost, ++writing);
      else readingMost = Math.max(readingMost, ++reading);
      try {
        return await serve(life, operation, key, effect);
      } finally {
        if (isWrite) writing -= 1;
        else reading -= 1;
      }
    };
    const puts = Array.from({ length: 100 }, (_, index) => store.put(`p/${index}`, Buffer.from("x")));
    const gets = Array.from({ length: 100 }, (_, index) => store.get(`p/${index}`));
    await clock.until(Promise.all([...puts, ...gets]));
    expect(writingMost).toBe(limits.bucketWritesInFlightMax);
    expect(readingMost).toBe(limits.bucketReadsInFlightMax);
  });

  test("a queue has an end, and whoever waits gets the place in order", async () => {
    const gate = new RequestGate(2, 3);
    const order: number[] = [];
    const letGo: (() => void)[] = [];
    const runs = Array.from({ length: 5 }, (_, index) =>
      gate.run(async () => {
        order.push(index);
        await new Promise<void>((resolve) => letGo.push(resolve));
        if (index === 1) throw new Error("one fails");
      }),
    );
    const settled = Promise.allSettled(runs);
    expect(gate.isFull).toBe(true);
    for (let index = 0; index < 5; index += 1) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      expect(order).toHaveLength(Math.min(5, index + 2));
      letGo[index]?.();
    }
    expect((await settled).map((outcome) => outcome.status === "rejected")).toEqual([
      false,
      true,
      false,
      false,
      false,
    ]);
    expect(order).toEqual([0, 1, 2, 3, 4]);
    expect(gate.isFull).toBe(false);
  });

  test("bytes per second, each way by itself", async () => {
    const { RetryingObjectStore } = await import("#shared/adapters/object-store/retrying-store.ts");
    const plain = store as unknown as { requests: ConstructorParameters<typeof RetryingObjectStore>[0] };
    const limited = new RetryingObjectStore(plain.requests, {
      clock,
      random: clock.random,
      bandwidth: { putBytesPerSecond: 100_000, getBytesPerSecond: 1_000_000 },
    });
    const content = Buffer.alloc(100_000, 7);
    let beganMs = clock.monotonicMs();
    await clock.until(Promise.all([1, 2, 3, 4, 5].map((index) => limited.put(`b/${index}`, content))));
    expect(clock.monotonicMs() - beganMs).toBeGreaterThan(4_000);
    expect(clock.monotonicMs() - beganMs).toBeLessThan(4_200);
    beganMs = clock.monotonicMs();
    await clock.until(
      Promise.all([1, 2, 3, 4, 5].map((index) => limited.get(`b/${index}`, { start: 0, length: 100_000 }))),
    );
    expect(clock.monotonicMs() - beganMs).toBeGreaterThan(400);
    expect(clock.monotonicMs() - beganMs).toBeLessThan(600);
    for (let round = 0; round < 3; round += 1) await clock.until(limited.get("b/1"));
    expect(clock.monotonicMs() - beganMs).toBeGreaterThan(700);
  });

  test("close ends what waits and what is under way, and nothing is asked after it", async () => {
    bucket.faults.hang = 1;
    const hung = store.get("x");
    await clock.run(2);
    bucket.faults.hang = 0;
    bucket.faults.away = true;
    const retrying = store.put("y", Buffer.from("y"));
    await clock.run(6);
    const failures = Promise.allSettled([hung, retrying]);
    await store.close();
    const outcomes = await failures;
    expect(outcomes.map((outcome) => outcome.status)).toEqual(["rejected", "rejected"]);
    const { requests } = bucket.counters;
    expect((await failure(store.get("x"))).kind).toBe("Retry");
    expect(bucket.counters.requests).toBe(requests);
  });
});

describe("the probe", () => {
  test("finds a store that ignores If-None-Match, and believes one that keeps it, whatever else goes wrong", async () => {
    for (let seed = 1; seed <= 6; seed += 1) {
      setUp(seed, { conditionalPutLies: true });
      expect(await clock.until(store.probe())).toEqual({ conditionalPut: false, durablePut: false });
      expect(bucket.keys()).toEqual([]);
      setUp(seed, { errorBefore: 0.1, errorAfter: 0.1 });
      expect(await clock.until(store.probe())).toEqual({ conditionalPut: true, durablePut: false });
      expect(bucket.keys()).toEqual([]);
    }
  });

  test("rejects where the store is away: then nothing is known", async () => {
    bucket.faults.away = true;
    expect((await failure(store.probe())).kind).toBe("Retry");
  });
});

describe("the simulated bucket", () => {
  test("a power cut takes back some of what is recent and none of what is old", async () => {
    let [lost, kept] = [0, 0];
    for (let seed = 1; seed <= 40; seed += 1) {
      setUp(seed);
      await clock.until(store.put("old", Buffer.from("old")));
      await clock.until(store.put("gone", Buffer.from("gone")));
      await pass(60_001);
      await clock.until(store.put("new", Buffer.from("new")));
      await clock.until(store.remove("gone"));
      bucket.powerLoss();
      expect(String(bucket.content("old"))).toBe("old");
      if (bucket.content("new") === null) lost += 1;
      if (bucket.content("gone") !== null) kept += 1;
    }
    expect(lost).toBeGreaterThan(5);
    expect(lost).toBeLessThan(35);
    expect(kept).toBeGreaterThan(5);
    expect(kept).toBeLessThan(35);
  });

  test("a killed process hears nothing more; what it had asked for happens, happens late, or never", async () => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 40; seed += 1) {
      setUp(seed);
      let heard = false;
      const hear = (): void => {
        heard = true;
      };
      store.put("last", Buffer.from("last")).then(hear, hear);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      bucket.kill();
      clock.reset();
      const now = bucket.content("last") !== null;
      await pass(200_000);
      const next = openSimulatedObjectStore(bucket, clock, clock.random);
      const found = await clock.until(next.get("last"));
      expect(heard).toBe(false);
      seen.add(now ? "now" : found === null ? "never" : "late");
    }
    expect([...seen].sort()).toEqual(["late", "never", "now"]);
  });

  test("damage changes one bit, and lose takes an object away", async () => {
    await clock.until(store.put("d", Buffer.alloc(100)));
    expect(bucket.damage("d")).toBe(true);
    const damaged = await clock.until(store.get("d"));
    expect(damaged?.filter((byte) => byte !== 0)).toHaveLength(1);
    expect(bucket.damage("none")).toBe(false);
    expect(bucket.lose("d")).toBe(true);
    expect(await clock.until(store.get("d"))).toBeNull();
  });
});
