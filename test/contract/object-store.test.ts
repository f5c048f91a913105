// Runs the object store contract on the stores that need no server: memory, directory, and the simulated bucket without
// faults. Real S3 servers: test/s3.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { DirectoryObjectStore } from "#shared/adapters/object-store/directory.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { openSimulatedObjectStore } from "#shared/adapters/object-store/simulated.ts";
import { SimulatedBucket } from "#shared/adapters/object-store/simulated-bucket.ts";
import { objectStoreContract } from "./object-store.contract.ts";

objectStoreContract("memory", async () => {
  const store = new MemoryObjectStore(new SystemClock());
  return { store, other: store, conditionalPut: true, dispose: () => store.close() };
});

objectStoreContract("directory", async () => {
  const parent = await mkdtemp(join(tmpdir(), "varve-bucket-"));
  const open = () =>
    DirectoryObjectStore.open(join(parent, "deep", "bucket"), { random: new SystemRandom(), create: true });
  const store = await open();
  const other = await open();
  return {
    store,
    other,
    conditionalPut: true,
    dispose: async () => {
      await store.close();
      await other.close();
      await rm(parent, { recursive: true });
    },
  };
});

objectStoreContract("simulated without faults", async () => {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const bucket = new SimulatedBucket({ clock, random, latencyMsMax: 1 });
  const open = () => openSimulatedObjectStore(bucket, clock, random);
  const [store, other] = [open(), open()];
  return {
    store,
    other,
    conditionalPut: true,
    dispose: async () => {
      await store.close();
      await other.close();
    },
  };
});
