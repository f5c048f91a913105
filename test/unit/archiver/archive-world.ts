// What the archiver's tests share: a log and an image that a test moves entry by entry, a memory bucket whose every request can be
// held up, failed or lost, a process that can die, and the oracle: what the disk was at each entry. Points are read through the real
// reader of the past, from a copy of the bucket.
import { expect } from "vitest";
import { InlineArchiveWorker } from "#shared/adapters/archive-worker/inline.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { manifestKey, manifestPrefix, type VolumeManifest } from "#shared/domain/archive.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { TakenLine } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeManifest, encodeManifest } from "#shared/formats/manifest-object.ts";
import { openFrame } from "#shared/formats/object-frame.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import type { ArchivedLog, ArchiveSubject, BaseImage, ManifestFacts } from "#shared/ports/archive.ts";
import type { FailpointName } from "#shared/ports/failpoint.ts";
import type { LoggedBatch, VolumeHistory } from "#shared/ports/history.ts";
import type { ObjectFacts, ObjectStore, PutOptions, StoreCapabilities } from "#shared/ports/object-store.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeArchiver } from "../../../services/archiver/engine/volume-archiver.ts";
import { Archiver, type ArchiverOptions } from "../../../services/archiver/layer.ts";
import { type MadeEntry, MadeLog } from "../../tools/made-log.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

export const volumeId = "00000000000000a1";
export const line = "0f1e2d3c4b5a6978";
const MiB = 1024 * 1024;

type Request = "put" | "get" | "head" | "list" | "delete";

/** One process's view of a bucket that outlives it. */
export class WatchedStore implements ObjectStore {
  readonly place = "memory://bucket";
  readonly inner: MemoryObjectStore;
  readonly log: string[] = [];
  capabilities: StoreCapabilities = { conditionalPut: true, durablePut: true };
  /** Asked before each request is served; may wait or throw. */
  before: (request: Request, key: string) => Promise<void> | void = () => undefined;
  /** The same after it: a request that was served although its answer is an error. */
  after: (request: Request, key: string) => Promise<void> | void = () => undefined;
  /** Requests that are still served; the next one and all after it never end. */
  left = Number.POSITIVE_INFINITY;

  constructor(inner: MemoryObjectStore) {
    this.inner = inner;
  }

  get counters() {
    return this.inner.counters;
  }

  async probe(): Promise<StoreCapabilities> {
    await this.before("put", "probe");
    return this.capabilities;
  }

  put(key: string, content: Uint8Array, options?: PutOptions): Promise<"stored" | "exists"> {
    return this.serve("put", key, () => this.inner.put(key, content, options));
  }

  get(key: string, range?: { readonly start: number; readonly length: number }): Promise<Buffer | null> {
    return this.serve("get", key, () => this.inner.get(key, range));
  }

  head(key: string): Promise<ObjectFacts | null> {
    return this.serve("head", key, () => this.inner.head(key));
  }

  remove(key: string): Promise<void> {
    return this.serve("delete", key, () => this.inner.remove(key));
  }

  async *list(prefix: string): AsyncGenerator<ObjectFacts> {
    await this.serve("list", prefix, async () => undefined);
    yield* this.inner.list(prefix);
  }

  async close(): Promise<void> {}

  private async serve<T>(request: Request, key: string, work: () => Promise<T>): Promise<T> {
    if (this.left <= 0) return await new Promise<never>(() => undefined);
    this.left -= 1;
    this.log.push(`${request} ${key}`);
    await this.before(request, key);
    const result = await work();
    await this.after(request, key);
    return result;
  }
}

/** A disk that applies when it is told to, and can be written to between any two reads. */
export class RacedImage implements BaseImage {
  disk: FoldedDisk;
  begunLsn = 0;
  /** Called when a read has begun, and once more before it ends. */
  onRead: (extent: number) => Promise<void> | void = () => undefined;
  reads = 0;
  readonly remote = new Set<number>();
  private queue: LoggedBatch[] = [];

  constructor(sizeBytes: number) {
    this.disk = new FoldedDisk(sizeBytes);
  }

  state() {
    const { sizeBytes, appliedLsn } = this.disk;
    return { sizeBytes, appliedLsn, begunLsn: Math.max(this.begunLsn, appliedLsn) };
  }

  enqueue(batch: LoggedBatch): void {
    this.queue.push(batch);
  }

