// What a writer promises while servers, leaders and answers are lost (docs/specs/jetstream-log.md, "Resume"): nothing that was
// told durable is lost, doubled or reordered, and the log goes on by itself.
import { afterEach, describe, expect, test, vi } from "vitest";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { RecordingListener } from "../contract/write-log-drafts.ts";
import { type NatsNode, NatsServers } from "../tools/nats-server.ts";
import { TcpProxy } from "../tools/tcp-proxy.ts";
import { LogLab } from "./jetstream-house.ts";
import { expectPromises, readLog, SteadyWriter } from "./steady-writer.ts";

let servers: NatsServers | null = null;
let lab: LogLab;
let proxy: TcpProxy | null = null;

async function start(count: number): Promise<NatsServers> {
  servers = await NatsServers.start({ servers: count });
  lab = new LogLab(servers, count);
  return servers;
}

afterEach(async () => {
  await lab.close();
  await proxy?.stop();
  await servers?.stop();
  servers = null;
  proxy = null;
});

/** Remembers stalls as well. */
class StallListener extends RecordingListener {
  readonly stalls: (VarveError | null)[] = [];
  stalled(error: VarveError | null): void {
    this.stalls.push(error);
  }
}

async function messageCount(): Promise<number> {
  const manager = await lab.manager();
  return (await manager.streams.info(lab.stream)).state.messages;
}

const soon = { timeout: 60_000, interval: 20 };

describe("one server", () => {
  test("answers are lost: what was stored without an answer is recognised, not sent again", async () => {
    const { nodes } = await start(1);
    proxy = await TcpProxy.start((nodes[0] as NatsNode).port);
    const { writer, listener } = await lab.gateway({ addresses: [proxy.address], gatherBytes: 1 });
    const steady = new SteadyWriter(1, writer, listener);
    for (let round = 0; round < 3; round += 1) {
      await writer.sync();
      const before = await messageCount();
      proxy.muted = true;
      steady.burst(2);
      await vi.waitFor(async () => expect(await messageCount()).toBeGreaterThan(before), soon);
      expect(steady.told).toBe(steady.count - 2);
      proxy.muted = false;
      proxy.cut();
      await writer.sync();
      expect(steady.told).toBe(steady.count);
    }
    expect(listener.error).toBeNull();
    const found = await readLog(await lab.follower());
    expect(found.epochs).toEqual([1]);
    expectPromises(found, [steady]);
    expect(found.writes).toHaveLength(6);
  });

  test("connections are cut again and again under load", async () => {
    const { nodes } = await start(1);
    proxy = await TcpProxy.start((nodes[0] as NatsNode).port);
    const { writer, listener } = await lab.gateway({ addresses: [proxy.address] });
    const steady = new SteadyWriter(1, writer, listener);
    let over = false;
    const running = steady.run(() => over);
    for (let cut = 0; cut < 6; cut += 1) {
      const told = steady.told;
      await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 20), soon);
      proxy.muted = cut % 2 === 1;
      await new Promise((resolve) => {
        setTimeout(resolve, 30);
      });
      proxy.cut();
      proxy.muted = false;
    }
    over = true;
    await running;
    await writer.sync();
    expect(listener.error).toBeNull();
    expectPromises(await readLog(await lab.follower()), [steady]);
  });

  test("the server is killed and comes back: writes wait, the stall is told, then they go on", async () => {
    const { nodes } = await start(1);
    const node = nodes[0] as NatsNode;
    const connection = await lab.connect();
    const listener = new StallListener();
    const writer = await new JetStreamWriteLog(lab.parts(connection)).open({
      writer: "test",
      durability: "write",
      listener,
      knownLsn: 0,
    });
    const steady = new SteadyWriter(1, writer, listener);
    let over = false;
    const running = steady.run(() => over);
    for (let kill = 0; kill < 3; kill += 1) {
      const told = steady.told;
      await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 50), soon);
      await node.kill();
      if (kill === 0) await vi.waitFor(() => expect(listener.stalls).toHaveLength(1), soon);
      await node.start();
    }
    const told = steady.told;
    await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 50), soon);
    over = true;
    await running;
    await writer.sync();
    expect(listener.stalls[0]).toMatchObject({ kind: "Retry", _tag: "LogAway" });
    expect(listener.stalls.at(-1)).toBeNull();
    expect(listener.error).toBeNull();
    expectPromises(await readLog(await lab.follower()), [steady]);
  });

  test("the server is paused and woken: late answers and late messages change nothing", async () => {
    const { nodes } = await start(1);
    const node = nodes[0] as NatsNode;
    const { writer, listener } = await lab.gateway();
    const steady = new SteadyWriter(1, writer, listener);
    let over = false;
    const running = steady.run(() => over);
    for (const pauseMs of [300, 1500, 4500]) {
      const told = steady.told;
      await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 50), soon);
      node.signal("SIGSTOP");
      await new Promise((resolve) => {
        setTimeout(resolve, pauseMs);
      });
      node.signal("SIGCONT");
    }
    const told = steady.told;
    await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 50), soon);
    over = true;
    await running;
    await writer.sync();
    expect(listener.error).toBeNull();
    expectPromises(await readLog(await lab.follower()), [steady]);
  });

  test("servers without space: writes are refused as Full, what was taken waits, and all goes on when there is room", async () => {
    await start(1);
    const connection = await lab.connect();
    const listener = new StallListener();
    const writer = await new JetStreamWriteLog(lab.parts(connection)).open({
      writer: "test",
      durability: "write",
      listener,
      knownLsn: 0,
    });
    const steady = new SteadyWriter(1, writer, listener, 100_000);
    steady.burst(2);
    await writer.sync();
    const manager = await lab.manager();
    await manager.streams.update(lab.stream, { max_bytes: 300_000 });
    steady.burst(8);
    await vi.waitFor(
      () => expect(writer.state().refusal).toMatchObject({ kind: "Full", _tag: "LogServersFull" }),
      soon,
    );
    expect(writer.state().roomBytes).toBe(0);
    const { count } = steady;
    expect(steady.burst(1)).toBe(false);
    expect(listener.stalls).toMatchObject([{ kind: "Full" }]);
    expect(writer.state().lastLsn).toBe(count + 1);
    await manager.streams.update(lab.stream, { max_bytes: 1024 * 1024 * 1024 });
    await writer.sync();
    expect(writer.state().refusal).toBeNull();
    expect(listener.stalls.at(-1)).toBeNull();
    expect(listener.calls).toContain("room");
    expect(steady.burst(3)).toBe(true);
    await writer.sync();
    expectPromises(await readLog(await lab.follower()), [steady]);
  });

  test("a stream that lost what it had promised ends the log, and says so", async () => {
    await start(1);
    const { writer, listener } = await lab.gateway({ openMs: 500 });
    const steady = new SteadyWriter(1, writer, listener);
    steady.burst(5);
    await writer.sync();
    const manager = await lab.manager();
    await manager.streams.delete(lab.stream);
    steady.burst(1);
    await vi.waitFor(
      () => expect(listener.error).toMatchObject({ kind: "Corrupt", _tag: "LogMissing" }),
      soon,
    );
    await expect(lab.gateway({}, { knownLsn: 6 })).rejects.toMatchObject({
      kind: "Corrupt",
      _tag: "LogMissing",
    });
  });
});

