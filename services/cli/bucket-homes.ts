/*
 * The bucket of one process and what stands on it: object store, archiver, readers of the past. Opened by single-machine.ts
 * before the volumes and closed after them. A store that opens was not asked anything yet, so a bucket that is away keeps
 * nothing from starting.
 */
import { Histories } from "#shared/adapters/history/histories.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import type { Bandwidth } from "#shared/adapters/object-store/retrying-store.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import type { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { defaultBucket, type PastLimits } from "#shared/shell/config.ts";
import { failpointOf } from "#shared/shell/failpoint.ts";
import { type BucketKeeper, type KeeperSetup, openKeeper } from "../archiver/keeper-layer.ts";
import { Archiver } from "../archiver/layer.ts";
import type { PastHomes, VolumeHost } from "../gateway/layer.ts";

export interface BucketSetup {
  /** As in UpConfig.bucket, but never null. */
  readonly bucket: string;
  /** No volume exists yet. */
  readonly fresh: boolean;
  /** Absolute. */
  readonly dataDirectory: string;
  readonly files: FileStore;
  readonly foreground: ForegroundLoad;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: PastLimits | undefined;
  readonly onNote: (text: string) => void;
}

export interface OpenBucket {
  readonly store: ObjectStore;
  readonly archiver: Archiver;
  readonly histories: Histories;
  readonly homes: PastHomes;
  /** After the volumes were closed. */
  close(): Promise<void>;
}

/** The URL of the bucket that a setting means. */
export function bucketUrl(bucket: string, dataDirectory: string): string {
  if (bucket !== defaultBucket) return bucket;
  const path = `${dataDirectory}/${dataLayout.bucket}`;
  return `file://${path.split("/").map(encodeURIComponent).join("/")}`;
}

export async function openBucket(setup: BucketSetup): Promise<OpenBucket> {
  const { clock, random, files, onNote } = setup;
  const url = bucketUrl(setup.bucket, setup.dataDirectory);
  // A directory that went missing after volumes were made is most likely not mounted: made anew it would begin another history.
  const create = setup.bucket === defaultBucket || setup.fresh;
  const bandwidth = bandwidthOf(setup.limits);
  const store = await openObjectStore(url, { clock, random, environment: process.env, create, bandwidth });
  const failpoint = failpointOf(process.env["VARVE_TEST_FAILPOINT"]);
  const archiver = new Archiver({
    store,
    clock,
    random,
    slabs: files,
    foreground: setup.foreground,
    failpoint,
    ...settleOf(process.env["VARVE_TEST_SETTLE_MS"]),
  });
  const histories = new Histories({ store, clock });
  return {
    store,
    archiver,
    histories,
    homes: { archiver, histories, onNote },
    close: async () => {
      await archiver.close();
      await histories.close();
      await store.close();
    },
  };
}

function bandwidthOf(limits: PastLimits | undefined): Bandwidth {
  const up = limits?.uploadBytesPerSecond ?? null;
  const down = limits?.downloadBytesPerSecond ?? null;
  return {
    ...(up === null ? {} : { putBytesPerSecond: up }),
    ...(down === null ? {} : { getBytesPerSecond: down }),
  };
}

export interface KeeperHome {
  readonly host: VolumeHost;
  readonly files: FileStore;
  readonly clock: Clock;
  readonly random: Random;
  /** For people: who collects. */
  readonly writer: string;
  readonly bringBack: KeeperSetup["bringBack"];
  readonly limits: PastLimits | undefined;
  readonly onNote: (text: string) => void;
}

/** Collects, checks and scrubs from now on; closed before the volumes are. */
export function keepBucket(bucket: OpenBucket, home: KeeperHome): BucketKeeper {
  const { host, files, clock, random, writer, bringBack } = home;
  const { store, archiver, histories } = bucket;
  return openKeeper({
    store,
    archiver,
    histories,
    clock,
    random,
    who: writer,
    kept: () => host.kept(),
    pointsInUse: (volumeId) =>
      host.pointsInUse().flatMap((point) => (point.volumeId === volumeId ? [point.lsn] : [])),
    startJob: (kind, volume) => host.jobs.start(kind, volume),
    allocateSlab: (bytes) => files.allocateSlab(bytes),
    bringBack,
    settling: host.settling,
    onNote: home.onNote,
    bucketBytesMax: home.limits?.bucketBytesMax ?? null,
    ...(home.limits === undefined ? {} : { rates: home.limits }),
    ...graceOf(process.env["VARVE_TEST_GRACE_MS"]),
  });
}

/** As a store that may lose its last seconds for so long. */
function settleOf(setting: string | undefined): { readonly options?: { readonly settleMs: number } } {
  return setting === undefined ? {} : { options: { settleMs: Number(setting) } };
}

/** Crash tests can't wait for hours until something may be deleted. */
function graceOf(setting: string | undefined): Pick<KeeperSetup, "grace"> {
  if (setting === undefined) return {};
  const ms = Number(setting);
  return { grace: { supersededManifestMs: ms, unnamedObjectMs: ms } };
}
