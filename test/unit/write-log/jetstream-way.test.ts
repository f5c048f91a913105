// Which connection a writer's publishes take, and when it moves (docs/specs/jetstream-log.md, "The way of a publish", J11): connections to
// single servers that come, go, have other names or give no answer; and the window, which lets nothing overtake.
import type { NatsConnection } from "@nats-io/transport-node";
import { beforeEach, describe, expect, test } from "vitest";
import { ServerLinks } from "#shared/adapters/nats/server-links.ts";
import type { LogStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import { electionNotice, LeaderWay, leaderOfNotice } from "#shared/adapters/write-log/jetstream-way.ts";
import { PublishWindow } from "#shared/adapters/write-log/jetstream-window.ts";
import { ManualClock } from "../nbd/gateway.ts";

class FakeConnection {
  readonly info: { server_name: string };
  readonly options = { timeout: 1000 };
  readonly #over = Promise.withResolvers<void>();
  #isOver = false;

  constructor(name: string) {
    this.info = { server_name: name };
  }

  isClosed(): boolean {
    return this.#isOver;
  }

  closed(): Promise<void> {
    return this.#over.promise;
  }

  async close(): Promise<void> {
    this.#isOver = true;
    this.#over.resolve();
  }
}

const asConnection = (fake: FakeConnection): NatsConnection => fake as unknown as NatsConnection;
const settled = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

let clock: ManualClock;
/** Which server is at an address; none: nobody answers. */
let names: Map<string, string>;
let dialled: string[];
let made: FakeConnection[];
let links: ServerLinks;
let shared: FakeConnection;
let way: LeaderWay;

beforeEach(() => {
  clock = new ManualClock();
  names = new Map([
    ["a:1", "n1"],
    ["b:1", "n2"],
    ["c:1", "n3"],
  ]);
  dialled = [];
  made = [];
  links = new ServerLinks({
    clock,
    addresses: () => ["a:1", "b:1", "c:1", "a:1"],
    connect: async (address) => {
      dialled.push(address);
      const name = names.get(address);
      if (name === undefined) throw new Error("nobody answers");
      const connection = new FakeConnection(name);
      made.push(connection);
      return asConnection(connection);
    },
  });
  shared = new FakeConnection("n1");
  way = new LeaderWay(asConnection(shared), links, clock);
  way.open();
});

/** Of the server that publishes reach first. */
const place = (): string => (way.client as unknown as { nc: FakeConnection }).nc.info.server_name;
const open = (): string[] => made.filter((one) => !one.isClosed()).map(({ info }) => info.server_name);

async function leaderIs(name: string): Promise<void> {
  way.leaderIs(name);
  await settled();
}

describe("a writer's way", () => {
  test("it is the shared connection until the leader's own is there and taken, and others are not kept", async () => {
    way.leaderIs("n3");
    expect(way.hasBetter).toBe(false);
    await settled();
    expect(dialled).toEqual(["a:1", "b:1", "c:1"]);
    expect(open()).toEqual(["n3"]);
    expect([way.hasBetter, place()]).toEqual([true, "n1"]);
    way.take();
    expect([way.hasBetter, place()]).toEqual([false, "n3"]);
  });

  test("where the shared connection is at the leader nothing is dialled, until it is elsewhere", async () => {
    await leaderIs("n1");
    expect([dialled.length, way.hasBetter]).toEqual([0, false]);
    shared.info.server_name = "n2";
    expect(way.hasBetter).toBe(false);
    await settled();
    way.take();
    expect(place()).toBe("n1");
    shared.info.server_name = "n1";
    expect(way.hasBetter).toBe(true);
    way.take();
    clock.advance(10_000);
    expect([place(), open()]).toEqual(["n1", []]);
  });

  test("the leader moves: the way follows, the address is known by then, and the link before is closed when nobody needs it", async () => {
    await leaderIs("n3");
    way.take();
    await leaderIs("n2");
    expect(dialled.slice(3)).toEqual(["b:1"]);
    expect([way.hasBetter, place()]).toEqual([true, "n3"]);
    way.take();
    expect([place(), open()]).toEqual(["n2", ["n3", "n2"]]);
    await leaderIs("n2");
    clock.advance(10_000);
    expect(open()).toEqual(["n2"]);
    way.close();
    expect(place()).toBe("n1");
    clock.advance(10_000);
    expect(open()).toEqual([]);
  });

  test("two volumes share a link, and a leader that comes back soon finds it open", async () => {
    const second = new LeaderWay(asConnection(shared), links, clock);
    second.open();
    second.leaderIs("n3");
    await leaderIs("n3");
    second.take();
    way.take();
    expect(open()).toEqual(["n3"]);
    second.close();
    await leaderIs("n2");
    clock.advance(9000);
    await leaderIs("n3");
    clock.advance(60_000);
    expect([way.hasBetter, open()]).toEqual([false, ["n3"]]);
  });

  test("a name that no address has is asked for ever more rarely, and nothing moves", async () => {
    await leaderIs("n9");
    const rounds: number[] = [];
    for (let second = 1; second <= 600; second += 1) {
      const before = dialled.length;
      clock.advance(1000);
      await settled();
      if (dialled.length > before) rounds.push(second);
    }
    expect(rounds).toEqual([1, 3, 7, 15, 31, 63, 127, 255, 511]);
    expect([way.hasBetter, place(), open()]).toEqual([false, "n1", []]);
    names.set("c:1", "n9");
    clock.advance(300_000);
    await settled();
    expect(way.hasBetter).toBe(true);
  });

  test("a link that is lost leads back to the shared connection at once; one that is lost again and again is made ever more rarely", async () => {
    await leaderIs("n3");
    way.take();
    const waits: number[] = [];
    for (let loss = 0; loss < 4; loss += 1) {
      await made.at(-1)?.close();
      await settled();
      expect(way.hasBetter || loss > 0).toBe(true);
      expect(place()).toBe("n1");
      const count = made.length;
      for (let ms = 0; made.length === count; ms += 500) {
        clock.advance(500);
        await settled();
        waits[loss] = ms + 500;
      }
      way.take();
      expect(place()).toBe("n3");
    }
    expect(waits).toEqual([1000, 2000, 4000, 8000]);
    clock.advance(30_000);
    await made.at(-1)?.close();
    await settled();
    // The wait that was due, then from the beginning.
    clock.advance(16_000);
    await settled();
    expect(open()).toEqual(["n3"]);
  });

  test("no answer: it is left alone for a while, longer each time, and never for the shared connection or another leader", async () => {
    way.avoid();
    await leaderIs("n3");
    expect(way.hasBetter).toBe(true);
    way.take();
    for (const ms of [5000, 10_000, 20_000, 40_000, 60_000, 60_000]) {
      way.avoid();
      expect(place()).toBe("n1");
      clock.advance(ms - 1);
      expect(way.hasBetter).toBe(false);
      clock.advance(1);
      way.take();
      expect(place()).toBe("n3");
    }
    way.avoid();
    await leaderIs("n2");
    way.take();
    expect(place()).toBe("n2");
    clock.advance(61_000);
    way.avoid();
    clock.advance(5000);
    expect(way.hasBetter).toBe(true);
  });

  test("no answer from a leader before does not speak against the link to the next one", async () => {
    await leaderIs("n3");
    way.take();
    await leaderIs("n2");
    way.avoid();
    way.take();
    expect(place()).toBe("n2");
  });

  test("closed, no link is made or kept", async () => {
    await leaderIs("n3");
    await links.close();
    way.leaderIs("n2");
    await settled();
    clock.advance(400_000);
    await settled();
    expect([open(), way.hasBetter]).toEqual([[], false]);
  });

  test("a notice names the leader, or says nothing", () => {
    expect(electionNotice("s")).toBe("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.s");
    expect(leaderOfNotice('{"stream":"s","leader":"n2"}')).toBe("n2");
    for (const text of ["", "{", "null", "7", '{"leader":7}']) expect(leaderOfNotice(text)).toBe("");
  });
});

describe("the window", () => {
  test("moves only when nothing is on its way, and takes nothing more until then; after a failure it moves at once", async () => {
    const sent: { server: string; answer: (sequence: number) => void }[] = [];
    const stream = {
      way,
      giveBack: () => undefined,
      publish: async (_epoch: number, lastSequence: number) => {
        const { promise, resolve } = Promise.withResolvers<number>();
        sent.push({ server: place(), answer: () => resolve(lastSequence + 1) });
        return await promise;
      },
    } as unknown as LogStream;
    const stored: number[] = [];
    const window = new PublishWindow(stream, 4, {
      stored: ({ lastLsn }) => void stored.push(lastLsn),
      failed: () => undefined,
    });
    const send = (lsn: number): void => window.send(Buffer.from([lsn]), lsn, lsn, BigInt(lsn));
    window.goOn(7, 100);
    send(1);
    send(2);
    expect(window.isFull).toBe(false);
    await leaderIs("n3");
    expect(window.isFull).toBe(true);
    sent[0]?.answer(101);
    await settled();
    expect([stored, window.isFull]).toEqual([[1], true]);
    sent[1]?.answer(102);
    await settled();
    expect([stored, window.isFull]).toEqual([[1, 2], false]);
    send(3);
    send(4);
    expect(window.isFull).toBe(false);
    window.stop();
    way.avoid();
    window.goOn(7, 102);
    expect(sent.map(({ server }) => server)).toEqual(["n1", "n1", "n3", "n3", "n1", "n1"]);
  });
});
