/*
 * Where the bytes of each extent of one image are, in memory: runs of extents with the point that they are read from, and for
 * partly local ones what is in the file. Changed by applies, fills and evictions, one after the other (turns.ts); asked
 * by every read of an image that is not wholly local. Stored with each checkpoint. See docs/specs/residency.md.
 */
import { ExtentMap } from "#shared/domain/extent-map.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { LocalBlocks } from "#shared/domain/local-blocks.ts";
import { extentsOf, type RecordedExtents, type RecordedRun } from "#shared/formats/extent-table.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";

const { extentBytes } = limits;

/** Bytes [start, end) of the disk; `point` null: they are in the file. */
export type PlaceVisitor = (start: number, end: number, point: RemotePoint | null) => void;

export interface RemoteRun {
  readonly first: number;
  readonly count: number;
  readonly point: RemotePoint;
}

interface Departure {
  readonly first: number;
  readonly end: number;
  readonly number: number;
}

/** Departures remembered: a read that outlasts more of them is made again. */
const departuresKept = 256;
const localMarker: RemotePoint = { volumeId: "", lsn: -1 };

export class ExtentTable {
  /** Extent numbers; neighbours with one point are one range. */
  readonly #remote = new ExtentMap<RemotePoint>();
  readonly #parts = new Map<number, LocalBlocks>();
  /** One object for each point, so that equal is identical. */
  readonly #points = new Map<string, RemotePoint>();
  readonly #departures: Departure[] = [];
  #sizeBytes: number;
  #remoteCount = 0;
  #edges = 0;
  /** Counts all changes: what a checkpoint recorded is what holds while it is the same. */
  revision = 0;
  /** Counts what became remote: bytes read from the file before may not be those of the disk. */
  departed = 0;

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  /** The table as a checkpoint recorded it. */
  static of(recorded: RecordedExtents, sizeBytes: number): ExtentTable {
    const table = new ExtentTable(sizeBytes);
    let first = 0;
    for (const { extents, place } of recorded.runs) {
      const point = recorded.points[place - 1];
      if (point !== undefined) table.setRemote(first, extents, point);
      first += extents;
    }
    for (const { extent, local } of recorded.parts) {
      table.#edges -= table.#parts.get(extent)?.edgeCount ?? 0;
      table.#edges += local.edgeCount;
      table.#parts.set(extent, local);
    }
    return table;
  }

