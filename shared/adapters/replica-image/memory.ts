/*
 * The memory twin of the raw file: a replica that is the reference fold and nothing else, for tests of whatever stands above
 * the port. Applies through shared/domain/fold.ts, so it shares no code with raw-file.ts, and the contract suite holds the
 * two against each other. Keeps nothing: detach() ends it.
 */
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { AllocationRun, ReplicaImage, ReplicaState } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";

export class MemoryReplicaImage implements ReplicaImage {
  #disk: FoldedDisk;
  #batchChecksum = 0n;
  #epoch = 0;
  #line: string | null = null;
  #checkpointLsn = 0;

  constructor(sizeBytes: number) {
    this.#disk = new FoldedDisk(sizeBytes);
  }

  state(): ReplicaState {
    return {
      sizeBytes: this.#disk.sizeBytes,
      appliedLsn: this.#disk.appliedLsn,
      begunLsn: this.#disk.appliedLsn,
      checkpointLsn: this.#checkpointLsn,
      dirtyBytes: 0,
      allocatedBytes: this.#disk.pageCount * 4096,
    };
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    slab.bytes.set(this.#disk.read(offset, length), start);
    return length;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.readInline(slab, start, length, offset);
  }

  async apply(batches: readonly (Batch | BatchDraft)[]): Promise<void> {
    // On a copy, so that a run with a bad batch changes nothing.
    const disk = this.#disk.copy();
    let checksum = this.#batchChecksum;
    let epoch = this.#epoch;
    let line = this.#line;
    for (const batch of batches) {
      const draft = batch instanceof BatchDraft;
      const otherLine = !draft && line !== null && batch.line !== line;
      if (batch.previousChecksum !== checksum || batch.epoch < epoch || otherLine) {
        throw new VarveError(
          "ReplicaChainError",
          "Corrupt",
          `the batch at LSN ${batch.firstLsn} does not fit`,
        );
      }
      if (draft) disk.applyDraft(batch);
      else {
        disk.applyBatch(batch);
        ({ line } = batch);
      }
      ({ checksum, epoch } = batch);
    }
    this.#disk = disk;
    this.#batchChecksum = checksum;
    this.#epoch = epoch;
    this.#line = line;
  }

  allocation(offset: number, length: number, _runsMax: number): readonly AllocationRun[] {
    return [{ offset, length, allocated: true }];
  }

  async checkpoint(): Promise<number> {
    this.#checkpointLsn = this.#disk.appliedLsn;
    return this.#checkpointLsn;
  }

  async detach(): Promise<void> {
    await this.checkpoint();
  }

  async abandon(): Promise<void> {}
}
