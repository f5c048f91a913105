// Rule by rule: who may append (docs/specs/jetstream-log.md, "A tenure begins", "Resume"). Two writers, paused and late ones, and
// messages that a fenced writer still brings in, against a real server.
import { jetstream } from "@nats-io/jetstream";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { jetStreamLogSetup } from "#shared/adapters/write-log/jetstream-parts.ts";
import { LogStream, type StreamView } from "#shared/adapters/write-log/jetstream-stream.ts";
import { Takeover } from "#shared/adapters/write-log/jetstream-takeover.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { packRecord } from "#shared/formats/log-message.ts";
import { frameRecord } from "#shared/formats/log-record.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { allocate, LogLab } from "./jetstream-house.ts";
import { expectPromises, readLog, SteadyWriter } from "./steady-writer.ts";

let servers: NatsServers;
let lab: LogLab;

beforeAll(async () => {
  servers = await NatsServers.start();
});
afterAll(async () => {
  await servers.stop();
});
beforeEach(() => {
  lab = new LogLab(servers);
});
afterEach(async () => {
  await lab.close();
});

/** Sets the stream's subject as a late, stale gateway would. */
async function moveSubject(epoch: number): Promise<void> {
  const manager = await lab.manager();
  await manager.streams.update(lab.stream, { subjects: [lab.subject(epoch)] });
}

async function lastSequence(): Promise<number> {
  const manager = await lab.manager();
  return (await manager.streams.info(lab.stream)).state.last_seq;
}

/** A writer's stage: what it would frame next. */
interface StaleEnd {
  line: string;
  epoch: number;
  lastLsn: number;
  checksum: bigint;
}

/** The body of a batch that a writer of that epoch would send next. */
function staleBody(end: StaleEnd): Buffer {
  const draft = new BatchDraft(allocate(8192));
  draft.slab.bytes.fill(0xdd, draft.addWrite(2 ** 45 + end.lastLsn * 4096, 100), 4196);
  draft.firstLsn = end.lastLsn + 1;
  frameRecord(draft, { ...end, wallTimeMs: 0, durableLsn: end.lastLsn, previousChecksum: end.checksum });
  end.lastLsn += 1;
  end.checksum = draft.checksum;
  const body = Buffer.alloc(8192);
  return body.subarray(0, packRecord(draft, body, 0));
}

/** Where the writer of an epoch is now, for staleBody. */
async function endOf(writer: {
  state(): { line: string; epoch: number; lastLsn: number };
}): Promise<StaleEnd> {
  const { line, epoch, lastLsn } = writer.state();
  const follower = await lab.follower();
  let checksum = 0n;
  const from = { line: "", appliedLsn: 0, checksum: 0n, sequence: 0 };
  for await (const { batch } of follower.follow(from, new AbortController().signal)) {
    ({ checksum } = batch);
    if (batch.firstLsn + batch.entries.length - 1 >= lastLsn) break;
  }
  return { line, epoch, lastLsn, checksum };
}

