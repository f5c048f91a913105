/*
 * The replica as a raw file: byte N of the file is byte N of the disk. Owns the open image with qemu's lock, how far it
 * follows the log, and its checkpoint. Fed by services/storage/engine/image-applier.ts with durable batches, read by the
 * volume session; file operations go to the FileStore, large and slow ones on other threads. docs/specs/replica.md.
 *
 *   detached ─attach─► attached ─detach─► detached      a failed sync: failed ─abandon─► attached on disk: replayed at attach
 */

import type { Batch } from "#shared/domain/batch.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { type Checkpoint, encodeCheckpoint } from "#shared/formats/checkpoint.ts";
import type { BlockFile, FileFacts, FileOperation } from "#shared/ports/file-store.ts";
import type {
  AllocationRun,
  LocalReplica,
  ReplicaLogPosition,
  ReplicaState,
} from "#shared/ports/replica-image.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { ApplyPlan, isDraft, type ReplicaPosition } from "./apply-plan.ts";
import { detachedFileOf, writeCheckpoint, writeCheckpointBytes } from "./checkpoint-file.ts";
import { ExtentTable } from "./extent-table.ts";
import { ImageExtents, type NotedExtents } from "./image-extents.ts";
import {
  createImage,
  type ImagePlace,
  type OpenedImage,
  openImage,
  type RawImageOptions,
} from "./image-opening.ts";
import { PacedWriteback } from "./paced-writeback.ts";
import { type PartialReadParts, partialRuns, readPartial } from "./partial-read.ts";
import { returnPayloadSlab, takePayloadSlab } from "./payload-slab.ts";
import { RemoteReader } from "./remote-reader.ts";
import { residentRuns } from "./residency.ts";
import { Turns } from "./turns.ts";

export type { RawImageOptions } from "./image-opening.ts";

interface Noted {
  readonly position: ReplicaPosition;
  readonly dirtyBytes: number;
  readonly extents: NotedExtents;
  /** The checkpoint, made before the sync: what changes meanwhile is not in it. */
  readonly bytes: Buffer;
}

export class RawFileImage implements LocalReplica {
  readonly extents: ImageExtents;
  readonly #place: ImagePlace;
  readonly #file: BlockFile;
  readonly #writeback: PacedWriteback;
  readonly #turns = new Turns();
  readonly #table: ExtentTable;
  readonly #remote: RemoteReader;
  readonly #partial: PartialReadParts;
  /** Extents are followed although all are local: somebody gave sources, so they may be evicted. */
  readonly #follows: boolean;
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
  #tellFailure: (error: VarveError) => void = () => undefined;
  #closing = false;
  #closed = false;

  private constructor(options: RawImageOptions, { place, file, checkpoint, facts }: OpenedImage) {
    const { clock, store } = place;
    this.#place = place;
    this.#file = file;
    this.#writeback = new PacedWriteback({ file, clock, sliceBytes: limits.writebackSliceBytes });
    this.#position = checkpoint;
    this.#begunLsn = checkpoint.appliedLsn;
    this.#checkpointLsn = checkpoint.appliedLsn;
    this.#untouched = checkpoint.detached === null ? null : checkpoint;
    this.#allocatedBytes = facts.allocatedBytes;
    const { sizeBytes, residency } = checkpoint;
    const table = residency === "full" ? new ExtentTable(sizeBytes) : ExtentTable.of(residency, sizeBytes);
    const sources = options.sources ?? null;
    const remote = new RemoteReader({ store, sources, clock });
    this.#table = table;
    this.#remote = remote;
    this.#follows = sources !== null;
    this.extents = new ImageExtents({
      file,
      place,
      table,
      remote,
      turns: this.#turns,
      attachedLsn: checkpoint.appliedLsn,
      changedExtents: (toLsn, lsn) => sources?.changedExtents?.(toLsn, lsn) ?? null,
      requireOpen: () => this.#requireOpen(),
      onWritten: (operations) => this.#wrote(operations),
      checkpoint: () => this.#checkpointIfOpen(),
    });
    const onRemoteRead = (extent: number): void => this.extents.noteRemoteRead(extent);
    this.#partial = { file, table, remote, onRemoteRead };
  }

