/*
 * What a store behind a network offers: one attempt of each request, without retries, limits or time-outs. Implemented by
 * s3-requests.ts and simulated-bucket.ts; retrying-store.ts makes an ObjectStore of it, so that real and simulated stores share
 * every line of that. Failures are ObjectStoreErrors.
 */
import type { ObjectFacts, PutOptions } from "#shared/ports/object-store.ts";

/** One attempt's surroundings. */
export interface Attempt {
  /** Aborted when the attempt's time is up, or the store closes; the answer is then of no interest. */
  readonly signal: AbortSignal;
  /** So many bytes are about to come: the attempt's time grows accordingly. */
  expect(bytes: number): void;
}

export interface ObjectRange {
  readonly start: number;
  readonly length: number;
}

export interface ListedPage {
  readonly objects: readonly ObjectFacts[];
  /** To pass as `after` for the next page; null after the last. */
  readonly next: string | null;
}

export interface StoreRequests {
  readonly place: string;
  put(key: string, content: Buffer, options: PutOptions, attempt: Attempt): Promise<"stored" | "exists">;
  get(key: string, range: ObjectRange | undefined, attempt: Attempt): Promise<Buffer | null>;
  head(key: string, attempt: Attempt): Promise<ObjectFacts | null>;
  remove(key: string, attempt: Attempt): Promise<void>;
  listPage(prefix: string, after: string | null, attempt: Attempt): Promise<ListedPage>;
  close(): void;
}
