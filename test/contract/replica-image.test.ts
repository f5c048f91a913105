// Runs the replica contract on the memory twin and on the raw file over the native store in a temporary directory, the
// memory store, and the simulated disk with cold and short inline reads.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { MemoryReplicaImage } from "#shared/adapters/replica-image/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SteppedRandom } from "../unit/file-store/stepped-clock.ts";
import { contractSizeBytes, type ReplicaBench, replicaImageContract } from "./replica-image.contract.ts";

async function rawFile(store: FileStore, directory: string, end: () => Promise<void>): Promise<ReplicaBench> {
  const options = { store, directory, volumeId: "5ca1ab1e00c0ffee" };
  await RawFileImage.create({ ...options, sizeBytes: contractSizeBytes });
  const image = await RawFileImage.attach(options);
  return {
    image,
    store,
    dispose: async () => {
      await image.detach();
      // It was closed in good order, so it opens again.
      await (await RawFileImage.attach(options)).detach();
      await end();
    },
  };
}

replicaImageContract("memory twin", async () => ({
  image: new MemoryReplicaImage(contractSizeBytes),
  store: new MemoryFileStore(),
  dispose: async () => undefined,
}));

replicaImageContract("raw file, native store", async () => {
  const directory = await mkdtemp(join(tmpdir(), "varve-replica-"));
  const store = new NativeFileStore();
  return rawFile(store, directory, async () => {
    await store.close();
    await rm(directory, { recursive: true });
  });
});

replicaImageContract("raw file, memory store", async () => {
  const store = new MemoryFileStore();
  await store.makeDirectory("/volume");
  return rawFile(store, "/volume", () => store.close());
});

replicaImageContract("raw file, simulated disk", async () => {
  const disk = new SimulatedDisk({
    random: new SteppedRandom(9),
    schedule: (task) => {
      setImmediate(task);
    },
    faults: { coldRead: 0.3, shortRead: 0.3 },
  });
  const store = disk.store();
  await store.makeDirectory("/volume");
  return rawFile(store, "/volume", () => store.close());
});
