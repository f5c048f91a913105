/*
 * Reads the extents of one base out of an image that is written to meanwhile, and has them stored as chunks: a few at a time over all
 * volumes, at a limited rate, holes without reading. A remote extent whose bytes would be needed ends the work: it is postponed.
 * Called by base-builder.ts.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BaseImage } from "#shared/ports/archive.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { givenUp } from "./base-writer.ts";
import type { ChunkWriter } from "./chunk-writer.ts";
import type { DirtyExtents } from "./dirty-extents.ts";

export interface ExtentReaderOptions {
  readonly parts: ArchiveParts;
  readonly image: BaseImage;
  readonly chunks: ChunkWriter;
  readonly isUnwanted: () => boolean;
}

/** Names an extent of the base before. */
type PreviousName = (extent: number) => Promise<string | null>;

const { extentBytes } = limits;
/** While so many entries are applied to the image, reading takes this share of its rate (ADR 008 has the measurement). */
const busyEntriesPerSecond = 100;
const busyShare = 0.25;

export class ExtentReader {
  private readonly options: ExtentReaderOptions;
  readonly names = new Map<number, string | null>();
  readonly zeroes: ExtentRun[] = [];
  extentsRead = 0;
  private dueMs = 0;
  private looked = { ms: 0, lsn: 0 };
  private failure: { readonly cause: unknown } | null = null;

  constructor(options: ExtentReaderOptions) {
    this.options = options;
  }

  /** All extents that `dirty` names, or all that are allocated; below the size. */
  async readAll(sizeBytes: number, dirty: DirtyExtents | null, previousName: PreviousName): Promise<void> {
    const extents = Math.ceil(sizeBytes / extentBytes);
    const runs = dirty === null ? [{ first: 0, count: extents }] : dirty.runs(extents);
    this.dueMs = this.options.parts.clock.monotonicMs();
    this.looked = { ms: this.dueMs, lsn: this.options.image.state().appliedLsn };
    const underWay = new Set<Promise<void>>();
    try {
      for (const run of runs) {
        for (let next = run.first; next < run.first + run.count; ) {
          const part = this.allocatedFrom(next, run.first + run.count);
          if (!part.allocated) {
            this.zeroes.push({ first: next, count: part.count });
            next += part.count;
            if (part.count > 1) await this.turn();
            continue;
          }
          await this.readOne(next, previousName, underWay);
          next += 1;
        }
      }
    } finally {
      await Promise.all(underWay);
    }
    this.throwFailure();
  }

  /** One extent with bytes, or a run of extents that are all hole and local: those are zero. */
  private allocatedFrom(
    extent: number,
    end: number,
  ): { readonly allocated: boolean; readonly count: number } {
    const offset = extent * extentBytes;
    const { image } = this.options;
    // A disk that shrank meanwhile has zeroes there, and its log says so.
    const length = Math.min((end - extent) * extentBytes, image.state().sizeBytes - offset);
    if (length <= 0) return { allocated: false, count: end - extent };
    const run = image.allocation(offset, length, 1)[0];
    if (run === undefined || run.allocated || run.length < extentBytes) return { allocated: true, count: 1 };
    return { allocated: false, count: Math.floor(run.length / extentBytes) };
  }

  private async readOne(
    extent: number,
    previousName: PreviousName,
    underWay: Set<Promise<void>>,
  ): Promise<void> {
    const { parts, image } = this.options;
    this.throwFailure();
    if (this.options.isUnwanted()) throw givenUp("the archiver stops");
    await this.pace();
    const previous = await previousName(extent);
    const release = await parts.extentSlots.take();
    const slab = parts.extentMemory.take();
    const work = (async () => {
      try {
        if (!image.isLocal(extent)) throw givenUp(`extent ${extent} is not on this machine`);
        await image.read(slab, 0, extentBytes, extent * extentBytes);
        // A rollback meanwhile makes extents remote: what was read may be anything.
        if (!image.isLocal(extent)) throw givenUp(`extent ${extent} is not on this machine any more`);
        this.names.set(
          extent,
          await this.options.chunks.store(slab.bytes.subarray(0, extentBytes), previous),
        );
        this.extentsRead += 1;
      } catch (cause) {
        this.failure ??= { cause };
      } finally {
        parts.extentMemory.give(slab);
        release();
      }
    })();
    underWay.add(work);
    void work.then(() => underWay.delete(work));
  }

  /** Not more than the rate allows: the image's disk serves others first, and who writes to this image more than others. */
  private async pace(): Promise<void> {
    const { clock, options } = this.options.parts;
    const waitMs = this.dueMs - clock.monotonicMs();
    if (waitMs > 1) {
      await new Promise<void>((resolve) => {
        clock.after(waitMs, resolve);
      });
    }
    const rate = options.baseReadBytesPerSecond * (this.isBusy() ? busyShare : 1);
    this.dueMs += (extentBytes * 1000) / rate;
  }

  /** Whether many entries were applied since the last look. */
  private isBusy(): boolean {
    const ms = this.options.parts.clock.monotonicMs();
    const lsn = this.options.image.state().appliedLsn;
    const { looked } = this;
    this.looked = { ms, lsn };
    return (lsn - looked.lsn) * 1000 > busyEntriesPerSecond * (ms - looked.ms);
  }

  private turn(): Promise<void> {
    return new Promise((resolve) => {
      this.options.parts.clock.soon(resolve);
    });
  }

  private throwFailure(): void {
    if (this.failure !== null) throw this.failure.cause;
  }
}
