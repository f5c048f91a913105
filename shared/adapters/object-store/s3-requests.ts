/*
 * Single attempts against an S3-compatible store, by @aws-sdk/client-s3 (ADR 009): Buffers, no streams out; no checksums of the
 * SDK, which older servers refuse; only If-None-Match: * as a condition, so no ETag is ever sent or compared. Called by
 * retrying-store.ts, built by s3.ts, which imports the SDK when the first S3 bucket is opened.
 */
import type { Readable } from "node:stream";
import type * as Sdk from "@aws-sdk/client-s3";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ObjectFacts, PutOptions } from "#shared/ports/object-store.ts";
import { checkSize, isObjectKey, rangeWithin } from "./object-key.ts";
import { s3Error, s3ErrorName, s3Status } from "./s3-errors.ts";
import type { Attempt, ListedPage, ObjectRange, StoreRequests } from "./store-requests.ts";

export interface S3Place {
  readonly place: string;
  readonly bucket: string;
  /** "" or ends with "/". */
  readonly prefix: string;
}

export class S3Requests implements StoreRequests {
  readonly place: string;
  private readonly sdk: typeof Sdk;
  private readonly client: Sdk.S3Client;
  private readonly bucket: string;
  private readonly prefix: string;

  constructor(sdk: typeof Sdk, client: Sdk.S3Client, where: S3Place) {
    this.sdk = sdk;
    this.client = client;
    this.place = where.place;
    this.bucket = where.bucket;
    this.prefix = where.prefix;
  }

  async put(
    key: string,
    content: Buffer,
    options: PutOptions,
    attempt: Attempt,
  ): Promise<"stored" | "exists"> {
    const onlyNew = options.onlyNew === true;
    try {
      const command = new this.sdk.PutObjectCommand({
        ...this.object(key),
        Body: content,
        ContentLength: content.length,
        ContentType: "application/octet-stream",
        ...(onlyNew ? { IfNoneMatch: "*" } : {}),
      });
      if (options.sha256 !== undefined) signWith(command, options.sha256);
      await this.client.send(command, { abortSignal: attempt.signal });
      return "stored";
    } catch (error) {
      if (onlyNew && s3Status(error) === 412) return "exists";
      throw s3Error("put", this.place, key, error);
    }
  }

  async get(key: string, range: ObjectRange | undefined, attempt: Attempt): Promise<Buffer | null> {
    try {
      const command = new this.sdk.GetObjectCommand({
        ...this.object(key),
        ...(range === undefined ? {} : { Range: `bytes=${range.start}-${range.start + range.length - 1}` }),
      });
      const answer = await this.client.send(command, { abortSignal: attempt.signal });
      if (answer.ContentLength !== undefined) {
        checkSize("get", this.place, key, answer.ContentLength);
        attempt.expect(answer.ContentLength);
      }
      const content = await this.collect(key, answer, attempt.signal);
      if (range === undefined || answer.ContentRange !== undefined) return content;
      // The store ignored the range and sent all.
      const { start, end } = rangeWithin(content.length, range);
      return content.subarray(start, end);
    } catch (error) {
      // A range that begins at or behind the end: the object is there, no byte of it is.
      if (range !== undefined && s3Status(error) === 416) return Buffer.alloc(0);
      if (s3ErrorName(error) === "NoSuchKey") return null;
      throw s3Error("get", this.place, key, error);
    }
  }

  async head(key: string, attempt: Attempt): Promise<ObjectFacts | null> {
    try {
      const command = new this.sdk.HeadObjectCommand(this.object(key));
      const answer = await this.client.send(command, { abortSignal: attempt.signal });
      const { ContentLength: bytes, LastModified: modified } = answer;
      if (bytes === undefined || modified === undefined)
        throw this.strange("head", key, "has no size or time");
      return { key, bytes, modifiedMs: modified.getTime() };
    } catch (error) {
      if (s3Status(error) !== 404) throw s3Error("head", this.place, key, error);
    }
    // A HEAD's 404 has no body: no such object, or no such bucket? A GET says.
    const content = await this.get(key, { start: 0, length: 1 }, attempt);
    if (content === null) return null;
    throw new ObjectStoreError(
      { kind: "Retry", operation: "head", place: this.place, key },
      "the object appeared meanwhile",
    );
  }

