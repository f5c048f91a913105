/*
 * A bucket of small volumes for the tests of the collector: real keys and real metadata objects, but segments and chunks of a few
 * bytes, because the collector never looks inside. A store around it counts requests, and does something at the n-th.
 */
import { hash } from "node:crypto";
import {
  type BaseRef,
  baseKey,
  basePageKey,
  chunkKey,
  manifestKey,
  type SegmentRef,
  segmentKey,
  type VolumeManifest,
} from "#shared/domain/archive.ts";
import { encodeBase, encodeBasePage } from "#shared/formats/base-object.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import type { BaseObjects } from "#shared/ports/archive.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { ObjectFacts, ObjectStore, PutOptions, StoreCapabilities } from "#shared/ports/object-store.ts";

export const hour = 3_600_000;
export const startMs = Date.UTC(2026, 10, 21);

/** Wall and monotonic time, moved by hand, together or not. */
export class HandClock implements Clock {
  wallMs = startMs;
  monotonic = 1000;
  wallTimeMs(): number {
    return this.wallMs;
  }
  monotonicMs(): number {
    return this.monotonic;
  }
  after(_delayMs?: number, _task?: () => void): Timer {
    return { cancel: () => undefined };
  }
  soon(task: () => void): void {
    queueMicrotask(task);
  }
  pass(ms: number): void {
    this.wallMs += ms;
    this.monotonic += ms;
  }
}

/** Calls `at` before each request; what it throws is the request's failure. */
export class WatchedStore implements ObjectStore {
  readonly place: string;
  readonly inner: ObjectStore;
  requests = 0;
  at: ((request: number, operation: string, key: string) => void | Promise<void>) | null = null;

  constructor(inner: ObjectStore) {
    this.inner = inner;
    this.place = inner.place;
  }
  get counters() {
    return this.inner.counters;
  }
  private async step(operation: string, key: string): Promise<void> {
    this.requests += 1;
    await this.at?.(this.requests, operation, key);
  }
  async probe(): Promise<StoreCapabilities> {
    return this.inner.probe();
  }
  async put(key: string, content: Uint8Array, options?: PutOptions): Promise<"stored" | "exists"> {
    await this.step("put", key);
    return this.inner.put(key, content, options);
  }
  async get(
    key: string,
    range?: { readonly start: number; readonly length: number },
  ): Promise<Buffer | null> {
    await this.step("get", key);
    return this.inner.get(key, range);
  }
  async head(key: string): Promise<ObjectFacts | null> {
    await this.step("head", key);
    return this.inner.head(key);
  }
  async remove(key: string): Promise<void> {
    await this.step("delete", key);
    return this.inner.remove(key);
  }
  async *list(prefix: string): AsyncGenerator<ObjectFacts> {
    await this.step("list", prefix);
    yield* this.inner.list(prefix);
  }
  async close(): Promise<void> {
    await this.inner.close();
  }
}

export const volumeIdOf = (number: number): string => number.toString(16).padStart(16, "0");
const extentBytes = 4 * 1024 * 1024;

let generation = 0;

/** One volume's archiver, in small: it publishes manifests, never two of one number. */
export class SmallVolume {
  readonly store: ObjectStore;
  private readonly clock: Clock;
  present: VolumeManifest;
  published: VolumeManifest | null = null;
  /** Keys uploaded and not named by a published manifest. */
  readonly inFlight = new Set<string>();
  private serial = 0;
  private chunks: readonly (string | null)[] = [];

  constructor(store: ObjectStore, clock: Clock, number: number, change: Partial<VolumeManifest> = {}) {
    this.store = store;
    this.clock = clock;
    const line = hash("sha1", `line ${number}`, "hex").slice(0, 16);
    this.present = {
      volumeId: volumeIdOf(number),
      name: `disk${number}`,
      sizeBytes: 4 * extentBytes,
      beginBytes: 4 * extentBytes,
      durability: "write",
      createdAtMs: clock.wallTimeMs(),
      lineNumber: 1,
      line,
      archiverEpoch: 1,
      number: 0,
      writtenAtMs: clock.wallTimeMs(),
      ancestors: [],
      origin: null,
      archivedLsn: 0,
      archivedEpoch: 0,
      archivedChecksum: "0000000000000000",
      retainedFromLsn: 0,
      historyMs: 24 * hour,
      deletedAtMs: null,
      snapshots: [],
      rebases: [],
      resizes: [],
      gaps: [],
      pins: [],
      bases: [],
      pages: [],
      segments: [],
      ...change,
    };
  }

