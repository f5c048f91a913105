/*
 * Does what the scan found necessary before anything of a log is used: writes again what may have been in the page cache only,
 * cuts what is behind the end, removes what is dead, syncs the folder; then opens the segments for the writer. Called by
 * embedded-file.ts at open; each step may be cut short by a crash and is done again then.
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { LogSetup } from "./log-options.ts";
import type { FoundFile } from "./recovery-files.ts";
import type { FoundLog, RewriteRange } from "./recovery-scan.ts";
import type { ScanMemory } from "./scan-memory.ts";
import { LogSegment, segmentBodyStart } from "./segment-file.ts";
import { SegmentSet } from "./segment-set.ts";

/** Recovery steps 6 to 8. */
export async function repairLog(setup: LogSetup, found: FoundLog, memory: ScanMemory): Promise<void> {
  const { store, directory } = setup;
  const slab = found.rewrite.length > 0 ? memory.takeLarge() : memory.takeSmall();
  try {
    for (const range of found.rewrite) await rewriteRange(setup, range, slab);
    for (const file of found.behindEnd) await zeroHeader(setup, file, slab);
  } finally {
    memory.give(slab);
  }
  for (const file of found.dead) await store.remove(file.path);
  await store.syncDirectory(directory);
}

/** The same bytes to the same place, durable. */
async function rewriteRange(setup: LogSetup, range: RewriteRange, slab: Slab): Promise<void> {
  const { path } = range.segment;
  const source = await setup.store.open(path, { readOnly: true, access: "buffered" });
  const target = await setup.store.open(path, { access: "direct" });
  try {
    for (let offset = range.from; offset < range.to; ) {
      const length = Math.min(setup.groupBytesMax, slab.bytes.byteLength, range.to - offset);
      await source.read(slab, 0, length, offset);
      await target.writeDurable([{ slab, start: 0, length }], offset);
      offset += length;
    }
  } finally {
    await source.close();
    await target.close();
  }
}

/** The segment has not started any more: what stands in it can't be taken for a part of the log. */
async function zeroHeader(setup: LogSetup, found: FoundFile, slab: Slab): Promise<void> {
  const file = await setup.store.open(found.path, { access: "direct" });
  try {
    slab.bytes.fill(0, 0, segmentBodyStart);
    await file.writeDurable([{ slab, start: 0, length: segmentBodyStart }], 0);
  } finally {
    await file.close();
  }
}

/** Opens the current segment and what is usable ahead of it. For a new log the current one is made. */
export async function openSegments(
  setup: LogSetup,
  found: FoundLog,
  access: "direct" | "buffered",
): Promise<SegmentSet> {
  const live = [...found.live];
  const ahead: LogSegment[] = [];
  const spare = [...found.behindEnd, ...found.unused].sort((a, b) => a.sequence - b.sequence);
  for (const file of spare) {
    const segment = await openSpare(setup, file, access);
    if (segment !== null) ahead.push(segment);
  }
  const current = live.at(-1);
  if (current === undefined) live.push(ahead.shift() ?? (await createFirst(setup, access)));
  else current.file = await setup.store.open(current.path, { access });
  return new SegmentSet(setup, live, ahead);
}

/** A file that has not started: room, where it has the right size and its blocks can be had; else it is removed. */
async function openSpare(
  setup: LogSetup,
  found: FoundFile,
  access: "direct" | "buffered",
): Promise<LogSegment | null> {
  const { store, directory, segmentBytes } = setup;
  if (found.sizeBytes <= segmentBytes) {
    const segment = new LogSegment(directory, found.sequence, segmentBytes);
    segment.preparedBytes = found.sizeBytes;
    segment.file = await store.open(segment.path, { access });
    try {
      await segment.file.allocate(0, segmentBytes);
      return segment;
    } catch (cause) {
      await segment.closeFile();
      if (!(cause instanceof FileStoreError) || cause.kind !== "Full") throw cause;
    }
  }
  await store.remove(found.path);
  return null;
}

async function createFirst(setup: LogSetup, access: "direct" | "buffered"): Promise<LogSegment> {
  const { store, directory, segmentBytes } = setup;
  const segment = new LogSegment(directory, 1, segmentBytes);
  segment.file = await store.open(segment.path, { create: true, access });
  try {
    await segment.file.allocate(0, segmentBytes);
    await store.syncDirectory(directory);
  } catch (cause) {
    await segment.closeFile();
    await store.remove(segment.path);
    throw cause;
  }
  return segment;
}