  /**
   * Makes a thin image that follows a log from its first entry, or, with `remote`, one whose extents are all read from there
   * and that goes on behind an LSN. Durable, detached when it resolves.
   */
  static async create(
    options: RawImageOptions & {
      readonly sizeBytes: number;
      readonly remote?: RemotePoint;
      readonly appliedLsn?: number;
      readonly line?: string | null;
      readonly epoch?: number;
    },
  ): Promise<void> {
    await createImage(options, options);
  }

  /**
   * Opens, locks and marks the image as attached. Rejects Invalid (ImageChanged) where somebody wrote to it since its clean
   * detach, Corrupt where the checkpoint is missing or damaged, Retry (EAGAIN) where another program holds the file. A
   * refusal changes nothing.
   */
  static async attach(options: RawImageOptions): Promise<RawFileImage> {
    const opened = await openImage(options);
    try {
      const image = new RawFileImage(options, opened);
      const { checkpoint } = opened;
      if (checkpoint.detached === null) await image.extents.punchAll();
      if (image.#follows) await image.extents.loadLastUse();
      return image;
    } catch (cause) {
      await opened.file.close();
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

  logPosition(): ReplicaLogPosition {
    const { line, epoch, appliedLsn, batchChecksum, position } = this.#position;
    const sequence = position?.sequence ?? 0;
    return { line: line ?? "", epoch, appliedLsn, checksum: batchChecksum, sequence };
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    if (this.#failure !== null) return -1;
    if (this.extents.watchesReads) {
      if (!this.#table.isRangeLocal(offset, length)) return -1;
      this.extents.noteRead(offset, length);
    }
    return this.#file.readInline(slab, start, length, offset);
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.#requireGood();
    const { departed } = this.#table;
    if (this.extents.watchesReads) {
      this.extents.noteRead(offset, length);
      await readPartial(this.#partial, slab, start, length, offset);
    } else await this.#file.read(slab, start, length, offset);
    // Evicted or rolled back meanwhile: the file's bytes may be gone.
    if (this.#table.departedSince(departed, offset, length)) {
      await readPartial(this.#partial, slab, start, length, offset);
    }
    // A sync that failed meanwhile may have made the pages fall back to what they were before.
    this.#requireGood();
  }

  async apply(batches: readonly (Batch | BatchDraft)[]): Promise<void> {
    this.#requireGood();
    invariant(!this.#applying && !this.#closed, "applies follow one another on an open image");
    this.#applying = true;
    try {
      await this.#turns.take(() => this.#apply(batches));
    } finally {
      this.#applying = false;
    }
  }

  async #apply(batches: readonly (Batch | BatchDraft)[]): Promise<void> {
    this.#requireGood();
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
  }

  async #carryOut(plan: ApplyPlan): Promise<void> {
    const { operations, rebases, position } = plan;
    this.#begunLsn = Math.max(this.#begunLsn, position.appliedLsn);
    if (operations.length > 0) {
      this.#untouched = null;
      await this.#file.applyAll(operations);
      this.#dirtyBytes += plan.writtenBytes;
      this.#writeback.wrote(operations, position.sizeBytes);
    }
    if (this.#follows || rebases.length > 0 || !this.#table.allLocal) {
      this.#untouched = null;
      this.extents.applied(operations, rebases, position.appliedLsn);
    } else if (position.sizeBytes !== this.#table.sizeBytes) this.#table.resize(position.sizeBytes);
  }

  #wrote(operations: readonly FileOperation[]): void {
    this.#untouched = null;
    for (const operation of operations) {
      if (operation.kind === "write") this.#dirtyBytes += operation.piece.length;
    }
    this.#writeback.wrote(operations, this.#position.sizeBytes);
  }

  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    // Holes of an image that lost pages may be lost data.
    if (this.#failure !== null) return [{ offset, length, allocated: true }];
    if (this.#table.allLocal) return residentRuns(this.#file, offset, length, runsMax);
    return partialRuns(this.#partial, offset, length, runsMax);
  }

  checkpoint(): Promise<number> {
    return this.#afterCheckpoints(async () => {
      if (this.#checkpointLsn < this.#position.appliedLsn || !this.#recorded) await this.#takeCheckpoint();
      return this.#checkpointLsn;
    });
  }

  #checkpointIfOpen(): Promise<void> {
    return this.#afterCheckpoints(async () => {
      this.#requireOpen();
      await this.#takeCheckpoint();
    });
  }

  /** Extents are as the last checkpoint says, and so is the name. */
  get #recorded(): boolean {
    return this.extents.recorded && this.#place.name.is(!this.#table.allLocal);
  }

  async #takeCheckpoint(): Promise<void> {
    const { store, path, name, failpoint } = this.#place;
    const noted = await this.#turns.take(async () => this.#note());
    const { residency, leaving } = noted.extents;
    await this.#sync(async () => {
      await this.#writeback.run();
      await this.#file.sync();
    });
    // A name may promise less than the checkpoint says, never more.
    if (residency !== "full") await name.become(true);
    this.#untouched = null;
    await writeCheckpointBytes(store, path, noted.bytes);
    if (leaving.size > 0) failpoint("evict");
    this.#checkpointLsn = noted.position.appliedLsn;
    this.#dirtyBytes -= noted.dirtyBytes;
    await this.#turns.take(() => this.extents.recordedAs(noted.extents));
    if (residency === "full") await name.become(false);
    this.#allocatedBytes = (await this.#file.facts()).allocatedBytes;
  }

