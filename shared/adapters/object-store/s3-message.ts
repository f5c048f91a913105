/*
 * What goes between the event loop and an S3 thread: requests by number, an announced length, one answer each. Used by
 * s3-thread.ts and s3-program.ts. Credentials go once, as the thread's workerData, and are in no message.
 */
import type { S3BucketAddress } from "#shared/domain/bucket-url.ts";
import type { ObjectStoreFailure } from "#shared/domain/errors.ts";
import type { PutOptions } from "#shared/ports/object-store.ts";
import type { S3Credentials } from "./s3-credentials.ts";
import type { ObjectRange } from "./store-requests.ts";

export interface S3ThreadData {
  readonly address: S3BucketAddress;
  readonly credentials: S3Credentials;
}

export type S3Task =
  | { readonly kind: "put"; readonly key: string; readonly content: Uint8Array; readonly options: PutOptions }
  | { readonly kind: "get"; readonly key: string; readonly range: ObjectRange | undefined }
  | { readonly kind: "head"; readonly key: string }
  | { readonly kind: "delete"; readonly key: string }
  | { readonly kind: "list"; readonly key: string; readonly after: string | null };

/** Without a task: the request of that number is of no interest any more. */
export interface S3Request {
  readonly number: number;
  readonly task: S3Task | null;
}

export interface S3Failure {
  readonly failure: ObjectStoreFailure;
  readonly what: string;
  readonly hint: string;
  readonly ambiguous: boolean;
}

export type S3Answer =
  | { readonly number: number; readonly expect: number }
  | { readonly number: number; readonly result: unknown }
  | { readonly number: number; readonly failed: S3Failure };
