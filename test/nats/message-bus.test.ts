// Runs the message bus's contract on a real NATS server, with a connection for each side.
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll } from "vitest";
import { NatsMessageBus } from "#shared/adapters/message-bus/nats.ts";
import { connectNats } from "#shared/adapters/nats/connect.ts";
import { messageBusContract } from "../contract/message-bus.contract.ts";
import { NatsServers } from "../tools/nats-server.ts";

let servers: NatsServers;

beforeAll(async () => {
  servers = await NatsServers.start();
});

afterAll(async () => servers.stop());

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
