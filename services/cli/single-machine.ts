/*
 * One machine in one process: file store, memory, storage service and gateway joined. `varve up` serves with it, offline
 * commands open it without serving. The only place where both services' layers are known.
 */
import { hostname } from "node:os";
import { resolve } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { BucketAdministration, RescuedVolume } from "#shared/ports/bucket-administration.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { TendingLimits } from "#shared/ports/replica-home.ts";
import type { RescuePlan } from "#shared/ports/rescue.ts";
import type { PastLimits, UpConfig } from "#shared/shell/config.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import type { BucketKeeper } from "../archiver/keeper-layer.ts";
import { type GatewayEvents, NbdGateway, openHost, type VolumeHost } from "../gateway/layer.ts";
import { makeRescuedFiles, type RescuedVolumeParts } from "../gateway/rescued-volume.ts";
import { RawReplicas } from "../storage/layer.ts";
import type { OpenBucket } from "./bucket-homes.ts";

export interface VolumesSetup {
  readonly dataDirectory: string;
  readonly create: boolean;
  /** As in UpConfig; not said: nothing is served, and no bucket is needed. */
  readonly bucket?: string | null;
  /** Not said: no limits. */
  readonly past?: PastLimits;
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
  /** Told by serveNbd(). */
  readonly foreground: ForegroundLoad;
  /** Holds the reserve and opens every volume; offline commands do without. */
  serve(): Promise<void>;
  freeBytes(): Promise<number>;
  /** The bucket's keeper; null without a bucket, and before serve(). */
  bucket(): BucketAdministration | null;
  /** Makes record and files of a volume that comes back from a bucket; `takeLine` is called when its name is found to be free. */
  bringBack(record: VolumeRecord, takeLine: () => Promise<RescuePlan>): Promise<RescuedVolume>;
  /** Closes every volume and gives the data directory back. Rejects where a volume could not be closed cleanly. */
  close(): Promise<void>;
}

export async function openVolumes(setup: VolumesSetup): Promise<OpenVolumes> {
  const dataDirectory = resolve(setup.dataDirectory);
  const store = await openStore(dataDirectory);
  const shared = { clock: new SystemClock(), foreground: new ForegroundLoad() };
  const { clock } = shared;
  const note = setup.onNote ?? ((): void => {});
  const random = new SystemRandom();
  const writer = `${hostname()} pid ${process.pid}`;
  const failpoint = failpointOf(process.env["VARVE_TEST_FAILPOINT"]);
  let bucket: OpenBucket | null = null;
  let keeper: BucketKeeper | null = null;
  try {
    const onNote = (text: string): void => note(`warning: ${text}`);
    const replicas = new RawReplicas({ store, clock, dataDirectory, onNote, failpoint });
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
      tending: tendingOf(setup.past),
      writer,
      logBytesMax: setup.logBytesMax ?? limits.logBytesMaxDefault,
      logRetainedBytes: setup.logRetainedBytes ?? limits.logRetainedBytesDefault,
      events: eventsOf(note),
      failpoint,
    });
    const bringBack = bringBackWith(host, { store, clock, random, replicas, writer });
    return {
      host,
      bringBack,
      bucket: () => keeper,
      serve: async () => {
        await replicas.start();
        const { bucket: wanted = null } = setup;
        if (wanted !== null) {
          const { openBucket, keepBucket } = await import("./bucket-homes.ts");
          const { past } = setup;
          const machine = { dataDirectory, files: store, ...shared, random, limits: past, onNote: note };
          bucket = await openBucket({ bucket: wanted, fresh: host.list().length === 0, ...machine });
          keeper = keepBucket(bucket, { host, writer, bringBack, ...machine });
        }
        await host.serve();
      },
      dataDirectory,
      store,
      ...shared,
      freeBytes: async () => (await store.freeSpace(dataDirectory)).freeBytes,
      close: async () => {
        try {
          await keeper?.close();
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

/** A tiered image that is too large loses a tenth of that, so that it is not looked through each minute. */
function tendingOf(past: PastLimits | undefined): TendingLimits {
  const { imageBytesMax = null, fillBytesPerSecond = null } = past ?? {};
  const capacity =
    imageBytesMax === null ? null : { highBytes: imageBytesMax, lowBytes: imageBytesMax * 0.9 };
  return { capacity, fillBytesPerSecond };
}

function eventsOf(note: (text: string) => void): GatewayEvents {
  return {
    halted: (volume, error) =>
      note(
        `warning: volume ${volume} halted: ${error.message}${error.hint === "" ? "" : `\nhint: ${error.hint}`}`,
      ),
    replaying: (volume, applied, last) => note(`${volume}: applying its log, entry ${applied} of ${last}`),
  };
}

/** Record and files of a volume that comes back; see OpenVolumes.bringBack. */
function bringBackWith(host: VolumeHost, parts: RescuedVolumeParts): OpenVolumes["bringBack"] {
  return async (record, takeLine) => {
    let reached: RescuedVolume | null = null;
    await host.bringBack(record, async (paths) => {
      const plan = await takeLine();
      await makeRescuedFiles(parts, plan, paths);
      reached = plan.reached;
    });
    invariant(reached !== null, "a volume that came back was prepared");
    return reached;
  };
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
    foreground: opened.foreground,
    addresses: config.nbd,
    connectionsMax: config.connectionsMax,
  });
}
