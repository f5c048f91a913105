/*
 * The checkpoint beside an image: reading it with errors that name the file and the way out, and the comparison with the
 * image that tells whether somebody else wrote to it. Called by raw-file.ts at attach and detach; the bytes are
 * shared/formats/checkpoint.ts.
 */
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import {
  type Checkpoint,
  type DetachedFile,
  decodeCheckpoint,
  encodeCheckpoint,
  isAdoptBegun,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import type { FileFacts, FileStore } from "#shared/ports/file-store.ts";

const discardHint =
  "`varve image discard NAME` builds the image again from the log, where the log still reaches back to the first entry.";

/** The checkpoint of the image at `imagePath`; Corrupt where there is none or it is damaged, Invalid where it is another volume's. */
export async function readCheckpoint(
  store: FileStore,
  imagePath: string,
  volumeId: string,
): Promise<Checkpoint> {
  const path = checkpointPathOf(imagePath);
  const bytes = await store.readWhole(path);
  if (bytes === null) {
    throw new VarveError(
      "CheckpointMissing",
      "Corrupt",
      `the image has no checkpoint: ${path} does not exist`,
      {
        hint: discardHint,
        fields: { path },
      },
    );
  }
  const checkpoint = decodeCheckpoint(bytes);
  if (isBadCheckpoint(checkpoint)) {
    throw new VarveError("CheckpointDamaged", "Corrupt", `${path}: ${checkpoint.detail}`, {
      hint: checkpoint.fault === "version" ? "Use the newer Varve that wrote it." : discardHint,
      fields: { path, fault: checkpoint.fault },
    });
  }
  if (checkpoint.volumeId !== volumeId) {
    throw new VarveError(
      "CheckpointOfOtherVolume",
      "Invalid",
      `${path} belongs to volume id ${checkpoint.volumeId}, not ${volumeId}`,
      { hint: "Put this volume's own files back.", fields: { path, volumeId, found: checkpoint.volumeId } },
    );
  }
  return checkpoint;
}

/** Durable, atomic. */
export function writeCheckpoint(store: FileStore, imagePath: string, checkpoint: Checkpoint): Promise<void> {
  return store.replaceWhole(checkpointPathOf(imagePath), encodeCheckpoint(checkpoint));
}

/** The same with bytes that encodeCheckpoint() made before. */
export function writeCheckpointBytes(store: FileStore, imagePath: string, bytes: Buffer): Promise<void> {
  return store.replaceWhole(checkpointPathOf(imagePath), bytes);
}

export function detachedFileOf(facts: FileFacts): DetachedFile {
  return {
    sizeBytes: facts.sizeBytes,
    mtimeNs: facts.mtimeNs,
    ctimeNs: facts.ctimeNs,
    inode: facts.inode,
  };
}

/** What of the file is not as it was at the clean detach; null where all is. */
export function changeSince(detached: DetachedFile, facts: FileFacts): string | null {
  if (isAdoptBegun({ detached })) return "`varve image adopt` was begun and has not ended";
  if (facts.sizeBytes !== detached.sizeBytes) {
    return `its size is ${facts.sizeBytes} bytes, it was ${detached.sizeBytes}`;
  }
  if (facts.inode !== detached.inode) return "it is another file (a copy, or one put in its place)";
  if (facts.mtimeNs !== detached.mtimeNs) return `it was written to (${timeOf(facts.mtimeNs)})`;
  if (facts.ctimeNs !== detached.ctimeNs)
    return `its owner, mode or name was changed (${timeOf(facts.ctimeNs)})`;
  return null;
}

export function imageChanged(imagePath: string, change: string): VarveError {
  return new VarveError(
    "ImageChanged",
    "Invalid",
    `${imagePath} was changed while Varve did not hold it: ${change}`,
    {
      hint: "Keep the change: `varve image adopt NAME`. Throw it away and fill the image from the log again: `varve image discard NAME`.",
      fields: { path: imagePath, change },
    },
  );
}

function timeOf(ns: bigint): string {
  return new Date(Number(ns / 1_000_000n)).toISOString();
}
