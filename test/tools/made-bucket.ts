// Makes volumes with a past without an archiver: log records, segments, index pages, bases, manifests through the real codecs in
// any ObjectStore, and for each LSN what the disk was (the oracle). Tests of reading the past, of the archiver's and the
// collector's rules build their buckets with it; each step (seal, base, page, publish) is one call, so that tests say when.
import { expect } from "vitest";
import {
  type BaseRef,
  baseKey,
  basePageKey,
  chunkKey,
  extentsPerBasePage,
  type IndexPageRef,
  indexPageKey,
  manifestKey,
  type SegmentRef,
  type SegmentSummary,
  type SnapshotRecord,
  segmentKey,
  type VolumeManifest,
  type VolumeOrigin,
} from "#shared/domain/archive.ts";
import { type Batch, lastLsnOf } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import { limits } from "#shared/domain/limits.ts";
import { encodeBase, encodeBasePage } from "#shared/formats/base-object.ts";
import { buildChunk, chunkHashOf, chunkName } from "#shared/formats/chunk-object.ts";
import { encodeIndexPage, indexPageRefOf } from "#shared/formats/index-page.ts";
import { frameRecord, isBadRecord, readRecord } from "#shared/formats/log-record.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { SegmentBuilder, sealSegment } from "#shared/formats/segment-object.ts";
import type { HistorySubject, HotLog, LoggedBatch } from "#shared/ports/history.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { SeededRandom } from "./seeded-random.ts";

/** One entry to be, in the order of a batch. */
export type MadeEntry =
  | { readonly write: number; readonly bytes: Uint8Array }
  | { readonly zero: number; readonly length: number; readonly kind?: 1 | 2 | 3 }
  | { readonly mark: string }
  | { readonly resize: number }
  | { readonly rebase: number };

/** The log on "this machine": what a session would keep, with pins that can be looked at. */
export class MadeHotLog implements HotLog {
  line: string;
  readonly batches: LoggedBatch[] = [];
  readonly pins = new Map<symbol, number>();
  oldestLsn = 1;
  durableLsn = 0;
  reads = 0;
  /** Set: reads reject with it. */
  failure: Error | null = null;
  /** Set: reads wait for it. */
  hold: Promise<void> | null = null;

  constructor(line: string) {
    this.line = line;
  }

  state(): { readonly oldestLsn: number; readonly durableLsn: number } {
    return { oldestLsn: this.oldestLsn, durableLsn: this.durableLsn };
  }

  async *read(fromLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    this.reads += 1;
    await this.hold;
    if (this.failure !== null) throw this.failure;
    expect(fromLsn).toBeGreaterThanOrEqual(this.oldestLsn);
    for (const batch of this.batches) {
      if (lastLsnOf(batch) < fromLsn) continue;
      await Promise.resolve();
      // Valid until the reader goes on: what it keeps without a copy is overwritten then.
      const payload = Buffer.from(batch.payload);
      yield { ...batch, payload };
      payload.fill(0xee);
    }
  }

  pin(lsn: number): () => void {
    const own = Symbol("pin");
    this.pins.set(own, lsn);
    return () => {
      expect(this.pins.delete(own), "a pin is let go once").toBe(true);
    };
  }

  /** What release(beforeLsn) of a session does: never past a pin. */
  release(beforeLsn: number): void {
    const before = Math.min(beforeLsn, ...this.pins.values());
    while (this.batches.length > 0 && lastLsnOf(this.batches[0] as Batch) < before) {
      const gone = this.batches.shift() as Batch;
      this.oldestLsn = lastLsnOf(gone) + 1;
    }
  }
}

export interface MadeVolumeOptions {
  readonly volumeId: string;
  readonly sizeBytes: number;
  /** Of the first batch; each later one a second on. */
  readonly wallTimeMs?: number;
  readonly parent?: { readonly volume: MadeVolume; readonly lsn: number };
}

export class MadeVolume {
  readonly volumeId: string;
  readonly store: ObjectStore;
  readonly beginBytes: number;
  readonly origin: VolumeOrigin | null;
  /** What the disk was at each LSN; [0] before the first entry. */
  readonly past: FoldedDisk[];
  readonly wallTimes: number[] = [0];
  hotLog: MadeHotLog;
  disk: FoldedDisk;
  lastLsn = 0;
  epoch = 1;
  line = "1111111111111111";
  lineNumber = 1;
  wallTimeMs: number;
  manifest: VolumeManifest | null = null;
  snapshots: SnapshotRecord[] = [];
  private readonly ancestors: { line: string; lastLsn: number }[] = [];
  private readonly rebases: { lsn: number; toLsn: number }[] = [];
  private readonly resizes: { lsn: number; sizeBytes: number }[] = [];
  private readonly bases: BaseRef[] = [];
  private readonly pages: IndexPageRef[] = [];
  private segments: SegmentRef[] = [];
  private summaries: SegmentSummary[] = [];
  private readonly unsealed: LoggedBatch[] = [];
  private builder: SegmentBuilder;
  private checksum = 0n;
  private archived = { lsn: 0, epoch: 0, checksum: 0n };
  private published = 0;
  private generation = 1;

