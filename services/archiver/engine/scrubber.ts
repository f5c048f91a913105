/*
 * `varve scrub`: compares the local extents of an image with the volume's past in the bucket, extent by extent, at a limited
 * rate. An extent that differs and that no entry touched meanwhile is damaged; with repair it becomes remote and is filled
 * again. Called by bucket-keeper.ts, where the volume host gives the subject, and by storage nodes through ../scrub-layer.ts. See
 * docs/specs/retention.md, "Check, usage, scrub".
 */
import { limits } from "#shared/domain/limits.ts";
import type { ScrubOptions, ScrubReport } from "#shared/ports/bucket-administration.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { ScrubberParts, ScrubSubject } from "#shared/ports/scrub.ts";
import type { Slab } from "#shared/ports/slab.ts";

export type { ScrubberParts, ScrubSubject } from "#shared/ports/scrub.ts";

/** An extent that changes under each look is written to all the time; the next scrub sees it again. */
const looksMax = 3;
/** A point is opened again after so many extents, so that what it holds on to stays small. */
const extentsPerPoint = 256;
/** A slow one looks so often whether it is to end. */
const stopLookMs = 1000;

type Outcome = "same" | "busy" | { readonly firstOffset: number };

export class Scrubber {
  private readonly parts: ScrubberParts;
  private readonly subject: ScrubSubject;
  private readonly mine: Slab;
  private readonly theirs: Slab;
  /** What was written to at each look, as far as limits.scrub.busyMax goes. */
  readonly busy: number[] = [];
  private source: PointSource | null = null;
  private looked = 0;

  constructor(parts: ScrubberParts, subject: ScrubSubject) {
    this.parts = parts;
    this.subject = subject;
    this.mine = parts.allocateSlab(limits.extentBytes);
    this.theirs = parts.allocateSlab(limits.extentBytes);
  }

  async scrub(options: ScrubOptions): Promise<ScrubReport> {
    const { image, name } = this.subject;
    const { sizeBytes, appliedLsn } = image.state();
    const extents = Math.ceil(sizeBytes / limits.extentBytes);
    const wanted = this.parts.extents ?? upTo(extents);
    const totalBytes = (this.parts.extents?.length ?? 0) * limits.extentBytes || sizeBytes;
    const { damagedMax = Number.POSITIVE_INFINITY } = this.parts;
    const counts = { compared: 0, bytes: 0, remote: 0, busy: 0 };
    const damaged: { extent: number; firstOffset: number; repaired: boolean }[] = [];
    const startedMs = this.parts.clock.monotonicMs();
    let pacedBytes = 0;
    try {
      for (const extent of wanted) {
        if (this.parts.isStopped?.() === true || damaged.length >= damagedMax) break;
        if (!image.isLocal(extent)) {
          counts.remote += 1;
          continue;
        }
        const outcome = await this.compare(extent);
        if (outcome === "busy") {
          counts.busy += 1;
          if (this.busy.length < limits.scrub.busyMax) this.busy.push(extent);
        } else counts.compared += 1;
        if (typeof outcome === "object") {
          const repaired = options.repair && (await this.repair(extent));
          damaged.push({ extent, firstOffset: outcome.firstOffset, repaired });
        }
        counts.bytes += limits.extentBytes;
        this.parts.onProgress?.(counts.bytes, totalBytes);
        // Holes cost no reads of the disk: a thin one takes the time of what it stores.
        if (!this.isHole(extent)) pacedBytes += limits.extentBytes;
        await this.keepPace(startedMs, pacedBytes, options.bytesPerSecond);
      }
    } finally {
      await this.closeSource();
    }
    return { volume: name, lsn: appliedLsn, extents, ...counts, damaged };
  }

  private isHole(extent: number): boolean {
    const { image } = this.subject;
    const offset = extent * limits.extentBytes;
    const length = Math.min(limits.extentBytes, image.state().sizeBytes - offset);
    if (length <= 0) return true;
    const run = image.allocation(offset, length, 1)[0];
    return run !== undefined && !run.allocated && run.length >= length;
  }

  private async compare(extent: number): Promise<Outcome> {
    const { image, history } = this.subject;
    let seenAt = -1;
    for (let look = 0; look < looksMax; look += 1) {
      const source = await this.point(look > 0);
      const offset = extent * limits.extentBytes;
      const length = Math.min(limits.extentBytes, source.sizeBytes - offset);
      if (length <= 0) return "same";
      await image.read(this.mine, 0, length, offset);
      const { begunLsn } = image.state();
      if (!image.isLocal(extent)) return "same";
      await source.read(this.theirs, 0, length, offset);
      const first = firstDifference(this.mine.bytes, this.theirs.bytes, length);
      if (first < 0) return "same";
      // Entries after the point may be in the file already; any that touch the extent explain the difference.
      const touched = begunLsn > source.lsn ? await history.changes(source.lsn, begunLsn) : [];
      const isTouched = touched.some(
        (range) => range.offset < offset + length && range.offset + range.length > offset,
      );
      // A rollback to the point takes back what explained a difference: only one that stays is damage.
      if (!isTouched && first === seenAt) return { firstOffset: offset + first };
      seenAt = isTouched ? -1 : first;
    }
    return "busy";
  }

  /** A point that the image has wholly. */
  private async point(fresh: boolean): Promise<PointSource> {
    this.looked += 1;
    if (this.source !== null && (fresh || this.looked > extentsPerPoint)) await this.closeSource();
    if (this.source === null) {
      this.source = await this.subject.history.open(this.subject.image.state().appliedLsn);
      this.looked = 0;
    }
    return this.source;
  }

  private async closeSource(): Promise<void> {
    const { source } = this;
    this.source = null;
    await source?.close();
  }

  /** Repaired means: taken again, and now the same. */
  private async repair(extent: number): Promise<boolean> {
    if (!(await this.subject.repair(extent, this.theirs))) return false;
    return (await this.compare(extent)) === "same";
  }

  private async keepPace(startedMs: number, bytes: number, bytesPerSecond: number): Promise<void> {
    const dueMs = startedMs + (bytes / bytesPerSecond) * 1000;
    for (;;) {
      const waitMs = dueMs - this.parts.clock.monotonicMs();
      if (waitMs <= 0 || this.parts.isStopped?.() === true) return;
      await new Promise<void>((resolve) => {
        this.parts.clock.after(Math.min(waitMs, stopLookMs), resolve);
      });
    }
  }
}

function* upTo(extents: number): Generator<number, void, undefined> {
  for (let extent = 0; extent < extents; extent += 1) yield extent;
}

function firstDifference(mine: Buffer, theirs: Buffer, length: number): number {
  if (mine.compare(theirs, 0, length, 0, length) === 0) return -1;
  for (let at = 0; at < length; at += 1) if (mine[at] !== theirs[at]) return at;
  return -1;
}
