// Runs the WriteLog contract on every adapter: the memory twin, and the embedded file log over the memory store, the
// simulated disk and the native store in a temporary directory.
// Crash points, faults and limits of the embedded log are attacked in test/unit/write-log.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import { MemoryWriteLog } from "#shared/adapters/write-log/memory.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SeededRandom } from "../simulation/scheduler.ts";
import { type ContractSizes, type LogHouse, writeLogContract } from "./write-log.contract.ts";

const volumeId = "5ca1ab1e00c0ffee";

function embedded(
  store: FileStore,
  directory: string,
  options: ContractSizes,
  dispose: () => Promise<void>,
): LogHouse {
  const parts = { store, clock: new SystemClock(), random: new SystemRandom(), directory, volumeId, options };
  return { allocate: (bytes) => store.allocateSlab(bytes), build: () => new EmbeddedFileLog(parts), dispose };
}

writeLogContract("the memory twin", async ({ logBytesMax, retainedBytes }) => {
  const log = new MemoryWriteLog({
    clock: new SystemClock(),
    random: new SystemRandom(),
    logBytesMax,
    retainedBytes,
  });
  return {
    allocate: (bytes) => ({ bytes: Buffer.alloc(bytes), address: 0 }),
    build: () => log,
    dispose: () => Promise.resolve(),
  };
});

writeLogContract("the memory file store", async (sizes) => {
  const store = new MemoryFileStore();
  return embedded(store, "/data/volumes/disk0/log", sizes, () => store.close());
});

writeLogContract("the simulated disk", async (sizes) => {
  const disk = new SimulatedDisk({
    random: new SeededRandom(7),
    schedule: (task) => {
      setImmediate(task);
    },
  });
  const store = disk.store();
  return embedded(store, "/data/volumes/disk0/log", sizes, () => store.close());
});

writeLogContract("the native file store", async (sizes) => {
  const directory = await mkdtemp(join(tmpdir(), "varve-write-log-"));
  const store = new NativeFileStore();
  return embedded(store, join(directory, "log"), sizes, async () => {
    await store.close();
    await rm(directory, { recursive: true });
  });
});
