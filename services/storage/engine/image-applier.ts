/*
 * Applies durable batches to the replica image, strictly in order, and takes checkpoints now and then.
 * Called by services/gateway/engine/volume-writer.ts with each batch that became durable (promise 4: the image is never
 * ahead of the durable log). Next: shared/ports/replica-image.ts; the checkpoint lets the log go (LogWriter.release).
 *
 * Batches gather for a moment before an apply: the overlay serves reads meanwhile, and one hand-over to the image thread
 * costs as much as ten small writes.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { FedBatch, ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";

export interface ImageApplierOptions {
  readonly image: ReplicaImage;
  readonly clock: Clock;
  /** An apply or a checkpoint found no room although admission let it in: see SpaceAdmission.makeRoom. */
  readonly makeRoom: (mayWait: () => boolean) => Promise<boolean>;
  /** A checkpoint is due after so many batches, too: what a crash leaves to be applied again. Absent: bytes and age alone count. */
  readonly checkpointBatches?: number;
}

const gatherBytes = 1024 * 1024;
const gatherMs = 10;
const applyBatchesMax = 256;
const crowdedMs = 100;

export class ImageApplier<D extends FedBatch> implements ReplicaFeed<D> {
  private readonly options: ImageApplierOptions;
  private readonly handlers: ReplicaFeedHandlers<D>;
  private queue: D[] = [];
  private queuedBytes = 0;
  private gatherTimer: Timer | null = null;
  private checkpointTimer: Timer | null = null;
  private running: Promise<void> | null = null;
  private checkpointing: Promise<void> | null = null;
  private closing = false;
  private halted: VarveError | null = null;
  /** Applied since the last checkpoint began. */
  private sinceCheckpoint = 0;
  readonly counters = { applies: 0, batches: 0, checkpoints: 0, checkpointMsLast: 0 };

  constructor(options: ImageApplierOptions, handlers: ReplicaFeedHandlers<D>) {
    this.options = options;
    this.handlers = handlers;
    // Others take checkpoints, too: whoever fills or evicts.
    options.image.onFailed?.((error) => {
      if (!this.closing) this.halt(error);
    });
  }

  get pendingBatches(): number {
    return this.queue.length;
  }

  enqueue(draft: D): void {
    if (this.halted !== null) return;
    this.queue.push(draft);
    this.queuedBytes += draft.payloadBytes;
    if (this.running !== null) return;
    if (this.queuedBytes >= gatherBytes || this.closing) {
      this.start();
    } else if (this.gatherTimer === null) {
      this.gatherTimer = this.options.clock.after(gatherMs, () => {
        this.gatherTimer = null;
        this.start();
      });
    }
  }

  hurry(): void {
    if (this.running === null && this.queue.length > 0) this.start();
  }

  async drain(): Promise<void> {
    while (this.halted === null && (this.running !== null || this.queue.length > 0)) {
      this.hurry();
      if (this.running !== null) await this.running;
    }
    if (this.halted !== null) throw this.halted;
  }

  async checkpoint(): Promise<void> {
    await this.drain();
    if (this.checkpointing !== null) await this.checkpointing;
    this.startCheckpoint();
    if (this.checkpointing !== null) await this.checkpointing;
    if (this.halted !== null) throw this.halted;
  }

  async close(): Promise<void> {
    this.closing = true;
    this.checkpointTimer?.cancel();
    this.checkpointTimer = null;
    try {
      await this.drain();
    } finally {
      this.gatherTimer?.cancel();
      this.gatherTimer = null;
      if (this.checkpointing !== null) await this.checkpointing;
    }
  }

  private start(): void {
    if (this.running !== null || this.halted !== null) return;
    this.gatherTimer?.cancel();
    this.gatherTimer = null;
    this.running = this.run().finally(() => {
      this.running = null;
      if (this.queue.length > 0) this.start();
    });
  }

  private async run(): Promise<void> {
    while (this.queue.length > 0 && this.halted === null) {
      await this.roomInTable();
      const drafts = this.queue.splice(0, applyBatchesMax);
      for (const draft of drafts) this.queuedBytes -= draft.payloadBytes;
      try {
        await this.withRoom("apply to image", () => this.options.image.apply(drafts));
      } catch (cause) {
        this.halt(toVarveError(cause, "apply to image"));
        return;
      }
      this.counters.applies += 1;
      this.counters.batches += drafts.length;
      this.sinceCheckpoint += drafts.length;
      this.handlers.onApplied(drafts);
      this.scheduleCheckpoint();
    }
  }

  /** Applies and checkpoints are idempotent: one that found no room is simply repeated once there is room. */
  private async withRoom<T>(what: string, work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (cause) {
        const error = toVarveError(cause, what);
        if (error.kind !== "Full" || !(await this.options.makeRoom(() => !this.closing))) throw error;
      }
    }
  }

  /** The table of partly local extents is bounded: the filler makes room in it. Writes wait at their overlay meanwhile. */
  private async roomInTable(): Promise<void> {
    const { image, clock } = this.options;
    while (image.extents?.crowded === true && !this.closing && this.halted === null) {
      await new Promise<void>((resolve) => {
        clock.after(crowdedMs, resolve);
      });
    }
  }

  private scheduleCheckpoint(): void {
    if (this.closing || this.checkpointing !== null) return;
    if (this.isCheckpointDue()) {
      this.checkpointTimer?.cancel();
      this.checkpointTimer = null;
      this.startCheckpoint();
    } else if (this.checkpointTimer === null) {
      this.checkpointTimer = this.options.clock.after(limits.checkpointAgeMs, () => {
        this.checkpointTimer = null;
        this.startCheckpoint();
      });
    }
  }

  private isCheckpointDue(): boolean {
    const { image, checkpointBatches = Number.POSITIVE_INFINITY } = this.options;
    return (
      image.state().dirtyBytes >= limits.checkpointDirtyBytes || this.sinceCheckpoint >= checkpointBatches
    );
  }

  private startCheckpoint(): void {
    if (this.checkpointing !== null || this.halted !== null) return;
    this.checkpointing = this.runCheckpoint().finally(() => {
      this.checkpointing = null;
      const state = this.options.image.state();
      if (!this.closing && state.appliedLsn > state.checkpointLsn && this.halted === null)
        this.scheduleCheckpoint();
    });
  }

  private async runCheckpoint(): Promise<void> {
    const startedMs = this.options.clock.monotonicMs();
    this.sinceCheckpoint = 0;
    try {
      const lsn = await this.withRoom("checkpoint", () => this.options.image.checkpoint());
      this.counters.checkpoints += 1;
      this.counters.checkpointMsLast = this.options.clock.monotonicMs() - startedMs;
      this.handlers.onCheckpoint(lsn);
    } catch (cause) {
      this.halt(toVarveError(cause, "checkpoint"));
    }
  }

  private halt(error: VarveError): void {
    if (this.halted !== null) return;
    this.halted = error;
    this.checkpointTimer?.cancel();
    this.checkpointTimer = null;
    this.handlers.onHalted(error);
  }
}
