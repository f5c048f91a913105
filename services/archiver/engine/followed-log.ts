/*
 * The log of a volume that others write, as the archiver of a cluster sees it: followed from its end at open for what becomes
 * durable, read again from any LSN for what is not sealed yet. Nothing here holds the log back: it is released by whoever serves the
 * volume, up to what this archiver said that the bucket holds. Made by archived-volume.ts; used by volume-archiver.ts as the log of a
 * session is on one machine.
 */
import { entryKind } from "#shared/domain/entry.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchivedLog, DurableBatch } from "#shared/ports/archive.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { LogEnd, LogFollower } from "#shared/ports/log-follower.ts";

export interface FollowedLogOptions {
  readonly log: LogFollower;
  /** Where the log ended just now. */
  readonly end: LogEnd;
  readonly clock: Clock;
  /** The log can't be followed any more. Called once. */
  readonly onFailed: (error: VarveError) => void;
}

export class FollowedLog implements ArchivedLog {
  readonly line: string;
  readonly #options: FollowedLogOptions;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<(batch: DurableBatch) => void>();
  #oldestLsn: number;
  #durableLsn: number;
  #diskBytes: number;
  #limitBytes: number;
  #timer: Timer | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(options: FollowedLogOptions) {
    const { line, oldestLsn, lastLsn, diskBytes, limitBytes } = options.end;
    this.#options = options;
    this.line = line;
    this.#oldestLsn = oldestLsn;
    this.#durableLsn = lastLsn;
    this.#diskBytes = diskBytes;
    this.#limitBytes = limitBytes;
  }

  start(): void {
    this.#running = this.#run();
    this.#lookLater();
  }

  state(): { readonly oldestLsn: number; readonly durableLsn: number } {
    return { oldestLsn: this.#oldestLsn, durableLsn: this.#durableLsn };
  }

  read(fromLsn: number): AsyncIterable<LoggedBatch> {
    return this.#options.log.read(fromLsn, this.#durableLsn, this.#stop.signal);
  }

  /** Who serves the volume knows no readers of its log elsewhere. What goes is held by the bucket, and is read from there then. */
  pin(): () => void {
    return () => undefined;
  }

  follow(listener: (batch: DurableBatch) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  room(): { readonly diskBytes: number; readonly limitBytes: number } {
    return { diskBytes: this.#diskBytes, limitBytes: this.#limitBytes };
  }

  /** Resolves when nothing reads the log any more. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#timer?.cancel();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log, end, onFailed } = this.#options;
    const from = { line: end.line, appliedLsn: end.lastLsn, checksum: end.checksum, sequence: end.sequence };
    try {
      for await (const { batch } of log.follow(from, this.#stop.signal)) this.#take(batch);
    } catch (cause) {
      if (!this.#stop.signal.aborted) onFailed(toVarveError(cause, "follow the log"));
    }
  }

  #take(batch: LoggedBatch): void {
    const { record, entries, firstLsn, previousChecksum, checksum } = batch;
    this.#durableLsn = firstLsn + entries.length - 1;
    this.#diskBytes += record.length;
    if (this.#listeners.size === 0) return;
    const kinds = entries.map(({ kind }) => entryKind[kind]);
    const durable: DurableBatch = {
      firstLsn,
      lastLsn: this.#durableLsn,
      entryCount: entries.length,
      kinds,
      values: { size: kinds.filter((kind) => kind > entryKind.trim).length },
      slab: { bytes: record },
      recordBytes: record.length,
      previousChecksum,
      checksum,
    };
    for (const listener of this.#listeners) listener(durable);
  }

  /** What was released meanwhile, and how full the log is. */
  #lookLater(): void {
    const { log, clock } = this.#options;
    this.#timer = clock.after(limits.archiveLogLookMs, () => {
      log
        .end()
        .then(
          (end) => {
            if (end === null || end.line !== this.line) return;
            this.#oldestLsn = end.oldestLsn;
            this.#diskBytes = end.diskBytes;
            this.#limitBytes = end.limitBytes;
          },
          () => undefined, // away: looked at again
        )
        .finally(() => {
          if (!this.#stop.signal.aborted) this.#lookLater();
        });
    });
  }
}
