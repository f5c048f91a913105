/*
 * Where history will lie: on the disk that log and images lie on, or on another one, and how much room it may take there. Asks no
 * S3 store anything. Called by commands/doctor.ts.
 */
import { existsSync, statSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { bucketPlace, parseBucketUrl } from "#shared/domain/bucket-url.ts";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { bucketUrl } from "../bucket-homes.ts";
import { type Finding, ok, warn } from "./finding.ts";

const subject = "history";

/** `data` is absolute. `bucket` and `bucketBytesMax` as in UpConfig. */
export async function historyChecks(
  data: string,
  bucket: string | null,
  bucketBytesMax: number | null,
): Promise<readonly Finding[]> {
  if (bucket === null) return [ok(subject, "none is kept (--bucket none)")];
  const address = parseBucketUrl(bucketUrl(bucket, data));
  if (typeof address === "string") return []; // told as a mistake of the flag
  if (address.kind !== "directory") return [ok(subject, `in ${bucketPlace(address)}`)];
  const place = existingParent(address.path);
  const { bavail, bsize } = await statfs(place);
  const free = readableByteSize(bavail * bsize);
  const room =
    bucketBytesMax === null
      ? `it may take all that is free there, ${free}`
      : `it may take ${readableByteSize(bucketBytesMax)}; ${free} are free there`;
  const found = `in ${address.path}, ${room}`;
  if (statSync(place).dev !== statSync(existingParent(data)).dev) return [ok(subject, found)];
  return [
    warn(
      subject,
      `${found}; log and images lie on the same disk`,
      "Who loses that disk loses both: put history elsewhere with --bucket. --bucket-max says how much of a disk it may take.",
    ),
  ];
}

/** The path itself, or the nearest one above it that exists. */
export function existingParent(path: string): string {
  let place = path;
  while (!existsSync(place)) place = dirname(place);
  return place;
}
