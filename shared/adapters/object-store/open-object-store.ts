/*
 * From a bucket's URL to its store: `file:///DIR` or `s3://BUCKET/PREFIX?endpoint=...`. Called by the wiring of `varve up`, rescue and
 * the bucket commands; everybody else knows only ports/object-store.ts. A store that opens has not been asked anything yet:
 * probe() is what finds wrong credentials or a missing bucket.
 */
import { bucketPlace, parseBucketUrl } from "#shared/domain/bucket-url.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { DirectoryObjectStore } from "./directory.ts";
import type { Bandwidth } from "./retrying-store.ts";
import { openS3ObjectStore } from "./s3.ts";
import { type Environment, readS3Credentials } from "./s3-credentials.ts";

export interface ObjectStoreDependencies {
  readonly clock: Clock;
  readonly random: Random;
  /** Where credentials are named: process.env. */
  readonly environment: Environment;
  /** For S3 stores only. */
  readonly bandwidth?: Bandwidth;
  /** A directory is made where it is missing (default). False for commands that only read. */
  readonly create?: boolean;
}

/** Rejects Invalid where the URL is wrong; the URL itself is in no message, since people put secrets there. */
export async function openObjectStore(
  url: string,
  dependencies: ObjectStoreDependencies,
): Promise<ObjectStore> {
  const address = parseBucketUrl(url);
  if (typeof address === "string") {
    throw new ObjectStoreError(
      { kind: "Invalid", operation: "open", place: "the bucket", key: "" },
      `its URL ${address}`,
      { hint: "Buckets are file:///DIR or s3://BUCKET/PREFIX?endpoint=http://HOST:PORT" },
    );
  }
  const { clock, random, bandwidth } = dependencies;
  if (address.kind === "directory") {
    return await DirectoryObjectStore.open(address.path, { random, create: dependencies.create ?? true });
  }
  const region = address.region ?? nonEmpty(dependencies.environment["AWS_REGION"]);
  const credentials = await readS3Credentials(dependencies.environment, bucketPlace(address));
  const options = { clock, random, credentials, ...(bandwidth === undefined ? {} : { bandwidth }) };
  return await openS3ObjectStore({ ...address, region }, options);
}

function nonEmpty(text: string | undefined): string | null {
  return text === undefined || text === "" ? null : text;
}
