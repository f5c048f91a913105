/*
 * The replica as a raw file: byte N of the file is byte N of the disk. Owns the open image with qemu's lock, how far it
 * follows the log, and its checkpoint. Fed by services/storage/engine/image-applier.ts with durable batches, read by the
 * volume session; file operations go to the FileStore, large and slow ones on other threads. docs/specs/replica.md.
 *
 *   detached ─attach─► attached ─detach─► detached      a failed sync: failed ─abandon─► attached on disk: replayed at attach
 */

import type { Batch } from "#shared/domain/batch.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Checkpoint } from "#shared/formats/checkpoint.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile, FileFacts, FileStore } from "#shared/ports/file-store.ts";
import type { AllocationRun, ReplicaImage, ReplicaState } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { ApplyPlan, isDraft, type ReplicaPosition } from "./apply-plan.ts";
import {
  changeSince,
  detachedFileOf,
  imageChanged,
  readCheckpoint,
  writeCheckpoint,
} from "./checkpoint-file.ts";
import { PacedWriteback } from "./paced-writeback.ts";
import { returnPayloadSlab, takePayloadSlab } from "./payload-slab.ts";
import { residentRuns } from "./residency.ts";

export interface RawImageOptions {
  readonly store: FileStore;
  /** The volume's directory: image and checkpoint stand in it. */
  readonly directory: string;
  readonly volumeId: string;
  /** Paces the writeback before a checkpoint; without it slices follow each other at once. */
  readonly clock?: Clock;
}

interface Place {
  readonly store: FileStore;
  readonly path: string;
  readonly volumeId: string;
  readonly clock: Clock | null;
}

function placeOf({ store, directory, volumeId, clock }: RawImageOptions): Place {
  return { store, path: `${directory}/${dataLayout.image}`, volumeId, clock: clock ?? null };
}

export class RawFileImage implements ReplicaImage {
  readonly #place: Place;
  readonly #file: BlockFile;
  readonly #writeback: PacedWriteback;
  #position: ReplicaPosition;
  /** Greatest LSN whose apply had begun; a failed run is repeated from its start. */
  #begunLsn: number;
  #checkpointLsn: number;
  #dirtyBytes = 0;
  #allocatedBytes: number;
  #applying = false;
  #checkpoints: Promise<unknown> = Promise.resolve();
  #payloadSlab: Slab | null = null;
  /** The clean checkpoint that attach() found, until something is applied: abandon() puts it back. */
  #untouched: Checkpoint | null;
  #failure: VarveError | null = null;
  #closed = false;