  #note(): Noted {
    const position = this.#position;
    const extents = this.extents.note();
    const bytes = encodeCheckpoint(this.#checkpointOf(position, extents, null));
    return { position, dirtyBytes: this.#dirtyBytes, extents, bytes };
  }

  #checkpointOf(position: ReplicaPosition, extents: NotedExtents, facts: FileFacts | null): Checkpoint {
    return {
      volumeId: this.#place.volumeId,
      ...position,
      residency: extents.residency,
      detached: facts === null ? null : detachedFileOf(facts),
    };
  }

  async detach(): Promise<void> {
    if (this.#closed) return;
    await this.#stopFilling();
    await this.#afterCheckpoints(async () => {
      invariant(!this.#applying, "an image is detached when nothing is being applied");
      try {
        this.extents.settle();
        // Names and holes follow the record, so that nothing is left to do behind the last one.
        if (!this.#recorded) await this.#takeCheckpoint();
        await this.extents.saveLastUse();
        await this.#sync(() => this.#file.syncWithTimes());
        const facts = await this.#file.facts();
        const { store, path } = this.#place;
        this.#untouched = null;
        await writeCheckpoint(store, path, this.#checkpointOf(this.#position, this.extents.note(), facts));
        this.#checkpointLsn = this.#position.appliedLsn;
      } finally {
        await this.#close();
      }
    });
  }

  async abandon(): Promise<void> {
    await this.#stopFilling();
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

  /** Whoever waits for the bucket is refused; a fill or punch that is at the file ends. */
  async #stopFilling(): Promise<void> {
    this.#closing = true;
    await this.#remote.close();
    await this.#turns.take(async () => undefined);
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
      this.#tellFailure(this.#failure);
      throw this.#failure;
    }
  }

  onFailed(listener: (error: VarveError) => void): void {
    this.#tellFailure = listener;
  }

  #requireGood(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  #requireOpen(): void {
    this.#requireGood();
    if (!this.#closing) return;
    throw new VarveError("ReplicaClosing", "Retry", `${this.#place.path} is being closed`);
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
    if (this.#payloadSlab !== null) returnPayloadSlab(this.#place.store, this.#payloadSlab);
    this.#payloadSlab = null;
  }
}
