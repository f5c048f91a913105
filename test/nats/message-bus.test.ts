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
import { messageMemory } from "#shared/memory/message-memory.ts";
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

test("memory of answers is used again when they were sent, and not before", async () => {
  const options = { servers: servers.addresses, name: "answers" };
  const [one, two] = await Promise.all([connectNats(options), connectNats(options)]);
  const used = new Set<ArrayBufferLike>();
  const [asking, answering] = [new NatsMessageBus(one), new NatsMessageBus(two)];
  answering.serve("large", (data) => {
    const answer = messageMemory.takeToSend(512 * 1024).fill(data[0] ?? 0);
    used.add(answer.buffer);
    return answer;
  });
  await two.flush();
  const got: boolean[] = [];
  for (let round = 0; round < 10; round += 1) {
    const answers = Array.from({ length: 24 }, async (_, index) => {
      const number = round * 24 + index;
      const answer = await asking.request("large", Buffer.from([number]), 10_000);
      got.push(answer.length === 512 * 1024 && answer.every((byte) => byte === number));
      messageMemory.giveBack(answer);
    });
    await Promise.all(answers);
  }
  expect(got.filter(Boolean)).toHaveLength(240);
  expect(used.size).toBeLessThan(150);
  await Promise.all([one.close(), two.close()]);
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
