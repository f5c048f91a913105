/*
 * A batch of the write path with the requests that wait for it. volume-writer.ts fills it and answers when the log says so,
 * overlay.ts serves reads from it, the image applier applies it; then volume-session.ts gives its memory and its room back.
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Completion } from "#shared/ports/block-export.ts";
import type { Slab } from "#shared/ports/slab.ts";

/** Lists are emptied when told. */
export class PendingBatch extends BatchDraft<Slab> {
  readonly onStored: Completion[] = [];
  readonly onDurable: Completion[] = [];
  inOverlay = false;
  /** Room in the image that is kept for its entries. */
  imageRoomBytes = 0;
  /** A FUA request in a `flush` volume waits for this batch: sync it at once. */
  syncWanted = false;

  /** Answers everybody who still waits for it with an error. What was answered stays so; the batch itself goes its way. */
  answerAll(error: VarveError): void {
    for (const done of this.onStored.splice(0)) done.complete(error);
    for (const done of this.onDurable.splice(0)) done.complete(error);
  }
}

/** Slab for a first small write: room for its likely company. */
export const gatherBytesMin = 64 * 1024;
const gatherBytesMax = 1024 * 1024;

/**
 * Bytes of a slab for a new batch whose first entry has that much payload, where batches had `averageBytes` lately. A draft
 * takes what its slab holds, so that is never more than the log's `batchPayloadBytesMax`.
 */
export function slabBytesFor(
  averageBytes: number,
  payloadBytes: number,
  batchPayloadBytesMax: number,
): number {
  const most = Math.min(gatherBytesMax, batchPayloadBytesMax);
  const expected = Math.min(most, Math.max(gatherBytesMin, 2 * averageBytes, payloadBytes));
  return limits.batchHeaderBytesMax + Math.ceil(expected / limits.blockBytes) * limits.blockBytes;
}

/** The first piece of a write that is cut where a batch can't take it whole: whole blocks, the pieces nearly alike. */
export function pieceBytes(length: number, batchPayloadBytesMax: number): number {
  if (length <= batchPayloadBytesMax) return length;
  const each = length / Math.ceil(length / batchPayloadBytesMax);
  return Math.min(batchPayloadBytesMax, Math.ceil(each / limits.blockBytes) * limits.blockBytes);
}
