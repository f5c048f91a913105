/*
 * A disk as it was at one LSN: pieces of a read from the map (segments, hot log) and the base, fetched side by side. One
 * shared point per volume and LSN (histories.ts); each who opened it holds a handle. Next on the way down: frame-reader.ts.
 *
 * Where bytes are still in the hot log the point looks now and then whether they are archived, changes over to segments and
 * lets the log go, because a pin that stays would fill the log.
 */
import { extentsPerBasePage } from "#shared/domain/archive.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { HistorySubject, PointSource } from "#shared/ports/history.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { allocationRuns } from "./allocation-runs.ts";
import { BaseReader } from "./base-reader.ts";
import type { BucketReader } from "./bucket-reader.ts";
import type { FrameReader, ReadFrame } from "./frame-reader.ts";
import { isLogReleased, objectMissingTag, sourceClosed } from "./history-errors.ts";
import type { OpenFold } from "./open-fold.ts";
import { ReadAhead } from "./read-ahead.ts";
import { type FrameSlices, planRead, type ReadPlan, type Slice } from "./read-plan.ts";

/** A fold and who reads from it now: its pin goes when it was replaced and the last read has ended. */
class UsedFold {
  readonly fold: OpenFold;
  readonly base: BaseReader | null;
  private readers = 0;
  private retired = false;

  constructor(reader: BucketReader, fold: OpenFold) {
    this.fold = fold;
    this.base = fold.base === null ? null : new BaseReader(reader, fold.base.volumeId, fold.base.ref);
  }

  async use<T>(task: () => Promise<T>): Promise<T> {
    this.readers += 1;
    try {
      return await task();
    } finally {
      this.readers -= 1;
      if (this.retired && this.readers === 0) this.fold.release();
    }
  }

  retire(): void {
    this.retired = true;
    if (this.readers === 0) this.fold.release();
  }
}

export interface PointDependencies {
  readonly reader: BucketReader;
  readonly frames: FrameReader;
  readonly clock: Clock;
  /** Opens the same point again. */
  readonly reopen: () => Promise<OpenFold>;
  /** The volume as it is served now, or by the bucket where it is no more. */
  readonly presentOf: (subject: HistorySubject) => Promise<HistorySubject>;
}

export class SharedPoint {
  readonly volumeId: string;
  readonly lsn: number;
  readonly sizeBytes: number;
  private readonly deps: PointDependencies;
  private readonly ahead: ReadAhead;
  private used: UsedFold;
  private timer: Timer | null = null;
  private settling: Promise<boolean> | null = null;
  private isFetchingAhead = false;
  private reopenNextMs = 0;
  private isClosed = false;

  constructor(volumeId: string, lsn: number, fold: OpenFold, deps: PointDependencies) {
    this.volumeId = volumeId;
    this.lsn = lsn;
    this.sizeBytes = fold.map.sizeBytes;
    this.deps = deps;
    this.ahead = new ReadAhead(deps.reader.limits.readAheadBytes);
    this.used = new UsedFold(deps.reader, fold);
    this.watch();
  }

