/*
 * A bucket without a server: opened by its URL for one command (check, usage, rescue) and closed after it.
 */
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import type { BucketCheckReport, BucketUsageReport } from "#shared/ports/bucket-administration.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { checkStore, usageOfStore } from "../archiver/keeper-layer.ts";

export async function withStore<T>(url: string, work: (store: ObjectStore) => Promise<T>): Promise<T> {
  const store = await openObjectStore(url, {
    clock: new SystemClock(),
    random: new SystemRandom(),
    environment: process.env,
    create: false,
  });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

export async function checkBucketAt(url: string, quick: boolean): Promise<BucketCheckReport> {
  return await withStore(url, async (store) => checkStore(store, { quick }));
}

export async function usageOfBucketAt(url: string): Promise<BucketUsageReport> {
  return await withStore(url, usageOfStore);
}
