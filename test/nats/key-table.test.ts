// Runs the contracts of the key table, of leases and of the catalogue on a real NATS server, and what only one shows: a server that is
// killed while a watch is open.
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { JetStreamKeyTable } from "#shared/adapters/key-table/jetstream-kv.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { encodeCatalog } from "#shared/formats/catalog.ts";
import type { KeyTable, KeyWatch } from "#shared/ports/key-table.ts";
import { keyTableContract } from "../contract/key-table.contract.ts";
import { leaseContract } from "../contract/lease.contract.ts";
import { volumeCatalogContract } from "../contract/volume-catalog.contract.ts";
import { NatsServers } from "../tools/nats-server.ts";

let servers: NatsServers;
let connections: NatsConnection[] = [];
let buckets = 0;

beforeAll(async () => {
  servers = await NatsServers.start();
  connections = await Promise.all(
    [0, 1].map(async () =>
      connect({ servers: [...servers.addresses], maxReconnectAttempts: -1, reconnectTimeWait: 100 }),
    ),
  );
});

afterAll(async () => {
  await Promise.all(connections.map(async (connection) => connection.close()));
  await servers.stop();
});

const tableOf = async (bucket: string, connection = 0): Promise<KeyTable> =>
  JetStreamKeyTable.open({
    connection: connections[connection] as NatsConnection,
    clock: new SystemClock(),
    bucket,
    replicas: 1,
  });
const newBucket = (): string => {
  buckets += 1;
  return `contract_${buckets}`;
};

keyTableContract("JetStream", async () => {
  const bucket = newBucket();
  return { table: await tableOf(bucket), other: await tableOf(bucket, 1), close: async () => {} };
});

leaseContract("JetStream", async () => {
  const bucket = newBucket();
  const tables = await Promise.all([0, 1, 0, 1].map(async (index) => tableOf(bucket, index)));
  return {
    table: () => tables.shift() ?? expect.unreachable("four processes are enough"),
    close: async () => {},
  };
});

volumeCatalogContract("JetStream", async () => {
  const table = await tableOf(newBucket());
  const put = table.put.bind(table);
  return {
    reopen: () => new KeyTableCatalog(table),
    breakNextWrite: () => {
      table.put = async () => {
        table.put = put;
        throw new Error("no room");
      };
    },
    seed: async (records) => {
      await table.put("volumes", encodeCatalog(records), 0);
    },
    close: async () => {},
  };
});

test("a watch goes on after its server was killed and started again", async () => {
  const bucket = newBucket();
  const [table, other] = [await tableOf(bucket), await tableOf(bucket, 1)];
  const seen = new Map<string, string>();
  const watch = other.watch("", {
    row: ({ key, value }) => seen.set(key, Buffer.from(value ?? []).toString()),
    caughtUp: () => undefined,
  });
  const first = (await table.put("k", Buffer.from("1"), 0)) ?? 0;
  await servers.node(0).restart();
  const put = async (): Promise<number | null> =>
    table.put("k", Buffer.from("2"), first).catch(async () => {
      await new Promise((resolve) => {
        setTimeout(resolve, 100);
      });
      return await put();
    });
  await put();
  const endMs = performance.now() + 20_000;
  while (seen.get("k") !== "2" && performance.now() < endMs) {
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
  expect(seen.get("k")).toBe("2");
  watch.close();
});

test("a watch that begins while keys are changed catches up each time, and has every key", async () => {
  const bucket = newBucket();
  const [table, other] = [await tableOf(bucket), await tableOf(bucket, 1)];
  const keys = Array.from({ length: 6 }, (_, index) => `k.${index}`);
  const revisions = await Promise.all(
    keys.map(async (key) => (await table.put(key, Buffer.from("0"), 0)) ?? 0),
  );
  const end = new AbortController();
  const writers = keys.map(async (key, index) => {
    for (let count = 1; !end.signal.aborted; count += 1) {
      revisions[index] = (await table.put(key, Buffer.from(String(count)), revisions[index] ?? 0)) ?? 0;
    }
  });
  try {
    for (let round = 0; round < 100; round += 1) {
      const seen = new Set<string>();
      let watch: KeyWatch | null = null;
      const caughtUp = new Promise<void>((resolve) => {
        watch = other.watch("k.", { row: ({ key }) => void seen.add(key), caughtUp: resolve });
      });
      const late = new Promise<string>((resolve) => void setTimeout(resolve, 5000, `round ${round} is late`));
      expect(await Promise.race([caughtUp, late])).toBeUndefined();
      expect([...seen].sort()).toEqual(keys);
      (watch as KeyWatch | null)?.close();
    }
  } finally {
    end.abort();
    await Promise.all(writers);
  }
});

test("tables and watches leave no more than one consumer each behind, however often a process begins", async () => {
  const bucket = newBucket();
  const table = await tableOf(bucket);
  for (const key of ["a.1", "a.2", "b.1"]) await table.put(key, Buffer.from("x"), 0);
  for (let start = 0; start < 20; start += 1) {
    const again = await tableOf(bucket, 1);
    const watches: KeyWatch[] = [];
    const heard = await Promise.all(
      ["a.", "b.", "c."].map(
        async (prefix) =>
          new Promise<number>((resolve) => {
            let rows = 0;
            const row = (): void => void (rows += 1);
            watches.push(again.watch(prefix, { row, caughtUp: () => resolve(rows) }));
          }),
      ),
    );
    expect(heard).toEqual([2, 1, 0]);
    for (const watch of watches) watch.close();
  }
  const manager = await jetstreamManager(connections[0] as NatsConnection);
  const { state } = await manager.streams.info(`KV_${bucket}`);
  expect(state.consumer_count).toBeLessThanOrEqual(20);
});
