/*
 * The past of a volume whose log is on other machines (a cluster): the manifest as the bucket has it now, and the log's tail behind it
 * through the log port. Nothing holds the log back for who reads it here: what is released is in the bucket, and is read from there
 * then (point-source.ts changes over by itself). Made by the cluster layers of gateway, api and archiver, once per volume.
 */
import type { SnapshotRecord, VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { HistorySubject, HotLog, LoggedBatch } from "#shared/ports/history.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import { logAway, logReleased } from "./history-errors.ts";
import { latestManifest } from "./latest-manifest.ts";

/** Once it did not answer, it is given so long until it does. */
const awayMs = 250;

export interface RemoteSubjectOptions {
  readonly volumeId: string;
  readonly store: ObjectStore;
  readonly past: Pick<PastRecords, "historyOf">;
  readonly log: LogFollower;
  readonly clock: Pick<Clock, "after" | "monotonicMs">;
  /** Where the volume has no history record (any more). */
  readonly beginBytes: number;
}

export class RemoteSubject implements HistorySubject {
  readonly volumeId: string;
  readonly begin: HistorySubject["begin"];
  readonly #options: RemoteSubjectOptions;
  readonly #log: RemoteHotLog;
  /** The bucket did not answer in time when it was asked last. */
  #isAway = false;

  constructor(options: RemoteSubjectOptions) {
    const history = options.past.historyOf(options.volumeId);
    this.volumeId = options.volumeId;
    this.begin = { sizeBytes: history?.beginBytes ?? options.beginBytes, origin: history?.origin ?? null };
    this.#options = options;
    this.#log = new RemoteHotLog(options.log, options.clock);
  }

  /**
   * The log is looked at behind the manifest: what was released before that look is in this manifest, or in the next. A log from its
   * first entry on needs no bucket: one that does not answer soon is not waited for then (Retry).
   */
  async manifest(): Promise<VolumeManifest | null> {
    const asked = Promise.allSettled([latestManifest(this.#options.store, this.volumeId)]);
    const early = await this.#soon(asked);
    this.#isAway = early === null;
    await this.#log.look();
    if (early === null && this.#log.state().oldestLsn === 1) throw bucketSilent(this.volumeId);
    const [found] = early ?? (await asked);
    if (early === null) await this.#log.look();
    if (found.status === "rejected") throw found.reason;
    return found.value?.manifest ?? null;
  }

  /** Null: it is not there in time; a point asks several times while it opens, and only the first of them waits long. */
  async #soon<T>(asked: Promise<T>): Promise<T | null> {
    return await new Promise((resolve, reject) => {
      const patience = new Patience(this.#options.clock, this.#isAway ? awayMs : limits.archiveOpenMs);
      const timer = patience.wait(() => resolve(null));
      asked.then(resolve, reject).finally(() => timer.cancel());
    });
  }

  hotLog(): HotLog {
    return this.#log;
  }

  snapshots(): readonly SnapshotRecord[] {
    return this.#options.past.historyOf(this.volumeId)?.snapshots ?? [];
  }
}

function bucketSilent(volumeId: string): VarveError {
  return new VarveError("BucketAwayError", "Retry", `the bucket does not answer for volume ${volumeId}`, {
    hint: "Try again when it answers.",
    fields: { volumeId },
  });
}

class RemoteHotLog implements HotLog {
  line = "";
  readonly #log: LogFollower;
  readonly #clock: Pick<Clock, "after" | "monotonicMs">;
  /** As of the last look; before the first, and without a log: nothing. */
  #oldestLsn = 1;
  #durableLsn = 0;

  constructor(log: LogFollower, clock: Pick<Clock, "after" | "monotonicMs">) {
    this.#log = log;
    this.#clock = clock;
  }

  async look(): Promise<void> {
    const end = await this.#log.end();
    this.line = end?.line ?? "";
    this.#oldestLsn = end?.oldestLsn ?? 1;
    this.#durableLsn = end?.lastLsn ?? 0;
  }

  state(): { readonly oldestLsn: number; readonly durableLsn: number } {
    return { oldestLsn: this.#oldestLsn, durableLsn: this.#durableLsn };
  }

  /** Servers that are busy or away are waited for, as the bucket is. */
  async *read(fromLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    const stop = new AbortController();
    const wait = (): Timer => new Patience(this.#clock, limits.bucketWaitMs).wait(() => stop.abort());
    let patience = wait();
    try {
      for await (const batch of this.#log.read(fromLsn, this.#durableLsn, stop.signal)) {
        patience.cancel();
        yield batch;
        patience = wait();
      }
      if (stop.signal.aborted) throw logAway(fromLsn);
    } catch (cause) {
      if (!(cause instanceof VarveError) || cause._tag !== "LogReleased") throw cause;
      throw logReleased(cause);
    } finally {
      patience.cancel();
      stop.abort();
    }
  }

  pin(): () => void {
    return () => undefined;
  }
}
