// A replica with remote extents on any file store, its batches, the reference fold beside it, and the points that both know:
// what tests of partial images share. Extents are 4 MiB, so disks here have a few of them, written in small places.

import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";
import { type MemoryPointOptions, MemoryPoints } from "../../tools/memory-point-source.ts";
import type { SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker, type MadeBatch } from "./batch-maker.ts";

export const volumeId = "5ca1ab1e00c0ffee";
export const parentId = "00000000000000aa";
export const directory = "/volume";
export const wholePath = `${directory}/disk.raw`;
export const partialPath = `${wholePath}.partial`;
export const extentBytes = limits.extentBytes;

/** A disk with recognizable bytes in each extent: some all zero, some with a few blocks, some full at the edges. */
export function patternedDisk(sizeBytes: number, random: SteppedRandom): FoldedDisk {
  const disk = new FoldedDisk(sizeBytes);
  for (let start = 0; start < sizeBytes; start += extentBytes) {
    const end = Math.min(sizeBytes, start + extentBytes);
    if (random.chance(0.2)) continue;
    disk.write(start, Buffer.alloc(Math.min(5000, end - start), random.integer(1, 256)));
    const last = Math.min(3000, end - start);
    disk.write(end - last, Buffer.alloc(last, random.integer(1, 256)));
    for (let index = 0; index < 4; index += 1) {
      const offset = random.integer(start, end);
      const length = Math.min(random.integer(1, 200_000), end - offset);
      disk.write(offset, Buffer.alloc(length, random.integer(1, 256)));
    }
  }
  return disk;
}

export class PartialWorld {
  readonly points: MemoryPoints;
  readonly maker: BatchMaker;
  /** The disk at each LSN that a batch ended with; rebases go back to them. */
  readonly history = new Map<number, FoldedDisk>();
  /** What was made, in order: a crash replays from here. */
  readonly made: MadeBatch[] = [];
  disk: FoldedDisk;

  readonly #directory: string;

  constructor(
    store: FileStore,
    random: SteppedRandom,
    begin: FoldedDisk,
    options: MemoryPointOptions = {},
    volumeDirectory: string = directory,
  ) {
    this.#directory = volumeDirectory;
    this.points = new MemoryPoints(options);
    this.maker = new BatchMaker(store, random, begin.sizeBytes);
    this.disk = begin.copy();
    this.history.set(0, begin.copy());
    this.points.keep({ volumeId: parentId, lsn: 77 }, begin);
  }

  /** The parent's point that clones here begin with. */
  readonly parent: RemotePoint = { volumeId: parentId, lsn: 77 };

  async create(store: FileStore, remote: boolean): Promise<void> {
    await store.makeDirectory(this.#directory);
    const { sizeBytes } = this.disk;
    const begin = remote ? { remote: this.parent } : {};
    await RawFileImage.create({ store, directory: this.#directory, volumeId, sizeBytes, ...begin });
  }

  attach(store: FileStore, clock?: Clock): Promise<RawFileImage> {
    const timed = clock === undefined ? {} : { clock };
    const place = { store, directory: this.#directory, volumeId };
    return RawFileImage.attach({ ...place, sources: this.points, ...timed });
  }

  /** The batch joins the history: the reference applies it, and its end is a point. */
  record(batch: MadeBatch): MadeBatch {
    this.made.push(batch);
    for (const [index, entry] of batch.batch.entries.entries()) {
      const lsn = batch.batch.firstLsn + index;
      if (entry.kind === "rebase") {
        const target = this.history.get(entry.lsn);
        if (target === undefined) throw new Error(`no point at LSN ${entry.lsn}`);
        const size = this.disk.sizeBytes;
        this.disk = target.copy();
        this.disk.resize(size);
      } else {
        this.disk.appliedLsn = lsn - 1;
        this.disk.applyBatch({ firstLsn: lsn, entries: [entry], payload: batch.batch.payload });
      }
      this.disk.appliedLsn = lsn;
    }
    this.history.set(this.disk.appliedLsn, this.disk.copy());
    this.points.keep({ volumeId, lsn: this.disk.appliedLsn }, this.disk);
    return batch;
  }

  /** A point of the volume itself, as a base at `lsn` would serve it. */
  own(lsn: number): RemotePoint {
    return { volumeId, lsn };
  }
}

/** All of the disk, the way the volume session reads it. */
export async function wholeDisk(image: RawFileImage, store: FileStore, step = 700_001): Promise<Buffer> {
  const { sizeBytes } = image.state();
  const bytes = Buffer.alloc(sizeBytes);
  const slab = store.allocateSlab(Math.ceil(step / 4096) * 4096);
  for (let at = 0; at < sizeBytes; at += step) {
    const part = Math.min(step, sizeBytes - at);
    slab.bytes.fill(0xee);
    const got = Math.max(0, image.readInline(slab, 0, part, at));
    if (got < part) await image.read(slab, got, part - got, at + got);
    slab.bytes.copy(bytes, at, 0, part);
  }
  return bytes;
}

/** Where a disk and the reference differ first, or -1. */
export function firstDifference(bytes: Buffer, disk: FoldedDisk): number {
  const expected = Buffer.from(disk.read(0, disk.sizeBytes).buffer);
  if (bytes.equals(expected)) return -1;
  return bytes.findIndex((byte, index) => byte !== expected[index]);
}