  constructor(store: ObjectStore, { volumeId, sizeBytes, wallTimeMs, parent }: MadeVolumeOptions) {
    this.wallTimeMs = wallTimeMs ?? 1_700_000_000_000;
    this.store = store;
    this.volumeId = volumeId;
    this.beginBytes = sizeBytes;
    this.hotLog = new MadeHotLog(this.line);
    this.builder = new SegmentBuilder(this.owner());
    this.origin =
      parent === undefined ? null : { volumeId: parent.volume.volumeId, name: "parent", lsn: parent.lsn };
    this.disk =
      parent === undefined
        ? new FoldedDisk(sizeBytes)
        : (parent.volume.past[parent.lsn] as FoldedDisk).copy();
    this.disk.resize(sizeBytes);
    this.past = [this.disk.copy()];
    this.append([], "test");
  }

  get archivedLsn(): number {
    return this.archived.lsn;
  }

  /** Appends one batch. `epochBy`: with an epoch entry in front. */
  append(entries: readonly MadeEntry[], epochBy?: string): void {
    const payloadBytes = entries.reduce((sum, entry) => sum + ("write" in entry ? entry.bytes.length : 0), 0);
    const slabBytes = limits.batchHeaderBytesMax + Math.max(1, Math.ceil(payloadBytes / 4096)) * 4096;
    const draft = new BatchDraft({ bytes: Buffer.alloc(slabBytes), address: 0 });
    draft.firstLsn = this.lastLsn + 1;
    if (epochBy !== undefined) {
      draft.addValue(entryKind.epoch, epochBy);
      this.remember();
    }
    for (const entry of entries) this.add(draft, entry);
    const { line, epoch, wallTimeMs } = this;
    const durableLsn = draft.firstLsn - 1;
    frameRecord(draft, { line, epoch, wallTimeMs, durableLsn, previousChecksum: this.checksum });
    this.checksum = draft.checksum;
    const record = Buffer.from(draft.slab.bytes.subarray(0, draft.recordBytes));
    const batch = readRecord(record);
    if (isBadRecord(batch)) throw new Error(batch.detail);
    const logged = { ...batch, record };
    this.hotLog.batches.push(logged);
    this.hotLog.durableLsn = this.lastLsn;
    this.unsealed.push(logged);
    this.wallTimeMs += 1000;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.append([{ write: offset, bytes }]);
  }

  /** One batch [resize, rebase] as a rollback appends it. */
  rollback(toLsn: number): void {
    const sizeBytes = (this.past[toLsn] as FoldedDisk).sizeBytes;
    const resize = sizeBytes === this.disk.sizeBytes ? [] : [{ resize: sizeBytes }];
    this.append([...resize, { rebase: toLsn }]);
  }

  /** Seals everything into segments of `batchesPerSegment` batches. */
  async seal(batchesPerSegment = Number.POSITIVE_INFINITY, level = 1): Promise<void> {
    let batches = 0;
    for (const batch of this.unsealed.splice(0)) {
      if (!this.builder.empty && (batches >= batchesPerSegment || this.builder.full)) {
        await this.sealOne(level);
        batches = 0;
      }
      this.builder.add(batch);
      batches += 1;
    }
    if (!this.builder.empty) await this.sealOne(level);
  }

  /** Moves the oldest `count` segments of the tail into an index page. */
  async makePage(count: number): Promise<void> {
    const segments = this.summaries.splice(0, count);
    const first = segments[0];
    const last = segments.at(-1);
    if (first === undefined || last === undefined) return;
    this.segments.splice(0, segments.length);
    const page = { volumeId: this.volumeId, segments };
    const key = indexPageKey(this.owner(), first.firstLsn, last.lastLsn);
    await this.store.put(key, encodeIndexPage(page));
    this.pages.push(indexPageRefOf(page, key));
  }

