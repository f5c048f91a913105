// Runs the contracts of the key table, of leases and of the catalogue on a real NATS server, and what only one shows: a server that is
// killed while a watch is open.
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { JetStreamKeyTable } from "#shared/adapters/key-table/jetstream-kv.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import type { KeyTable } from "#shared/ports/key-table.ts";
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
