/*
 * The extent table of a checkpoint (docs/formats/checkpoint.md, version 2): where the bytes of each extent are. Written and
 * read by checkpoint.ts; the replica image makes its table of it (adapters/replica-image/extent-table.ts).
 */
import { limits } from "#shared/domain/limits.ts";
import { extentBlocks, LocalBlocks } from "#shared/domain/local-blocks.ts";
import { VarintReader, VarintWriter } from "./varint.ts";

/** A disk as it was at an LSN, as remote extents name it. */
export interface RecordedPoint {
  readonly volumeId: string;
  readonly lsn: number;
}

/** `place`: 0 local, n points[n - 1]. Neighbours differ. */
export interface RecordedRun {
  readonly extents: number;
  readonly place: number;
}

export interface RecordedPart {
  readonly extent: number;
  readonly local: LocalBlocks;
}

export interface RecordedExtents {
  readonly points: readonly RecordedPoint[];
  readonly runs: readonly RecordedRun[];
  /** Ascending. */
  readonly parts: readonly RecordedPart[];
}

/** More runs of whole blocks than this are stored as a bitmap. */
const blockRunsMax = 32;
const bitmapForm = 1;

export function extentsOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / limits.extentBytes);
}

/** The table's bytes; the points are in the checkpoint's body. */
export function encodeExtents(table: RecordedExtents): Buffer {
  const bytes = new VarintWriter();
  bytes.add(table.runs.length);
  for (const run of table.runs) {
    bytes.add(run.extents);
    bytes.add(run.place);
  }
  bytes.add(table.parts.length);
  let next = 0;
  for (const { extent, local } of table.parts) {
    bytes.add(extent - next);
    next = extent + 1;
    encodeLocal(bytes, local);
  }
  return bytes.take();
}

function encodeLocal(bytes: VarintWriter, local: LocalBlocks): void {
  const runs = blockRuns(local);
  if (runs.length > 2 * blockRunsMax) {
    bytes.add(bitmapForm);
    bytes.addBytes(local.bitmap);
  } else {
    bytes.add(runs.length);
    for (const value of runs) bytes.add(value);
  }
  bytes.add(local.edgeCount);
  let end = 0;
  for (let at = 0; at < local.parts.length; at += 2) {
    const start = local.parts[at] as number;
    bytes.add(start - end);
    end = local.parts[at + 1] as number;
    bytes.add(end - start);
  }
}

/** Gap and length of each run of whole blocks, in turns. */
function blockRuns(local: LocalBlocks): number[] {
  const runs: number[] = [];
  let end = 0;
  for (let block = 0; block < extentBlocks; ) {
    if (!local.isWhole(block)) {
      block += 1;
      continue;
    }
    const start = block;
    while (block < extentBlocks && local.isWhole(block)) block += 1;
    runs.push(start - end, block - start);
    end = block;
  }
  return runs;
}

/** Reads the table of a volume of so many extents from bytes [from, end); null where it is not what any Varve writes. */
export function decodeExtents(
  bytes: Buffer,
  from: number,
  points: readonly RecordedPoint[],
  extents: number,
): RecordedExtents | null {
  const reader = new VarintReader(bytes, from);
  const runs = readRuns(reader, points.length, extents);
  if (runs === null) return null;
  const parts = readParts(reader, extents);
  if (parts === null || !reader.complete) return null;
  const table = { points, runs, parts };
  return extentsMistake(table, extents) === null ? table : null;
}

function readRuns(reader: VarintReader, points: number, extents: number): RecordedRun[] | null {
  const count = reader.number();
  if (count < 1 || count > extents) return null;
  const runs: RecordedRun[] = [];
  for (let index = 0; index < count; index += 1) {
    const run = { extents: reader.number(), place: reader.number() };
    if (!reader.ok || run.place > points) return null;
    runs.push(run);
  }
  return runs;
}

