// Runs the contract of partial images on the native store in a temporary directory, the memory store, and the simulated disk
// with cold and short inline reads.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { SteppedRandom } from "../unit/file-store/stepped-clock.ts";
import { partialImageContract } from "./partial-image.contract.ts";

partialImageContract("native store", async () => {
  const directory = await mkdtemp(join(tmpdir(), "varve-partial-"));
  const store = new NativeFileStore();
  return {
    store,
    directory,
    dispose: async () => {
      await store.close();
      await rm(directory, { recursive: true });
    },
  };
});

partialImageContract("memory store", async () => {
  const store = new MemoryFileStore();
  return { store, directory: "/volume", dispose: () => store.close() };
});

partialImageContract("simulated disk", async () => {
  const disk = new SimulatedDisk({
    random: new SteppedRandom(9),
    schedule: (task) => {
      setImmediate(task);
    },
    faults: { coldRead: 0.3, shortRead: 0.3 },
  });
  const store = disk.store();
  return { store, directory: "/volume", dispose: () => store.close() };
});
