/*
 * The keeper of the bucket in a server: joins the engines of retention, collection, check, scrub and rescue with the archiver of the
 * process. Opened by services/cli/bucket-homes.ts beside the archiver, closed before it. Without a server, check and usage
 * need only a store: checkStore, usageOfStore.
 */
import { type BucketPrices, ownDisks, s3Standard } from "#shared/domain/bucket-prices.ts";
import type { BucketCheckReport, BucketUsageReport } from "#shared/ports/bucket-administration.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { HistoryHome } from "#shared/ports/history-home.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { type CheckOptions, checkBucket } from "./engine/bucket-check.ts";
import { BucketKeeper, type KeeperParts } from "./engine/bucket-keeper.ts";
import { BucketReader } from "./engine/bucket-reader.ts";
import { bucketUsage } from "./engine/bucket-usage.ts";
import { BucketDeletedVolumes } from "./engine/deleted-volumes.ts";
import { exactBaseBuilder } from "./engine/exact-base.ts";
import { type FoundVolumes, Rescuer } from "./engine/rescuer.ts";
import type { Archiver } from "./layer.ts";

export type { BucketKeeper, FoundVolumes };
export { Rescuer };

export interface KeeperSetup
  extends Pick<
    KeeperParts,
    | "kept"
    | "isCollector"
    | "pointsInUse"
    | "startJob"
    | "bringBack"
    | "settling"
    | "isKnown"
    | "allocateSlab"
    | "onNote"
    | "grace"
    | "bucketBytesMax"
    | "rates"
  > {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly who: string;
  readonly archiver: Archiver;
  readonly histories: HistoryHome;
}

/** A keeper that collects by the clock from now on. Asks the store nothing yet. */
export function openKeeper(setup: KeeperSetup): BucketKeeper {
  const { store, archiver, histories } = setup;
  let closing = false;
  const keeper = new BucketKeeper({
    ...setup,
    conditionalPut: probed(store),
    prices: pricesOf(store),
    uploadsInFlight: () => archiver.uploadsInFlight(),
    exactBase: exactBaseBuilder({
      parts: archiver.parts,
      history: async (volumeId) => histories.find(volumeId),
      isStopped: () => closing,
    }),
    failpoint: () => archiver.parts.failpoint("collect"),
    onClose: () => {
      closing = true;
    },
  });
  keeper.start();
  return keeper;
}

export async function checkStore(store: ObjectStore, options: CheckOptions): Promise<BucketCheckReport> {
  return await checkBucket(new BucketReader(store), options);
}

export async function usageOfStore(store: ObjectStore): Promise<BucketUsageReport> {
  return await bucketUsage(new BucketReader(store), pricesOf(store), [], null);
}

/** For a cluster's api. `who`: the process, for people. */
export function deletedOfStore(
  store: ObjectStore,
  parts: { readonly clock: Clock; readonly random: Random; readonly who: string },
): BucketDeletedVolumes {
  return new BucketDeletedVolumes({ ...parts, store, conditionalPut: probed(store) });
}

/** For rescues: finds volumes and takes their lines. */
export function openRescuer(store: ObjectStore, clock: Clock, random: Random): Rescuer {
  return new Rescuer({ reader: new BucketReader(store), clock, random, conditionalPut: probed(store) });
}

/** Once, when it is needed first; again where it failed. */
function probed(store: ObjectStore): () => Promise<boolean> {
  let found: Promise<boolean> | null = null;
  return () => {
    found ??= store.probe().then(
      ({ conditionalPut }) => conditionalPut,
      (cause: unknown) => {
        found = null;
        throw cause;
      },
    );
    return found;
  };
}

const isDirectory = (store: ObjectStore): boolean => store.place.startsWith("file:");

function pricesOf(store: ObjectStore): BucketPrices {
  return isDirectory(store) ? ownDisks : s3Standard;
}
