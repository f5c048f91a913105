/*
 * Makes a bucket of single attempts (store-requests.ts): time-outs, bounded retries, at most so many requests at once, limits
 * in bytes per second, counters, keys checked, and the one question that retries raise: who won a conditional put whose
 * answer was lost? Called by everybody as ports/object-store.ts; built by s3.ts and simulated.ts.
 */
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ObjectFacts, ObjectStore, PutOptions, StoreCapabilities } from "#shared/ports/object-store.ts";
import { BandwidthLimit } from "./bandwidth-limit.ts";
import { checkKey, checkPrefix, checkSize } from "./object-key.ts";
import { probeConditionalPut } from "./probe.ts";
import { RequestCounters, type RequestKind } from "./request-counters.ts";
import { RequestGate } from "./request-gate.ts";
import { RetryPolicy } from "./retry-policy.ts";
import type { Attempt, ListedPage, ObjectRange, StoreRequests } from "./store-requests.ts";

/** Limits of one bucket's line; none where undefined. */
export interface Bandwidth {
  readonly putBytesPerSecond?: number;
  readonly getBytesPerSecond?: number;
}

export interface RetryingStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly bandwidth?: Bandwidth;
}

interface Request<T> {
  readonly kind: RequestKind;
  readonly key: string;
  /** Content that is sent. */
  readonly putBytes?: number;
  /** Content that is known to come. */
  readonly getBytes?: number;
  readonly work: (attempt: Attempt) => Promise<T>;
  readonly onRetry?: (failure: ObjectStoreError) => void;
}

export class RetryingObjectStore implements ObjectStore {
  readonly counters = new RequestCounters();
  private readonly requests: StoreRequests;
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly retries: RetryPolicy;
  private readonly writes = new RequestGate(limits.bucketWritesInFlightMax, limits.bucketRequestsQueuedMax);
  private readonly reads = new RequestGate(limits.bucketReadsInFlightMax, limits.bucketRequestsQueuedMax);
  private readonly upload: BandwidthLimit;
  private readonly download: BandwidthLimit;
  private readonly closing = new AbortController();

  constructor(requests: StoreRequests, options: RetryingStoreOptions) {
    this.requests = requests;
    this.clock = options.clock;
    this.random = options.random;
    this.retries = new RetryPolicy(options.clock, options.random);
    this.upload = new BandwidthLimit(options.clock, options.bandwidth?.putBytesPerSecond);
    this.download = new BandwidthLimit(options.clock, options.bandwidth?.getBytesPerSecond);
  }

  get place(): string {
    return this.requests.place;
  }

  async probe(): Promise<StoreCapabilities> {
    return { conditionalPut: await probeConditionalPut(this, this.random), durablePut: false };
  }

  async put(key: string, content: Uint8Array, options: PutOptions = {}): Promise<"stored" | "exists"> {
    checkKey("put", this.place, key);
    checkSize("put", this.place, key, content.length);
    const bytes = Buffer.from(content.buffer, content.byteOffset, content.length);
    let unclear = false;
    const answer = await this.request({
      kind: "put",
      key,
      putBytes: bytes.length,
      work: (attempt) => this.requests.put(key, bytes, options, attempt),
      onRetry: (failure) => {
        unclear ||= failure.ambiguous;
      },
    });
    if (answer === "stored" || !unclear) return answer;
    // An earlier attempt of this very put may be what "exists": then the object is ours.
    const present = await this.get(key);
    return present?.equals(bytes) === true ? "stored" : "exists";
  }

  async get(key: string, range?: ObjectRange): Promise<Buffer | null> {
    checkKey("get", this.place, key);
    if (range?.length === 0) return (await this.head(key)) === null ? null : Buffer.alloc(0);
    const content = await this.request({
      kind: "get",
      key,
      ...(range === undefined ? {} : { getBytes: range.length }),
      work: (attempt) => this.requests.get(key, range, attempt),
    });
    if (content === null) return null;
    if (range === undefined) this.download.charge(content.length);
    else invariant(content.length <= range.length, "a range brings no more than was asked for");
    this.counters.received(content.length);
    return content;
  }