  /** Every byte is in the file. */
  get allLocal(): boolean {
    return this.#remoteCount === 0;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get extents(): number {
    return extentsOf(this.#sizeBytes);
  }

  /** Extents of which not every byte is in the file. */
  get notLocal(): number {
    return this.#remoteCount;
  }

  get partial(): number {
    return this.#parts.size;
  }

  /** Half of a limit is used up. */
  get crowded(): boolean {
    return this.#parts.size >= limits.partialExtentsMax / 2 || this.#edges >= limits.partialEdgesMax / 2;
  }

  pointOf(extent: number): RemotePoint | null {
    let found: RemotePoint | null = null;
    this.#remote.visit(extent, extent + 1, (_start, _end, point) => {
      found = point;
    });
    return found;
  }

  isLocal(extent: number): boolean {
    return this.allLocal || this.pointOf(extent) === null;
  }

  isPartial(extent: number): boolean {
    return this.#parts.has(extent);
  }

  isRangeLocal(offset: number, length: number): boolean {
    if (this.allLocal || length === 0) return true;
    let local = true;
    this.visit(offset, offset + length, (_start, _end, point) => {
      local &&= point === null;
    });
    return local;
  }

  somePartial(most: number): number[] {
    const found: number[] = [];
    for (const extent of this.#parts.keys()) {
      if (found.length >= most) break;
      found.push(extent);
    }
    return found;
  }

  /** The first extent at or after `from` that is not local, or -1. */
  nextRemote(from: number): number {
    if (this.allLocal) return -1;
    const end = this.extents;
    // Windows that double, because a map's visit can't be stopped.
    for (let start = from, width = 1; start < end; start += width, width *= 2) {
      let found = -1;
      this.#remote.visit(start, Math.min(end, start + width), (first) => {
        if (found === -1) found = first;
      });
      if (found !== -1) return found;
    }
    return -1;
  }

  /** Runs of [start, end) in order, without gaps; neighbours differ, but for runs of partly local extents. */
  visit(start: number, end: number, visitor: PlaceVisitor): void {
    let at = start;
    if (!this.allLocal) {
      this.#remote.visit(
        Math.floor(start / extentBytes),
        Math.ceil(end / extentBytes),
        (first, last, point) => {
          const from = Math.max(start, first * extentBytes);
          const to = Math.min(end, last * extentBytes);
          if (from > at) visitor(at, from, null);
          this.#visitRemote(from, to, point, visitor);
          at = to;
        },
      );
    }
    if (at < end) visitor(at, end, null);
  }

  #visitRemote(start: number, end: number, point: RemotePoint, visitor: PlaceVisitor): void {
    let at = start;
    for (const extent of this.#partsWithin(start, end)) {
      const local = this.#parts.get(extent);
      if (local === undefined) continue;
      const base = extent * extentBytes;
      const from = Math.max(start, base);
      const to = Math.min(end, base + extentBytes);
      if (from > at) visitor(at, from, point);
      local.visit(from - base, to - base, (first, last, inFile) => {
        visitor(base + first, base + last, inFile ? null : point);
      });
      at = to;
    }
    if (at < end) visitor(at, end, point);
  }

  /** Partly local extents that [start, end) touches, ascending: by number where those are few, else by looking at all. */
  #partsWithin(start: number, end: number): readonly number[] {
    if (this.#parts.size === 0) return [];
    const first = Math.floor(start / extentBytes);
    const last = Math.ceil(end / extentBytes);
    const found: number[] = [];
    if (last - first <= this.#parts.size) {
      for (let extent = first; extent < last; extent += 1) if (this.#parts.has(extent)) found.push(extent);
      return found;
    }
    for (const extent of this.#parts.keys()) if (extent >= first && extent < last) found.push(extent);
    return found.sort((a, b) => a - b);
  }

  /** Bytes [start, end) of the disk are in the file now: they were written, zeroed or fetched. */
  markLocal(start: number, end: number): void {
    if (this.allLocal) return;
    const firstWhole = Math.ceil(start / extentBytes);
    const endWhole = Math.floor(end / extentBytes);
    if (firstWhole <= endWhole) {
      if (firstWhole < endWhole) this.#setLocal(firstWhole, endWhole - firstWhole);
      if (start < firstWhole * extentBytes) this.#addPart(start, firstWhole * extentBytes);
      if (end > endWhole * extentBytes) this.#addPart(endWhole * extentBytes, end);
    } else this.#addPart(start, end);
  }

  /** [start, end) lies in one extent. */
  #addPart(start: number, end: number): void {
    const extent = Math.floor(start / extentBytes);
    if (this.pointOf(extent) === null) return;
    const base = extent * extentBytes;
    const local = this.#parts.get(extent) ?? new LocalBlocks();
    const edges = local.edgeCount;
    this.revision += 1;
    local.add(start - base, end - base);
    this.#edges += local.edgeCount - edges;
    this.#parts.set(extent, local);
    if (local.full) this.#setLocal(extent, 1);
  }

  #setLocal(first: number, count: number): void {
    const remote = this.#countRemote(first, count);
    if (remote === 0) return;
    this.revision += 1;
    this.#dropParts(first, count);
    this.#remoteCount -= remote;
    this.#remote.insert(first, first + count, localMarker, first);
    this.#remote.remove(first, first + count, localMarker);
  }

  /**
   * Extents are remote from now on, read from `point`, whatever of them was in the file. Bytes past the end of the volume
   * are local zeroes, so that growing it later shows none of the point's.
   */
  setRemote(first: number, count: number, point: RemotePoint): void {
    const end = Math.min(first + count, this.extents);
    if (end <= first) return;
    this.#dropParts(first, end - first);
    this.#remoteCount += end - first - this.#countRemote(first, end - first);
    this.#remote.insert(first, end, this.#interned(point), first);
    this.#markPastEnd();
    this.revision += 1;
    this.departed += 1;
    this.#departures.push({ first, end, number: this.departed });
    if (this.#departures.length > departuresKept) this.#departures.shift();
  }

  /**
   * What is read from earlier points of the same volume is read from `point` from now on: bytes that no entry changed in between
   * are the same there, and those that one did are local.
   */
  repointOwn(point: RemotePoint): void {
    const same = this.#interned(point);
    for (const run of this.remoteRuns()) {
      if (run.point === same || run.point.volumeId !== point.volumeId) continue;
      this.#remote.insert(run.first, run.first + run.count, same, run.first);
      this.revision += 1;
    }
  }

  /** Whether another point fits in. */
  get takesPoints(): boolean {
    if (this.#points.size >= limits.remotePointsMax) this.#forgetUnused();
    return this.#points.size < limits.remotePointsMax;
  }

  /** Whether any of [offset, offset + length) became remote after `departed` was `since`. */
  departedSince(since: number, offset: number, length: number): boolean {
    if (this.departed === since) return false;
    const oldest = this.#departures[0];
    if (oldest === undefined || oldest.number > since + 1) return true;
    const first = Math.floor(offset / extentBytes);
    const end = Math.ceil((offset + length) / extentBytes);
    return this.#departures.some((gone) => gone.number > since && gone.first < end && gone.end > first);
  }

  /** The volume has another size. What is cut off is zero when it comes back: local, like all that growing adds. */
  resize(sizeBytes: number): void {
    const before = this.extents;
    this.#sizeBytes = sizeBytes;
    const after = this.extents;
    if (after < before && !this.allLocal) this.#setLocal(after, before - after);
    this.#markPastEnd();
  }

  #markPastEnd(): void {
    const tail = this.#sizeBytes % extentBytes;
    if (tail !== 0) this.#addPart(this.#sizeBytes, this.#sizeBytes - tail + extentBytes);
  }

  remoteRuns(): RemoteRun[] {
    const runs: RemoteRun[] = [];
    this.#remote.visit(0, this.extents, (first, end, point) => {
      runs.push({ first, count: end - first, point });
    });
    return runs;
  }

  /** As a checkpoint records it. `leaving`: local extents that are to be remote when the checkpoint is read again. */
  record(leaving: ReadonlyMap<number, RemotePoint>): "full" | RecordedExtents {
    const runs = this.remoteRuns();
    for (const [extent, point] of leaving)
      runs.push({ first: extent, count: 1, point: this.#interned(point) });
    if (runs.length === 0) return "full";
    if (leaving.size > 0) runs.sort((a, b) => a.first - b.first);
    const points: RemotePoint[] = [];
    const recorded = recordedRuns(runs, this.extents, points);
    const parts = [...this.#parts].map(([extent, local]) => ({ extent, local }));
    const tail = this.extents - 1;
    if (leaving.has(tail) && this.#sizeBytes % extentBytes !== 0) {
      const local = new LocalBlocks();
      local.add(this.#sizeBytes % extentBytes, extentBytes);
      parts.push({ extent: tail, local });
    }
    parts.sort((a, b) => a.extent - b.extent);
    return { points, runs: recorded, parts };
  }

  /** Points that any extent is read from. */
  points(): RemotePoint[] {
    return [...new Set(this.remoteRuns().map((run) => run.point))];
  }

  #countRemote(first: number, count: number): number {
    let found = 0;
    this.#remote.visit(first, first + count, (start, end) => {
      found += end - start;
    });
    return found;
  }

  #dropParts(first: number, count: number): void {
    if (this.#parts.size === 0) return;
    const numbers =
      count <= this.#parts.size
        ? Array.from({ length: count }, (_, index) => first + index)
        : [...this.#parts.keys()].filter((extent) => extent >= first && extent < first + count);
    for (const extent of numbers) {
      this.#edges -= this.#parts.get(extent)?.edgeCount ?? 0;
      this.#parts.delete(extent);
    }
  }

  #interned(point: RemotePoint): RemotePoint {
    const key = `${point.volumeId}@${point.lsn}`;
    const known = this.#points.get(key);
    if (known !== undefined) return known;
    const own = { volumeId: point.volumeId, lsn: point.lsn };
    if (this.#points.size >= limits.remotePointsMax) this.#forgetUnused();
    invariant(this.#points.size < limits.remotePointsMax, "an image is read from a bounded number of points");
    this.#points.set(key, own);
    return own;
  }

  #forgetUnused(): void {
    const used = new Set(this.points());
    for (const [key, point] of this.#points) if (!used.has(point)) this.#points.delete(key);
  }
}

/** All extents as runs with numbered places; `points` gets the points in the order of their numbers. */
function recordedRuns(runs: readonly RemoteRun[], extents: number, points: RemotePoint[]): RecordedRun[] {
  const recorded: { extents: number; place: number }[] = [];
  const add = (count: number, place: number): void => {
    const last = recorded[recorded.length - 1];
    if (count === 0) return;
    if (last?.place === place) last.extents += count;
    else recorded.push({ extents: count, place });
  };
  let at = 0;
  const places = new Map<RemotePoint, number>();
  for (const { first, count, point } of runs) {
    add(first - at, 0);
    let place = places.get(point);
    if (place === undefined) {
      points.push(point);
      place = points.length;
      places.set(point, place);
    }
    add(count, place);
    at = first + count;
  }
  add(extents - at, 0);
  return recorded;
}