  async read(target: Buffer, offset: number): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const used = this.used;
      try {
        await used.use(() => this.carryOut(used, target, offset));
        break;
      } catch (error) {
        if (attempt === (isLogReleased(error) ? releasedAttemptsMax : 2)) throw error;
        if (!(await this.hasOtherWay(used, toVarveError(error, "read"))) || this.isClosed) throw error;
      }
    }
    this.fetchAhead(offset, target.length);
  }

  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    return allocationRuns(this.used.fold.map, this.used.base, offset, length, runsMax);
  }

  /** Extents that may hold anything but zeroes, a page of the base at a time. */
  async *extents(): AsyncGenerator<number, void, undefined> {
    const pageBytes = extentsPerBasePage * limits.extentBytes;
    for (let page = 0; page * pageBytes < this.sizeBytes; page += 1) {
      const used = this.used;
      const chunks = (await used.base?.chunksOf(page)) ?? null;
      const { written, covered } = this.mapped(used, page * pageBytes);
      for (let index = 0; index < extentsPerBasePage; index += 1) {
        const fromBase = (chunks?.[index] ?? null) !== null && covered[index] !== limits.extentBytes;
        if (written[index] === 1 || fromBase) yield page * extentsPerBasePage + index;
      }
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.timer?.cancel();
    this.used.retire();
  }

  /** Per extent of a base's page: whether the map names bytes in it, and how much of it the map covers. */
  private mapped(
    used: UsedFold,
    start: number,
  ): { readonly written: Uint8Array; readonly covered: Float64Array } {
    const written = new Uint8Array(extentsPerBasePage);
    const covered = new Float64Array(extentsPerBasePage);
    const end = start + extentsPerBasePage * limits.extentBytes;
    used.fold.map.visit(start, end, (from, to, place) => {
      for (let at = from; at < to; ) {
        const index = Math.floor((at - start) / limits.extentBytes);
        const next = Math.min(to, start + (index + 1) * limits.extentBytes);
        covered[index] = (covered[index] as number) + (next - at);
        if (place.kind !== "zero") written[index] = 1;
        at = next;
      }
    });
    return { written, covered };
  }

  /** Rejects only after everything that writes into the target has ended: the caller uses its slab for something else then. */
  private async carryOut(used: UsedFold, target: Buffer, offset: number): Promise<void> {
    if (this.isClosed) throw sourceClosed(this.volumeId, this.lsn);
    const plan = planRead(used.fold.map, offset, offset + target.length);
    for (const { at, length } of plan.zeroes) target.fill(0, at, at + length);
    const keep = target.length < this.deps.reader.limits.bulkReadBytes;
    await allEnded(this.start(used, plan, target, keep));
  }

  /** `target` null: only fetched into the cache. */
  private start(used: UsedFold, plan: ReadPlan, target: Buffer | null, keep: boolean): Promise<void>[] {
    const { frames } = this.deps;
    const tasks: Promise<void>[] = [];
    for (const [place, slices] of plan.segments) {
      const numbers = ascending(slices);
      // What lies in a segment's frame beside these bytes belongs anywhere on the disk: a long read's next part may want it.
      const keepFrame = (number: number): boolean => keep || usedBytes(slices.get(number)) < mostOfFrame;
      tasks.push(...frames.segmentFrames(place, numbers, keepFrame, copyTo(slices, target)));
    }
    for (const [place, slices] of plan.hot) {
      tasks.push(...frames.hotPayloads(place, ascending(slices), copyTo(slices, target)));
    }
    for (const [extent, slices] of plan.base)
      tasks.push(this.startExtent(used, extent, slices, target, keep));
    return tasks;
  }

  private async startExtent(
    used: UsedFold,
    extent: number,
    slices: FrameSlices,
    target: Buffer | null,
    keep: boolean,
  ): Promise<void> {
    const name = (await used.base?.chunkOf(extent)) ?? null;
    if (name === null) {
      for (const list of slices.values()) {
        for (const { at, length } of list) target?.fill(0, at, at + length);
      }
      return;
    }
    const { frames } = this.deps;
    await allEnded(frames.chunkFrames(name, ascending(slices), () => keep, copyTo(slices, target)));
  }

  private fetchAhead(offset: number, length: number): void {
    if (length >= this.deps.reader.limits.bulkReadBytes || this.isFetchingAhead || this.isClosed) return;
    const range = this.ahead.note(offset, length);
    if (range === null || range.start >= this.sizeBytes) return;
    const used = this.used;
    const end = Math.min(range.end, this.sizeBytes);
    this.isFetchingAhead = true;
    used
      .use(() => allEnded(this.start(used, planRead(used.fold.map, range.start, end), null, true)))
      // The read that wants it will fetch it again and tell.
      .catch(() => undefined)
      .finally(() => {
        this.isFetchingAhead = false;
      });
  }

  /**
   * Whether to read once more: the hot log is gone but what it had is archived by now (of a log elsewhere perhaps a part of it: the
   * rest is hot still), or an object went because the present manifest reaches the point by others (a snapshot got a base of its own).
   */
  private async hasOtherWay(used: UsedFold, error: VarveError): Promise<boolean> {
    if (used !== this.used) return true;
    if (isLogReleased(error)) {
      await this.settling;
      return used !== this.used || (await this.settle(true));
    }
    if (error._tag !== objectMissingTag) return used.fold.hot.length > 0 && (await this.settle(false));
    const nowMs = this.deps.clock.monotonicMs();
    if (nowMs < this.reopenNextMs) return false;
    this.reopenNextMs = nowMs + this.deps.reader.limits.settleMs;
    return this.settle(true);
  }

  private watch(): void {
    if (this.used.fold.hot.length === 0 || this.isClosed) return;
    this.timer = this.deps.clock.after(this.deps.reader.limits.settleMs, () => {
      this.settle(false)
        .catch(() => false)
        .finally(() => this.watch());
    });
  }

  /** Changes over to segments if all is archived by now, or anyhow to what the present manifest says; true where it did. */
  private settle(anyhow: boolean): Promise<boolean> {
    this.settling ??= this.changeOver(anyhow).finally(() => {
      this.settling = null;
    });
    return this.settling;
  }

  private async changeOver(anyhow: boolean): Promise<boolean> {
    const before = this.used;
    try {
      for (const { subject, lsn } of before.fold.hot) {
        const manifest = await (await this.deps.presentOf(subject)).manifest();
        if (!anyhow && (manifest === null || manifest.archivedLsn < lsn)) return false;
      }
      const fold = await this.deps.reopen();
      if ((!anyhow && fold.hot.length > 0) || this.isClosed) {
        fold.release();
        return false;
      }
      invariant(fold.map.sizeBytes === this.sizeBytes, "a point has one size");
      this.used = new UsedFold(this.deps.reader, fold);
      before.retire();
      return true;
    } catch (error) {
      // Away or damaged: the hot log still has it; looked at again later.
      if (toVarveError(error, "change over").kind === "Internal") throw error;
      return false;
    }
  }
}

