/*
 * How an image file comes into being, and how it is opened, locked and compared with its checkpoint. Called by raw-file.ts,
 * which owns the open image from then on. The order of each step is in docs/specs/replica.md and docs/specs/residency.md.
 */
import { dataLayout } from "#shared/domain/data-layout.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import type { Checkpoint } from "#shared/formats/checkpoint.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { Failpoint } from "#shared/ports/failpoint.ts";
import type { BlockFile, FileFacts, FileStore } from "#shared/ports/file-store.ts";
import type { RemotePoint, RemoteSources } from "#shared/ports/replica-residency.ts";
import {
  changeSince,
  detachedFileOf,
  imageChanged,
  readCheckpoint,
  writeCheckpoint,
} from "./checkpoint-file.ts";
import { ExtentTable } from "./extent-table.ts";
import { ImageName } from "./image-name.ts";

export interface RawImageOptions {
  readonly store: FileStore;
  /** The volume's directory: image and checkpoint stand in it. */
  readonly directory: string;
  readonly volumeId: string;
  /** Paces the writeback before a checkpoint; without it slices follow each other at once. */
  readonly clock?: Clock;
  /** Where bytes of remote extents come from; without it they can't be read. */
  readonly sources?: RemoteSources;
  /** For crash tests: `evict`, when the checkpoint says that extents left and their bytes are still there. */
  readonly failpoint?: Failpoint;
}

export interface ImagePlace {
  readonly store: FileStore;
  /** The image's whole name; the checkpoint's goes by it, whatever the file is called now. */
  readonly path: string;
  readonly name: ImageName;
  readonly volumeId: string;
  readonly clock: Clock | null;
  readonly failpoint: Failpoint;
}

export interface OpenedImage {
  readonly place: ImagePlace;
  readonly file: BlockFile;
  /** As it was found: detached, or null where a crash left it attached. */
  readonly checkpoint: Checkpoint;
  readonly facts: FileFacts;
}

export interface ImageBeginning {
  readonly sizeBytes: number;
  readonly remote?: RemotePoint;
  readonly appliedLsn?: number;
  readonly line?: string | null;
  readonly epoch?: number;
}

export async function createImage(
  { store, directory, volumeId }: RawImageOptions,
  { sizeBytes, remote, appliedLsn, line, epoch }: ImageBeginning,
): Promise<void> {
  const table = new ExtentTable(sizeBytes);
  if (remote !== undefined) table.setRemote(0, table.extents, remote);
  const name = ImageName.of(store, directory, remote !== undefined);
  const file = await store.open(name.path, { create: true, access: "buffered" });
  try {
    // A leftover of an earlier attempt counts for nothing.
    await file.truncate(0);
    await file.truncate(sizeBytes);
    await file.syncWithTimes();
    await store.syncDirectory(directory);
    await writeCheckpoint(store, wholePath(directory), {
      volumeId,
      line: line ?? null,
      epoch: epoch ?? 0,
      appliedLsn: appliedLsn ?? 0,
      batchChecksum: 0n,
      sizeBytes,
      residency: table.record(new Map()),
      position: null,
      detached: detachedFileOf(await file.facts()),
    });
  } finally {
    await file.close();
  }
}

export async function openImage(options: RawImageOptions): Promise<OpenedImage> {
  const { store, directory, volumeId } = options;
  const path = wholePath(directory);
  const checkpoint = await readCheckpoint(store, path, volumeId);
  const name = await ImageName.find(store, directory);
  const file = await openFile(store, name.path);
  try {
    file.lockAsImageWriter();
    const facts = await file.facts();
    const change = checkpoint.detached === null ? null : changeSince(checkpoint.detached, facts);
    if (change !== null) throw imageChanged(name.path, change);
    // On disk before the first byte changes: a crash from here on is a replay, not a foreign change.
    if (checkpoint.detached !== null) {
      await writeCheckpoint(store, path, { ...checkpoint, detached: null });
    } else if (facts.sizeBytes !== checkpoint.sizeBytes) {
      // A crash kept or lost a resize that the replay will bring again.
      await file.truncate(checkpoint.sizeBytes);
    }
    // A crash came between a checkpoint and the name that it stands for.
    await name.become(checkpoint.residency !== "full");
    const failpoint = options.failpoint ?? ((): void => undefined);
    const place = { store, path, name, volumeId, clock: options.clock ?? null, failpoint };
    return { place, file, checkpoint, facts };
  } catch (cause) {
    await file.close();
    throw cause;
  }
}

function wholePath(directory: string): string {
  return `${directory}/${dataLayout.image}`;
}

async function openFile(store: FileStore, path: string): Promise<BlockFile> {
  try {
    return await store.open(path, { access: "buffered" });
  } catch (cause) {
    if (!(cause instanceof FileStoreError) || cause.code !== "ENOENT") throw cause;
    throw new VarveError("ImageMissing", "Invalid", `the image ${path} does not exist`, {
      hint: "Put it back, or build it again from the log: `varve image discard NAME`.",
      fields: { path },
      cause,
    });
  }
}