describe("who may append", () => {
  test("a fenced writer's pipelined publishes find no responder, and its clients are told", async () => {
    const first = await lab.gateway();
    const old = new SteadyWriter(1, first.writer, first.listener);
    const running = old.run(() => false);
    await vi.waitFor(() => expect(old.told).toBeGreaterThan(30), 10_000);
    const second = await lab.gateway();
    const fresh = new SteadyWriter(2, second.writer, second.listener);
    fresh.burst(50);
    await second.writer.sync();
    await running;
    await vi.waitFor(
      () => expect(first.listener.error).toMatchObject({ kind: "Fenced", fields: { epoch: 2 } }),
      10_000,
    );
    expectPromises(await readLog(await lab.follower()), [old, fresh]);
  });

  test("six gateways take over from each other while all write: no promise is lost, doubled or reordered", async () => {
    const writers: SteadyWriter[] = [];
    const running: Promise<void>[] = [];
    let over = false;
    for (let id = 1; id <= 6; id += 1) {
      const { writer, listener } = await lab.gateway();
      const steady = new SteadyWriter(id, writer, listener);
      writers.push(steady);
      running.push(steady.run(() => over));
      await vi.waitFor(() => expect(steady.told).toBeGreaterThan(20), 10_000);
    }
    over = true;
    await Promise.all(running);
    const found = await readLog(await lab.follower());
    expect(found.epochs).toEqual([1, 2, 3, 4, 5, 6]);
    expectPromises(found, writers);
  });

  test("a stale writer's pipeline that matches the sequence again is left out by every reader, and the writer goes on", async () => {
    const first = await lab.gateway();
    new SteadyWriter(1, first.writer, first.listener).burst(3);
    await first.writer.sync();
    const stale = await endOf(first.writer);
    const second = await lab.gateway();
    const fresh = new SteadyWriter(2, second.writer, second.listener);
    fresh.burst(5);
    await second.writer.sync();

    // A late subject update by a gateway that was paused since epoch 1, and its pipeline, whose numbers match by chance.
    await moveSubject(1);
    const raw = jetstream(await lab.connect());
    for (let index = 0; index < 3; index += 1) {
      const expected = await lastSequence();
      await raw.publish(lab.subject(1), staleBody(stale), { expect: { lastSequence: expected } });
    }
    fresh.burst(20);
    await second.writer.sync();
    expect(second.writer.state().epoch).toBe(3);
    expect(second.listener.error).toBeNull();
    const found = await readLog(await lab.follower());
    expect(found.writes.filter(([offset]) => offset >= 2 ** 45)).toEqual([]);
    expect(found.epochs).toEqual([1, 2, 3]);
    expectPromises(found, [fresh]);
    expect(fresh.told).toBe(25);

    // And the next gateway stands on the same end.
    const third = await lab.gateway({}, { knownLsn: found.lastLsn });
    expect(third.writer.state()).toMatchObject({ epoch: 4, lastLsn: found.lastLsn + 1 });
    await expect(second.writer.sync()).resolves.toBeUndefined();
    await vi.waitFor(() => expect(second.listener.error).toMatchObject({ kind: "Fenced" }), 10_000);
  });

  test("stale messages at the very end mislead nobody who opens the log", async () => {
    const first = await lab.gateway();
    const stale = await endOf(first.writer);
    const second = await lab.gateway();
    await second.writer.close();
    await moveSubject(1);
    const raw = jetstream(await lab.connect());
    await raw.publish(lab.subject(1), staleBody(stale));
    await raw.publish(lab.subject(1), staleBody(stale));
    const third = await lab.gateway({}, { knownLsn: 2 });
    expect(third.writer.state()).toMatchObject({ epoch: 3, lastLsn: 3, oldestLsn: 1 });
    expect((await readLog(await lab.follower())).epochs).toEqual([1, 2, 3]);
    // Released up to the third tenure, the stale ones behind are still no beginning of anything.
    new SteadyWriter(3, third.writer, third.listener).burst(2);
    await third.writer.sync();
    await third.writer.release(3);
    expect(third.writer.state().oldestLsn).toBe(2);
    for await (const batch of third.writer.read(2)) expect(batch.epoch).toBeGreaterThan(1);
  });
});