  apply(count = Number.POSITIVE_INFINITY): void {
    for (const batch of this.queue.splice(0, count)) this.disk.applyBatch(batch);
  }

  /** The first half of the next batch's entries is in the file, the rest not yet. */
  applyHalf(): () => void {
    const batch = this.queue.shift();
    if (batch === undefined) return () => undefined;
    this.begunLsn = batch.firstLsn + batch.entries.length - 1;
    const half = this.disk.copy();
    const whole = this.disk.copy();
    whole.applyBatch(batch);
    const count = Math.ceil(batch.entries.length / 2);
    half.applyBatch({ ...batch, entries: batch.entries.slice(0, count) });
    half.appliedLsn = this.disk.appliedLsn;
    this.disk = half;
    return () => {
      this.disk = whole;
    };
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.reads += 1;
    await this.onRead(offset / limits.extentBytes);
    const middle = length / 2;
    this.copy(slab, start, middle, offset);
    await this.onRead(offset / limits.extentBytes);
    this.copy(slab, start + middle, length - middle, offset + middle);
  }

  allocation(offset: number, length: number, _runsMax: number): readonly AllocationRun[] {
    const end = Math.min(offset + length, this.disk.sizeBytes);
    const first = Math.floor(offset / limits.extentBytes);
    let extent = first;
    const isHole = (at: number): boolean => {
      const from = at * limits.extentBytes;
      const bytes = this.disk.read(from, Math.min(limits.extentBytes, this.disk.sizeBytes - from));
      return bytes.every((byte) => byte === 0) && !this.remote.has(at);
    };
    const allocated = !isHole(first);
    while (extent * limits.extentBytes < end && !isHole(extent) === allocated) extent += 1;
    const runEnd = Math.min(offset + length, extent * limits.extentBytes);
    return [{ offset, length: Math.max(1, runEnd - offset), allocated }];
  }

  isLocal(extent: number): boolean {
    return !this.remote.has(extent);
  }

  private copy(slab: Slab, start: number, length: number, offset: number): void {
    slab.bytes.fill(0, start, start + length);
    const inside = Math.min(length, this.disk.sizeBytes - offset);
    if (inside > 0) slab.bytes.set(this.disk.read(offset, inside), start);
  }
}

/** The log of a session: durable at once. */
export class WorldLog implements ArchivedLog {
  readonly line: string;
  readonly made: MadeLog;
  batches: LoggedBatch[] = [];
  limitBytes = 1024 * MiB;
  reads = 0;
  private readonly followers = new Set<(batch: BatchDraft) => void>();

  constructor(of = line, lastLsn = 0) {
    this.line = of;
    this.made = new MadeLog(of, lastLsn);
  }

  append(entries: readonly MadeEntry[], wallTimeMs: number): LoggedBatch {
    const batch = this.made.batch(entries, wallTimeMs);
    this.batches.push(batch);
    const values = new Map<number, string | number>();
    const kinds = batch.entries.map((entry, index) => {
      if (entry.kind === "rebase") values.set(index, entry.lsn);
      return entryKind[entry.kind];
    });
    const { firstLsn, previousChecksum, checksum, record } = batch;
    const facts = { firstLsn, entryCount: kinds.length, previousChecksum, checksum, values, kinds };
    const draft = { ...facts, recordBytes: record.length, slab: { bytes: record, address: 0 } };
    for (const follow of this.followers) follow(draft as unknown as BatchDraft);
    return batch;
  }

  state() {
    const oldestLsn = this.batches[0]?.firstLsn ?? this.made.lastLsn + 1;
    return { oldestLsn, durableLsn: this.made.lastLsn };
  }

  async *read(fromLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    this.reads += 1;
    if (fromLsn < this.state().oldestLsn) throw new Error(`LSN ${fromLsn} was released`);
    for (const batch of this.batches.slice()) {
      if (batch.firstLsn + batch.entries.length <= fromLsn) continue;
      await Promise.resolve();
      const record = Buffer.from(batch.record);
      yield { ...batch, record };
      record.fill(0xee);
    }
  }

  pin(): () => void {
    return () => undefined;
  }

  follow(listener: (batch: BatchDraft) => void): () => void {
    this.followers.add(listener);
    return () => this.followers.delete(listener);
  }

  room() {
    const diskBytes = this.batches.reduce((sum, batch) => sum + batch.record.length, 0);
    return { diskBytes, limitBytes: this.limitBytes };
  }

