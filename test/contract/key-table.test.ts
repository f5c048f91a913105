// Runs the key table's contract on the memory twin; test/nats/key-table.test.ts runs it on a real server.
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { keyTableContract } from "./key-table.contract.ts";

keyTableContract("memory", async () => {
  const keys = new MemoryKeys();
  return { table: new MemoryKeyTable(keys), other: new MemoryKeyTable(keys), close: async () => {} };
});