  /**
   * A base (s, e). With e > s a fuzzy one: each 4 KiB block of it is from any LSN of [s, e], as a base taken while writes go on.
   * Both are archived.
   */
  async takeBase(s: number, e: number, random: SeededRandom, level = 1): Promise<BaseRef> {
    const { sizeBytes } = this.past[s] as FoldedDisk;
    const pages: (string | null)[] = [];
    const extents = Math.ceil(sizeBytes / limits.extentBytes);
    let newChunkBytes = 0;
    const touched = this.touchedExtents(s, e);
    for (let first = 0; first < extents; first += extentsPerBasePage) {
      const chunks: (string | null)[] = [];
      for (let extent = first; extent < Math.min(extents, first + extentsPerBasePage); extent += 1) {
        if (!touched.has(extent)) {
          chunks.push(null);
          continue;
        }
        const content = this.fuzzyExtent(extent, sizeBytes, s, e, random);
        const hash = chunkHashOf(content);
        const name = hash === null ? null : chunkName(hash, this.generation);
        chunks.push(name);
        if (name === null || hash === null) continue;
        const { object: chunk } = buildChunk(content, hash, level);
        newChunkBytes += chunk.length;
        await this.store.put(chunkKey(name), chunk);
      }
      if (chunks.every((chunk) => chunk === null)) {
        pages.push(null);
        continue;
      }
      const key = basePageKey(this.owner(), this.generation, first / extentsPerBasePage);
      await this.store.put(
        key,
        encodeBasePage({ volumeId: this.volumeId, serial: this.generation, firstExtent: first, chunks }),
      );
      pages.push(key);
    }
    const key = baseKey(this.owner(), s, e, null);
    await this.store.put(key, encodeBase({ volumeId: this.volumeId, s, e, sizeBytes, pages }));
    const ref = { key, s, e, sizeBytes, newChunkBytes };
    this.bases.push(ref);
    this.generation += 1;
    return ref;
  }

  /** Publishes what was sealed, paged and based; `change` for what tests want otherwise. */
  async publish(
    change: (manifest: VolumeManifest) => VolumeManifest = (same) => same,
  ): Promise<VolumeManifest> {
    this.published += 1;
    const manifest = change({
      ...this.owner(),
      name: `volume-${this.volumeId.slice(-2)}`,
      sizeBytes: (this.past[this.archived.lsn] as FoldedDisk).sizeBytes,
      beginBytes: this.beginBytes,
      durability: "write",
      createdAtMs: 1_700_000_000_000,
      lineNumber: this.lineNumber,
      number: this.published,
      writtenAtMs: this.wallTimeMs,
      ancestors: [...this.ancestors],
      origin: this.origin,
      archivedLsn: this.archived.lsn,
      archivedEpoch: this.archived.epoch,
      archivedChecksum: this.archived.checksum.toString(16).padStart(16, "0"),
      retainedFromLsn: 0,
      historyMs: 7 * 86_400_000,
      deletedAtMs: null,
      snapshots: this.snapshots.filter(({ lsn }) => lsn <= this.archived.lsn),
      rebases: this.rebases.filter(({ lsn }) => lsn <= this.archived.lsn),
      resizes: this.resizes.filter(({ lsn }) => lsn <= this.archived.lsn),
      gaps: [],
      pins: [],
      bases: [...this.bases].sort((a, b) => a.s - b.s || a.e - b.e),
      pages: [...this.pages],
      segments: [...this.segments],
    });
    await this.store.put(manifestKey(manifest), encodeManifest(manifest));
    this.manifest = manifest;
    return manifest;
  }

  /** The machine is lost: what was not archived is gone, and the volume goes on upon a new line. */
  async rescue(line: string): Promise<void> {
    this.ancestors.push({ line: this.line, lastLsn: this.archived.lsn });
    this.lastLsn = this.archived.lsn;
    this.past.length = this.lastLsn + 1;
    this.wallTimes.length = this.lastLsn + 1;
    this.disk = (this.past[this.lastLsn] as FoldedDisk).copy();
    for (const list of [this.rebases, this.resizes]) {
      while ((list.at(-1)?.lsn ?? 0) > this.lastLsn) list.pop();
    }
    this.unsealed.length = 0;
    this.checksum = 0n;
    this.archived = { ...this.archived, checksum: 0n };
    this.line = line;
    this.lineNumber += 1;
    this.epoch += 1;
    this.published = 0;
    this.builder = new SegmentBuilder(this.owner());
    this.hotLog = new MadeHotLog(line);
    this.hotLog.oldestLsn = this.lastLsn + 1;
    this.hotLog.durableLsn = this.lastLsn;
    await this.publish();
    this.append([], "rescuer");
  }

  /** As the volume host gives it. */
  subject(): HistorySubject {
    return {
      volumeId: this.volumeId,
      begin: { sizeBytes: this.beginBytes, origin: this.origin },
      manifest: async () => this.manifest,
      hotLog: () => this.hotLog,
      snapshots: () => this.snapshots,
    };
  }

