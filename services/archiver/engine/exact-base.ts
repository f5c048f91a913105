/*
 * Exact bases: the disk at one LSN as chunks, so that a snapshot which outlived the window needs no log. Reads the point as anybody
 * does, names what the bucket has already, uploads the rest. Called by history-trimmer.ts, which publishes it; chunks and pages
 * are written by chunk-writer.ts and base-writer.ts.
 */
import { type BaseContent, type ExtentRun, type VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { needsOf } from "#shared/domain/retention-plan.ts";
import type { PointSource, VolumeHistory } from "#shared/ports/history.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { type WrittenBase, writeBase } from "./base-writer.ts";
import { BucketPatience } from "./bucket-patience.ts";
import { BucketReader } from "./bucket-reader.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import type { ExactBase, ExactBaseBuilder } from "./history-trimmer.ts";

export interface ExactBaseParts {
  readonly parts: ArchiveParts;
  /** The past of a volume that is served here. */
  history(volumeId: string): Promise<VolumeHistory>;
  /** The process ends: give up. */
  isStopped(): boolean;
}

export function exactBaseBuilder(setup: ExactBaseParts): ExactBaseBuilder {
  return async (volume, lsn) => {
    const manifest = volume.archive.manifest();
    if (manifest === null) throw notNow("nothing was published yet");
    return await buildExactBase(setup, manifest, lsn);
  };
}

async function buildExactBase(
  setup: ExactBaseParts,
  manifest: VolumeManifest,
  lsn: number,
): Promise<ExactBase> {
  const { parts } = setup;
  const patience = new BucketPatience({
    clock: parts.clock,
    random: parts.random,
    place: parts.store.place,
    onNote: () => undefined,
  });
  // Whoever trims goes on with the next volume when the bucket is away: nothing waits for this base.
  const isUnwanted = (): boolean => setup.isStopped() || patience.awayMs > limits.clockJumpMs;
  const history = await setup.history(manifest.volumeId);
  const writer = new ChunkWriter({ parts, patience, isUnwanted });
  const source = await history.open(lsn);
  try {
    const extents = Math.ceil(source.sizeBytes / limits.extentBytes);
    const before = await baseBefore(parts, history, manifest, lsn);
    const names = new Map<number, string | null>();
    for await (const extent of extentsToRead(source, before, extents)) {
      if (isUnwanted()) throw notNow("the process ends, or the bucket is away");
      names.set(extent, await store(parts, source, writer, extent));
    }
    const { volumeId, line, archiverEpoch } = manifest;
    const draft = {
      volumeId,
      line,
      archiverEpoch,
      s: lsn,
      e: lsn,
      sizeBytes: source.sizeBytes,
      previous: before?.content ?? null,
      zeroes: [],
      names,
      newChunkBytes: writer.newBytes,
    };
    const written = await writeBase(parts, patience, draft, isUnwanted);
    return published(parts, writer, written);
  } catch (cause) {
    writer.end();
    throw cause;
  } finally {
    await source.close();
  }
}

/** A base to start from, and where the disk at the point may differ from what its chunks hold. */
interface BaseBefore {
  readonly content: BaseContent;
  readonly changed: readonly ExtentRun[];
}

/** The base that the point is read from, where it is known what entries changed since it began; null: every extent is read. */
async function baseBefore(
  parts: ArchiveParts,
  history: VolumeHistory,
  manifest: VolumeManifest,
  lsn: number,
): Promise<BaseBefore | null> {
  const needs = needsOf(manifest, lsn);
  const ref = needs?.bases[0];
  // Through a rollback the log between base and point is not one run: read it all, the chunks are there already.
  if (ref === undefined || needs === null || needs.log.length > 1) return null;
  const content = await new BucketReader(parts.store).base(ref.key);
  if (ref.s === lsn) return { content, changed: [] };
  const ranges = await history.changes(ref.s, lsn).catch(() => null);
  if (ranges === null) return null;
  const changed = ranges.map(({ offset, length }) => {
    const first = Math.floor(offset / limits.extentBytes);
    return { first, count: Math.floor((offset + length - 1) / limits.extentBytes) - first + 1 };
  });
  return { content, changed };
}

async function* extentsToRead(
  source: PointSource,
  before: BaseBefore | null,
  extents: number,
): AsyncGenerator<number> {
  if (before === null) {
    yield* source.extents();
    return;
  }
  let next = 0;
  for (const { first, count } of before.changed) {
    for (let extent = Math.max(first, next); extent < Math.min(first + count, extents); extent += 1) {
      yield extent;
      next = extent + 1;
    }
  }
}

async function store(
  parts: ArchiveParts,
  source: PointSource,
  writer: ChunkWriter,
  extent: number,
): Promise<string | null> {
  const offset = extent * limits.extentBytes;
  const length = Math.min(limits.extentBytes, source.sizeBytes - offset);
  const slab = parts.extentMemory.take();
  try {
    await source.read(slab, 0, length, offset);
    return await writer.store(slab.bytes.subarray(0, length), null);
  } finally {
    parts.extentMemory.give(slab);
  }
}

function published(parts: ArchiveParts, writer: ChunkWriter, { ref, stored }: WrittenBase): ExactBase {
  return {
    ref,
    objects: { stored: [...writer.stored, ...stored], borrowedKeys: [...writer.borrowedKeys] },
    isSound: () => writer.isSound,
    end: () => {
      writer.end();
      for (const { key } of stored) parts.uploads.end(key);
    },
  };
}

function notNow(why: string): VarveError {
  return new VarveError("BaseGivenUp", "Retry", `no exact base now: ${why}`, {
    hint: "A later run builds it; until then all that the snapshot needs stays.",
  });
}
