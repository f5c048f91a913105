/*
 * From batches to file operations: checks that each batch continues the replica (line, epoch, LSN, chain of checksums, every
 * range inside the disk), then says what the file has to do. Nothing is done here, so a batch that does not fit changes
 * nothing. Called by raw-file.ts for every apply; the image thread carries the operations out. See docs/specs/replica.md.
 */
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { type Entry, entryKind } from "#shared/domain/entry.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FileOperation } from "#shared/ports/file-store.ts";
import type { Slab, SlabPiece } from "#shared/ports/slab.ts";

/** Where a replica stands: what the next batch must fit. */
export interface ReplicaPosition {
  /** Null before the first batch. */
  readonly line: string | null;
  readonly epoch: number;
  readonly appliedLsn: number;
  readonly batchChecksum: bigint;
  readonly sizeBytes: number;
  /** Where the log holds the last applied batch; null where it does not count its messages. */
  readonly position: { readonly sequence: number; readonly offset: number } | null;
}

/** A rebase entry among the operations of a plan: the disk is what it was at `toLsn` again. */
export interface Rebase {
  /** Operations of the plan that stand before it. */
  readonly operationsBefore: number;
  readonly toLsn: number;
  /** The entry's own. */
  readonly lsn: number;
}

type MutablePiece = { -readonly [K in keyof SlabPiece]: SlabPiece[K] };

/** Operations of a run of batches, and where the replica stands after them. */
export class ApplyPlan {
  readonly operations: FileOperation[] = [];
  /** Nothing for the file: what they change is where bytes are read from (image-extents.ts). */
  readonly rebases: Rebase[] = [];
  position: ReplicaPosition;
  /** Payload that the file takes: what a checkpoint will have to sync. */
  writtenBytes = 0;
  #sizeBytes: number;
  /** The last write, while nothing came between: the next one may continue it. */
  #lastPiece: MutablePiece | null = null;
  #lastEnd = 0;

  constructor(position: ReplicaPosition) {
    this.position = position;
    this.#sizeBytes = position.sizeBytes;
  }

