// Makes a volume of any size straight in a bucket, without a server: a base whose chunks are all there, a stretch of log behind it, a
// manifest. A TiB of disk with 100 GiB written takes a minute and, as its extents take turns with a few chunks, little room.
// Caller: the rows of bench.ts. Varve gets it by `varve rescue`, as it would any other volume.

import { randomFillSync } from "node:crypto";
import {
  baseKey,
  basePageKey,
  chunkKey,
  extentsPerBasePage,
  manifestKey,
  type SegmentRef,
  type VolumeManifest,
} from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { encodeBase, encodeBasePage } from "#shared/formats/base-object.ts";
import { buildChunk, chunkHashOf, chunkName } from "#shared/formats/chunk-object.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { type SealedSegment, SegmentBuilder, sealSegment } from "#shared/formats/segment-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { MadeLog } from "../../tools/made-log.ts";

export interface MadeVolumeOptions {
  readonly name: string;
  readonly volumeId: string;
  readonly sizeBytes: number;
  /** How much of it holds data, spread evenly in whole extents. */
  readonly writtenBytes: number;
  /** Extents take turns with so many contents. */
  readonly distinctChunks: number;
  /** Log behind the base, in writes of 64 KiB into written extents. */
  readonly logBytes: number;
}

const blockBytes = 4096;
const writeBytes = 64 * 1024;
const blocksPerExtent = limits.extentBytes / blockBytes;
/** LSN of the base: as if the volume had a longer past, which went out of its window. */
const baseLsn = 1_000_000;
const writesPerBatch = 16;

export class MadeVolume {
  readonly options: MadeVolumeOptions;
  /** Keys of its chunks, in the order of their numbers. */
  readonly chunkKeys: string[] = [];
  objectBytes = 0;
  lastLsn = baseLsn;
  private readonly store: ObjectStore;
  private readonly owner: { volumeId: string; line: string; archiverEpoch: number };
  private readonly stride: number;
  /** Offset of each 64 KiB that the log wrote → the last LSN that did. */
  private readonly written = new Map<number, number>();
  private readonly scratch = Buffer.alloc(limits.extentBytes);

  private constructor(store: ObjectStore, options: MadeVolumeOptions) {
    this.store = store;
    this.options = options;
    this.owner = { volumeId: options.volumeId, line: "00000000000000b1", archiverEpoch: 1 };
    this.stride = Math.floor(options.sizeBytes / options.writtenBytes);
    randomFillSync(this.scratch);
  }

  static async make(store: ObjectStore, options: MadeVolumeOptions): Promise<MadeVolume> {
    const volume = new MadeVolume(store, options);
    const { segments, last } = await volume.putLog();
    await volume.putBaseAndManifest(await volume.putChunks(), segments, last);
    return volume;
  }

  get extents(): number {
    return Math.floor(this.options.writtenBytes / limits.extentBytes);
  }

  get logLsns(): number {
    return this.lastLsn - baseLsn;
  }

  /** Where the nth extent that holds data begins. */
  extentOffset(index: number): number {
    return (index % this.extents) * this.stride * limits.extentBytes;
  }

  /** Places of 64 KiB that the log wrote last, newest first. */
  logOffsets(): number[] {
    return [...this.written.keys()].reverse();
  }

  /** Says what is wrong with blocks read at the newest point, or null. */
  mistake(offset: number, found: Buffer): string | null {
    for (let at = 0; at < found.length; at += blockBytes) {
      const place = offset + at;
      const extent = Math.floor(place / limits.extentBytes);
      const block = (place % limits.extentBytes) / blockBytes;
      const lsn = this.written.get(place - (place % writeBytes));
      const inData = extent % this.stride === 0 && extent / this.stride < this.extents;
      const stamp = lsn ?? (inData ? (extent / this.stride) % this.options.distinctChunks : null);
      const want = stamp === null ? [0, 0] : [stamp + 1, block + 1];
      const have = [found.readUInt32LE(at), found.readUInt32LE(at + 4)];
      if (want.join() !== have.join()) return `at ${place}: stamp ${have.join()} in place of ${want.join()}`;
    }
    return null;
  }

  private content(stamp: number): Buffer {
    for (let block = 0; block < blocksPerExtent; block += 1) {
      this.scratch.writeUInt32LE(stamp + 1, block * blockBytes);
      this.scratch.writeUInt32LE(block + 1, block * blockBytes + 4);
    }
    return this.scratch;
  }

