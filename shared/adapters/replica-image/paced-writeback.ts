/*
 * Writes the image's dirty pages out in slices before a checkpoint's sync, one slice at a time with a pause as long as the
 * slice took, so that the sync finds little left and log syncs never queue behind all of it. Owns the count of dirty bytes by
 * region of the file. Called by raw-file.ts: wrote() with every apply, run() before the sync. Between checkpoints nothing is
 * written early: a page that is written again in the meantime goes out once (measured, ADR 004).
 */
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile, FileOperation } from "#shared/ports/file-store.ts";

const regionBytesMin = 16 * 1024 * 1024;
const regionsMax = 8192;
/** Batches are applied while slices go out; later passes take what came meanwhile, as long as it is worth a pass. */
const passesMax = 3;
const worthSlices = 4;
/** A checkpoint is not held up longer than this by pauses. */
const pausesMsMax = 3000;
const pauseMsMax = 100;

export interface PacedWritebackParts {
  readonly file: Pick<BlockFile, "writeBack">;
  /** Null: no pauses. */
  readonly clock: Clock | null;
  readonly sliceBytes: number;
}

export class PacedWriteback {
  readonly #file: Pick<BlockFile, "writeBack">;
  readonly #clock: Clock | null;
  readonly #sliceBytes: number;
  #regionBytes = regionBytesMin;
  #dirty = new Map<number, number>();
  slices = 0;

  constructor({ file, clock, sliceBytes }: PacedWritebackParts) {
    this.#file = file;
    this.#clock = clock;
    this.#sliceBytes = sliceBytes;
  }

  /** Operations that were applied to a file of so many bytes. */
  wrote(operations: readonly FileOperation[], imageBytes: number): void {
    while (imageBytes / this.#regionBytes > regionsMax) this.#widenRegions();
    for (const operation of operations) {
      if (operation.kind !== "write") continue;
      const region = Math.floor(operation.offset / this.#regionBytes);
      this.#dirty.set(region, (this.#dirty.get(region) ?? 0) + operation.piece.length);
    }
  }

  /** Resolves when most of what was dirty is with the disk. Rejects as a failed sync does: pages may be lost. */
  async run(): Promise<void> {
    let pausesMs = pausesMsMax;
    for (let pass = 0; pass < passesMax; pass += 1) {
      const dirty = this.#dirty;
      this.#dirty = new Map();
      let bytes = 0;
      for (const count of dirty.values()) bytes += count;
      if (bytes < worthSlices * this.#sliceBytes) return;
      for (const [from, end] of this.#slicesOf(dirty)) {
        const tookMs = await this.#writeSlice(from, end);
        const pauseMs = Math.min(tookMs, pauseMsMax, pausesMs);
        pausesMs -= pauseMs;
        await this.#pause(pauseMs);
      }
    }
  }

  /** Ranges of the file with about a slice of dirty bytes each, in order. */
  #slicesOf(dirty: ReadonlyMap<number, number>): [from: number, end: number][] {
    const slices: [number, number][] = [];
    let start = -1;
    let end = 0;
    let bytes = 0;
    for (const region of [...dirty.keys()].sort((a, b) => a - b)) {
      const here = dirty.get(region) ?? 0;
      const from = region * this.#regionBytes;
      if (start !== -1 && bytes + here > this.#sliceBytes) {
        slices.push([start, end]);
        start = -1;
      }
      if (here > this.#sliceBytes) slices.push(...this.#split(from, here));
      else {
        if (start === -1) {
          start = from;
          bytes = 0;
        }
        bytes += here;
        end = from + this.#regionBytes;
      }
    }
    if (start !== -1) slices.push([start, end]);
    return slices;
  }

  /** A region with more than a slice in it, taken to be spread evenly. */
  #split(from: number, bytes: number): [number, number][] {
    const parts = Math.min(Math.ceil(bytes / this.#sliceBytes), this.#regionBytes / regionPartBytesMin);
    const partBytes = Math.ceil(this.#regionBytes / parts);
    return Array.from({ length: parts }, (_, index) => [
      from + index * partBytes,
      from + (index + 1) * partBytes,
    ]);
  }

  async #writeSlice(from: number, end: number): Promise<number> {
    const startedMs = this.#clock?.monotonicMs() ?? 0;
    this.slices += 1;
    await this.#file.writeBack(from, end - from);
    return (this.#clock?.monotonicMs() ?? 0) - startedMs;
  }

  #pause(pauseMs: number): Promise<void> {
    const clock = this.#clock;
    if (clock === null || pauseMs < 1) return Promise.resolve();
    return new Promise((resolve) => {
      // A clock's timers let the process end; a checkpoint under way must not, even when nothing else is left to do.
      const alive = setInterval(() => undefined, pauseMsMax);
      clock.after(pauseMs, () => {
        clearInterval(alive);
        resolve();
      });
    });
  }

  #widenRegions(): void {
    this.#regionBytes *= 2;
    const dirty = new Map<number, number>();
    for (const [region, bytes] of this.#dirty) {
      const wide = Math.floor(region / 2);
      dirty.set(wide, (dirty.get(wide) ?? 0) + bytes);
    }
    this.#dirty = dirty;
  }
}

const regionPartBytesMin = 1024 * 1024;
