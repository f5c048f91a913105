/*
 * Opens a bucket on an S3-compatible store: credentials, client, and the retrying store around them. The SDK (0.12 s, 35 MB) is
 * imported here when the first S3 bucket is opened, so that a directory bucket costs nothing. Called by open-object-store.ts.
 */
import type { S3ClientConfig } from "@aws-sdk/client-s3";
import type { S3BucketAddress } from "#shared/domain/bucket-url.ts";
import { bucketPlace } from "#shared/domain/bucket-url.ts";
import { limits } from "#shared/domain/limits.ts";
import { RetryingObjectStore, type RetryingStoreOptions } from "./retrying-store.ts";
import type { S3Credentials } from "./s3-credentials.ts";
import { S3Requests } from "./s3-requests.ts";

const regionDefault = "us-east-1";

export interface S3StoreOptions extends RetryingStoreOptions {
  readonly credentials: S3Credentials;
}

export async function openS3ObjectStore(
  address: S3BucketAddress,
  options: S3StoreOptions,
): Promise<RetryingObjectStore> {
  const sdk = await import("@aws-sdk/client-s3");
  const client = new sdk.S3Client(clientConfig(address, options.credentials));
  const requests = new S3Requests(sdk, client, {
    place: bucketPlace(address),
    bucket: address.bucket,
    prefix: address.prefix,
  });
  return new RetryingObjectStore(requests, options);
}

function clientConfig(address: S3BucketAddress, credentials: S3Credentials): S3ClientConfig {
  // One socket for each request under way, kept open between them.
  const agent = {
    keepAlive: true,
    maxSockets: limits.bucketWritesInFlightMax + limits.bucketReadsInFlightMax,
  };
  return {
    region: address.region ?? regionDefault,
    ...(address.endpoint === null ? {} : { endpoint: address.endpoint }),
    forcePathStyle: address.pathStyle,
    credentials: () => Promise.resolve(credentials),
    // Our own loop retries (retry-policy.ts): with time-outs, jitter and counters that the simulator runs too.
    maxAttempts: 1,
    // The SDK's checksums (trailing CRC, aws-chunked) are refused or ignored by older servers; objects carry a SHA-256 inside.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // Saves a round trip per upload, and a second on servers that never answer it.
    expectContinueHeader: false,
    requestHandler: {
      connectionTimeout: limits.bucketConnectMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
  };
}
