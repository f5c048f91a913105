/*
 * Single attempts against an S3-compatible store, on a thread of the bucket's own: the SDK's work per request (1-2 ms) never
 * stands in front of a disk's (ADR 009). Called by retrying-store.ts on the event loop; s3-program.ts is the other side.
 * The thread starts at the first request, and again at the next one after it ended; what it had in hand is Retry, ambiguous.
 *
 * Memory of a put: content in shared memory is read there, other content is copied. Whoever retries an aborted put may change
 * shared content when the retry resolved. No aborted attempt reads it then: its abort was sent before the retry, messages are
 * taken in order, and an abort destroys the socket at once; and another thread starts only after the one before has exited. A put that
 * the server answered before it had read the content is aborted before the answer is told.
 */
import { type Transferable, Worker } from "node:worker_threads";
import { bucketPlace, type S3BucketAddress } from "#shared/domain/bucket-url.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { ObjectFacts, PutOptions } from "#shared/ports/object-store.ts";
import type { S3Credentials } from "./s3-credentials.ts";
import type { S3Answer, S3Request, S3Task, S3ThreadData } from "./s3-message.ts";
import type { Attempt, ListedPage, ObjectRange, StoreRequests } from "./store-requests.ts";

interface Pending {
  readonly task: S3Task;
  readonly attempt: Attempt;
  readonly onAbort: () => void;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: ObjectStoreError) => void;
}

export class S3Thread implements StoreRequests {
  readonly place: string;
  readonly #data: S3ThreadData;
  readonly #program: URL;
  #worker: Worker | null = null;
  #closed = false;
  #nextNumber = 1;
  readonly #pending = new Map<number, Pending>();

  constructor(
    address: S3BucketAddress,
    credentials: S3Credentials,
    program: URL = new URL("./s3-program.ts", import.meta.url),
  ) {
    this.place = bucketPlace(address);
    this.#data = { address, credentials };
    this.#program = program;
  }

  async put(
    key: string,
    content: Buffer,
    options: PutOptions,
    attempt: Attempt,
  ): Promise<"stored" | "exists"> {
    const { buffer, byteOffset, byteLength } = content;
    // Cloned as it is, a view would bring all of its ArrayBuffer along.
    const isShared = buffer instanceof SharedArrayBuffer;
    const bytes = isShared ? new Uint8Array(buffer, byteOffset, byteLength) : new Uint8Array(content);
    const task = { kind: "put", key, content: bytes, options } as const;
    return (await this.#run(task, attempt, isShared ? [] : [bytes.buffer as ArrayBuffer])) as
      | "stored"
      | "exists";
  }

  async get(key: string, range: ObjectRange | undefined, attempt: Attempt): Promise<Buffer | null> {
    const bytes = (await this.#run({ kind: "get", key, range }, attempt)) as Uint8Array<ArrayBuffer> | null;
    return bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  async head(key: string, attempt: Attempt): Promise<ObjectFacts | null> {
    return (await this.#run({ kind: "head", key }, attempt)) as ObjectFacts | null;
  }

  async remove(key: string, attempt: Attempt): Promise<void> {
    await this.#run({ kind: "delete", key }, attempt);
  }

  async listPage(prefix: string, after: string | null, attempt: Attempt): Promise<ListedPage> {
    return (await this.#run({ kind: "list", key: prefix, after }, attempt)) as ListedPage;
  }

  /** Ends the thread; what it still had in hand is rejected, and what is asked later, too. */
  close(): void {
    this.#closed = true;
    for (const number of this.#pending.keys()) this.#lose(number, "the store was closed");
    void this.#worker?.terminate();
  }

  #run(task: S3Task, attempt: Attempt, transfer: readonly Transferable[] = []): Promise<unknown> {
    if (this.#closed) return Promise.reject(this.#lost(task, "the store was closed"));
    if (attempt.signal.aborted) return Promise.reject(this.#lost(task, "it was aborted"));
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    const worker = this.#worker ?? this.#start();
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port, not a window
        worker.postMessage({ number, task: null } satisfies S3Request);
        this.#lose(number, "it was aborted");
      };
      attempt.signal.addEventListener("abort", onAbort, { once: true });
      this.#pending.set(number, { task, attempt, onAbort, resolve, reject });
      // The process stays alive while requests are under way, and only then.
      if (this.#pending.size === 1) worker.ref();
      worker.postMessage({ number, task } satisfies S3Request, transfer);
    });
  }

  #start(): Worker {
    const worker = new Worker(this.#program, {
      execArgv: [],
      workerData: this.#data,
      // The SDK takes 35 MB; contents are outside of this heap.
      resourceLimits: { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 4 },
    });
    let why = "the S3 thread ended";
    worker.on("message", (answer: S3Answer) => this.#answered(answer));
    worker.on("error", (error) => {
      // Only its name: a message of the SDK may hold the signed request.
      why = `the S3 thread ended (${error instanceof Error ? error.name : "Error"})`;
    });
    worker.on("exit", () => {
      this.#worker = null;
      for (const number of this.#pending.keys()) this.#lose(number, why);
    });
    worker.unref();
    this.#worker = worker;
    return worker;
  }

  #answered(answer: S3Answer): void {
    if ("expect" in answer) {
      this.#pending.get(answer.number)?.attempt.expect(answer.expect);
      return;
    }
    const pending = this.#taken(answer.number);
    if ("result" in answer) {
      pending?.resolve(answer.result);
      return;
    }
    const { failure, what, hint, ambiguous } = answer.failed;
    pending?.reject(new ObjectStoreError(failure, what, { hint, ambiguous }));
  }

  /** One that was aborted meanwhile is not there any more. */
  #taken(number: number): Pending | undefined {
    const pending = this.#pending.get(number);
    if (pending === undefined) return undefined;
    this.#pending.delete(number);
    pending.attempt.signal.removeEventListener("abort", pending.onAbort);
    if (this.#pending.size === 0) this.#worker?.unref();
    return pending;
  }

  #lose(number: number, why: string): void {
    const pending = this.#taken(number);
    pending?.reject(this.#lost(pending.task, why));
  }

  #lost(task: S3Task, why: string): ObjectStoreError {
    return new ObjectStoreError(
      { kind: "Retry", operation: task.kind, place: this.place, key: task.key },
      why,
      { hint: "Is the store up and reachable? Varve tries again.", ambiguous: true },
    );
  }
}
