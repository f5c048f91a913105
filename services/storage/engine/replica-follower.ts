/*
 * One replica of a storage node: follows the volume's log from the replica's own checkpoint into the raw image, and says where it
 * stands. Made by kept-replica.ts each time the image is opened; batches go to the applier (image-applier.ts), reads come by
 * replica-reads.ts, copies and comparisons by replica-copies.ts. What halts it leaves the others alone (docs/specs/cluster.md#a-storage-node).
 *
 *   filling ─caught up once─► following ◄─► lagging      any ─log or image can't go on─► halted
 */

import { type Batch, batchWith, lastLsnOf } from "#shared/domain/batch.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { ReplicaCondition, ReplicaReport } from "#shared/domain/replica-report.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { FollowedBatch, LogFollower } from "#shared/ports/log-follower.ts";
import type { FedBatch, ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type { LocalReplica } from "#shared/ports/replica-image.ts";
import { payloadMemory } from "./payload-memory.ts";
import type { ReadGrant } from "./read-grant.ts";

/** A batch that was read from the log, with a payload of its own. */
export type OwnedBatch = Batch & { readonly payloadBytes: number };

export interface ReplicaFollowerOptions {
  readonly node: string;
  readonly host: string;
  readonly image: LocalReplica;
  readonly log: LogFollower;
  readonly clock: Clock;
  readonly feed: <D extends FedBatch>(
    image: LocalReplica,
    handlers: ReplicaFeedHandlers<D>,
  ) => ReplicaFeed<D>;
  readonly roomBytes: () => number;
  /** Before it has applied this, parts of later entries may be in the image: a copy's, while writes went on. */
  readonly exactFromLsn: number;
  /** A rollback's entry is applied: the bytes it makes remote can be had. Else the replica stops before it, to be filled. */
  readonly takesRebases: boolean;
  /** Lets gateways on this host read the image directly; null: they ask for each read. */
  readonly grant: ReadGrant | null;
  /** False: nobody is granted reads of the image now, whatever it holds. Absent: that is never so. */
  readonly mayGrant?: () => boolean;
  /** Something that a report shows changed. */
  readonly onChange: () => void;
}

/** Batches that were read and are not applied yet. */
const queuedBytesMax = 32 * 1024 * 1024;
const laggingMs = 5000;
const retryMs = 500;

export class ReplicaFollower {
  readonly #options: ReplicaFollowerOptions;
  readonly #feed: ReplicaFeed<OwnedBatch>;
  readonly #stop = new AbortController();
  readonly #waiters = new Set<{ readonly lsn: number; readonly wake: () => void }>();
  #queuedBytes = 0;
  /** LSN that the log is known to have; the replica follows when it has applied it. */
  #knownLsn = 0;
  /** Asked once since it was opened: what a crash left begun is not behind it. */
  #endKnown = false;
  #caughtUpOnce = false;
  /** The newest that a batch was taken of, applied or not. */
  #newestEpoch = 0;
  /** Of the last rollback that was handed on; until it is applied the file is not the disk. */
  #rebaseLsn = 0;
  /** Since when it is behind; null: it is not. */
  #behindSinceMs: number | null = null;
  #failure: VarveError | null = null;
  #running: Promise<void> = Promise.resolve();
  #closing: Promise<void> | null = null;
  #endTimer: Timer | null = null;
  /** Greatest LSN that was handed to the feed. */
  #enqueuedLsn: number;
  /** Nothing behind this LSN is handed on until the timer ends it; null: no hold. */
  #holdLsn: number | null = null;
  #holdTimer: Timer | null = null;
  #heldBatch: (() => void) | null = null;

  constructor(options: ReplicaFollowerOptions) {
    this.#options = options;
    this.#enqueuedLsn = options.image.state().appliedLsn;
    this.#feed = options.feed<OwnedBatch>(options.image, {
      onApplied: (batches) => this.#applied(batches),
      onHalted: (error) => this.#halt(error),
      onCheckpoint: () => options.onChange(),
    });
  }

  /** Begins; resolves at once. */
  start(): void {
    this.#running = this.#run();
    this.#askForEnd();
  }

  get failure(): VarveError | null {
    return this.#failure;
  }

  get image(): LocalReplica {
    return this.#options.image;
  }

  /** The newest of those whose bytes may be in the image: its batches may be on their way there. */
  get epoch(): number {
    return Math.max(this.#newestEpoch, this.image.logPosition().epoch);
  }

  /** It has caught up once: its image holds nothing that it has not begun to apply. */
  get exact(): boolean {
    return this.#caughtUpOnce;
  }

  report(): ReplicaReport {
    const { node, host, image, roomBytes } = this.#options;
    const { sizeBytes, appliedLsn, checkpointLsn, allocatedBytes } = image.state();
    const remoteExtents = this.#remoteExtents();
    return {
      node,
      host,
      condition: this.#condition(),
      reason: this.#failure?.message ?? "",
      appliedLsn,
      checkpointLsn,
      epoch: image.logPosition().epoch,
      sizeBytes,
      allocatedBytes,
      roomBytes: Math.max(0, Math.floor(roomBytes())),
      ...(remoteExtents === 0 ? {} : { remoteExtents }),
    };
  }

  /** Those that are partly here included. */
  #remoteExtents(): number {
    const { extents } = this.image;
    if (extents === undefined || extents.nextRemote(0) === -1) return 0;
    const { extents: all, localExtents } = extents.residency();
    return all - localExtents;
  }

  /** See ReadGrant; null while nobody may. A newer writer's batches must not be on their way, and every byte must be in the file. */
  grantReads(): { readonly imagePath: string; readonly token: string; readonly epoch: number } | null {
    const { grant, image } = this.#options;
    const { epoch, appliedLsn } = image.logPosition();
    if (grant === null || this.#closing !== null || this.#condition() !== "following") return null;
    if (this.#options.mayGrant?.() === false) return null;
    if (!this.exact || this.#newestEpoch > epoch || this.#rebaseLsn > appliedLsn) return null;
    if (!(image.extents?.isRangeLocal(0, image.state().sizeBytes) ?? true)) return null;
    return { imagePath: grant.imagePath, token: grant.give(appliedLsn), epoch };
  }

  /** What gateways read directly from now on counts no more. Throws where that can't be said. */
  revokeReads(): void {
    this.#options.grant?.revoke();
  }

  /** It is applied, and so is what the image may hold bytes of. */
  hasReached(wantedLsn: number): boolean {
    return this.#options.image.state().appliedLsn >= Math.max(wantedLsn, this.#options.exactFromLsn);
  }

  /** Resolves with true when `lsn` is applied, with false after `waitMs` or when it never will be. */
  async reached(wantedLsn: number, waitMs: number): Promise<boolean> {
    const lsn = Math.max(wantedLsn, this.#options.exactFromLsn);
    if (this.hasReached(wantedLsn)) return true;
    if (this.#failure !== null || this.#closing !== null || waitMs <= 0) return false;
    this.#feed.hurry();
    await new Promise<void>((resolve) => {
      const waiter = { lsn, wake: resolve };
      this.#waiters.add(waiter);
      const timer = this.#options.clock.after(waitMs, () => {
        this.#waiters.delete(waiter);
        resolve();
      });
      waiter.wake = () => {
        timer.cancel();
        this.#waiters.delete(waiter);
        resolve();
      };
    });
    return this.#options.image.state().appliedLsn >= lsn;
  }

  /**
   * Applies up to `lsn`, or to where it is already when that is further, and stays there for `holdMs`, unless told again; 0: goes
   * on. Resolves with the LSN that it stands at.
   */
  async hold(lsn: number, holdMs: number): Promise<number> {
    this.#holdTimer?.cancel();
    if (holdMs <= 0) this.#letGo();
    else {
      this.#holdLsn = Math.max(lsn, this.#enqueuedLsn);
      this.#holdTimer = this.#options.clock.after(holdMs, () => this.#letGo());
      this.#heldBatch?.();
      await this.reached(this.#holdLsn, holdMs);
    }
    return this.#options.image.state().appliedLsn;
  }

  #letGo(): void {
    this.#holdLsn = null;
    this.#heldBatch?.();
  }

  /** Stops following, applies what was read, checkpoints and detaches the image. A halted one is abandoned. Never rejects. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #run(): Promise<void> {
    const { image, log, clock } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted && this.#failure === null) {
      try {
        if (image.logPosition().line === "" && (await log.end()) === null) throw noLogYet();
        for await (const followed of log.follow(image.logPosition(), signal)) await this.#take(followed);
        return;
      } catch (cause) {
        const error = toVarveError(cause, "follow the log");
        if (error.kind !== "Retry") {
          this.#halt(error);
          return;
        }
      }
      await this.#feed.drain().catch(() => undefined); // a failure halted it
      await new Promise<void>((resolve) => {
        const timer = clock.after(retryMs, resolve);
        signal.addEventListener("abort", () => {
          timer.cancel();
          resolve();
        });
      });
    }
  }

  async #take({ batch, sequence }: FollowedBatch): Promise<void> {
    const lastLsn = lastLsnOf(batch);
    while (this.#holdLsn !== null && lastLsn > this.#holdLsn && !this.#stop.signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#heldBatch = resolve;
      });
      this.#heldBatch = null;
    }
    if (this.#failure !== null) throw this.#failure;
    const isRebase = batch.entries.some(({ kind }) => kind === "rebase");
    if (isRebase && !this.#options.takesRebases) throw rebaseNeedsBucket(this.#options.node);
    if (batch.epoch > this.#newestEpoch || isRebase) {
      // Before its bytes come into the image: the gateway that reads it directly may be the former writer's.
      this.#options.grant?.revoke();
      this.#newestEpoch = batch.epoch;
    }
    if (isRebase) this.#rebaseLsn = lastLsn;
    const payload = payloadMemory.copyOf(batch.payload);
    this.#queuedBytes += payload.byteLength;
    this.#knownLsn = Math.max(this.#knownLsn, lastLsn);
    this.#enqueuedLsn = lastLsn;
    this.#feed.enqueue({ ...batchWith(batch, payload), payloadBytes: payload.byteLength, sequence });
    if (this.#waiters.size > 0) this.#feed.hurry();
    if (this.#queuedBytes > queuedBytesMax) await this.#feed.drain();
  }

  #applied(batches: readonly OwnedBatch[]): void {
    for (const batch of batches) {
      this.#queuedBytes -= batch.payloadBytes;
      payloadMemory.giveBack(batch.payload);
    }
    const { appliedLsn } = this.#options.image.state();
    this.#options.grant?.applied(appliedLsn);
    for (const waiter of this.#waiters) if (waiter.lsn <= appliedLsn) waiter.wake();
    this.#judge();
    this.#options.onChange();
  }

  /** The end of the log is asked for now and then: what is not read yet makes a replica lag, too. */
  #askForEnd(): void {
    const { log, clock } = this.#options;
    if (this.#closing !== null || this.#failure !== null) return;
    log
      .end()
      .then(
        (end) => {
          this.#knownLsn = Math.max(this.#knownLsn, end?.lastLsn ?? 0);
          this.#endKnown = true;
          this.#judge();
        },
        () => undefined, // away: asked again
      )
      .finally(() => {
        if (this.#closing === null) {
          this.#endTimer = clock.after(laggingMs, () => this.#askForEnd());
        }
      });
  }

  #judge(): void {
    const { image, clock } = this.#options;
    if (image.state().appliedLsn >= this.#knownLsn) {
      this.#behindSinceMs = null;
      this.#caughtUpOnce ||= this.#endKnown && this.#knownLsn >= Math.max(1, this.#options.exactFromLsn);
    } else this.#behindSinceMs ??= clock.monotonicMs();
  }

  #condition(): ReplicaCondition {
    if (this.#failure !== null) return "halted";
    if (!this.#caughtUpOnce) return "filling";
    const behindMs =
      this.#behindSinceMs === null ? 0 : this.#options.clock.monotonicMs() - this.#behindSinceMs;
    return behindMs > laggingMs || this.#queuedBytes > queuedBytesMax ? "lagging" : "following";
  }

  #halt(error: VarveError): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#stop.abort();
    this.#letGo();
    this.#revoke();
    for (const waiter of this.#waiters) waiter.wake();
    this.#options.onChange();
  }

  #revoke(): void {
    try {
      this.#options.grant?.revoke();
    } catch (cause) {
      // Then the image is not given out of hand as detached.
      this.#halt(toVarveError(cause, "revoke direct reads"));
    }
  }

  async #shutDown(): Promise<void> {
    const { image, grant } = this.#options;
    this.#stop.abort();
    this.#endTimer?.cancel();
    this.#holdTimer?.cancel();
    this.#letGo();
    this.#revoke();
    for (const waiter of this.#waiters) waiter.wake();
    await this.#running;
    await this.#feed.close().catch((cause: unknown) => this.#halt(toVarveError(cause, "close")));
    const wholly = image.state().appliedLsn >= this.#options.exactFromLsn;
    if (this.#failure === null && wholly) {
      await image.detach().catch(async (cause: unknown) => {
        this.#halt(toVarveError(cause, "close"));
        await image.abandon();
      });
    } else await image.abandon();
    await grant?.close().catch(() => undefined); // nothing is granted any more
  }
}

function rebaseNeedsBucket(node: string): VarveError {
  return new VarveError(
    "RebaseNeedsBucket",
    "Invalid",
    `the volume was rolled back, and ${node} has no bucket`,
    {
      hint: "It is filled from another replica. To read the bucket itself, start it with the archivers': --bucket URL.",
      fields: { node },
    },
  );
}

function noLogYet(): VarveError {
  return new VarveError("LogNotThere", "Retry", "the volume has no log yet: no gateway has opened it");
}
