// Runs the FileStore contract on every adapter: the native one in a temporary directory (twice, once with every unsynced
// write held back), the memory one, and the simulated disk with inline reads that are cold or short half of the time.
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { DroppingUnsyncedStore } from "#shared/adapters/decorators/dropping-unsynced.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { SteppedRandom } from "../unit/file-store/stepped-clock.ts";
import { fileStoreContract } from "./file-store.contract.ts";

fileStoreContract("native", async () => {
  const directory = await mkdtemp(join(tmpdir(), "varve-file-store-"));
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

it("a directory that can't be made is an error, not an endless attempt", async () => {
  const directory = await mkdtemp(join(tmpdir(), "varve-file-store-"));
  const store = new NativeFileStore();
  await symlink(join(directory, "unmounted"), join(directory, "link"));
  for (const path of ["/proc/varve/data", join(directory, "link"), join(directory, "link/data")]) {
    await expect(store.makeDirectory(path)).rejects.toMatchObject({ code: "ENOENT" });
  }
  await store.close();
  await rm(directory, { recursive: true });
});

fileStoreContract("native, unsynced writes held back", async () => {
  const root = await mkdtemp(join(tmpdir(), "varve-dropping-"));
  const store = new DroppingUnsyncedStore(new NativeFileStore(), join(root, "hidden"));
  const directory = join(root, "data");
  await store.makeDirectory(directory);
  return {
    store,
    directory,
    dispose: async () => {
      await store.close();
      await rm(root, { recursive: true });
    },
  };
});

fileStoreContract("memory", async () => {
  const store = new MemoryFileStore();
  await store.makeDirectory("/data");
  return { store, directory: "/data", dispose: () => store.close() };
});

fileStoreContract("simulated disk", async () => {
  const disk = new SimulatedDisk({
    random: new SteppedRandom(7),
    schedule: (task) => {
      setImmediate(task);
    },
    faults: { coldRead: 0.3, shortRead: 0.3 },
  });
  const store = disk.store();
  await store.makeDirectory("/data");
  return { store, directory: "/data", dispose: () => store.close() };
});