/** What a caller of open() holds. */
export class PointHandle implements PointSource {
  private readonly point: SharedPoint;
  private readonly onClose: () => void;
  private isClosed = false;

  constructor(point: SharedPoint, onClose: () => void) {
    this.point = point;
    this.onClose = onClose;
  }

  get volumeId(): string {
    return this.point.volumeId;
  }

  get lsn(): number {
    return this.point.lsn;
  }

  get sizeBytes(): number {
    return this.point.sizeBytes;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    if (this.isClosed) throw sourceClosed(this.volumeId, this.lsn);
    invariant(start >= 0 && length >= 0 && offset >= 0, "a read's range is not negative");
    invariant(start + length <= slab.bytes.length, "a read fits its slab");
    if (length > 0) await this.point.read(slab.bytes.subarray(start, start + length), offset);
  }

  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    return this.point.allocation(offset, length, runsMax);
  }

  extents(): AsyncIterable<number> {
    return this.point.extents();
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onClose();
  }
}

/** A log elsewhere may be released again between two looks. */
const releasedAttemptsMax = 5;
const mostOfFrame = (limits.archiveFrameBytes * 3) / 4;

function usedBytes(slices: readonly Slice[] = []): number {
  return slices.reduce((sum, { length }) => sum + length, 0);
}

function ascending(slices: FrameSlices): number[] {
  return [...slices.keys()].sort((a, b) => a - b);
}

function copyTo(slices: FrameSlices, target: Buffer | null): ReadFrame {
  return (number, bytes) => {
    if (target === null) return;
    for (const { from, at, length } of slices.get(number) ?? []) {
      invariant(from + length <= bytes.length, "a frame holds what the map says");
      bytes.copy(target, at, from, from + length);
    }
  };
}

/** Waits for all, then throws what went wrong first. */
async function allEnded(tasks: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(tasks)) {
    if (result.status === "rejected") throw toVarveError(result.reason, "read of a point");
  }
}
