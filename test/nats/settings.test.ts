// A stream or a server that would lose, hide or replace messages is refused before anything is appended, all mistakes at once.
import { DiscardPolicy, RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { connectNats } from "#shared/adapters/nats/connect.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { LogLab } from "./jetstream-house.ts";
import { expectPromises, readLog, SteadyWriter } from "./steady-writer.ts";

describe("the stream's settings", () => {
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

  const right = { discard: DiscardPolicy.New, storage: StorageType.File, retention: RetentionPolicy.Limits };
  const wrong: readonly (readonly [string, object])[] = [
    ["discard is old, not new", { ...right, discard: DiscardPolicy.Old }],
    ["storage is memory, not file", { ...right, storage: StorageType.Memory }],
    ["retention is workqueue, not limits", { ...right, retention: RetentionPolicy.Workqueue }],
    ["max_age is set", { ...right, max_age: 3_600_000_000_000, duplicate_window: 1_000_000_000 }],
    ["max_msgs is set", { ...right, max_msgs: 1000 }],
    ["max_msgs_per_subject is set", { ...right, max_msgs_per_subject: 5 }],
    ["deny_purge", { ...right, deny_purge: true }],
    ["roll", { ...right, allow_rollup_hdrs: true }],
    ["does not answer", { ...right, no_ack: true }],
    ["messages expire", { ...right, allow_msg_ttl: true }],
    ["persist_mode", { ...right, persist_mode: "async" }],
  ];
  for (const [mistake, settings] of wrong) {
    test(`refused: ${mistake}`, async () => {
      const manager = await lab.manager();
      await manager.streams.add({ name: lab.stream, subjects: [lab.subject(1)], ...settings });
      await expect(lab.gateway()).rejects.toMatchObject({
        kind: "Invalid",
        _tag: "LogSettings",
        message: expect.stringContaining(mistake) as string,
      });
      const info = await manager.streams.info(lab.stream);
      expect(info.state.last_seq).toBe(0);
      expect(info.config.subjects).toEqual([lab.subject(1)]);
    });
  }

  test("refused: foreign subjects, with every other mistake in one message", async () => {
    const manager = await lab.manager();
    const subjects = [lab.subject(1), `orders.${lab.volumeId}`];
    await manager.streams.add({ name: lab.stream, subjects, discard: DiscardPolicy.Old, max_msgs: 7 });
    await expect(lab.gateway()).rejects.toMatchObject({
      kind: "Invalid",
      message: `stream ${lab.stream} can't be a log: discard is old, not new: it would forget the oldest; max_msgs is set: entries would be forgotten by their number; it captures foreign subjects: orders.${lab.volumeId}; it captures 2 subjects, not one`,
    });
  });

  test("replicas and bytes of the volume's policy are applied at each open", async () => {
    const { writer } = await lab.gateway({ logBytesMax: 64 * 1024 * 1024 });
    await writer.close();
    await lab.gateway({ logBytesMax: 32 * 1024 * 1024 });
    const manager = await lab.manager();
    const { config } = await manager.streams.info(lab.stream);
    expect(config).toMatchObject({
      max_bytes: 32 * 1024 * 1024,
      num_replicas: 1,
      discard: "new",
      deny_delete: true,
    });
  });

  test("something else that wrote into the subject is damage, and nothing is appended behind it", async () => {
    const { writer, connection } = await lab.gateway();
    await writer.close();
    await connection.request(lab.subject(1), "not a record");
    await expect(lab.gateway()).rejects.toMatchObject({
      kind: "Corrupt",
      _tag: "LogDamaged",
      fields: { sequence: 2 },
    });
    const manager = await lab.manager();
    expect((await manager.streams.info(lab.stream)).state.last_seq).toBe(2);
  });

  test("a log that was emptied by hand is not begun anew", async () => {
    const { writer } = await lab.gateway();
    await writer.close();
    const manager = await lab.manager();
    await manager.streams.purge(lab.stream);
    await expect(lab.gateway()).rejects.toMatchObject({ kind: "Corrupt", _tag: "LogDamaged" });
  });
});

describe("the servers' settings", () => {
  let servers: NatsServers;
  let lab: LogLab;
  afterEach(async () => {
    await lab.close();
    await servers.stop();
  });

  async function start(settings: Parameters<typeof NatsServers.start>[0]): Promise<void> {
    servers = await NatsServers.start(settings);
    lab = new LogLab(servers, settings?.servers ?? 1);
  }
  const refused = (mistake: string) => ({
    kind: "Invalid",
    _tag: "LogServers",
    message: expect.stringContaining(mistake) as string,
  });

  test("a server that syncs every two minutes is refused, by monitoring address and by system account", async () => {
    await start({ syncInterval: "" });
    await expect(lab.gateway()).rejects.toMatchObject(
      refused("n1 does not sync what it acknowledges: set `jetstream { sync_interval: always }`"),
    );
    const system = await connectNats({ servers: servers.addresses, name: "test", ...servers.systemUser });
    await expect(lab.gateway({ servers: { system } })).rejects.toMatchObject(refused("does not sync"));
    await system.close();
    const manager = await lab.manager();
    expect((await manager.streams.info(lab.stream)).state.last_seq).toBe(0);
  });

  test("one of three that does not sync is refused, named", async () => {
    await start({ servers: 3 });
    await servers.node(1).configure({ servers: 3, syncInterval: "1m" }, servers.routes);
    await servers.node(1).restart();
    await expect(lab.gateway({ openMs: 30_000 })).rejects.toMatchObject(refused("n2 does not sync"));
  });

  test("who can't be asked is no proof: a majority is needed", async () => {
    await start({ servers: 3 });
    const [first = "", second = ""] = servers.monitors;
    await expect(lab.gateway({ servers: {} })).rejects.toMatchObject(refused("2 of 3 are needed"));
    await expect(lab.gateway({ servers: { monitors: [first] } })).rejects.toMatchObject(
      refused("could not be asked"),
    );
    const { writer } = await lab.gateway({ servers: { monitors: [first, second] } });
    expect(writer.state().epoch).toBe(1);
    const system = await connectNats({ servers: servers.addresses, name: "test", ...servers.systemUser });
    const again = await lab.gateway({ servers: { system } });
    expect(again.writer.state().epoch).toBe(2);
    await system.close();
  });

  test("a volume of one replica gets three at its next open, and keeps every entry", async () => {
    await start({ servers: 3 });
    const first = await lab.gateway({ replicas: 1, openMs: 30_000 });
    const steady = new SteadyWriter(1, first.writer, first.listener);
    steady.burst(50);
    await first.writer.sync();
    await first.writer.close();
    const second = await lab.gateway({ replicas: 3, openMs: 30_000 });
    const fresh = new SteadyWriter(2, second.writer, second.listener);
    fresh.burst(50);
    await second.writer.sync();
    const manager = await lab.manager();
    expect((await manager.streams.info(lab.stream)).cluster?.replicas).toHaveLength(2);
    expectPromises(await readLog(await lab.follower()), [steady, fresh]);
  });

  test("a server that takes only small messages is refused", async () => {
    await start({ maxPayload: "128KB" });
    await expect(lab.gateway()).rejects.toMatchObject(refused("messages of 131072 bytes"));
  });

  test("a smaller max_payload makes smaller batches", async () => {
    await start({ maxPayload: "768KB" });
    const { writer } = await lab.gateway();
    expect(writer.batchPayloadBytesMax).toBe(768 * 1024 - 12 * 1024);
  });

  test("a stream larger than the servers' limit is refused as Full", async () => {
    await start({ maxFileStore: "64MB" });
    await expect(lab.gateway({ logBytesMax: 128 * 1024 * 1024, openMs: 100 })).rejects.toMatchObject({
      kind: "Full",
      _tag: "LogServersFull",
    });
  });

  test("servers that don't answer, and ones that refuse", async () => {
    await start({});
    const { address } = servers.node(0);
    await servers.node(0).kill();
    await expect(connectNats({ servers: [address], name: "test" })).rejects.toMatchObject({
      kind: "Retry",
      _tag: "NatsAway",
    });
    await servers.node(0).start();
    await expect(
      connectNats({ servers: [address], name: "test", user: "system", password: "wrong" }),
    ).rejects.toMatchObject({ kind: "Invalid", _tag: "NatsRefused" });
  });
});
