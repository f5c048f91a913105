// The S3 store against a real server that is killed, restarted, stopped in its tracks: requests carry on within the limits of
// the retries, what was answered is there, and what stays away is Retry.
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { S3Server } from "../tools/s3-servers.ts";

/** Each test its own server, so that they wait side by side: SeaweedFS takes writes 15 s after a restart. */
async function onServer(work: (server: S3Server, store: ObjectStore) => Promise<void>): Promise<void> {
  const server = await S3Server.start();
  try {
    const store = await openObjectStore(server.url("outage"), {
      clock: new SystemClock(),
      random: new SystemRandom(),
      environment: server.env,
    });
    try {
      await work(server, store);
    } finally {
      await store.close();
    }
  } finally {
    await server.stop();
  }
}

const contentOf = (key: string): Buffer =>
  Buffer.concat([Buffer.alloc(50_000, key), createHash("sha256").update(key).digest()]);
const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

test.concurrent("kill -9 of the server and restart, twice under load: every request succeeds, with retries", () =>
  onServer(async (server, store) => {
    const load = { goesOn: true };
    const answered: string[] = [];
    const lane = async (number: number): Promise<void> => {
      for (let index = 0; load.goesOn; index += 1) {
        const key = `lane-${number}/${index}`;
        expect(await store.put(key, contentOf(key), { onlyNew: index % 2 === 0 })).toBe("stored");
        answered.push(key);
        expect((await store.get(key))?.equals(contentOf(key))).toBe(true);
        if (index % 5 !== 4) continue;
        await store.remove(key);
        answered.splice(answered.indexOf(key), 1);
      }
    };
    const lanes = Promise.all([1, 2, 3, 4, 5, 6].map(lane));
    lanes.catch(() => undefined);
    const progress = async (): Promise<void> => {
      const enough = answered.length + 15;
      while (answered.length < enough) await Promise.race([pause(20), lanes]);
    };
    for (let round = 0; round < 2; round += 1) {
      await progress();
      await server.kill();
      await pause(700);
      await server.restart();
    }
    await progress();
    load.goesOn = false;
    await lanes;
    expect(store.counters.retries).toBeGreaterThan(10);
    for (const key of answered) expect((await store.get(key))?.equals(contentOf(key)), key).toBe(true);
    const listed: string[] = [];
    for await (const { key } of store.list("lane-")) listed.push(key);
    expect(listed.sort()).toEqual(answered.sort());
  }));

test.concurrent("a server that is frozen for three seconds delays requests and fails none", () =>
  onServer(async (server, store) => {
    await store.put("before", contentOf("before"));
    server.signal("SIGSTOP");
    const began = performance.now();
    const frozen = Promise.all([
      store.get("before"),
      store.put("meanwhile", contentOf("meanwhile")),
      store.head("before"),
    ]);
    await pause(3_000);
    server.signal("SIGCONT");
    const [content, answer, facts] = await frozen;
    expect(performance.now() - began).toBeGreaterThan(2_900);
    expect(content?.equals(contentOf("before"))).toBe(true);
    expect(answer).toBe("stored");
    expect(facts?.bytes).toBe(50_032);
  }));

test.concurrent("a server that stays away is Retry, within the limit, and close ends the waiting at once", () =>
  onServer(async (server, store) => {
    await server.kill();
    const began = performance.now();
    const [failed, closed] = await Promise.allSettled([
      store.get("x"),
      (async () => {
        const late = await openObjectStore(server.url("late"), {
          clock: new SystemClock(),
          random: new SystemRandom(),
          environment: server.env,
        });
        const waiting = late.put("y", Buffer.from("y"));
        setTimeout(() => void late.close(), 500);
        const closedMs = performance.now();
        await expect(waiting).rejects.toMatchObject({ kind: "Retry" });
        expect(performance.now() - closedMs).toBeLessThan(1_500);
      })(),
    ]);
    expect(closed.status).toBe("fulfilled");
    const reason = failed.status === "rejected" ? failed.reason : null;
    expect(reason).toBeInstanceOf(ObjectStoreError);
    expect(reason).toMatchObject({ kind: "Retry", ambiguous: true, key: "x" });
    expect(performance.now() - began).toBeLessThan(40_000);
  }));
