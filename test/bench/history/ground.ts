// What every row of the history bench stands on: a directory, a local S3 server, how long and how large, and how to read the product's
// own counters. Callers: bench.ts makes one, the rows use it.

import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { percentile } from "../../soak/drift.ts";
import type { PastServer } from "../../tools/past-server.ts";
import type { S3Server } from "../../tools/s3-servers.ts";
import type { LimitRow, RatioRow } from "../results.ts";
import type { FullMemory } from "./full-memory.ts";

export interface Ground {
  readonly s3: S3Server;
  readonly memory: FullMemory;
  readonly quick: boolean;
  readonly pairs: number;
  announceLimit(row: LimitRow): void;
  announceRatio(row: RatioRow): void;
  announceRequests(row: RequestRow): void;
  say(text: string): void;
}

export type Requests = Readonly<Record<"put" | "get" | "head" | "list" | "delete" | "retries", number>> &
  Readonly<Record<"putBytes" | "getBytes", number>>;

/** One line of the cost table: what moving so many bytes took. */
export interface RequestRow {
  readonly id: string;
  readonly title: string;
  /** Of the disk, as its user counts. */
  readonly bytes: number;
  readonly seconds: number;
  readonly requests: Requests;
  readonly note?: string;
}

const names = ["put", "get", "head", "list", "delete", "retries", "putBytes", "getBytes"] as const;

/** The server's own count of requests to its bucket, retries included. */
export async function requestsOf(server: PastServer): Promise<Requests> {
  const text = await (await fetch(`${server.base}/metrics`)).text();
  const read = (name: string): number => {
    const metric = `varve_bucket_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
    const found = new RegExp(`^${metric} (\\d+)$`, "m").exec(text)?.[1];
    if (found === undefined) throw new Error(`/metrics has no ${metric}`);
    return Number(found);
  };
  return Object.fromEntries(names.map((name) => [name, read(name)])) as unknown as Requests;
}

export function difference(after: Requests, before: Requests): Requests {
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as unknown as Requests;
}

export async function withStore<T>(
  ground: Ground,
  prefix: string,
  use: (store: ObjectStore) => Promise<T>,
): Promise<T> {
  const store = await openObjectStore(ground.s3.url(prefix), {
    clock: new SystemClock(),
    random: new SystemRandom(),
    environment: ground.s3.env,
  });
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

export function figuresOf(timesMs: readonly number[]): string {
  const [p50, p99, most] = [0.5, 0.99, 1].map((share) => round(percentile(timesMs, share)));
  return `${timesMs.length} times: p50 ${p50} ms, p99 ${p99} ms, max ${most} ms`;
}

export function round(value: number): number {
  return value >= 100 ? Math.round(value) : Math.round(value * 100) / 100;
}

export async function pauseMs(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
