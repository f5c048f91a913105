/*
 * Reads of one volume: bytes come from the overlay where it covers, else from the image; page-cached bytes and holes are
 * answered on the spot, cold ones by another thread, so that one cold read never delays a warm one.
 * Called by volume-export.ts; next: overlay.ts, shared/ports/replica-image.ts.
 *
 * A gap's bytes may change while a cold read is under way: that write is then concurrent with the read, and either content
 * is right (NBD, "Ordering of messages"). Everything acknowledged before the read came in is in the overlay or in the image.
 */

import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { Completion } from "#shared/ports/block-export.ts";
import type { AllocationRun, ReplicaImage } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { Overlay, OverlayValue } from "./overlay.ts";

/** Waits for the cold parts of one read. */
class ColdRead {
  private readonly done: Completion;
  /** Says why what was read may not be shown any more. */
  private readonly finished: () => VarveError | null;
  private waiting = 0;
  private error: VarveError | null = null;

  constructor(done: Completion, finished: () => VarveError | null) {
    this.done = done;
    this.finished = finished;
  }

  add(part: Promise<void>): void {
    this.waiting += 1;
    part.then(
      () => this.settle(),
      (cause: unknown) => {
        this.error ??= toVarveError(cause, "cold read");
        this.settle();
      },
    );
  }

  private settle(): void {
    this.waiting -= 1;
    if (this.waiting > 0) return;
    const refusal = this.finished();
    this.done.complete(refusal ?? this.error);
  }
}

const refusedPauseMax = 255;

export class VolumeReader {
  private readonly image: ReplicaImage;
  private readonly overlay: Overlay;
  private coldReadsUnderWay = 0;
  /** Refused reads that are not asked for holes, and how many there are each time. */
  private refusedUntilAsked = 0;
  private refusedPause = 0;
  readonly counters = { reads: 0, readBytes: 0, coldReads: 0 };

  // State of the read being answered; reads are answered one after the other on one thread, so one set serves all.
  private slab: Slab | null = null;
  private slabStart = 0;
  private readOffset = 0;
  private position = 0;
  private cold: ColdRead | null = null;
  private done: Completion | null = null;
  private readonly onCovered: (start: number, end: number, value: OverlayValue, position: number) => void;
  private readonly onColdFinished: () => VarveError | null;
  /** Somebody newer writes: nothing is shown any more, not even from memory (promise 8). */
  private fenced: VarveError | null = null;

  constructor(image: ReplicaImage, overlay: Overlay) {
    this.image = image;
    this.overlay = overlay;
    this.onCovered = (start, end, value, position) => this.copyCovered(start, end, value, position);
    this.onColdFinished = () => {
      this.coldReadsUnderWay -= 1;
      return this.fenced;
    };
  }

  /** From now on every read fails, those under way too. */
  fence(error: VarveError): void {
    this.fenced ??= error;
  }

  get busy(): boolean {
    return this.coldReadsUnderWay > 0;
  }

  /** See BlockExport.read. */
  read(offset: number, length: number, slab: Slab, start: number, done: Completion): boolean {
    this.counters.reads += 1;
    this.counters.readBytes += length;
    const { fenced } = this;
    if (fenced !== null) {
      queueMicrotask(() => done.complete(fenced));
      return false;
    }
    if (this.overlay.empty && this.image.readInline(slab, start, length, offset) === length) return true;
    this.slab = slab;
    this.slabStart = start;
    this.readOffset = offset;
    this.position = offset;
    this.cold = null;
    this.done = done;
    if (!this.overlay.empty) this.overlay.visit(offset, offset + length, this.onCovered);
    this.readGap(offset + length);
    const inline = this.cold === null;
    this.slab = null;
    this.cold = null;
    this.done = null;
    return inline;
  }