describe("three servers", () => {
  test("the leader is killed four times under pipelined publishes: no promise is lost, doubled or reordered", async () => {
    await start(3);
    const { writer, listener, connection } = await lab.gateway();
    const steady = new SteadyWriter(1, writer, listener);
    let over = false;
    const writing = steady.run(() => over, 80);
    const gaps: number[] = [];
    for (let kill = 0; kill < 4; kill += 1) {
      const before = steady.told;
      await vi.waitFor(() => {
        expect(listener.error).toBeNull();
        expect(steady.told).toBeGreaterThan(before + 100);
      }, soon);
      const leader = await lab.leader();
      const sinceMs = performance.now();
      await leader.kill();
      const { told } = steady;
      await vi.waitFor(() => expect(steady.told).toBeGreaterThan(told + 80), soon);
      gaps.push(performance.now() - sinceMs);
      await leader.start();
    }
    await vi.waitFor(async () => {
      const next = await lab.leader();
      const before = await lab.ownMessagesAt(next);
      if (next.name === connection.info?.server_name) return;
      await vi.waitFor(async () => expect(await lab.ownMessagesAt(next)).toBeGreaterThan(before), soon);
    }, soon);
    over = true;
    await writing;
    await writer.sync();
    console.log(
      `leader killed: writes went on after ${gaps.map((ms) => (ms / 1000).toFixed(1)).join(", ")} s`,
    );
    expect(listener.error).toBeNull();
    const found = await readLog(await lab.follower());
    expect(found.epochs).toEqual([1]);
    expectPromises(found, [steady]);
  });

  test("without a quorum nothing is promised; it goes on when one is back, and a new gateway opens with one server away", async () => {
    const running = await start(3);
    const { writer, listener } = await lab.gateway();
    const steady = new SteadyWriter(1, writer, listener);
    steady.burst(20);
    await writer.sync();
    await Promise.all([running.node(1).kill(), running.node(2).kill()]);
    steady.burst(20);
    await new Promise((resolve) => {
      setTimeout(resolve, 3000);
    });
    expect(steady.told).toBe(20);
    expect(listener.error).toBeNull();
    await running.node(1).start();
    await vi.waitFor(() => expect(steady.told).toBe(40), soon);
    const second = await lab.gateway({ openMs: 30_000 });
    const fresh = new SteadyWriter(2, second.writer, second.listener);
    fresh.burst(20);
    await second.writer.sync();
    await running.node(2).start();
    await vi.waitFor(() => expect(listener.error).toMatchObject({ kind: "Fenced" }), soon);
    expectPromises(await readLog(await lab.follower()), [steady, fresh]);
  });
});
