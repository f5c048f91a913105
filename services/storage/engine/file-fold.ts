/*
 * The fold of a log into an empty file, from LSN 1: entries become file operations, gathered until the slab is full, then
 * applied in order. image-discard.ts feeds it with what the log gives, which is checked for line, LSN and chain already.
 * Like a replica, but with no checkpoint and no size at the start: a log does not say how large its disk began.
 */
import type { Batch } from "#shared/domain/batch.ts";
import type { Entry } from "#shared/domain/entry.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { BlockFile, FileOperation } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

/** Written between two syncs, so that the last one is short. */
const syncBytes = 256 * 1024 * 1024;
const operationsMax = 4096;

export class FileFold {
  /** The volume's size behind the last entry. */
  sizeBytes: number;
  last: Batch | null = null;
  readonly #file: BlockFile;
  readonly #slab: Slab;
  #operations: FileOperation[] = [];
  #gatheredBytes = 0;
  #unsyncedBytes = 0;

  /** `sizeBytes`: the size of a disk that was never resized. */
  constructor(file: BlockFile, slab: Slab, sizeBytes: number) {
    this.#file = file;
    this.#slab = slab;
    this.sizeBytes = sizeBytes;
  }

  async add(batch: Batch): Promise<void> {
    const { payload } = batch;
    invariant(payload.byteLength <= this.#slab.bytes.byteLength, "a batch's payload fits the slab");
    const full = this.#gatheredBytes + payload.byteLength > this.#slab.bytes.byteLength;
    if (full || this.#operations.length >= operationsMax) await this.#apply();
    const payloadAt = this.#gatheredBytes;
    this.#slab.bytes.set(payload, payloadAt);
    this.#gatheredBytes += payload.byteLength;
    for (const entry of batch.entries) this.#addEntry(entry, payloadAt);
    // The payload's memory is the reader's; what counts of the last batch is its header.
    this.last = { ...batch, payload: new Uint8Array(0) };
  }

  /** Everything is durable when it resolves, and the file has the volume's size. */
  async finish(): Promise<void> {
    await this.#apply();
    await this.#file.truncate(this.sizeBytes);
    await this.#file.sync();
  }

  #addEntry(entry: Entry, payloadAt: number): void {
    switch (entry.kind) {
      case "write":
        this.#operations.push({
          kind: "write",
          piece: { slab: this.#slab, start: payloadAt + entry.payloadStart, length: entry.length },
          offset: entry.offset,
        });
        break;
      case "zero":
      case "trim":
        this.#operations.push({ kind: "punch", offset: entry.offset, length: entry.length });
        break;
      case "zeroAllocated":
        this.#operations.push({ kind: "zero", offset: entry.offset, length: entry.length });
        break;
      case "resize":
        this.#operations.push({ kind: "truncate", sizeBytes: entry.sizeBytes });
        this.sizeBytes = entry.sizeBytes;
        break;
      case "epoch":
      case "mark":
        break;
      case "rebase":
        throw new VarveError(
          "LogHoldsRebase",
          "Invalid",
          `the volume was rolled back to LSN ${entry.lsn}: its log alone does not hold the disk`,
          {
            hint: "Make a new volume of a point: varve volume create NEW --from NAME@POINT. Nothing was changed.",
          },
        );
    }
  }

  async #apply(): Promise<void> {
    if (this.#operations.length === 0) return;
    await this.#file.applyAll(this.#operations);
    this.#operations = [];
    this.#unsyncedBytes += this.#gatheredBytes;
    this.#gatheredBytes = 0;
    if (this.#unsyncedBytes < syncBytes) return;
    this.#unsyncedBytes = 0;
    await this.#file.sync();
  }
}