  release(lsn: number): void {
    while (
      (this.batches[0]?.firstLsn ?? Number.POSITIVE_INFINITY) + (this.batches[0]?.entries.length ?? 0) <=
      lsn + 1
    ) {
      this.batches.shift();
    }
  }
}

export interface Life {
  readonly archiver: Archiver;
  readonly store: WatchedStore;
  readonly opened: Promise<VolumeArchiver>;
  readonly failpoints: FailpointName[];
}

export const tinyOptions: Partial<ArchiverOptions> = {
  segmentRecordBytes: 64 * 1024,
  level: 1,
  baseLogBytesMin: Number.POSITIVE_INFINITY,
  baseReadBytesPerSecond: Number.POSITIVE_INFINITY,
};

/** One volume on one machine, its bucket, and everything that was ever true of it. */
export class ArchiveWorld {
  readonly clock: SteppedClock;
  readonly bucket: MemoryObjectStore;
  log: WorldLog;
  readonly image: RacedImage;
  readonly beginBytes: number;
  readonly history: FoldedDisk[] = [];
  readonly notes: string[] = [];
  readonly fences: string[] = [];
  heldLsn = 0;
  archiverEpoch = 0;
  taken: TakenLine | undefined;
  /** Applies run at once; a test that races them turns it off. */
  appliesAtOnce = true;
  releases = false;
  facts: ManifestFacts;

  constructor(seed: number, sizeBytes: number) {
    this.clock = new SteppedClock(seed);
    this.bucket = new MemoryObjectStore(this.clock);
    this.log = new WorldLog();
    this.image = new RacedImage(sizeBytes);
    this.beginBytes = sizeBytes;
    this.history.push(new FoldedDisk(sizeBytes));
    this.facts = {
      snapshots: [],
      pins: [],
      origin: null,
      beginBytes: sizeBytes,
      historyMs: 1000,
      deletedAtMs: null,
      residency: "full",
      coldAfterMs: 3_600_000,
      bucketAway: "stop",
    };
    this.append([{ kind: "epoch", writer: "test" }]);
  }

  get lastLsn(): number {
    return this.log.made.lastLsn;
  }

  append(entries: readonly MadeEntry[]): number {
    const batch = this.log.append(entries, this.clock.wallTimeMs());
    batch.entries.forEach((entry, index) => {
      const disk = (this.history.at(-1) as FoldedDisk).copy();
      disk.applyBatch({ ...batch, firstLsn: batch.firstLsn + index, entries: [entry] });
      this.history.push(disk);
    });
    this.image.enqueue(batch);
    if (this.appliesAtOnce) this.image.apply();
    return this.lastLsn;
  }

  write(offset: number, length: number, value: number): number {
    const bytes = Buffer.alloc(length);
    for (let index = 0; index < length; index += 1) bytes[index] = (value + index * 7) & 0xff;
    return this.append([{ kind: "write", offset, bytes }]);
  }

  /** One to four entries anywhere on the disk. */
  random(): number {
    const { random } = this.clock;
    const size = (this.history.at(-1) as FoldedDisk).sizeBytes;
    const entries: MadeEntry[] = [];
    for (let count = random.integer(1, 5); count > 0; count -= 1) {
      const offset = random.integer(0, size);
      const length = random.integer(1, Math.min(20_000, size - offset) + 1);
      const choice = random.next();
      if (choice < 0.75)
        entries.push({ kind: "write", offset, bytes: Buffer.alloc(length, random.integer(1, 256)) });
      else if (choice < 0.95) entries.push({ kind: random.chance(0.5) ? "trim" : "zero", offset, length });
      else entries.push({ kind: "mark", name: "m" });
    }
    return this.append(entries);
  }

  /** A process that opens the volume; the one before, if any, is gone or paused. */
  start(
    options: Partial<ArchiverOptions> = {},
    prepare: (store: WatchedStore) => void = () => undefined,
  ): Life {
    const store = new WatchedStore(this.bucket);
    prepare(store);
    const failpoints: FailpointName[] = [];
    const archiver = new Archiver({
      store,
      clock: this.clock,
      random: this.clock.random,
      slabs: {
        allocateSlab: (bytes) => ({ bytes: Buffer.alloc(bytes), address: 0 }),
        shrinkSlab: () => undefined,
      },
      worker: new InlineArchiveWorker(),
      options: { ...tinyOptions, ...options },
      failpoint: (name) => failpoints.push(name),
    });
    this.archiverEpoch += 1;
    const opened = archiver.open(this.subject(this.archiverEpoch));
    opened.catch(() => undefined);
    return { archiver, store, opened, failpoints };
  }

