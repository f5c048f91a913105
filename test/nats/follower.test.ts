// Replicas on other machines: what a follower yields, from where, across releases, restarts and fenced writers
// (docs/specs/jetstream-log.md, "Followers").
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { LogStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { FollowedBatch, FollowFrom, LogFollower } from "#shared/ports/log-follower.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { LogLab } from "./jetstream-house.ts";
import { expectPromises, fromBegin, readLog, SteadyWriter } from "./steady-writer.ts";

let servers: NatsServers;
let lab: LogLab;

beforeEach(async () => {
  servers = await NatsServers.start();
  lab = new LogLab(servers);
});
afterEach(async () => {
  await lab.close();
  await servers.stop();
});

/** What a replica would keep of what it applied. */
interface Applied {
  readonly from: FollowFrom;
  readonly firstLsn: number;
}

function checkpointOf({ batch, sequence }: FollowedBatch): Applied {
  const { line, firstLsn, entries, checksum } = batch;
  return { firstLsn, from: { line, appliedLsn: firstLsn + entries.length - 1, checksum, sequence } };
}

/** Follows up to `untilLsn`. */
async function follow(follower: LogFollower, from: FollowFrom, untilLsn: number): Promise<Applied[]> {
  const applied: Applied[] = [];
  for await (const followed of follower.follow(from, new AbortController().signal)) {
    applied.push(checkpointOf(followed));
    if ((applied.at(-1)?.from.appliedLsn ?? 0) >= untilLsn) break;
  }
  return applied;
}

describe("a follower", () => {
  test("goes on from every checkpoint, several batches to a message, and yields each batch once", async () => {
    const { writer, listener } = await lab.gateway();
    const steady = new SteadyWriter(1, writer, listener);
    steady.burst(60);
    await writer.sync();
    const follower = await lab.follower();
    const all = await follow(follower, fromBegin, 61);
    expect(all.map(({ firstLsn }) => firstLsn)).toEqual(Array.from({ length: 61 }, (_, index) => index + 1));
    const sequences = new Set(all.map(({ from }) => from.sequence));
    expect(sequences.size).toBeLessThan(10);
    for (const { from } of all.slice(0, -1).filter((_, index) => index % 7 === 0)) {
      for (const sequence of [from.sequence, 0, 999_999]) {
        const rest = await follow(follower, { ...from, sequence }, 61);
        expect(rest).toEqual(all.slice(from.appliedLsn));
      }
    }
  });

  test("waits at the end of the log for what comes, and ends with its signal", async () => {
    const { writer, listener } = await lab.gateway();
    const follower = await lab.follower();
    const over = new AbortController();
    const seen: number[] = [];
    const following = (async () => {
      for await (const { batch } of follower.follow(fromBegin, over.signal)) seen.push(batch.firstLsn);
    })();
    const steady = new SteadyWriter(1, writer, listener);
    for (let round = 0; round < 5; round += 1) {
      steady.burst(3);
      await writer.sync();
      await vi.waitFor(() => expect(seen.at(-1)).toBe(writer.state().lastLsn), 10_000);
    }
    expect(seen).toEqual(Array.from({ length: 16 }, (_, index) => index + 1));
    over.abort();
    await following;
  });

  test("follows through restarts of its server and through new gateways", async () => {
    const follower = await lab.follower();
    const first = await lab.gateway();
    const over = new AbortController();
    let lastLsn = 0;
    const following = (async () => {
      for await (const { batch } of follower.follow(fromBegin, over.signal)) {
        expect(batch.firstLsn).toBe(lastLsn + 1);
        lastLsn = batch.firstLsn + batch.entries.length - 1;
      }
    })();
    const writers = [new SteadyWriter(1, first.writer, first.listener)];
    writers[0]?.burst(30);
    await first.writer.sync();
    for (let id = 2; id <= 3; id += 1) {
      await servers.node(0).restart();
      const { writer, listener } = await lab.gateway();
      const steady = new SteadyWriter(id, writer, listener);
      writers.push(steady);
      steady.burst(30);
      await writer.sync();
      await vi.waitFor(() => expect(lastLsn).toBe(writer.state().lastLsn), 30_000);
    }
    over.abort();
    await following;
    expectPromises(await readLog(await lab.follower()), writers);
  });

  test("after a release its own checkpoint's batch is still there; one that is behind is told to fill", async () => {
    const { writer, listener } = await lab.gateway({ gatherBytes: 1 });
    new SteadyWriter(1, writer, listener).burst(50);
    await writer.sync();
    const follower = await lab.follower();
    const all = await follow(follower, fromBegin, 51);
    await writer.release(31);
    const at30 = all[29]?.from ?? fromBegin;
    expect(at30.appliedLsn).toBe(30);
    for (const sequence of [at30.sequence, 0]) {
      const rest = await follow(follower, { ...at30, sequence }, 51);
      expect(rest).toEqual(all.slice(30));
    }
    const { oldestLsn } = writer.state();
    expect(oldestLsn).toBeGreaterThan(11);
    expect(oldestLsn).toBeLessThanOrEqual(30);
    expect(await follower.end()).toMatchObject({ epoch: 1, oldestLsn, lastLsn: 51 });
    const at10 = all[9]?.from ?? fromBegin;
    for (const from of [at10, { ...at10, sequence: 0 }, fromBegin]) {
      await expect(follow(follower, from, 51)).rejects.toMatchObject({
        kind: "Invalid",
        _tag: "LogReleased",
      });
    }
  });

  test("who reads waits for servers that are busy, and is told when its place was released before it came there", async () => {
    const { writer, listener } = await lab.gateway({ gatherBytes: 1 });
    new SteadyWriter(1, writer, listener).burst(50);
    await writer.sync();
    const follower = await lab.follower();
    const firstOf = async (lsn: number): Promise<number | undefined> => {
      for await (const { firstLsn } of follower.read(lsn, 51, new AbortController().signal)) return firstLsn;
      return undefined;
    };
    const busy = new VarveError("LogAway", "Retry", "no answer within a second");
    const view = vi.spyOn(LogStream.prototype, "view").mockRejectedValueOnce(busy);
    expect(await firstOf(20)).toBe(20);
    // What it met is not looked up again, nor is a consumer made for one batch.
    const asked = [
      vi.spyOn(LogStream.prototype, "nextOf").mockRejectedValue(busy),
      vi.spyOn(LogStream.prototype, "messagesFrom").mockImplementation(() => expect.unreachable()),
    ];
    expect(await firstOf(20)).toBe(20);
    for (const one of asked) one.mockRestore();
    view.mockRestore();
    const at = vi.spyOn(LogStream.prototype, "at");
    at.mockImplementationOnce(async () => {
      await writer.release(31);
      return null;
    });
    await expect(firstOf(20)).rejects.toMatchObject({ kind: "Invalid", _tag: "LogReleased" });
    at.mockRestore();
    // Met before, and gone since.
    expect(await firstOf(40)).toBe(40);
    await writer.release(51);
    await expect(firstOf(40)).rejects.toMatchObject({ kind: "Invalid", _tag: "LogReleased" });
  });

  test("a checkpoint of another history is refused, and so is one of another line", async () => {
    const { writer, listener } = await lab.gateway({ gatherBytes: 1 });
    new SteadyWriter(1, writer, listener).burst(10);
    await writer.sync();
    const follower = await lab.follower();
    const all = await follow(follower, fromBegin, 11);
    const at5 = all[4]?.from ?? fromBegin;
    for (const from of [
      { ...at5, checksum: at5.checksum + 1n },
      { ...at5, line: "00c0ffee00c0ffee" },
    ]) {
      await expect(follow(follower, from, 11)).rejects.toMatchObject({ kind: "Corrupt", _tag: "LogDamaged" });
    }
  });

  test("a replica that is ahead of the log does not follow a log that ends before it", async () => {
    const { writer, listener } = await lab.gateway();
    new SteadyWriter(1, writer, listener).burst(3);
    await writer.sync();
    const follower = await lab.follower({ openMs: 300 });
    const [last] = (await follow(follower, fromBegin, 4)).slice(-1);
    const from = { ...(last?.from ?? fromBegin), appliedLsn: 400, checksum: 7n, sequence: 0 };
    new SteadyWriter(2, writer, listener).burst(1);
    await writer.sync();
    await writer.close();
    expect((await follower.end())?.lastLsn).toBeLessThan(from.appliedLsn);
    await expect(follow(follower, from, 500)).rejects.toMatchObject({
      kind: "Corrupt",
      _tag: "LogEndsEarly",
    });
    await expect(lab.gateway({}, { knownLsn: from.appliedLsn })).rejects.toMatchObject({
      kind: "Corrupt",
      _tag: "LogEndsEarly",
    });
  });

  test("a log that is not there", async () => {
    const follower = await lab.follower();
    expect(await follower.end()).toBeNull();
    await expect(follow(follower, fromBegin, 1)).rejects.toMatchObject({
      kind: "Corrupt",
      _tag: "LogMissing",
    });
  });
});

describe("in a cluster", () => {
  let three: NatsServers;
  beforeEach(async () => {
    three = await NatsServers.start({ servers: 3 });
  });
  afterEach(async () => {
    await three.stop();
  });

  // Without the reset at a reconnect, and single reads while nobody makes consumers, one of three kills left it 6 to 12 s behind.
  test("is soon there again, whichever server is killed", async () => {
    const house = new LogLab(three, 3);
    const { writer, listener } = await house.gateway();
    const steady = new SteadyWriter(1, writer, listener);
    const over = new AbortController();
    let seenLsn = 0;
    const following = (async () => {
      for await (const { batch } of (await house.follower()).follow(fromBegin, over.signal)) {
        seenLsn = batch.firstLsn + batch.entries.length - 1;
      }
    })();
    let longestMs = 0;
    let told: { readonly lsn: number; readonly atMs: number }[] = [];
    let grown = { lsn: 0, atMs: performance.now() };
    const look = setInterval(() => {
      const nowMs = performance.now();
      // While the stream has no leader nobody reads or writes it: how long that is, 4 to 9 s, is the servers' matter, not the follower's.
      const isStill = nowMs - grown.atMs > 500;
      if (listener.durableLsn > grown.lsn) {
        grown = { lsn: listener.durableLsn, atMs: nowMs };
        if (isStill) told = told.map(({ lsn }) => ({ lsn, atMs: nowMs }));
      }
      told.push({ lsn: listener.durableLsn, atMs: nowMs });
      while ((told[0]?.lsn ?? Number.POSITIVE_INFINITY) <= seenLsn) told.shift();
      if (!isStill) longestMs = Math.max(longestMs, nowMs - (told[0]?.atMs ?? nowMs));
    }, 20);
    try {
      let isOver = false;
      const running = steady.run(() => isOver, 4);
      for (const server of three.nodes) {
        await vi.waitFor(() => expect(seenLsn).toBeGreaterThan(0), 20_000);
        await server.kill();
        await server.start();
        const goal = steady.told + 200;
        await vi.waitFor(() => expect(steady.told).toBeGreaterThan(goal), 30_000);
        const { durableLsn } = listener;
        await vi.waitFor(() => expect(seenLsn).toBeGreaterThanOrEqual(durableLsn), 30_000);
      }
      isOver = true;
      await running;
      expect(longestMs).toBeLessThan(4000);
    } finally {
      clearInterval(look);
      over.abort();
      await following;
      await house.close();
    }
  }, 120_000);
});
