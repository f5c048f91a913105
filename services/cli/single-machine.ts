/*
 * One machine in one process: file store, memory, storage service and gateway joined. `varve up` serves with it, offline
 * commands open it without serving. The only place where both services' layers are known.
 */
import { hostname } from "node:os";
import { resolve } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { limits } from "#shared/domain/limits.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { UpConfig } from "#shared/shell/config.ts";
import { NbdGateway, openHost, type VolumeHost } from "../gateway/layer.ts";
import { RawReplicas } from "../storage/layer.ts";
import type { OpenBucket } from "./bucket-homes.ts";

export interface VolumesSetup {
  readonly dataDirectory: string;
  readonly create: boolean;
  /** As in UpConfig; not said: nothing is served, and no bucket is needed. */
  readonly bucket?: string | null;
  readonly payloadBytesMax?: number;
  readonly logBytesMax?: number;
  readonly logRetainedBytes?: number;
  /** A line about what happens while volumes are served. */
  readonly onNote?: (text: string) => void;
}

export interface OpenVolumes {
  readonly host: VolumeHost;
  /** Absolute. */
  readonly dataDirectory: string;
  readonly store: FileStore;
  readonly clock: SystemClock;
  /** Holds the reserve and opens every volume; offline commands do without. */
  serve(): Promise<void>;
  freeBytes(): Promise<number>;
  /** Closes every volume and gives the data directory back. Rejects where a volume could not be closed cleanly. */
  close(): Promise<void>;
}

export async function openVolumes(setup: VolumesSetup): Promise<OpenVolumes> {
  const dataDirectory = resolve(setup.dataDirectory);
  const store = await openStore(dataDirectory);
  const clock = new SystemClock();
  const note = setup.onNote ?? ((): void => {});
  const random = new SystemRandom();
  let bucket: OpenBucket | null = null;
  try {
    const replicas = new RawReplicas({
      store,
      clock,
      dataDirectory,
      onNote: (text) => note(`warning: ${text}`),
    });
    const host = await openHost({
      dataDirectory,
      create: setup.create,
      store,
      clock,
      random,
      pool: new SlabPool(store, clock, setup.payloadBytesMax ?? limits.payloadBytesMax),
      replicas,
      homes: () => bucket?.homes ?? null,
      // Commands that work on files know no bucket: the log waits for the next start.
      keepsLog: setup.bucket !== null,
      writer: `${hostname()} pid ${process.pid}`,
      logBytesMax: setup.logBytesMax ?? limits.logBytesMaxDefault,
      logRetainedBytes: setup.logRetainedBytes ?? limits.logRetainedBytesDefault,
      events: {
        halted: (volume, error) =>
          note(`warning: volume ${volume} halted: ${error.message}\nhint: ${error.hint}`),
        replaying: (volume, applied, last) =>
          note(`${volume}: applying its log, entry ${applied} of ${last}`),
      },
    });
    return {
      host,
      serve: async () => {
        await replicas.start();
        const { bucket: wanted = null } = setup;
        if (wanted !== null) {
          const { openBucket } = await import("./bucket-homes.ts");
          bucket = await openBucket({
            bucket: wanted,
            dataDirectory,
            files: store,
            clock,
            random,
            onNote: note,
          });
        }
        await host.serve();
      },
      dataDirectory,
      store,
      clock,
      freeBytes: async () => (await store.freeSpace(dataDirectory)).freeBytes,
      close: async () => {
        try {
          await host.close();
        } finally {
          await bucket?.close();
          await replicas.close();
          await store.close();
        }
      },
    };
  } catch (cause) {
    await store.close();
    throw cause;
  }
}

/** Crash tests of the whole process put a layer in between that loses with kill -9 what a power cut would lose. */
async function openStore(dataDirectory: string): Promise<FileStore> {
  const native = new NativeFileStore();
  if (process.env["VARVE_TEST_DROP_UNSYNCED"] !== "1") return native;
  const { DroppingUnsyncedStore } = await import("#shared/adapters/decorators/dropping-unsynced.ts");
  return new DroppingUnsyncedStore(native, `${dataDirectory}/.unsynced`);
}

export async function serveNbd(opened: OpenVolumes, config: UpConfig): Promise<NbdGateway> {
  return await NbdGateway.start({
    host: opened.host,
    store: opened.store,
    clock: opened.clock,
    addresses: config.nbd,
    connectionsMax: config.connectionsMax,
  });
}
