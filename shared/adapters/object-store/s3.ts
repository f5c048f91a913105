/*
 * Opens a bucket on an S3-compatible store: the retrying store on the event loop, single attempts on a thread of their own
 * (s3-thread.ts), which alone imports the SDK, when its first request comes. Called by open-object-store.ts.
 */
import type { S3BucketAddress } from "#shared/domain/bucket-url.ts";
import { RetryingObjectStore, type RetryingStoreOptions } from "./retrying-store.ts";
import type { S3Credentials } from "./s3-credentials.ts";
import { S3Thread } from "./s3-thread.ts";

export interface S3StoreOptions extends RetryingStoreOptions {
  readonly credentials: S3Credentials;
}

export async function openS3ObjectStore(
  address: S3BucketAddress,
  options: S3StoreOptions,
): Promise<RetryingObjectStore> {
  return new RetryingObjectStore(new S3Thread(address, options.credentials), options);
}
