/*
 * `varve image discard`: throws the image file's content away and builds it from the log again, from the first entry on.
 * Possible as long as the log still reaches back to LSN 1; else refused with nothing changed. Called by
 * services/storage/layer.ts. Stopped in the middle it leaves an image that the next start goes on to fill. See
 * docs/specs/replica.md.
 */
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { type Checkpoint, encodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";
import { checkImage, type ImageLook, lookAtImage, type RepairSetup } from "./image-check.ts";
import { RepairLog } from "./repair-log.ts";

export async function discardImage(setup: RepairSetup): Promise<ImageReport> {
  const { volume, paths } = setup;
  const look = await lookAtImage(setup);
  const known = ownCheckpoint(setup, look);
  const before = look.facts === null ? [`${paths.image} did not exist`] : (await checkImage(setup)).findings;
  const log = await RepairLog.open(setup.log, `image discard ${volume.name}`, known?.appliedLsn ?? 0);
  try {
    requireWholeLog(setup, log.writer);
    const sizeBytes = await firstSize(log.writer, known?.sizeBytes ?? volume.sizeBytes);
    await emptyImage(setup, sizeBytes);
    const image = await setup.attach();
    try {
      for await (const batch of log.writer.read(1)) await image.apply([batch]);
      const { appliedLsn, sizeBytes: finalBytes } = image.state();
      await image.detach();
      return {
        name: volume.name,
        clean: true,
        findings: [...before, `discarded: ${paths.image} was built from the log, LSN 1 to ${appliedLsn}`],
        fields: { image: paths.image, sizeBytes: finalBytes, appliedLsn },
      };
    } finally {
      await image.abandon();
    }
  } finally {
    await log.close();
  }
}

function ownCheckpoint(setup: RepairSetup, look: ImageLook): Checkpoint | null {
  const { checkpoint } = look;
  if (checkpoint === null || isBadCheckpoint(checkpoint)) return null;
  // Another volume's checkpoint says nothing about this one.
  return checkpoint.volumeId === setup.volume.id ? checkpoint : null;
}

function requireWholeLog(setup: RepairSetup, log: LogWriter): void {
  const { oldestLsn, lastLsn } = log.state();
  if (oldestLsn === 1) return;
  throw new VarveError(
    "LogTooShort",
    "Invalid",
    `the log of volume ${setup.volume.name} starts at LSN ${oldestLsn}: the image can't be built from it alone`,
    {
      hint: "Keep the image as it is with `varve image adopt NAME`, or put a backup of the image in its place and adopt that.",
      fields: { oldestLsn, lastLsn },
    },
  );
}

/**
 * A size that every entry lies in until the log's first resize. The log does not say how large the disk began; larger than
 * it was does no harm, because nothing was written there and the resizes bring the size that counts.
 */
async function firstSize(log: LogWriter, knownBytes: number): Promise<number> {
  let endBytes = 0;
  let resized = false;
  for await (const batch of log.read(1)) {
    for (const entry of batch.entries) {
      if (entry.kind === "resize") {
        endBytes = Math.max(endBytes, entry.sizeBytes);
        resized = true;
      } else if ("offset" in entry) endBytes = Math.max(endBytes, entry.offset + entry.length);
    }
  }
  return resized ? Math.max(endBytes, knownBytes) : knownBytes;
}

/** An image of zeroes, durable, and only then a checkpoint that has it filled from LSN 1. */
async function emptyImage(setup: RepairSetup, sizeBytes: number): Promise<void> {
  const { store, paths, volume } = setup;
  const file = await store.open(paths.image, { create: true, access: "buffered" });
  try {
    file.lockAsImageWriter();
    await file.truncate(0);
    await file.truncate(sizeBytes);
    await file.sync();
    await store.syncDirectory(paths.directory);
  } finally {
    await file.close();
  }
  const empty: Checkpoint = {
    volumeId: volume.id,
    line: null,
    epoch: 0,
    appliedLsn: 0,
    batchChecksum: 0n,
    sizeBytes,
    residency: "full",
    position: null,
    detached: null,
  };
  await store.replaceWhole(checkpointPathOf(paths.image), encodeCheckpoint(empty));
}
