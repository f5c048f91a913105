/*
 * The feed of replicas that follow the log by themselves, and the room that they have: nothing is handed over, only watched.
 * A batch's overlay entries go when a replica says that it applied it. Made by the cluster gateway's layer beside
 * remote-replica.ts, whose reports it hears; used by volume-session.ts as it uses the applier on one machine.
 */
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import type { PendingBatch } from "./pending-batch.ts";
import type { RemoteReplica } from "./remote-replica.ts";

export class RemoteFeed implements ReplicaFeed<PendingBatch> {
  readonly #replica: RemoteReplica;
  readonly #handlers: ReplicaFeedHandlers<PendingBatch>;
  readonly #queue: PendingBatch[] = [];
  readonly #waiting: (() => void)[] = [];
  #checkpointLsn = 0;
  #closed = false;

  constructor(replica: RemoteReplica, handlers: ReplicaFeedHandlers<PendingBatch>) {
    this.#replica = replica;
    this.#handlers = handlers;
    replica.onReport(() => this.#advance());
  }

  get counters(): Readonly<Record<string, number>> {
    return { ...this.#replica.counters, unappliedBatches: this.#queue.length };
  }

  enqueue(draft: PendingBatch): void {
    this.#queue.push(draft);
    // A replica may be there before this writer heard that the batch is durable.
    this.#advance();
  }

  /** The nodes apply as fast as they go. */
  hurry(): void {}

  async drain(): Promise<void> {
    while (this.#queue.length > 0 && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
  }

  /** The nodes take checkpoints by their own rule: this only waits until everything is applied. */
  async checkpoint(): Promise<void> {
    await this.drain();
  }

  /** Does not wait for the nodes: what they have not applied is in the log. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#handlers.onApplied(this.#queue.splice(0));
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #advance(): void {
    if (this.#closed) return;
    const { appliedLsn, checkpointLsn } = this.#replica.state();
    let count = 0;
    for (const batch of this.#queue) {
      if (batch.lastLsn > appliedLsn) break;
      count += 1;
    }
    if (count > 0) {
      const applied = this.#queue.splice(0, count);
      this.#replica.dropped(applied.at(-1)?.lastLsn ?? 0);
      this.#handlers.onApplied(applied);
      for (const wake of this.#waiting.splice(0)) wake();
    }
    if (checkpointLsn <= this.#checkpointLsn) return;
    this.#checkpointLsn = checkpointLsn;
    this.#handlers.onCheckpoint(checkpointLsn);
  }
}

/** Room in the images on the nodes, as they last said it, minus what was promised since. */
export class RemoteAdmission implements SpaceAdmission {
  readonly takesOverwrites = false;
  readonly #roomBytes: () => number;
  readonly #refusal: () => VarveError | null;
  #promisedBytes = 0;

  /** `refusal`: why nothing is admitted now, whatever its size. */
  constructor(roomBytes: () => number, refusal: () => VarveError | null = () => null) {
    this.#roomBytes = roomBytes;
    this.#refusal = refusal;
  }

  refuse(bytes: number): VarveError | null {
    const refusal = this.#refusal();
    if (refusal !== null || bytes === 0) return refusal;
    const room = this.#roomBytes() - this.#promisedBytes;
    if (bytes <= room) return null;
    return new VarveError(
      "NodesFullError",
      "Full",
      `the storage nodes of this volume have room for ${readableByteSize(Math.max(0, room))} more`,
      { hint: "Free space on them, or look whether they run: varve node list. Reads go on." },
    );
  }

  admit(bytes: number): void {
    this.#promisedBytes += bytes;
  }

  settle(bytes: number): void {
    this.#promisedBytes -= bytes;
  }

  withdraw(bytes: number): void {
    this.#promisedBytes -= bytes;
  }

  async makeRoom(): Promise<boolean> {
    return false;
  }
}
