// Runs the message bus's contract on the memory twin; test/nats/message-bus.test.ts runs it on a real server.
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { messageBusContract } from "./message-bus.contract.ts";

messageBusContract("memory", async () => {
  const bus = new MemoryMessageBus();
  return { bus, other: bus, settled: async () => Promise.resolve(), close: async () => {} };
});
