/*
 * `varve image adopt`: somebody wrote to the image while Varve did not hold it, and that is to count. Appends the whole
 * present content to the log, data as writes and holes as trims, so that the fold of the log is the image again; only then
 * the checkpoint says so. Called by services/storage/layer.ts. Stopped in the middle, it leaves the old checkpoint, which
 * still refuses the image: adopt is simply run again. See docs/specs/replica.md.
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { volumeSizeMistake } from "#shared/domain/volume.ts";
import { type Checkpoint, encodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import { checkImage, type ImageLook, lookAtImage, type RepairSetup } from "./image-check.ts";
import { RepairLog } from "./repair-log.ts";

export async function adoptImage(setup: RepairSetup): Promise<ImageReport> {
  const look = await lookAtImage(setup);
  const checkpoint = requireAdoptable(setup, look);
  const before = await checkImage(setup);
  if (before.clean) return { ...before, findings: ["the image is as Varve left it: nothing to adopt"] };
  const { store, volume, paths } = setup;
  const file = await store.open(paths.image, { access: "buffered" });
  try {
    file.lockAsImageWriter();
    const { sizeBytes } = await file.facts();
    requireVolumeSize(setup, sizeBytes);
    const log = await RepairLog.open(setup.log, `image adopt ${volume.name}`, checkpoint?.appliedLsn ?? 0);
    try {
      const adoption = new Adoption(file, log, store.allocateSlab(slabBytes), sizeBytes);
      const last = await adoption.run();
      // What was read is on disk before the checkpoint says that it is the fold.
      await file.syncWithTimes();
      const { line } = log.writer.state();
      const { mtimeNs, ctimeNs, inode } = await file.facts();
      const adopted: Checkpoint = {
        volumeId: volume.id,
        line,
        epoch: last.epoch,
        appliedLsn: last.lastLsn,
        batchChecksum: last.checksum,
        sizeBytes,
        residency: "full",
        position: null,
        detached: { sizeBytes, mtimeNs, ctimeNs, inode },
      };
      await store.replaceWhole(checkpointPathOf(paths.image), encodeCheckpoint(adopted));
      store.shrinkSlab(adoption.slab);
      return {
        name: volume.name,
        clean: true,
        findings: [...before.findings, `adopted: the volume is what ${paths.image} holds now`],
        fields: { image: paths.image, sizeBytes, lastLsn: last.lastLsn, ...adoption.counters },
      };
    } finally {
      await log.close();
    }
  } finally {
    await file.close();
  }
}

const slabBytes = limits.batchHeaderBytesMax + limits.batchPayloadBytesMax;

/** The checkpoint, or null where it tells nothing. Throws where adopting would lose what the log holds. */
function requireAdoptable(setup: RepairSetup, look: ImageLook): Checkpoint | null {
  const { paths, volume } = setup;
  if (look.facts === null) {
    throw new VarveError("ImageMissing", "Invalid", `the image ${paths.image} does not exist`, {
      hint: "Put it back, or build it again from the log: `varve image discard NAME`.",
    });
  }
  const { checkpoint } = look;
  // Without a checkpoint nobody can tell what the image holds; its content counts because its owner says so.
  if (checkpoint === null || isBadCheckpoint(checkpoint)) return null;
  if (checkpoint.volumeId !== volume.id) {
    throw new VarveError(
      "CheckpointOfOtherVolume",
      "Invalid",
      `${checkpointPathOf(paths.image)} belongs to volume id ${checkpoint.volumeId}, not ${volume.id}`,
      { hint: "Put this volume's own files back." },
    );
  }
  if (checkpoint.detached === null) {
    throw new VarveError(
      "ImageNotDetached",
      "Invalid",
      `${paths.image} was not closed in good order: the log holds acknowledged writes that it lacks`,
      { hint: "Start `varve up` once: it applies the log. Then there is nothing to adopt." },
    );
  }
  return checkpoint;
}

function requireVolumeSize(setup: RepairSetup, sizeBytes: number): void {
  const mistake = volumeSizeMistake(sizeBytes);
  if (mistake === null) return;
  throw new VarveError(
    "ImageSizeInvalid",
    "Invalid",
    `the size of ${setup.paths.image}, ${sizeBytes}, ${mistake}`,
    {
      hint: "Give the file a size that is a multiple of 512 bytes: truncate -s SIZE FILE.",
      fields: { sizeBytes },
    },
  );
}

/** One pass over the image, into the log. */
class Adoption {
  readonly slab: Slab;
  readonly counters = { writtenBytes: 0, trimmedBytes: 0 };
  readonly #file: BlockFile;
  readonly #log: RepairLog;
  readonly #sizeBytes: number;
  #draft: BatchDraft<Slab>;

  constructor(file: BlockFile, log: RepairLog, slab: Slab, sizeBytes: number) {
    this.#file = file;
    this.#log = log;
    this.slab = slab;
    this.#sizeBytes = sizeBytes;
    this.#draft = new BatchDraft(slab);
  }

  /** Resolves with the last batch: where the image stands then. */
  async run(): Promise<{ readonly lastLsn: number; readonly epoch: number; readonly checksum: bigint }> {
    // First the size, so that every range lies inside.
    this.#draft.addValue(entryKind.resize, this.#sizeBytes);
    for (let at = 0; at < this.#sizeBytes; ) {
      const data = this.#file.nextData(at);
      const dataAt = data === -1 ? this.#sizeBytes : Math.min(data, this.#sizeBytes);
      if (dataAt > at) await this.#trim(at, dataAt - at);
      const hole = dataAt < this.#sizeBytes ? Math.min(this.#sizeBytes, this.#file.nextHole(dataAt)) : dataAt;
      await this.#copy(dataAt, hole);
      at = hole;
    }
    if (this.#draft.entryCount === 0) this.#draft.addValue(entryKind.mark, "adopted");
    const last = this.#draft;
    await this.#log.append(last);
    return { lastLsn: last.lastLsn, epoch: last.epoch, checksum: last.checksum };
  }

  async #trim(offset: number, length: number): Promise<void> {
    if (!this.#draft.fits(0)) await this.#append();
    this.#draft.addRange(entryKind.trim, offset, length);
    this.counters.trimmedBytes += length;
  }

  async #copy(from: number, end: number): Promise<void> {
    for (let at = from; at < end; ) {
      const room = this.#draft.payloadCapacityBytes - this.#draft.payloadBytes;
      const length = Math.min(end - at, room);
      if (length === 0 || !this.#draft.fits(length)) {
        await this.#append();
        continue;
      }
      await this.#file.read(this.slab, this.#draft.addWrite(at, length), length, at);
      this.counters.writtenBytes += length;
      at += length;
    }
  }

  async #append(): Promise<void> {
    await this.#log.append(this.#draft);
    this.#draft = new BatchDraft(this.slab);
  }
}