  manifest(): VolumeManifest | null {
    return this.published;
  }

  /** A segment of `entries` entries, written now. */
  async segment(entries = 10): Promise<SegmentRef> {
    const firstLsn = this.present.archivedLsn + 1;
    const lastLsn = firstLsn + entries - 1;
    const key = segmentKey(this.present, firstLsn, lastLsn);
    await this.upload(key, Buffer.from(`segment ${firstLsn}`));
    const wallMs = this.clock.wallTimeMs();
    const ref = {
      key,
      firstLsn,
      lastLsn,
      bytes: 100,
      footerStart: 50,
      recordBytes: 4096,
      wallMinMs: wallMs,
      wallMaxMs: wallMs,
    };
    this.present = {
      ...this.present,
      archivedLsn: lastLsn,
      archivedEpoch: 1,
      archivedChecksum: "00000000000000ff",
      segments: [...this.present.segments, ref],
    };
    return ref;
  }

  /** A base at the archived LSN. Extents keep their chunks where the content is the same as in the base before. */
  async base(contents: readonly (string | null)[]): Promise<BaseRef> {
    const names: (string | null)[] = [];
    for (const [extent, content] of contents.entries()) {
      names.push(content === null ? null : await this.chunk(content, this.chunks[extent] ?? null));
    }
    this.chunks = names;
    return await this.baseOf(names, this.present.archivedLsn);
  }

  async baseOf(names: readonly (string | null)[], lsn: number): Promise<BaseRef> {
    this.serial += 1;
    const page = basePageKey(this.present, this.serial, 0);
    await this.upload(
      page,
      encodeBasePage({ volumeId: this.present.volumeId, serial: this.serial, firstExtent: 0, chunks: names }),
    );
    const key = baseKey(this.present, lsn, lsn, this.serial);
    const { volumeId, sizeBytes } = this.present;
    await this.upload(key, encodeBase({ volumeId, s: lsn, e: lsn, sizeBytes, pages: [page] }));
    const ref = { key, s: lsn, e: lsn, sizeBytes, newChunkBytes: 0 };
    this.baseIsHeld(key);
    this.present = { ...this.present, bases: [...this.present.bases, ref].sort((a, b) => a.s - b.s) };
    return ref;
  }

  private async chunk(content: string, before: string | null): Promise<string> {
    const digest = hash("sha256", content, "hex");
    if (before?.startsWith(digest) === true) return before;
    generation += 1;
    const name = `${digest}.${generation}`;
    await this.upload(chunkKey(name), Buffer.from(content));
    return name;
  }

  async upload(key: string, content: Buffer): Promise<void> {
    this.inFlight.add(key);
    await this.store.put(key, content);
  }

  async publish(change: Partial<VolumeManifest> = {}): Promise<VolumeManifest> {
    for (const { key } of change.bases ?? []) this.baseIsHeld(key);
    return await this.amend((manifest) => ({ ...manifest, ...change }));
  }

  readonly heldBases = new Set<string>();
  /** Bases that a trimmer published. */
  readonly watched: { readonly base: BaseRef; readonly objects: BaseObjects }[] = [];
  /** False: what a trimmer publishes is not held before the test says so. */
  holdsAtOnce = true;

  isBaseHeld(key: string): boolean {
    return this.heldBases.has(key);
  }

  watchBase(base: BaseRef, objects: BaseObjects): void {
    this.watched.push({ base, objects });
    if (this.holdsAtOnce) this.heldBases.add(base.key);
  }

  private baseIsHeld(key: string): void {
    this.heldBases.add(key);
  }

  async amend(change: (manifest: VolumeManifest) => VolumeManifest): Promise<VolumeManifest> {
    const next = {
      ...change(this.present),
      number: this.present.number + 1,
      writtenAtMs: Math.max(0, this.clock.wallTimeMs()),
    };
    this.present = next;
    await this.store.put(manifestKey(next), encodeManifest(next));
    this.published = next;
    this.inFlight.clear();
    return next;
  }
}
