/*
 * The log as replicas on other machines read it: in order, from their own checkpoint, without end, only the batches that
 * count. The storage node's applier follows it. Adapter: adapters/write-log/jetstream-follower.ts.
 */
import type { LoggedBatch } from "./history.ts";

/** Where a replica is: what its checkpoint says (docs/specs/jetstream-log.md, "Followers"). */
export interface FollowFrom {
  /** Line of the batch at appliedLsn; empty where nothing was applied yet. */
  readonly line: string;
  readonly appliedLsn: number;
  /** Checksum of the batch that ends at appliedLsn; 0n where nothing was applied yet. */
  readonly checksum: bigint;
  /** Stream sequence of the message with that batch, as it came with it; 0 where it is not known. A hint. */
  readonly sequence: number;
}

export interface FollowedBatch {
  /** Valid until the next one is asked for. */
  readonly batch: LoggedBatch;
  /** Of the message that it came in: for the checkpoint, beside the LSN. Several batches may share one. */
  readonly sequence: number;
}

export interface LogEnd {
  readonly line: string;
  readonly epoch: number;
  readonly oldestLsn: number;
  readonly lastLsn: number;
  /** Of the batch that ends at lastLsn; with `line`, lastLsn and sequence a place to follow from. */
  readonly checksum: bigint;
  readonly sequence: number;
  /** Bytes that the log takes on each of its servers, and how many it may. */
  readonly diskBytes: number;
  readonly limitBytes: number;
}

export interface LogFollower {
  /**
   * Batches behind `from`, each exactly once, in LSN order, line and chain checked, fenced writers' batches left out. What was
   * yielded is durable. Waits for more without end; ends when `signal` aborts. Throws Corrupt where the log is not a
   * continuation of `from` or ends before it, Invalid (LogReleased) where it begins behind it: the replica must be filled. Away servers are waited for.
   */
  follow(from: FollowFrom, signal: AbortSignal): AsyncIterable<FollowedBatch>;
  /**
   * Batches from the one that holds `fromLsn` to the one that holds `untilLsn`, which is durable; ends early when `signal` aborts.
   * Throws as follow(); LogReleased where the log begins behind `fromLsn`.
   */
  read(fromLsn: number, untilLsn: number, signal: AbortSignal): AsyncIterable<LoggedBatch>;
  /** What the log holds now, as its stream's leader knows it; null: there is no log. Rejects Retry while nobody answers. */
  end(): Promise<LogEnd | null>;
}