  async open(
    options: Partial<ArchiverOptions> = {},
    prepare?: (store: WatchedStore) => void,
  ): Promise<Life & { readonly volume: VolumeArchiver }> {
    const life = this.start(options, prepare);
    return { ...life, volume: await this.clock.until(life.opened) };
  }

  subject(archiverEpoch: number): ArchiveSubject {
    return {
      record: {
        id: volumeId,
        name: "disk0",
        sizeBytes: this.beginBytes,
        durability: "write",
        createdAtMs: 1,
        state: "active",
      },
      archiverEpoch,
      taken: this.taken,
      facts: () => this.facts,
      log: this.log,
      image: this.image,
      onHeld: (lsn) => {
        this.heldLsn = lsn;
        if (this.releases) this.log.release(Math.min(lsn, this.image.disk.appliedLsn));
      },
      onFenced: (error) => this.fences.push(error.message),
      abandoned: () => false,
      onNote: (text) => this.notes.push(text),
    };
  }

  /** Runs what is due within `ms`. */
  async pass(ms: number): Promise<void> {
    await this.clock.until(
      new Promise<void>((resolve) => {
        this.clock.after(ms, resolve);
      }),
    );
  }

  /** The past as the bucket alone has it. */
  async pastOfBucket(): Promise<VolumeHistory> {
    const histories = new Histories({
      store: this.bucket,
      clock: this.clock,
      openFrame: async (stored, frame) => openFrame(stored, frame),
    });
    return await histories.fromBucket(volumeId);
  }

  async manifests(): Promise<readonly VolumeManifest[]> {
    const found: VolumeManifest[] = [];
    for (const key of await this.keys(manifestPrefix(volumeId))) {
      const manifest = decodeManifest((await this.bucket.get(key)) as Buffer);
      if (isBadObject(manifest)) throw new Error(`${key}: ${manifest.detail}`);
      found.push(manifest);
    }
    return found;
  }

  async keys(prefix = ""): Promise<readonly string[]> {
    const keys: string[] = [];
    for await (const { key } of this.bucket.list(prefix)) keys.push(key);
    return keys.sort();
  }

  /** Every name of every manifest leads to an object of the right length. */
  async expectNoDanglingName(what: string): Promise<void> {
    for (const manifest of await this.manifests()) {
      for (const part of [...manifest.segments, ...manifest.pages, ...manifest.bases]) {
        const facts = await this.bucket.head(part.key);
        expect(facts, `${what}: ${part.key} named by manifest ${manifest.number}`).not.toBeNull();
        if ("bytes" in part) expect(facts?.bytes).toBe(part.bytes);
      }
    }
  }

  /** Every point from `from` on reads as the disk was; with `bases`, from those bases only. */
  async expectPoints(
    from: number,
    what: string,
    chooseBase?: (manifest: VolumeManifest) => VolumeManifest,
  ): Promise<void> {
    const latest = (await this.manifests()).at(-1) as VolumeManifest;
    let store = this.bucket;
    if (chooseBase !== undefined) {
      store = new MemoryObjectStore(this.clock);
      const changed = { ...chooseBase(latest), number: latest.number + 1 };
      for (const key of await this.keys()) await store.put(key, (await this.bucket.get(key)) as Buffer);
      await store.put(manifestKey(changed), encodeManifest(changed));
    }
    const histories = new Histories({ store, clock: this.clock });
    const past = await histories.fromBucket(volumeId);
    for (let lsn = from; lsn <= latest.archivedLsn; lsn += 1) {
      const source = await past.open(lsn);
      const expected = this.history[lsn] as FoldedDisk;
      expect(source.sizeBytes, `${what}: size at ${lsn}`).toBe(expected.sizeBytes);
      const slab = { bytes: Buffer.alloc(source.sizeBytes), address: 0 };
      await source.read(slab, 0, source.sizeBytes, 0);
      if (!slab.bytes.equals(expected.read(0, expected.sizeBytes))) {
        const disk = new FoldedDisk(expected.sizeBytes);
        disk.write(0, slab.bytes);
        expect.fail(`${what}: LSN ${lsn} differs at byte ${disk.firstDifference(expected)}`);
      }
      await source.close();
    }
    await histories.close();
  }
}
