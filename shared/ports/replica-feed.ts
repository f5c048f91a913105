/*
 * What a volume session hands its durable batches to: on one machine the image applier of the storage service
 * (services/storage/engine/image-applier.ts), wired by the process that runs both.
 */
import type { Batch } from "#shared/domain/batch.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { VarveError } from "#shared/domain/errors.ts";

/** A batch on its way into an image: the writer's own, or one that was read back from the log and owns its payload. */
export type FedBatch = BatchDraft | (Batch & { readonly payloadBytes: number });

export interface ReplicaFeedHandlers<D extends FedBatch> {
  /** The image holds these batches now: overlay entries and slabs may go. */
  readonly onApplied: (drafts: readonly D[]) => void;
  /** The replica stopped; nothing more will be applied. */
  readonly onHalted: (error: VarveError) => void;
  /** A checkpoint at `lsn` is durable. */
  readonly onCheckpoint: (lsn: number) => void;
}

export interface ReplicaFeed<D extends FedBatch> {
  readonly counters: Readonly<Record<string, number>>;
  /** Takes a durable batch. Never blocks; back-pressure comes from the slabs that the queue holds. */
  enqueue(draft: D): void;
  /** Applies what is queued without waiting for more (memory is short, or somebody waits for the image). */
  hurry(): void;
  /** Resolves when everything queued before the call is in the image. Rejects when the replica halted. */
  drain(): Promise<void>;
  /** A checkpoint of everything queued before the call. */
  checkpoint(): Promise<void>;
  /** Applies what is queued and stops taking checkpoints; the image itself is closed by its owner. */
  close(): Promise<void>;
}
