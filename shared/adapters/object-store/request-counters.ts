/*
 * Requests by kind since the start, retries included, and bytes of content both ways: what cost tables, `bucket usage` and
 * metrics read as ObjectStore.counters. Every store of this folder owns one and counts each attempt.
 */
import type { ObjectStore } from "#shared/ports/object-store.ts";

export type RequestKind = "put" | "get" | "head" | "list" | "delete";

export class RequestCounters implements Readonly<ObjectStore["counters"]> {
  put = 0;
  get = 0;
  head = 0;
  list = 0;
  delete = 0;
  retries = 0;
  putBytes = 0;
  getBytes = 0;

  /** One attempt; `bytes` of content that it sends. */
  request(kind: RequestKind, bytes = 0): void {
    this[kind] += 1;
    this.putBytes += bytes;
  }

  received(bytes: number): void {
    this.getBytes += bytes;
  }
}