  addDraft(draft: BatchDraft<Slab>): void {
    invariant(this.position.line !== null, "a replica's first batch is read back from its log");
    this.#checkFit(draft, draft.lastLsn, null);
    for (let index = 0; index < draft.entryCount; index += 1) {
      const offset = draft.offsets[index] ?? 0;
      const length = draft.lengths[index] ?? 0;
      switch (draft.kinds[index] ?? entryKind.rebase) {
        case entryKind.write:
          this.#write(
            draft.slab,
            limits.batchHeaderBytesMax + (draft.payloadStarts[index] ?? 0),
            length,
            offset,
          );
          break;
        case entryKind.zero:
        case entryKind.trim:
          this.#range("punch", offset, length);
          break;
        case entryKind.zeroAllocated:
          this.#range("zero", offset, length);
          break;
        case entryKind.resize:
          this.#resize(Number(draft.values.get(index)));
          break;
        case entryKind.epoch:
        case entryKind.mark:
          break;
        case entryKind.rebase:
          this.#rebase(Number(draft.values.get(index)), draft.firstLsn + index);
          break;
      }
    }
    this.#take(draft, draft.lastLsn, this.position.line);
  }

  /** `payloadAt`: where in `slab` the batch's payload stands. */
  addBatch(batch: Batch, slab: Slab, payloadAt: number): void {
    const lastLsn = batch.firstLsn + batch.entries.length - 1;
    this.#checkFit(batch, lastLsn, batch.line);
    for (const [index, entry] of batch.entries.entries()) {
      this.#addEntry(entry, slab, payloadAt, batch.firstLsn + index);
    }
    this.#take(batch, lastLsn, batch.line);
  }

  #addEntry(entry: Entry, slab: Slab, payloadAt: number, lsn: number): void {
    switch (entry.kind) {
      case "write":
        this.#write(slab, payloadAt + entry.payloadStart, entry.length, entry.offset);
        break;
      case "zero":
      case "trim":
        this.#range("punch", entry.offset, entry.length);
        break;
      case "zeroAllocated":
        this.#range("zero", entry.offset, entry.length);
        break;
      case "resize":
        this.#resize(entry.sizeBytes);
        break;
      case "epoch":
      case "mark":
        break;
      case "rebase":
        this.#rebase(entry.lsn, lsn);
        break;
    }
  }

  #write(slab: Slab, start: number, length: number, offset: number): void {
    this.#requireInside(offset, length);
    this.writtenBytes += length;
    const last = this.#lastPiece;
    const continues = last !== null && this.#lastEnd === offset;
    if (continues && last.slab === slab && last.start + last.length === start) {
      last.length += length;
    } else {
      const piece: MutablePiece = { slab, start, length };
      this.operations.push({ kind: "write", piece, offset });
      this.#lastPiece = piece;
    }
    this.#lastEnd = offset + length;
  }

  #range(kind: "punch" | "zero", offset: number, length: number): void {
    this.#requireInside(offset, length);
    this.#lastPiece = null;
    if (kind === "zero") this.writtenBytes += length;
    this.operations.push({ kind, offset, length });
  }

  /** A shorter file forgets what is past its end, a longer one reads as zero there: the kernel's rule is the fold's. */
  #resize(sizeBytes: number): void {
    this.#lastPiece = null;
    this.operations.push({ kind: "truncate", sizeBytes });
    this.#sizeBytes = sizeBytes;
  }

  #rebase(toLsn: number, lsn: number): void {
    if (toLsn >= lsn) throw laterRebase(toLsn, lsn);
    this.#lastPiece = null;
    this.rebases.push({ operationsBefore: this.operations.length, toLsn, lsn });
  }

  #checkFit(
    batch: { readonly firstLsn: number; readonly epoch: number; readonly previousChecksum: bigint },
    lastLsn: number,
    line: string | null,
  ): void {
    const { position } = this;
    const wrong =
      batch.firstLsn !== position.appliedLsn + 1 || lastLsn < batch.firstLsn
        ? "LSN"
        : batch.previousChecksum !== position.batchChecksum
          ? "checksum of the batch before"
          : line !== null && position.line !== null && line !== position.line
            ? "line"
            : batch.epoch < position.epoch
              ? "epoch"
              : null;
    if (wrong === null) return;
    throw new VarveError(
      "ReplicaChainError",
      "Corrupt",
      `the batch at LSN ${batch.firstLsn} does not continue the image, which stands at LSN ${position.appliedLsn}: ${wrong}`,
      {
        hint: "Log and image do not belong together, or one of them was replaced. Nothing was applied. See docs/specs/replica.md.",
        fields: { wrong, firstLsn: batch.firstLsn, appliedLsn: position.appliedLsn, epoch: batch.epoch },
      },
    );
  }

  #take(
    batch: { readonly epoch: number; readonly checksum: bigint; readonly sequence?: number },
    lastLsn: number,
    line: string | null,
  ): void {
    this.position = {
      line,
      epoch: batch.epoch,
      appliedLsn: lastLsn,
      batchChecksum: batch.checksum,
      sizeBytes: this.#sizeBytes,
      position: batch.sequence === undefined ? null : { sequence: batch.sequence, offset: 0 },
    };
  }

  #requireInside(offset: number, length: number): void {
    if (offset >= 0 && length > 0 && offset + length <= this.#sizeBytes) return;
    throw new VarveError(
      "ReplicaRangeError",
      "Corrupt",
      `an entry behind LSN ${this.position.appliedLsn} covers [${offset}, ${offset + length}) of a disk of ${this.#sizeBytes} bytes`,
      {
        hint: "The log was written for a larger disk. Nothing was applied.",
        fields: { offset, length, sizeBytes: this.#sizeBytes },
      },
    );
  }
}

function laterRebase(toLsn: number, lsn: number): VarveError {
  return new VarveError(
    "ReplicaEntryError",
    "Corrupt",
    `entry ${lsn} goes back to LSN ${toLsn}, which is not before it`,
    {
      hint: "No Varve writes such an entry. Nothing was applied.",
      fields: { lsn, toLsn },
    },
  );
}

export function isDraft(batch: Batch | BatchDraft<Slab>): batch is BatchDraft<Slab> {
  return batch instanceof BatchDraft;
}