describe("take-over", () => {
  test("somebody who moved the subject away and then did nothing does not end a tenure", async () => {
    const asked: number[] = [];
    const renewEpoch = (above: number): Promise<number> => {
      asked.push(above);
      return Promise.resolve(above + 5);
    };
    const { writer, listener } = await lab.gateway({ takeoverMs: 300 }, { renewEpoch });
    const steady = new SteadyWriter(1, writer, listener);
    steady.burst(10);
    await writer.sync();
    await moveSubject(9);
    steady.burst(30);
    await writer.sync();
    expect(asked).toEqual([9]);
    expect(writer.state()).toMatchObject({ epoch: 14, lastLsn: 42, durableLsn: 42 });
    expect(listener.error).toBeNull();
    const found = await readLog(await lab.follower());
    expect(found.epochs).toEqual([1, 14]);
    expectPromises(found, [steady]);
    expect(steady.told).toBe(40);
  });

  test("where the lease is gone meanwhile, the writer is fenced and appends nothing", async () => {
    const { writer, listener } = await lab.gateway(
      { takeoverMs: 100 },
      { renewEpoch: () => Promise.resolve(null) },
    );
    await moveSubject(9);
    const before = await lastSequence();
    new SteadyWriter(1, writer, listener).burst(5);
    await expect(writer.sync()).rejects.toMatchObject({ kind: "Fenced" });
    expect(listener.error).toMatchObject({
      kind: "Fenced",
      message: expect.stringContaining("lease") as string,
    });
    expect(await lastSequence()).toBe(before);
  });

  /** What a gateway does on its way to a tenure; a test pauses it before or behind one of them. */
  type Step = "view" | "moveTo" | "lastOf" | "publish";

  class SteppedStream extends LogStream {
    /** Called before each step, with how often it was taken. */
    before: (step: Step, count: number) => Promise<void> = () => Promise.resolve();
    readonly #counts = new Map<Step, number>();

    override async view(): Promise<StreamView | null> {
      await this.#step("view");
      return await super.view();
    }
    override async moveTo(...args: Parameters<LogStream["moveTo"]>): Promise<void> {
      await this.#step("moveTo");
      await super.moveTo(...args);
    }
    override async lastOf(epoch: number) {
      await this.#step("lastOf");
      return await super.lastOf(epoch);
    }
    override async publish(...args: Parameters<LogStream["publish"]>) {
      await this.#step("publish");
      return await super.publish(...args);
    }
    async #step(step: Step): Promise<void> {
      const count = (this.#counts.get(step) ?? 0) + 1;
      this.#counts.set(step, count);
      await this.before(step, count);
    }
  }

  async function steppedTakeover(epoch: number, before: SteppedStream["before"]) {
    const connection = await lab.connect();
    const stream = new SteppedStream(connection, lab.volumeId);
    stream.before = before;
    const setup = { ...jetStreamLogSetup(lab.parts(connection)), stream };
    return new Takeover(setup, { writer: "paused", epoch, knownLsn: 0, begin: undefined });
  }

  const pauses: readonly (readonly [Step, number])[] = [
    ["view", 1],
    ["lastOf", 1],
    ["moveTo", 1],
    ["view", 2],
    ["lastOf", 2],
    ["publish", 1],
  ];
  for (const [step, count] of pauses) {
    test(`a gateway that is paused before ${step} ${count} of its take-over, and wakes when a newer lease writes, appends nothing`, async () => {
      const first = await lab.gateway({}, { epoch: 1 });
      new SteadyWriter(1, first.writer, first.listener).burst(4);
      await first.writer.sync();
      let newer: Awaited<ReturnType<LogLab["gateway"]>> | null = null;
      const takeover = await steppedTakeover(2, async (now, nowCount) => {
        if (now !== step || nowCount !== count) return;
        newer = await lab.gateway({}, { epoch: 3 });
      });
      let outcome = await takeover.attempt();
      if (outcome === null) outcome = await takeover.attempt();
      expect(outcome).toEqual({ kind: "byLog", epoch: 3 });
      const third = newer as unknown as Awaited<ReturnType<LogLab["gateway"]>>;
      // Its update may have moved the subject back; the newer writer takes over again and nobody notices.
      const steady = new SteadyWriter(3, third.writer, third.listener);
      steady.burst(10);
      await third.writer.sync();
      expect(third.listener.error).toBeNull();
      expect(third.writer.state().epoch).toBeGreaterThanOrEqual(3);
      const found = await readLog(await lab.follower());
      expect(found.epochs).not.toContain(2);
      expectPromises(found, [steady]);
    });
  }

  test("late subject update: set back between moving and reading the end again, it is moved again", async () => {
    await lab.gateway({}, { epoch: 1 });
    const takeover = await steppedTakeover(2, async (step, count) => {
      if (step === "view" && count === 2) await moveSubject(1);
    });
    expect(await takeover.attempt()).toBeNull();
    expect(await takeover.attempt()).toMatchObject({ kind: "taken", epoch: 2, base: { lastLsn: 1 } });
  });

  test("what the old writer still appends before the subject moves comes before the epoch entry", async () => {
    const first = await lab.gateway({}, { epoch: 1 });
    const old = new SteadyWriter(1, first.writer, first.listener);
    const takeover = await steppedTakeover(2, async (step) => {
      if (step !== "moveTo") return;
      old.burst(5);
      await first.writer.sync();
    });
    expect(await takeover.attempt()).toMatchObject({ kind: "taken", epoch: 2, base: { lastLsn: 6 } });
    const found = await readLog(await lab.follower());
    expect(found.epochs).toEqual([1, 2]);
    expectPromises(found, [old]);
    expect(old.told).toBe(5);
  });

  test("a newer lease's subject is left alone by an older one", async () => {
    await lab.gateway({}, { epoch: 1 });
    await moveSubject(7);
    const takeover = await steppedTakeover(5, () => Promise.resolve());
    expect(await takeover.attempt()).toEqual({ kind: "bySubject", epoch: 7 });
    const manager = await lab.manager();
    expect((await manager.streams.info(lab.stream)).config.subjects).toEqual([lab.subject(7)]);
  });
});