function readParts(reader: VarintReader, extents: number): RecordedPart[] | null {
  const count = reader.number();
  if (!reader.ok || count > extents) return null;
  const parts: RecordedPart[] = [];
  let next = 0;
  for (let index = 0; index < count; index += 1) {
    const extent = next + reader.number();
    const local = readLocal(reader);
    if (local === null || extent >= extents) return null;
    parts.push({ extent, local });
    next = extent + 1;
  }
  return parts;
}

function readLocal(reader: VarintReader): LocalBlocks | null {
  const local = new LocalBlocks();
  const form = reader.number();
  if (form === bitmapForm) {
    const bitmap = reader.bytes(extentBlocks / 8);
    if (bitmap === null) return null;
    addBitmap(local, bitmap);
    if (blockRuns(local).length <= 2 * blockRunsMax) return null;
  } else if (!readBlockRuns(reader, local, form)) return null;
  const count = reader.number();
  let end = 0;
  for (let index = 0; index < count; index += 1) {
    const start = end + reader.number();
    end = start + reader.number();
    const firstBlock = Math.floor(start / limits.blockBytes);
    const inOneBlock = firstBlock === Math.floor((end - 1) / limits.blockBytes);
    if (!reader.ok || end <= start || end > limits.extentBytes || !inOneBlock) return null;
    if (local.isWhole(firstBlock)) return null;
    local.add(start, end);
    // Parts that touched have become one, or a whole block.
    if (local.edgeCount !== index + 1) return null;
  }
  return reader.ok && !local.empty && !local.full ? local : null;
}

function readBlockRuns(reader: VarintReader, local: LocalBlocks, values: number): boolean {
  if (values % 2 !== 0 || values > 2 * blockRunsMax) return false;
  let end = 0;
  for (let index = 0; index < values; index += 2) {
    const gap = reader.number();
    const start = end + gap;
    end = start + reader.number();
    if (!reader.ok || (index > 0 && gap === 0) || end <= start || end > extentBlocks) return false;
    local.add(start * limits.blockBytes, end * limits.blockBytes);
  }
  return true;
}

function addBitmap(local: LocalBlocks, bitmap: Uint8Array): void {
  for (let block = 0; block < extentBlocks; block += 1) {
    if (((bitmap[block >>> 3] as number) & (1 << (block & 7))) === 0) continue;
    local.add(block * limits.blockBytes, (block + 1) * limits.blockBytes);
  }
}

/** One rule for both directions; null where the table is right. */
export function extentsMistake(table: RecordedExtents, extents: number): string | null {
  let total = 0;
  let place = -1;
  let pointsSeen = 0;
  for (const run of table.runs) {
    if (run.extents < 1 || run.place === place) return "a run that is empty or continues the one before";
    if (run.place > pointsSeen + 1 || run.place > table.points.length) return `place ${run.place}`;
    if (run.place > pointsSeen) pointsSeen = run.place;
    total += run.extents;
    ({ place } = run);
  }
  if (total !== extents) return `${total} extents of ${extents}`;
  if (pointsSeen === 0 || pointsSeen !== table.points.length) return "points that no extent uses, or none";
  if (table.points.length > limits.remotePointsMax) return `${table.points.length} points`;
  return partsMistake(table);
}

function partsMistake({ runs, parts }: RecordedExtents): string | null {
  let last = -1;
  let runAt = 0;
  let runEnd = runs[0]?.extents ?? 0;
  for (const { extent, local } of parts) {
    if (extent <= last) return "partly local extents out of order";
    last = extent;
    while (runAt < runs.length - 1 && runEnd <= extent) {
      runAt += 1;
      runEnd += runs[runAt]?.extents ?? 0;
    }
    if (extent >= runEnd || runs[runAt]?.place === 0) return `extent ${extent} is partly local and local`;
    if (local.empty || local.full) return `extent ${extent} has no parts`;
  }
  return null;
}