  /** Greatest LSN at or below which no rebase lies between s and it, for choosing e of a base. */
  rebaseAfter(lsn: number): number {
    return this.rebases.find((rebase) => rebase.lsn > lsn)?.lsn ?? Number.POSITIVE_INFINITY;
  }

  private owner() {
    return { volumeId: this.volumeId, line: this.line, archiverEpoch: 1 };
  }

  private add(draft: BatchDraft<{ bytes: Buffer; address: number }>, entry: MadeEntry): void {
    if ("write" in entry) {
      draft.slab.bytes.set(entry.bytes, draft.addWrite(entry.write, entry.bytes.length));
      this.disk.write(entry.write, entry.bytes);
    } else if ("zero" in entry) {
      draft.addRange(entry.kind ?? entryKind.zero, entry.zero, entry.length);
      this.disk.zero(entry.zero, entry.length);
    } else if ("mark" in entry) {
      draft.addValue(entryKind.mark, entry.mark);
      this.snapshots.push({ name: entry.mark, lsn: this.lastLsn + 1, wallTimeMs: this.wallTimeMs });
    } else if ("resize" in entry) {
      draft.addValue(entryKind.resize, entry.resize);
      this.disk.resize(entry.resize);
      this.resizes.push({ lsn: this.lastLsn + 1, sizeBytes: entry.resize });
    } else {
      draft.addValue(entryKind.rebase, entry.rebase);
      this.disk = (this.past[entry.rebase] as FoldedDisk).copy();
      this.rebases.push({ lsn: this.lastLsn + 1, toLsn: entry.rebase });
    }
    this.remember();
  }

  private remember(): void {
    this.lastLsn += 1;
    this.past.push(this.disk.copy());
    this.wallTimes.push(this.wallTimeMs);
  }

  private async sealOne(level: number): Promise<void> {
    const sealed = sealSegment(this.builder.take(), level);
    if (isBadObject(sealed)) throw new Error(sealed.detail);
    const { ref, summary, object, lastChecksum, lastEpoch } = sealed;
    expect(ref.key).toBe(segmentKey(this.owner(), ref.firstLsn, ref.lastLsn));
    await this.store.put(ref.key, object);
    this.segments.push(ref);
    this.summaries.push(summary);
    this.archived = { lsn: ref.lastLsn, epoch: lastEpoch, checksum: lastChecksum };
  }

  /** Extents that hold anything at any LSN of [s, e]. */
  private touchedExtents(s: number, e: number): ReadonlySet<number> {
    const extents = new Set<number>();
    for (const disk of this.past.slice(s, e + 1)) {
      for (const page of disk.pageNumbers()) extents.add(Math.floor((page * 4096) / limits.extentBytes));
    }
    return extents;
  }

  private fuzzyExtent(extent: number, sizeBytes: number, s: number, e: number, random: SeededRandom): Buffer {
    const start = extent * limits.extentBytes;
    const content = Buffer.alloc(Math.min(limits.extentBytes, sizeBytes - start));
    content.set((this.past[s] as FoldedDisk).read(start, content.length));
    if (e === s) return content;
    const late = this.past[random.between(s, e + 1)] as FoldedDisk;
    for (let at = 0; at < content.length; at += 4096) {
      const block = Math.min(4096, content.length - at);
      if (start + at + block > late.sizeBytes || random.chance(0.4)) continue;
      content.set(late.read(start + at, block), at);
    }
    return content;
  }
}

/** A random entry for the disk as it is: overlaps, odd borders, now and then a resize. */
export function randomEntry(random: SeededRandom, sizeBytes: number): MadeEntry {
  const choice = random.weighted({ write: 60, rewrite: 10, zero: 18, mark: 4, resize: 4, large: 4 });
  if (choice === "mark") return { mark: `m${random.uint32()}` };
  if (choice === "resize") {
    const sectors = Math.floor(sizeBytes / 512);
    return { resize: 512 * random.between(Math.max(1, sectors >> 1), Math.max(3, sectors + (sectors >> 1))) };
  }
  const most = Math.min(choice === "large" ? 600_000 : 20_000, sizeBytes);
  const length = random.logUniform(1, most + 1);
  const offset = choice === "rewrite" ? 0 : random.between(0, sizeBytes - length + 1);
  if (choice === "zero")
    return { zero: offset, length, kind: ([1, 2, 3] as const)[random.between(0, 3)] ?? 1 };
  const bytes = new Uint8Array(length);
  const seed = random.uint32();
  if (random.chance(0.5)) bytes.fill(1 + (seed % 255));
  else for (let at = 0; at < length; at += 1) bytes[at] = Math.imul(at + 1, seed | 1) >>> 24;
  return { write: offset, bytes };
}