  private constructor(place: Place, file: BlockFile, checkpoint: Checkpoint, facts: FileFacts) {
    this.#place = place;
    this.#file = file;
    this.#writeback = new PacedWriteback({
      file,
      clock: place.clock,
      sliceBytes: limits.writebackSliceBytes,
    });
    this.#position = checkpoint;
    this.#begunLsn = checkpoint.appliedLsn;
    this.#checkpointLsn = checkpoint.appliedLsn;
    this.#untouched = checkpoint.detached === null ? null : checkpoint;
    this.#allocatedBytes = facts.allocatedBytes;
  }

  /** Makes an empty thin image that follows a log from its first entry. Durable, detached when it resolves. */
  static async create(options: RawImageOptions & { readonly sizeBytes: number }): Promise<void> {
    const { store, path, volumeId } = placeOf(options);
    const file = await store.open(path, { create: true, access: "buffered" });
    try {
      // A leftover of an earlier attempt counts for nothing.
      await file.truncate(0);
      await file.truncate(options.sizeBytes);
      await file.syncWithTimes();
      await store.syncDirectory(options.directory);
      await writeCheckpoint(store, path, {
        volumeId,
        line: null,
        epoch: 0,
        appliedLsn: 0,
        batchChecksum: 0n,
        sizeBytes: options.sizeBytes,
        residency: "full",
        position: null,
        detached: detachedFileOf(await file.facts()),
      });
    } finally {
      await file.close();
    }
  }

  /**
   * Opens, locks and marks the image as attached. Rejects Invalid (ImageChanged) where somebody wrote to it since its clean
   * detach, Corrupt where the checkpoint is missing or damaged, Retry (EAGAIN) where another program holds the file. A
   * refusal changes nothing.
   */
  static async attach(options: RawImageOptions): Promise<RawFileImage> {
    const place = placeOf(options);
    const { store, path, volumeId } = place;
    const checkpoint = await readCheckpoint(store, path, volumeId);
    const file = await openImage(store, path);
    try {
      file.lockAsImageWriter();
      const facts = await file.facts();
      const change = checkpoint.detached === null ? null : changeSince(checkpoint.detached, facts);
      if (change !== null) throw imageChanged(path, change);
      // On disk before the first byte changes: a crash from here on is a replay, not a foreign change.
      if (checkpoint.detached !== null) {
        await writeCheckpoint(store, path, { ...checkpoint, detached: null });
      } else if (facts.sizeBytes !== checkpoint.sizeBytes) {
        // A crash kept or lost a resize that the replay will bring again.
        await file.truncate(checkpoint.sizeBytes);
      }
      return new RawFileImage(place, file, checkpoint, facts);
    } catch (cause) {
      await file.close();
      throw cause;
    }
  }

  state(): ReplicaState {
    return {
      sizeBytes: this.#position.sizeBytes,
      appliedLsn: this.#position.appliedLsn,
      begunLsn: this.#begunLsn,
      checkpointLsn: this.#checkpointLsn,
      dirtyBytes: this.#dirtyBytes,
      allocatedBytes: this.#allocatedBytes,
    };
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    return this.#failure === null ? this.#file.readInline(slab, start, length, offset) : -1;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.#requireGood();
    await this.#file.read(slab, start, length, offset);
    // A sync that failed meanwhile may have made the pages fall back to what they were before.
    this.#requireGood();
  }

  async apply(batches: readonly (Batch | BatchDraft)[]): Promise<void> {
    this.#requireGood();
    invariant(!this.#applying && !this.#closed, "applies follow one another on an open image");
    this.#applying = true;
    try {
      let plan = new ApplyPlan(this.#position);
      let payloadBytes = 0;
      for (const batch of batches) {
        if (isDraft(batch as BatchDraft<Slab>)) {
          plan.addDraft(batch as BatchDraft<Slab>);
          continue;
        }
        const readBack = batch as Batch;
        const slab = (this.#payloadSlab ??= takePayloadSlab(this.#place.store));
        if (payloadBytes + readBack.payload.byteLength > slab.bytes.byteLength) {
          await this.#carryOut(plan);
          plan = new ApplyPlan(plan.position);
          payloadBytes = 0;
        }
        slab.bytes.set(readBack.payload, payloadBytes);
        plan.addBatch(readBack, slab, payloadBytes);
        payloadBytes += readBack.payload.byteLength;
      }
      await this.#carryOut(plan);
      // Only now: a run that failed half-way is repeated from its start.
      this.#position = plan.position;
    } finally {
      this.#applying = false;
    }
  }

  async #carryOut(plan: ApplyPlan): Promise<void> {
    this.#begunLsn = Math.max(this.#begunLsn, plan.position.appliedLsn);
    if (plan.operations.length === 0) return;
    this.#untouched = null;
    await this.#file.applyAll(plan.operations);
    this.#dirtyBytes += plan.writtenBytes;
    this.#writeback.wrote(plan.operations, plan.position.sizeBytes);
  }

  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    // Holes of an image that lost pages may be lost data.
    if (this.#failure !== null) return [{ offset, length, allocated: true }];
    return residentRuns(this.#file, offset, length, runsMax);
  }

  checkpoint(): Promise<number> {
    return this.#afterCheckpoints(async () => {
      if (this.#checkpointLsn < this.#position.appliedLsn) await this.#takeCheckpoint();
      return this.#checkpointLsn;
    });
  }

  async #takeCheckpoint(): Promise<void> {
    const position = this.#position;
    const dirtyBytes = this.#dirtyBytes;
    await this.#sync(async () => {
      await this.#writeback.run();
      await this.#file.sync();
    });
    await this.#writeCheckpoint(position, null);
    this.#checkpointLsn = position.appliedLsn;
    this.#dirtyBytes -= dirtyBytes;
    this.#allocatedBytes = (await this.#file.facts()).allocatedBytes;
  }

  async detach(): Promise<void> {
    if (this.#closed) return;
    await this.#afterCheckpoints(async () => {
      invariant(!this.#applying, "an image is detached when nothing is being applied");
      try {
        await this.#sync(() => this.#file.syncWithTimes());
        const facts = await this.#file.facts();
        await this.#writeCheckpoint(this.#position, facts);
        this.#checkpointLsn = this.#position.appliedLsn;
      } finally {
        await this.#close();
      }
    });
  }

  async abandon(): Promise<void> {
    await this.#afterCheckpoints(async () => {
      const { store, path } = this.#place;
      try {
        // Nothing happened (the log could not be opened, say): a change by others must still show at the next attach.
        if (this.#untouched !== null && !this.#closed) await writeCheckpoint(store, path, this.#untouched);
      } finally {
        await this.#close();
      }
    }).catch(() => undefined);
  }

  /** One at a time; whatever became of the one before. */
  #afterCheckpoints<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#checkpoints.then(() => work());
    this.#checkpoints = result.catch(() => undefined);
    return result;
  }

  /** After a failed sync nothing of the image since the last checkpoint can be trusted; only a replay brings it back. */
  async #sync(sync: () => Promise<void>): Promise<void> {
    this.#requireGood();
    try {
      await sync();
    } catch (cause) {
      this.#failure = new VarveError(
        "ReplicaSyncFailed",
        "Internal",
        `writing ${this.#place.path} to its disk failed; it counts as good up to LSN ${this.#checkpointLsn}`,
        {
          hint: "Check the disk, then start again: the image is made good from the log.",
          fields: { path: this.#place.path, checkpointLsn: this.#checkpointLsn },
          cause,
        },
      );
      throw this.#failure;
    }
  }

  #requireGood(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  #writeCheckpoint(position: ReplicaPosition, facts: FileFacts | null): Promise<void> {
    const { store, path, volumeId } = this.#place;
    this.#untouched = null;
    return writeCheckpoint(store, path, {
      volumeId,
      ...position,
      residency: "full",
      position: null,
      detached: facts === null ? null : detachedFileOf(facts),
    });
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
    if (this.#payloadSlab !== null) returnPayloadSlab(this.#place.store, this.#payloadSlab);
    this.#payloadSlab = null;
  }
}

async function openImage(store: FileStore, path: string): Promise<BlockFile> {
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