  async remove(key: string, attempt: Attempt): Promise<void> {
    try {
      const command = new this.sdk.DeleteObjectCommand(this.object(key));
      await this.client.send(command, { abortSignal: attempt.signal });
    } catch (error) {
      if (s3ErrorName(error) === "NoSuchKey") return;
      throw s3Error("delete", this.place, key, error);
    }
  }

  async listPage(prefix: string, after: string | null, attempt: Attempt): Promise<ListedPage> {
    try {
      const command = new this.sdk.ListObjectsV2Command({
        Bucket: this.bucket,
        Prefix: this.prefix + prefix,
        MaxKeys: limits.bucketListPageMax,
        ...(after === null ? {} : { ContinuationToken: after }),
      });
      const answer = await this.client.send(command, { abortSignal: attempt.signal });
      if (answer.Name === undefined) throw this.strange("list", prefix, "is no listing");
      const objects = (answer.Contents ?? []).flatMap((object) => this.listed(object));
      if (answer.IsTruncated !== true) return { objects, next: null };
      const next = answer.NextContinuationToken ?? "";
      if (next === "") throw this.strange("list", prefix, "says there is more, but not where");
      return { objects, next };
    } catch (error) {
      throw s3Error("list", this.place, prefix, error);
    }
  }

  close(): void {
    this.client.destroy();
  }

  private object(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.bucket, Key: this.prefix + key };
  }

  /** Objects of others below our prefix, with names that are no keys, are none of ours. */
  private listed(object: Sdk._Object): ObjectFacts[] {
    const { Key: name, Size: bytes, LastModified: modified } = object;
    if (name === undefined || bytes === undefined || modified === undefined) {
      throw this.strange("list", this.prefix, "lists an object without name, size or time");
    }
    const key = name.slice(this.prefix.length);
    return name.startsWith(this.prefix) && isObjectKey(key)
      ? [{ key, bytes, modifiedMs: modified.getTime() }]
      : [];
  }

  /** The whole body, in a buffer of its announced length where one is announced. A body that breaks off is Retry. */
  private async collect(
    key: string,
    answer: Sdk.GetObjectCommandOutput,
    signal: AbortSignal,
  ): Promise<Buffer> {
    const body = answer.Body as Readable | undefined;
    if (body === undefined) throw this.strange("get", key, "has no body");
    const stop = (): void => {
      body.destroy(new Error("aborted"));
    };
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    try {
      const announced = answer.ContentLength;
      // Each piece is copied as it comes and can go: kept until the end they would take the content's room once more.
      const content = announced === undefined ? null : Buffer.allocUnsafeSlow(announced);
      const pieces: Buffer[] = [];
      let bytes = 0;
      for await (const piece of body as AsyncIterable<Buffer>) {
        if (content === null) pieces.push(piece);
        else piece.copy(content, bytes);
        bytes += piece.length;
        checkSize("get", this.place, key, bytes);
      }
      if (announced !== undefined && bytes !== announced) {
        throw new ObjectStoreError(
          { kind: "Retry", operation: "get", place: this.place, key },
          `${bytes} of ${announced} bytes came`,
        );
      }
      return content ?? Buffer.concat(pieces, bytes);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  private strange(operation: string, key: string, what: string): ObjectStoreError {
    return new ObjectStoreError(
      { kind: "Invalid", operation, place: this.place, key },
      `the answer ${what}`,
      { hint: "The endpoint answers, but not as S3: correct it in the bucket's URL." },
    );
  }
}

/** The signature covers the content's SHA-256; where this header has it already, the SDK does not hash the content again. */
function signWith(command: Sdk.PutObjectCommand, sha256: string): void {
  command.middlewareStack.add(
    (next) => (args) => {
      (args.request as { headers: Record<string, string> }).headers["x-amz-content-sha256"] = sha256;
      return next(args);
    },
    { step: "build", name: "contentSha256" },
  );
}
