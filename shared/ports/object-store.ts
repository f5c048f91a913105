/*
 * The bucket: immutable objects under keys, as every S3-compatible store and a plain directory can offer them. The archiver
 * writes, point sources read, the collector deletes. Adapters: adapters/object-store/{directory,s3,memory,simulated}.ts; one
 * contract suite (test/contract/object-store.contract.ts) runs on all of them. See docs/specs/object-store.md.
 *
 * Keys are relative to the bucket's prefix: 1-512 characters of [a-zA-Z0-9._/-], no empty, "." or ".." part. Every
 * failure is an ObjectStoreError (shared/domain/errors.ts). Objects are small enough for memory (limits.objectBytesMax).
 */

export interface ObjectFacts {
  readonly key: string;
  readonly bytes: number;
  /** When the store says it was last written, milliseconds since 1970 by the store's clock. */
  readonly modifiedMs: number;
}

export interface PutOptions {
  /** Refuse where the key exists (If-None-Match: *). Only stores whose probe passed may rely on it: see capabilities(). */
  readonly onlyNew?: boolean;
  /** SHA-256 of the content, hex, from who has it already: a store that signs with it need not hash on the event loop. */
  readonly sha256?: string;
}

/** What the start-up probe found, by trying, with concurrent requests. */
export interface StoreCapabilities {
  /** One of several concurrent puts with onlyNew wins and the others are refused. */
  readonly conditionalPut: boolean;
  /** A put that resolved survives power loss (the directory store syncs); else objects need a settle time. */
  readonly durablePut: boolean;
}

export interface ObjectStore {
  /** For people and messages, without secrets: `file:///var/lib/varve/bucket`, `s3://bucket/prefix at host`. */
  readonly place: string;
  /** Requests made since the start, by kind, retries included: for cost tables. */
  readonly counters: Readonly<Record<"put" | "get" | "head" | "list" | "delete" | "retries", number>> &
    Readonly<Record<"putBytes" | "getBytes", number>>;
  /** Tries the store once (a few small objects under `probe/`) and remembers. Rejects where it can't be reached. */
  probe(): Promise<StoreCapabilities>;
  /**
   * Stores the object whole; readers see all of it or nothing. Resolves "stored", or "exists" with onlyNew where another
   * object stands there already. Retried inside on failures that may pass. A rejected put may have happened. The content is
   * read until the put resolves; after a rejected one it is not to be changed any more.
   */
  put(key: string, content: Uint8Array, options?: PutOptions): Promise<"stored" | "exists">;
  /**
   * The object, or null where there is none. With a range: those bytes, shorter at the object's end. They are the caller's own: nobody
   * else reads them or gets them.
   */
  get(key: string, range?: { readonly start: number; readonly length: number }): Promise<Buffer | null>;
  head(key: string): Promise<ObjectFacts | null>;
  /** Nothing happens where there is none. */
  remove(key: string): Promise<void>;
  /** All objects whose key starts with `prefix`, in any order, page by page. Not for hot paths. */
  list(prefix: string): AsyncIterable<ObjectFacts>;
  close(): Promise<void>;
}
