/*
 * An S3 thread's own program: makes the SDK's client, starts each request when it comes, answers by number. Started by
 * s3-thread.ts; s3-requests.ts does the work.
 */
import { parentPort, type Transferable, workerData } from "node:worker_threads";
import type { S3ClientConfig } from "@aws-sdk/client-s3";
import { bucketPlace, type S3BucketAddress } from "#shared/domain/bucket-url.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { pacedAgents } from "./paced-sockets.ts";
import type { S3Credentials } from "./s3-credentials.ts";
import { s3Error } from "./s3-errors.ts";
import type { S3Answer, S3Failure, S3Request, S3Task, S3ThreadData } from "./s3-message.ts";
import { S3Requests } from "./s3-requests.ts";
import type { Attempt } from "./store-requests.ts";

const regionDefault = "us-east-1";

function clientConfig(address: S3BucketAddress, credentials: S3Credentials): S3ClientConfig {
  // One socket for each request under way, kept open between them.
  const agents = pacedAgents({
    keepAlive: true,
    maxSockets: limits.bucketWritesInFlightMax + limits.bucketReadsInFlightMax,
  });
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
      ...agents,
    },
  };
}

const { address, credentials } = workerData as S3ThreadData;
const sdk = await import("@aws-sdk/client-s3");
const requests = new S3Requests(sdk, new sdk.S3Client(clientConfig(address, credentials)), {
  place: bucketPlace(address),
  bucket: address.bucket,
  prefix: address.prefix,
});
const underWay = new Map<number, AbortController>();

function run(task: S3Task, attempt: Attempt): Promise<unknown> {
  switch (task.kind) {
    case "put": {
      const { buffer, byteOffset, byteLength } = task.content;
      return requests.put(task.key, Buffer.from(buffer, byteOffset, byteLength), task.options, attempt);
    }
    case "get":
      return requests.get(task.key, task.range, attempt);
    case "head":
      return requests.head(task.key, attempt);
    case "delete":
      return requests.remove(task.key, attempt);
    case "list":
    default:
      return requests.listPage(task.key, task.after, attempt);
  }
}

function failureOf(task: S3Task, cause: unknown): S3Failure {
  const error =
    cause instanceof ObjectStoreError ? cause : s3Error(task.kind, requests.place, task.key, cause);
  const { kind, operation, place, key, status, what, hint, ambiguous } = error;
  return {
    failure: { kind, operation, place, key, ...(status === undefined ? {} : { status }) },
    what,
    hint,
    ambiguous,
  };
}

function answer(message: S3Answer, transfer: readonly Transferable[] = []): void {
  parentPort?.postMessage(message, transfer);
}

/** Content with an ArrayBuffer of its own is handed over; pieces of a socket's buffer are small and copied. */
function answerResult(number: number, result: unknown): void {
  if (!(result instanceof Uint8Array)) {
    answer({ number, result });
    return;
  }
  const isWhole = result.byteLength === result.buffer.byteLength;
  const bytes = isWhole ? result : new Uint8Array(result);
  answer({ number, result: bytes }, [bytes.buffer as ArrayBuffer]);
}

async function serve(number: number, task: S3Task): Promise<void> {
  const stop = new AbortController();
  underWay.set(number, stop);
  try {
    const expect = (bytes: number): void => answer({ number, expect: bytes });
    // One that is answered before its content has gone sends no more of it: the content's memory is the caller's again.
    const result = await run(task, { signal: stop.signal, expect }).finally(() => stop.abort());
    answerResult(number, result);
  } catch (cause) {
    answer({ number, failed: failureOf(task, cause) });
  } finally {
    underWay.delete(number);
  }
}

parentPort?.on("message", ({ number, task }: S3Request) => {
  // An aborted request's socket is destroyed here and now: it reads no content when the next message is taken.
  if (task === null) underWay.get(number)?.abort();
  else void serve(number, task);
});
