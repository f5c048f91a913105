/*
 * `varve image adopt`: somebody wrote to the image while Varve did not hold it, and that is to count. Appends the file's whole
 * content to the log, data as writes and holes as trims (content-appender.ts), so that the log's fold is again the image.
 * From before the first entry until after the last one the checkpoint says that an adopt is under way: nothing but another
 * adopt, which begins again, takes such an image. Called by services/storage/layer.ts. docs/specs/space-and-repair.md.
 */
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { volumeSizeMistake } from "#shared/domain/volume.ts";
import { adoptingFile, type Checkpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { BlockFile, FileFacts } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import { appenderSlabBytes, ContentAppender, type DurableEnd } from "./content-appender.ts";
import { changedFacts } from "./image-check.ts";
import {
  type ImageLook,
  lookAtImage,
  openLocked,
  RepairLog,
  type RepairSetup,
  removeRebuild,
  requireOwn,
  requireWhole,
  withSlabs,
  writeCheckpoint,
} from "./image-files.ts";

export async function adoptImage(setup: RepairSetup): Promise<ImageReport> {
  const { volume, paths } = setup;
  const look = await lookAtImage(setup);
  const checkpoint = requireAdoptable(setup, look);
  const file = await openLocked(setup);
  if (file === null) throw imageMissing(setup);
  try {
    const facts = await file.facts();
    if (changedFacts(checkpoint, facts).length === 0) {
      return {
        name: volume.name,
        clean: true,
        findings: ["the image is as Varve left it: there is nothing to adopt"],
        fields: { image: paths.image, appliedLsn: checkpoint.appliedLsn },
      };
    }
    requireVolumeSize(setup, facts);
    await removeRebuild(setup);
    return await withSlabs(setup.store, 2, appenderSlabBytes, (slabs) =>
      adoptContent(setup, checkpoint, file, slabs),
    );
  } finally {
    await file.close();
    await setup.log.close();
  }
}

async function adoptContent(
  setup: RepairSetup,
  checkpoint: Checkpoint,
  file: BlockFile,
  slabs: readonly Slab[],
): Promise<ImageReport> {
  const { volume, paths } = setup;
  // What is read from now on is on disk, so that no power cut takes it back after the checkpoint counted on it.
  await file.syncWithTimes();
  const facts = await file.facts();
  const log = await RepairLog.open(setup, "adopt", checkpoint.appliedLsn);
  const start = await requireContinuing(setup, checkpoint, log);
  const { line } = log.writer.state();
  const base = { volumeId: volume.id, line, residency: "full", position: null } as const;
  const underWay = (end: DurableEnd): Promise<void> =>
    writeCheckpoint(setup, {
      ...base,
      ...positionOf(end),
      sizeBytes: facts.sizeBytes,
      detached: adoptingFile,
    });
  await writeCheckpoint(setup, { ...checkpoint, detached: adoptingFile });
  const appender = new ContentAppender(log, slabs, start, async (end) => {
    // A full log: all that it holds up to here is in the file, too. First the checkpoint knows so, then the log forgets.
    await underWay(end);
    await log.writer.release(end.lsn + 1);
  });
  await appender.addSize(facts.sizeBytes);
  await appender.addFile(file, facts.sizeBytes);
  const end = await appender.finish();
  const after = await file.facts();
  requireUnchanged(setup, facts, after);
  const { sizeBytes, mtimeNs, ctimeNs, inode } = after;
  const detached = { sizeBytes, mtimeNs, ctimeNs, inode };
  await writeCheckpoint(setup, { ...base, ...positionOf(end), sizeBytes, detached });
  return {
    name: volume.name,
    clean: true,
    findings: [`adopted: volume ${volume.name} is what ${paths.image} holds now`],
    fields: { image: paths.image, sizeBytes, lastLsn: end.lsn, ...appender.counters },
  };
}

function positionOf(end: DurableEnd): Pick<Checkpoint, "appliedLsn" | "epoch" | "batchChecksum"> {
  return { appliedLsn: end.lsn, epoch: end.epoch, batchChecksum: end.checksum };
}

/** The checkpoint of an image that may be adopted; throws, with nothing changed, where that would lose what the log holds. */
function requireAdoptable(setup: RepairSetup, look: ImageLook): Checkpoint {
  const { paths, volume } = setup;
  const { checkpoint, facts } = look;
  requireOwn(setup, checkpoint);
  requireWhole(setup, look);
  if (checkpoint === null || isBadCheckpoint(checkpoint)) {
    const why = checkpoint === null ? "does not exist" : `is damaged (${checkpoint.detail})`;
    throw new VarveError(
      "CheckpointUnusable",
      "Corrupt",
      `${checkpointPathOf(paths.image)} ${why}: nobody can tell which acknowledged writes the image lacks`,
      {
        hint:
          `Put the checkpoint back, or build the image from the log: varve image discard ${volume.name}. Where the log no longer ` +
          "reaches back, copy the image into a new volume with nbdcopy and look at what it holds.",
        fields: { path: checkpointPathOf(paths.image) },
      },
    );
  }
  if (facts === null) throw imageMissing(setup);
  if (checkpoint.detached === null) {
    throw new VarveError(
      "ImageNotDetached",
      "Invalid",
      `${paths.image} was not closed in good order: the log may hold acknowledged writes that it lacks`,
      {
        hint: "Start `varve up` once: it applies the log. Then stop it, change the image, and adopt the change.",
      },
    );
  }
  return checkpoint;
}

/** The log goes on where the image stood; gives the log's end. */
async function requireContinuing(
  setup: RepairSetup,
  checkpoint: Checkpoint,
  log: RepairLog,
): Promise<DurableEnd> {
  const { line, lastLsn } = log.writer.state();
  const next = await log.batchAt(checkpoint.appliedLsn + 1);
  const wrong =
    checkpoint.line !== null && checkpoint.line !== line
      ? `it is line ${line}, the image follows line ${checkpoint.line}`
      : next.previousChecksum !== checkpoint.batchChecksum
        ? `its batch before LSN ${next.firstLsn} is not the one that the image holds`
        : null;
  if (wrong !== null) {
    throw new VarveError(
      "LogOfOtherImage",
      "Corrupt",
      `${setup.paths.log} is not the log of this image: ${wrong}`,
      {
        hint: "Put the log back that belongs to the image. The image was not changed.",
        fields: { appliedLsn: checkpoint.appliedLsn, lastLsn },
      },
    );
  }
  // Read again by its number: entries of an adopt that was begun before may lie between.
  const last = await log.batchAt(lastLsn);
  return { lsn: lastLsn, epoch: last.epoch, checksum: last.checksum };
}

function requireVolumeSize(setup: RepairSetup, { sizeBytes }: FileFacts): void {
  const mistake = volumeSizeMistake(sizeBytes);
  if (mistake === null) return;
  throw new VarveError(
    "ImageSizeInvalid",
    "Invalid",
    `the size of ${setup.paths.image}, ${sizeBytes}, ${mistake}`,
    {
      hint: "Give the file a size that a volume may have: truncate -s SIZE FILE, a multiple of 512 bytes.",
      fields: { sizeBytes },
    },
  );
}

function requireUnchanged(setup: RepairSetup, before: FileFacts, after: FileFacts): void {
  if (before.mtimeNs === after.mtimeNs && before.sizeBytes === after.sizeBytes) return;
  throw new VarveError(
    "ImageInUse",
    "Retry",
    `${setup.paths.image} was written to while it was being adopted`,
    {
      hint: "Stop whatever writes to it, then adopt again.",
      fields: { path: setup.paths.image },
    },
  );
}

function imageMissing(setup: RepairSetup): VarveError {
  return new VarveError("ImageMissing", "Invalid", `the image ${setup.paths.image} does not exist`, {
    hint: `Put it back, or build it again from the log: varve image discard ${setup.volume.name}.`,
    fields: { path: setup.paths.image },
  });
}