  async head(key: string): Promise<ObjectFacts | null> {
    checkKey("head", this.place, key);
    return await this.request({
      kind: "head",
      key,
      work: (attempt) => this.requests.head(key, attempt),
    });
  }

  async remove(key: string): Promise<void> {
    checkKey("delete", this.place, key);
    await this.request({
      kind: "delete",
      key,
      work: (attempt) => this.requests.remove(key, attempt),
    });
  }

  async *list(prefix: string): AsyncGenerator<ObjectFacts> {
    checkPrefix(this.place, prefix);
    let after: string | null = null;
    do {
      const from: string | null = after;
      const page: ListedPage = await this.request<ListedPage>({
        kind: "list",
        key: prefix,
        work: (attempt) => this.requests.listPage(prefix, from, attempt),
      });
      yield* page.objects;
      if (page.next !== null && page.next === from) {
        throw this.failure("Internal", "list", prefix, "the listing does not go on");
      }
      after = page.next;
    } while (after !== null);
  }

  async close(): Promise<void> {
    this.closing.abort();
    this.retries.stop();
    this.requests.close();
  }

  /** All attempts of one request. */
  private async request<T>(request: Request<T>): Promise<T> {
    const writes = request.kind === "put" || request.kind === "delete";
    const gate = writes ? this.writes : this.reads;
    return await this.retries.run(
      async () => {
        if (gate.isFull) throw this.failure("Retry", request.kind, request.key, "too many requests wait");
        return await gate.run(async () => {
          if (request.putBytes !== undefined) await this.upload.turn(request.putBytes);
          if (request.kind === "get") await this.download.turn(request.getBytes ?? 0);
          if (this.closing.signal.aborted) {
            throw this.failure("Retry", request.kind, request.key, "the store was closed");
          }
          this.counters.request(request.kind, request.putBytes);
          return await this.attempt(request);
        });
      },
      (failure) => {
        this.counters.retries += 1;
        request.onRetry?.(failure);
      },
    );
  }

  /**
   * One attempt, ended when its time is up or the store closes, whether or not the attempt itself obeys. A machine that was paused
   * finds answers in its sockets: only time in which this process ran counts.
   */
  private attempt<T>(request: Request<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const stop = new AbortController();
      const end = (what: string): void => {
        timer.cancel();
        this.closing.signal.removeEventListener("abort", onClose);
        reject(this.failure("Retry", request.kind, request.key, what));
        stop.abort();
      };
      const onClose = (): void => end("the store was closed");
      const allowed = (leftMs: number, what: string): { cancel(): void } => {
        const seconds = Math.round((this.clock.monotonicMs() - beganMs + leftMs) / 1000);
        return new Patience(this.clock, leftMs).wait(() => end(`${what} in ${seconds} s`));
      };
      const beganMs = this.clock.monotonicMs();
      const answerMs = limits.bucketAnswerMs + transferMs((request.putBytes ?? 0) + (request.getBytes ?? 0));
      let timer = allowed(answerMs, "no answer");
      const expect = (bytes: number): void => {
        if (stop.signal.aborted) return;
        timer.cancel();
        timer = allowed(limits.bucketAnswerMs + transferMs(bytes), "no whole answer");
      };
      this.closing.signal.addEventListener("abort", onClose, { once: true });
      const done = (): void => {
        timer.cancel();
        this.closing.signal.removeEventListener("abort", onClose);
      };
      request.work({ signal: stop.signal, expect }).then(resolve, reject).finally(done);
    });
  }

  private failure(
    kind: "Retry" | "Internal",
    operation: string,
    key: string,
    what: string,
  ): ObjectStoreError {
    return new ObjectStoreError({ kind, operation, place: this.place, key }, what, {
      hint: kind === "Retry" ? "Is the store up and reachable? Varve tries again." : "",
      ambiguous: true,
    });
  }
}

function transferMs(bytes: number): number {
  return (bytes / limits.bucketBytesPerSecondMin) * 1000;
}