  private copyCovered(start: number, end: number, value: OverlayValue, position: number): void {
    if (start > this.position) this.readGap(start);
    invariant(this.slab !== null && start === this.position, "a read's parts cover it without a gap");
    const target = this.slabStart + (start - this.readOffset);
    if (value.holdsBytes) {
      value.draft.slab.bytes.copy(this.slab.bytes, target, position, position + (end - start));
    } else {
      this.slab.bytes.fill(0, target, target + (end - start));
    }
    this.position = end;
  }

  /** Reads [position, end) from the image. */
  private readGap(end: number): void {
    let from = this.position;
    this.position = end;
    if (from >= end) return;
    const slab = this.slab;
    invariant(slab !== null, "a gap belongs to a read");
    let target = this.slabStart + (from - this.readOffset);
    const got = this.image.readInline(slab, target, end - from, from);
    if (got === end - from) return;
    if (got > 0) {
      from += got;
      target += got;
    }
    if (this.isHole(from, end - from)) {
      slab.bytes.fill(0, target, target + (end - from));
      return;
    }
    if (this.cold === null) {
      const done = this.done;
      invariant(done !== null, "a cold read has somebody waiting");
      this.cold = new ColdRead(done, this.onColdFinished);
      this.coldReadsUnderWay += 1;
      this.counters.coldReads += 1;
    }
    this.cold.add(this.image.read(slab, target, end - from, from));
  }

  /**
   * A refused read of a hole is rare (the page cache makes zeroes up at once) and the question costs as much as a cached read:
   * each one that finds data doubles the number of refused reads until the next.
   */
  private isHole(offset: number, length: number): boolean {
    if (this.refusedUntilAsked > 0) {
      this.refusedUntilAsked -= 1;
      return false;
    }
    const run = this.image.allocation(offset, length, 1)[0];
    const hole = run !== undefined && !run.allocated && run.offset + run.length >= offset + length;
    this.refusedPause = hole ? 0 : Math.min(refusedPauseMax, 2 * this.refusedPause + 1);
    this.refusedUntilAsked = this.refusedPause;
    return hole;
  }

  /** See BlockExport.cache: remote extents become local; where all are, the data is not touched. */
  cache(offset: number, length: number, done: Completion): void {
    const { extents } = this.image;
    if (extents === undefined || extents.isRangeLocal(offset, length)) {
      queueMicrotask(() => done.complete(null));
      return;
    }
    extents.cache(offset, length).then(
      () => done.complete(null),
      (cause: unknown) => done.complete(toVarveError(cause, "cache")),
    );
  }

  /**
   * See BlockExport.blockStatus: the image's allocation with the overlay on top. The image is asked once, not once per gap: each
   * question makes the file system walk its extents. What its answer leaves out at the end is left out here, too.
   */
  blockStatus(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    if (this.fenced !== null) return [{ offset, length, allocated: true }];
    const below = this.image.allocation(offset, length, runsMax);
    if (this.overlay.empty) return below;
    const runs: { offset: number; length: number; allocated: boolean }[] = [];
    const push = (start: number, end: number, allocated: boolean): void => {
      const last = runs[runs.length - 1];
      if (start >= end) return;
      if (last !== undefined && last.allocated === allocated) last.length += end - start;
      else runs.push({ offset: start, length: end - start, allocated });
    };
    let position = offset;
    let next = 0;
    const gapUpTo = (end: number): void => {
      for (; next < below.length; next += 1) {
        const run = below[next];
        if (run === undefined || run.offset >= end) break;
        const runEnd = run.offset + run.length;
        push(Math.max(position, run.offset), Math.min(end, runEnd), run.allocated);
        if (runEnd > end) break;
      }
      position = end;
    };
    const lastBelow = below[below.length - 1];
    invariant(lastBelow !== undefined, "an allocation report covers something");
    const covered = lastBelow.offset + lastBelow.length;
    this.overlay.visit(offset, covered, (start, end, value) => {
      if (runs.length > runsMax) return;
      gapUpTo(start);
      push(start, end, value.allocated);
      position = end;
    });
    gapUpTo(covered);
    return runs.length > runsMax ? runs.slice(0, runsMax) : runs;
  }
}
