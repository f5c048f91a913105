// Runs the message bus's contract on a real NATS server, with a connection for each side.
import type { NatsConnection, NatsConnectionImpl } from "@nats-io/transport-node";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { NatsMessageBus } from "#shared/adapters/message-bus/nats.ts";
import {
  missingInternals,
  receivingInternals,
  sendingInternals,
} from "#shared/adapters/nats/client-internals.ts";
import { connectNats } from "#shared/adapters/nats/connect.ts";
import { messageBusContract } from "../contract/message-bus.contract.ts";
import { NatsServers } from "../tools/nats-server.ts";

let servers: NatsServers;

beforeAll(async () => {
  servers = await NatsServers.start();
});

afterAll(async () => servers.stop());

describe("the client's own parts", () => {
  const connect = async (): Promise<NatsConnectionImpl> =>
    (await connectNats({ servers: servers.addresses, name: "parts" })) as NatsConnectionImpl;
  const parts = [sendingInternals, receivingInternals] as unknown as Record<string, string>[];
  afterEach(() => {
    for (const one of parts) delete one["gone"];
  });

  test("are all there in this version", async () => {
    const connection = await connect();
    const { protocol } = connection;
    expect(missingInternals(protocol, sendingInternals)).toEqual([]);
    expect(missingInternals(protocol.transport, receivingInternals)).toEqual([]);
    expect(missingInternals({ outbound: null }, { "outbound.size": "function", outbound: "object" })).toEqual(
      ["outbound.size is undefined, not function", "outbound is null, not object"],
    );
    await connection.close();
  });

  test.each([true, false])("large messages arrive, with all of them there: %s", async (all) => {
    if (!all) for (const one of parts) one["gone"] = "function";
    const [one, two] = [await connect(), await connect()];
    const sent = Buffer.alloc(700 * 1024, 5);
    const came = new Promise<Uint8Array>((resolve) => {
      two.subscribe("large", { callback: (_error, { data }) => resolve(Uint8Array.from(data)) });
    });
    await two.flush();
    one.publish("large", sent);
    expect(Buffer.from(await came).equals(sent)).toBe(true);
    await Promise.all([one.close(), two.close()]);
  });
});

messageBusContract("NATS", async () => {
  const connect = async (): Promise<NatsConnection> =>
    connectNats({ servers: servers.addresses, name: "contract" });
  const [one, two] = await Promise.all([connect(), connect()]);
  return {
    bus: new NatsMessageBus(one),
    other: new NatsMessageBus(two),
    settled: async () => {
      await two.flush();
      await one.flush();
      await two.flush();
    },
    close: async () => {
      await Promise.all([one.close(), two.close()]);
    },
  };
});
