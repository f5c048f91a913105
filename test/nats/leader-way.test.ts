// A writer's publishes go straight to the server that leads the stream, wherever that is, on real servers (docs/specs/jetstream-log.md, "The
// way of a publish", J11): the leader moves under load, or can't be reached from here; no promise is lost, doubled or reordered. It is killed in faults.test.ts.
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { connectNats } from "#shared/adapters/nats/connect.ts";
import { ServerLinks } from "#shared/adapters/nats/server-links.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { TcpProxy } from "../tools/tcp-proxy.ts";
import { LogLab, ownConnectionName } from "./jetstream-house.ts";
import { expectPromises, readLog, SteadyWriter } from "./steady-writer.ts";

let servers: NatsServers;
let lab: LogLab;
const soon = { timeout: 60_000, interval: 20 };

beforeAll(async () => {
  servers = await NatsServers.start({ servers: 3 });
});
afterAll(async () => servers.stop());
beforeEach(() => {
  lab = new LogLab(servers, 3);
});
afterEach(async () => lab.close());

/** Publishes arrive at the leader over a connection of their own, or the shared one is there. */
async function expectAtLeader(shared: NatsConnection, steady: SteadyWriter): Promise<void> {
  await vi.waitFor(async () => {
    const node = await lab.leader();
    if (node.name === shared.info?.server_name) return;
    const { told } = steady;
    const before = await lab.ownMessagesAt(node);
    await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 40), soon);
    expect(await lab.ownMessagesAt(node)).toBeGreaterThan(before);
  }, soon);
}

test("the leader moves under load: the writer follows it, nothing is lost, doubled or reordered", async () => {
  const { writer, listener, connection } = await lab.gateway();
  const steady = new SteadyWriter(1, writer, listener);
  let over = false;
  const running = steady.run(() => over);
  for (let move = 0; move < 3; move += 1) {
    await expectAtLeader(connection, steady);
    await lab.moveLeader();
  }
  await expectAtLeader(connection, steady);
  over = true;
  await running;
  await writer.sync();
  expect(listener.error).toBeNull();
  const found = await readLog(await lab.follower());
  expect(found.epochs).toEqual([1]);
  expectPromises(found, [steady]);
});

// What was asked while nobody led is answered by nobody: waiting for its time limit took 0 to 1.2 s more, 0.6 on average.
test("the leader is killed: writes go on as soon as another one is elected", async () => {
  const { writer, listener } = await lab.gateway();
  const steady = new SteadyWriter(1, writer, listener);
  let electedAtMs: number | null = null;
  let toldThen = 0;
  const subject = `$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${lab.stream}`;
  const longestMs: number[] = [];
  let over = false;
  const running = steady.run(() => over);
  for (let kill = 0; kill < 4; kill += 1) {
    await vi.waitFor(() => expect(steady.told).toBeGreaterThan(toldThen + 100), soon);
    const leader = await lab.leader();
    const others = servers.nodes.filter((node) => node !== leader).map(({ address }) => address);
    const looks = await connectNats({ servers: others, name: "looks" });
    looks.subscribe(subject, {
      callback: () => {
        electedAtMs = performance.now();
        toldThen = steady.told;
      },
    });
    await looks.flush();
    electedAtMs = null;
    await leader.kill();
    await vi.waitFor(() => expect(electedAtMs).not.toBeNull(), soon);
    await vi.waitFor(() => expect(steady.told).toBeGreaterThan(toldThen), { timeout: 60_000, interval: 5 });
    longestMs.push(performance.now() - (electedAtMs ?? 0));
    await looks.close();
    await leader.start();
  }
  over = true;
  await running;
  await writer.sync();
  expect(Math.max(...longestMs), longestMs.map(Math.round).join(" ")).toBeLessThan(500);
  expectPromises(await readLog(await lab.follower()), [steady]);
}, 120_000);

test("the own connection gives no answer, and is lost: writes go on over the shared one, in order", async () => {
  const proxies = await Promise.all(servers.nodes.map(async ({ port }) => TcpProxy.start(port)));
  const clock = new SystemClock();
  const links = new ServerLinks({
    clock,
    addresses: () => proxies.map(({ address }) => address),
    connect: async (address) => connectNats({ servers: [address], name: ownConnectionName, single: true }),
  });
  try {
    // Whichever leads, the shared connection is elsewhere.
    const { writer, listener, connection } = await lab.gateway({ links });
    const steady = new SteadyWriter(1, writer, listener);
    let over = false;
    const running = steady.run(() => over);
    while ((await lab.leader()).name === connection.info?.server_name) await lab.moveLeader();
    await vi.waitFor(
      async () => expect(await lab.ownMessagesAt(await lab.leader())).toBeGreaterThan(10),
      soon,
    );
    for (const proxy of proxies) proxy.muted = true;
    const silentSinceMs = performance.now();
    const { told } = steady;
    await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 80), soon);
    // One time-out, not as long as it takes to find a dead connection.
    expect(performance.now() - silentSinceMs).toBeLessThan(4000);
    for (const proxy of proxies) proxy.cut();
    over = true;
    await running;
    await writer.sync();
    expect(listener.error).toBeNull();
    const found = await readLog(await lab.follower());
    expect(found.epochs).toEqual([1]);
    expectPromises(found, [steady]);
  } finally {
    await links.close();
    await Promise.all(proxies.map((proxy) => proxy.stop()));
  }
});