  private async putChunks(): Promise<string[]> {
    const names: string[] = [];
    for (let number = 0; number < this.options.distinctChunks; number += 1) {
      const content = this.content(number);
      const hash = chunkHashOf(content) as string;
      const name = chunkName(hash, 1);
      await this.put(chunkKey(name), buildChunk(content, hash, 1).object);
      this.chunkKeys.push(chunkKey(name));
      names.push(name);
    }
    return names;
  }

  private async putLog(): Promise<{ segments: SegmentRef[]; last: SealedSegment }> {
    const log = new MadeLog(this.owner.line, baseLsn);
    const builder = new SegmentBuilder(this.owner);
    const segments: SegmentRef[] = [];
    let last: SealedSegment | null = null;
    const seal = async (): Promise<SealedSegment> => {
      const sealed = sealSegment(builder.take(), 1);
      if (isBadObject(sealed)) throw new Error(sealed.detail);
      segments.push(sealed.ref);
      await this.put(sealed.ref.key, sealed.object);
      return sealed;
    };
    for (
      let bytes = 0;
      bytes < this.options.logBytes || last === null;
      bytes += writesPerBatch * writeBytes
    ) {
      const entries = Array.from({ length: writesPerBatch }, (_, index) => {
        const lsn = log.lastLsn + 1 + index;
        const slot = (lsn * 7) % (limits.extentBytes / writeBytes);
        const offset = this.extentOffset((lsn * 7919) % this.extents) + slot * writeBytes;
        this.written.delete(offset);
        this.written.set(offset, lsn);
        const start = slot * writeBytes;
        const bytes = Buffer.from(this.content(lsn).subarray(start, start + writeBytes));
        return { kind: "write" as const, offset, bytes };
      });
      builder.add(log.batch(entries, 1_700_000_000_000 + bytes));
      if (builder.full || bytes + writesPerBatch * writeBytes >= this.options.logBytes) last = await seal();
    }
    this.lastLsn = last.ref.lastLsn;
    return { segments, last };
  }

  private async putBaseAndManifest(
    names: string[],
    segments: SegmentRef[],
    last: SealedSegment,
  ): Promise<void> {
    const { volumeId, sizeBytes, name } = this.options;
    const extents = Math.ceil(sizeBytes / limits.extentBytes);
    const pages: (string | null)[] = [];
    for (let firstExtent = 0; firstExtent < extents; firstExtent += extentsPerBasePage) {
      const count = Math.min(extentsPerBasePage, extents - firstExtent);
      const chunks = Array.from({ length: count }, (_, index) => {
        const nth = (firstExtent + index) / this.stride;
        return Number.isInteger(nth) && nth < this.extents ? (names[nth % names.length] ?? null) : null;
      });
      const key = basePageKey(this.owner, 1, firstExtent / extentsPerBasePage);
      await this.put(key, encodeBasePage({ volumeId, serial: 1, firstExtent, chunks }));
      pages.push(key);
    }
    const base = { key: baseKey(this.owner, baseLsn, baseLsn, 1), s: baseLsn, e: baseLsn, sizeBytes };
    await this.put(base.key, encodeBase({ volumeId, s: baseLsn, e: baseLsn, sizeBytes, pages }));
    const manifest: VolumeManifest = {
      ...this.owner,
      name,
      sizeBytes,
      beginBytes: sizeBytes,
      durability: "write",
      createdAtMs: 1_700_000_000_000,
      lineNumber: 1,
      number: 1,
      writtenAtMs: Date.now(),
      ancestors: [],
      origin: null,
      archivedLsn: last.ref.lastLsn,
      archivedEpoch: last.lastEpoch,
      archivedChecksum: last.lastChecksum.toString(16).padStart(16, "0"),
      retainedFromLsn: baseLsn,
      historyMs: 7 * 86_400_000,
      deletedAtMs: null,
      snapshots: [],
      rebases: [],
      resizes: [],
      gaps: [],
      pins: [],
      bases: [{ ...base, newChunkBytes: names.length * limits.extentBytes }],
      pages: [],
      segments,
    };
    await this.put(manifestKey(manifest), encodeManifest(manifest));
  }

  private async put(key: string, object: Buffer): Promise<void> {
    this.objectBytes += object.length;
    await this.store.put(key, object);
  }
}
