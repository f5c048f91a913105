/*
 * One read of a point as frames to fetch and slices to copy: what the map names from segments and hot log, the rest from the
 * base's extents. Pure; point-source.ts carries it out, for reads and for read-ahead alike.
 */
import { limits } from "#shared/domain/limits.ts";
import type { FoldMap } from "./fold-map.ts";
import type { SegmentPlace } from "./frame-reader.ts";
import type { HotPlace } from "./hot-tail.ts";

/** Bytes [from, from + length) of a frame or of a batch's payload go to `at` of the read's target. */
export interface Slice {
  readonly from: number;
  readonly at: number;
  readonly length: number;
}

/** Slices by frame number. */
export type FrameSlices = Map<number, Slice[]>;

export interface ReadPlan {
  readonly zeroes: { readonly at: number; readonly length: number }[];
  readonly segments: Map<SegmentPlace, FrameSlices>;
  /** By number of the batch. */
  readonly hot: Map<HotPlace, FrameSlices>;
  /** Extents of the base. */
  readonly base: Map<number, FrameSlices>;
}

const frameBytes = limits.archiveFrameBytes;

/** The disk's range [start, end); all past the disk's end is zero. */
export function planRead(map: FoldMap, start: number, end: number): ReadPlan {
  const plan: ReadPlan = { zeroes: [], segments: new Map(), hot: new Map(), base: new Map() };
  const inside = Math.max(start, Math.min(end, map.sizeBytes));
  let next = start;
  map.visit(start, inside, (from, to, place, position) => {
    if (next < from) addBase(plan, next, from, start);
    next = to;
    const at = from - start;
    const length = to - from;
    if (place.kind === "zero") plan.zeroes.push({ at, length });
    else if (place.kind === "hot") addBatches(framesOf(plan.hot, place), place.starts, position, at, length);
    else addFrames(framesOf(plan.segments, place), position, at, length);
  });
  if (next < inside) addBase(plan, next, inside, start);
  if (inside < end) plan.zeroes.push({ at: inside - start, length: end - inside });
  return plan;
}

function addBase(plan: ReadPlan, from: number, to: number, start: number): void {
  for (let offset = from; offset < to; ) {
    const extent = Math.floor(offset / limits.extentBytes);
    const extentStart = extent * limits.extentBytes;
    const length = Math.min(to, extentStart + limits.extentBytes) - offset;
    addFrames(framesOf(plan.base, extent), offset - extentStart, offset - start, length);
    offset += length;
  }
}

/** Cuts [position, position + length) at frame borders. */
function addFrames(frames: FrameSlices, position: number, at: number, length: number): void {
  for (let done = 0; done < length; ) {
    const number = Math.floor((position + done) / frameBytes);
    const from = position + done - number * frameBytes;
    const count = Math.min(frameBytes - from, length - done);
    sliceList(frames, number).push({ from, at: at + done, length: count });
    done += count;
  }
}

/** Cuts [position, position + length) of the stream of payloads where batches begin. */
function addBatches(
  batches: FrameSlices,
  starts: Float64Array,
  position: number,
  at: number,
  length: number,
): void {
  let batch = lastAtOrBelow(starts, position);
  for (let done = 0; done < length; ) {
    const start = starts[batch] as number;
    const from = position + done - start;
    const count = Math.min((starts[batch + 1] as number) - start - from, length - done);
    if (count > 0) sliceList(batches, batch).push({ from, at: at + done, length: count });
    done += count;
    batch += 1;
  }
}

/** The last of equals: batches without payload begin where the next one does. */
function lastAtOrBelow(sorted: Float64Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as number) <= value) low = middle;
    else high = middle;
  }
  return low;
}

function framesOf<K>(byKey: Map<K, FrameSlices>, key: K): FrameSlices {
  let frames = byKey.get(key);
  if (frames === undefined) {
    frames = new Map();
    byKey.set(key, frames);
  }
  return frames;
}

function sliceList<K>(byKey: Map<K, Slice[]>, key: K): Slice[] {
  let slices = byKey.get(key);
  if (slices === undefined) {
    slices = [];
    byKey.set(key, slices);
  }
  return slices;
}
