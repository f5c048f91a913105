/*
 * `varve image discard`: throws the image file's content away and builds it from the log again, as long as the log reaches back
 * to LSN 1; else refused with nothing changed. The new image is built beside the old one, made durable, and takes its name
 * in one step, so a discard that stops anywhere leaves the old state or the new one. Called by services/storage/layer.ts; the
 * log is folded by file-fold.ts. docs/specs/space-and-repair.md.
 */
import type { VolumeOrigin } from "#shared/domain/archive.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { type Checkpoint, isAdoptBegun, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";
import { FileFold } from "./file-fold.ts";
import {
  lookAtImage,
  openLocked,
  RepairLog,
  type RepairSetup,
  rebuildPathOf,
  removeRebuild,
  requireOwn,
  requireWhole,
  withSlabs,
  writeCheckpoint,
} from "./image-files.ts";

const slabBytes = 2 * limits.batchPayloadBytesMax;

export async function discardImage(setup: RepairSetup): Promise<ImageReport> {
  const known = await knownCheckpoint(setup);
  // Held until the new image has taken its place: whoever still uses the old one keeps it.
  const old = await openLocked(setup);
  try {
    const log = await openWholeLog(setup, known?.appliedLsn ?? 0);
    await removeRebuild(setup);
    return await withSlabs(setup.store, 1, slabBytes, async ([slab]) => {
      if (slab === undefined) throw new TypeError("one slab was asked for");
      return await rebuild(setup, log, slab);
    });
  } finally {
    await old?.close();
    await setup.log.close();
  }
}

async function rebuild(setup: RepairSetup, log: LogWriter, slab: Slab): Promise<ImageReport> {
  const { store, volume, paths } = setup;
  const path = rebuildPathOf(setup);
  const file = await store.open(path, { create: true, access: "buffered" });
  try {
    const fold = new FileFold(file, slab, volume.sizeBytes);
    try {
      for await (const batch of log.read(1)) await fold.add(batch);
      await fold.finish();
    } catch (cause) {
      await store.remove(path).catch(() => undefined);
      throw rebuildFailed(setup, cause);
    }
    const { last, sizeBytes } = fold;
    if (last === null) throw new TypeError("an opened log holds its epoch entry");
    await takePlace(setup, file, { last, line: log.state().line, sizeBytes });
    return {
      name: volume.name,
      clean: true,
      findings: [`discarded: ${paths.image} was built from the log, LSN 1 to ${log.state().lastLsn}`],
      fields: { image: paths.image, sizeBytes, appliedLsn: log.state().lastLsn },
    };
  } finally {
    await file.close();
  }
}

/**
 * The new image under the image's name first, then the checkpoint that speaks of it. In between stands the old checkpoint: if it
 * was detached, it refuses the new file; if it was attached, replay from its LSN makes the same of the new file.
 */
async function takePlace(
  setup: RepairSetup,
  file: BlockFile,
  built: { readonly last: Batch; readonly line: string; readonly sizeBytes: number },
): Promise<void> {
  const { store, volume, paths } = setup;
  await store.rename(rebuildPathOf(setup), paths.image);
  await store.syncDirectory(paths.directory);
  // The rename counts as a change of the file: its times are taken, durable, only now.
  await file.syncWithTimes();
  const { sizeBytes, mtimeNs, ctimeNs, inode } = await file.facts();
  await writeCheckpoint(setup, {
    volumeId: volume.id,
    line: built.line,
    epoch: built.last.epoch,
    appliedLsn: built.last.firstLsn + built.last.entries.length - 1,
    batchChecksum: built.last.checksum,
    sizeBytes: built.sizeBytes,
    residency: "full",
    position: null,
    detached: { sizeBytes, mtimeNs, ctimeNs, inode },
  });
}

/** The checkpoint, where it can be read. */
async function knownCheckpoint(setup: RepairSetup): Promise<Checkpoint | null> {
  const look = await lookAtImage(setup);
  const { checkpoint } = look;
  requireOwn(setup, checkpoint);
  requireWhole(setup, look);
  if (setup.origin !== undefined && setup.origin !== null) throw beganElsewhere(setup, setup.origin);
  if (checkpoint === null || isBadCheckpoint(checkpoint)) return null;
  if (!isAdoptBegun(checkpoint)) return checkpoint;
  const { name } = setup.volume;
  throw new VarveError(
    "AdoptUnfinished",
    "Invalid",
    `an adopt of volume ${name} was begun and did not end: its log holds a part of the new content`,
    { hint: `Only the image is whole. Run varve image adopt ${name} again: it begins from the start.` },
  );
}

async function openWholeLog(setup: RepairSetup, knownLsn: number): Promise<LogWriter> {
  let log: LogWriter;
  try {
    log = (await RepairLog.open(setup, "discard", knownLsn)).writer;
  } catch (cause) {
    if (cause instanceof VarveError && cause._tag === "LogStartsLate") throw logTooShort(setup, cause);
    throw cause;
  }
  if (log.state().oldestLsn > 1) throw logTooShort(setup, undefined);
  return log;
}

function beganElsewhere(setup: RepairSetup, origin: VolumeOrigin): VarveError {
  const { name } = setup.volume;
  return new VarveError(
    "LogOfClone",
    "Invalid",
    `volume ${name} began as ${origin.name} at LSN ${origin.lsn}, so its image can't be built from its own log`,
    {
      hint:
        `Keep the image as it is with varve image adopt ${name}, or make a new volume of a point: ` +
        `varve volume create NEW --from ${name}@POINT. Nothing was changed.`,
      fields: { name, origin: origin.volumeId, lsn: origin.lsn },
    },
  );
}

function logTooShort(setup: RepairSetup, cause: unknown): VarveError {
  const { name } = setup.volume;
  return new VarveError(
    "LogTooShort",
    "Invalid",
    `the log of volume ${name} no longer reaches back to its first entry, so the image can't be built from it`,
    {
      hint:
        `Keep the image as it is with varve image adopt ${name}, or put a backup of disk.raw in its place and adopt that. ` +
        "Nothing was changed.",
      cause,
    },
  );
}

function rebuildFailed(setup: RepairSetup, cause: unknown): VarveError {
  const error = toVarveError(cause, "build the image from the log");
  if (error.kind !== "Full") return error;
  return new VarveError(
    "RebuildSpaceError",
    "Full",
    `no room for a second image beside ${setup.paths.image}`,
    {
      hint: "A discard builds the new image before it gives up the old one. Free space there, then discard again. Nothing was changed.",
      cause,
    },
  );
}
