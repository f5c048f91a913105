/*
 * Fetches bytes of points for one image: opens each point when its first byte is needed, tries again while the bucket is
 * away, gives up after limits.bucketWaitMs. Fetched bytes come in memory of its own, because a store that answers too late
 * must not write into memory that serves another request by then. Called by partial-read.ts and image-extents.ts; next:
 * shared/ports/history.ts.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { RemotePoint, RemoteSources } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { type FetchMemory, fetchMemoryOf } from "./fetch-memory.ts";

/** Bytes of a point from slab.bytes[0] on; the memory is the caller's until release(). */
export interface Fetched {
  readonly slab: Slab;
  release(): void;
}

interface OpenPoint {
  readonly source: Promise<PointSource>;
  opened: PointSource | null;
  readers: number;
  retired: boolean;
}

const retryMsMin = 250;
const retryMsMax = 5_000;

export interface RemoteReaderParts {
  readonly store: FileStore;
  readonly sources: RemoteSources | null;
  /** Null: a failure is told at once. */
  readonly clock: Clock | null;
}

export class RemoteReader {
  readonly #parts: RemoteReaderParts;
  readonly #open = new Map<string, OpenPoint>();
  readonly #frames: FetchMemory;
  readonly #extents: FetchMemory;
  readonly #stops = new Set<(error: VarveError) => void>();
  #closed = false;
  readonly counters = { reads: 0, bytes: 0, failures: 0 };

  constructor(parts: RemoteReaderParts) {
    this.#parts = parts;
    const { frames, extents } = fetchMemoryOf(parts.store);
    this.#frames = frames;
    this.#extents = extents;
  }

  /** The point, where it is open already: what it knows without asking the bucket. */
  opened(point: RemotePoint): PointSource | null {
    return this.#open.get(keyOf(point))?.opened ?? null;
  }

  /** At most an extent; up to limits.archiveFrameBytes from the memory of reads, more from that of fills. */
  async fetch(point: RemotePoint, offset: number, length: number): Promise<Fetched> {
    const memory = length <= limits.archiveFrameBytes ? this.#frames : this.#extents;
    const { clock } = this.#parts;
    const patience = clock === null ? null : new Patience(clock, limits.bucketWaitMs);
    const work: Work = { gaveUp: false, lastError: null };
    try {
      const slab = await this.#limited(memory.take(), patience, work, (late) => memory.give(late));
      const done = this.#readWithRetries(point, slab, offset, length, work);
      // A read that was given up goes on writing into its memory until it settles.
      const giveBack = (): void => memory.give(slab);
      try {
        await this.#limited(done, patience, work, () => undefined);
      } catch (cause) {
        done.then(giveBack, giveBack);
        throw cause;
      }
      this.counters.reads += 1;
      this.counters.bytes += length;
      return { slab, release: giveBack };
    } catch (cause) {
      this.counters.failures += 1;
      work.gaveUp = true;
      throw toVarveError(cause, "remote read");
    }
  }

  /** Points that nothing is read from any more are closed. */
  keepOnly(points: readonly RemotePoint[]): void {
    if (this.#open.size === 0) return;
    const kept = new Set(points.map(keyOf));
    for (const [key, open] of this.#open) if (!kept.has(key)) this.#retire(key, open);
  }

  /** Whoever waits is refused now. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#stops) stop(closing());
    for (const [key, open] of this.#open) this.#retire(key, open);
  }

  async #readWithRetries(
    point: RemotePoint,
    slab: Slab,
    offset: number,
    length: number,
    work: Work,
  ): Promise<void> {
    const { clock, sources } = this.#parts;
    for (let waitMs = retryMsMin; ; waitMs = Math.min(retryMsMax, 2 * waitMs)) {
      try {
        await this.#readOnce(point, slab, offset, length);
        return;
      } catch (cause) {
        const error = toVarveError(cause, "remote read");
        work.lastError = error;
        // Without sources there is nobody to wait for.
        if (error.kind !== "Retry" || clock === null || sources === null || this.#closed) throw error;
        await pause(clock, waitMs);
        if (work.gaveUp) throw error;
      }
    }
  }

  async #readOnce(point: RemotePoint, slab: Slab, offset: number, length: number): Promise<void> {
    const key = keyOf(point);
    const open = this.#open.get(key) ?? this.#begin(key, point);
    open.readers += 1;
    try {
      const source = await open.source;
      await source.read(slab, 0, length, offset);
    } finally {
      open.readers -= 1;
      if (open.retired && open.readers === 0) closeQuietly(open);
    }
  }

  #begin(key: string, point: RemotePoint): OpenPoint {
    const { sources } = this.#parts;
    if (sources === null) throw noSources(point);
    const open: OpenPoint = { source: sources.open(point), opened: null, readers: 0, retired: false };
    this.#open.set(key, open);
    open.source.then(
      (source) => {
        open.opened = source;
      },
      () => {
        // The next read asks again.
        if (this.#open.get(key) === open) this.#open.delete(key);
      },
    );
    return open;
  }

  #retire(key: string, open: OpenPoint): void {
    this.#open.delete(key);
    open.retired = true;
    if (open.readers === 0) closeQuietly(open);
  }

  /** The promise's result, or a refusal when the time is over or the image closes. `late`: what then becomes of a result. */
  #limited<T>(
    promise: Promise<T>,
    patience: Patience | null,
    work: Work,
    late: (result: T) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      let timer: Timer | null = null;
      let over = false;
      const settle = (): void => {
        over = true;
        timer?.cancel();
        this.#stops.delete(stop);
      };
      const stop = (error: VarveError): void => {
        settle();
        reject(error);
      };
      promise.then(
        (result) => {
          if (over) {
            late(result);
            return;
          }
          settle();
          resolve(result);
        },
        (cause: unknown) => {
          if (!over) stop(toVarveError(cause, "remote read"));
        },
      );
      if (this.#closed) stop(closing());
      else {
        this.#stops.add(stop);
        timer = patience?.wait(() => stop(waitedTooLong(work.lastError))) ?? null;
      }
    });
  }
}

interface Work {
  gaveUp: boolean;
  lastError: VarveError | null;
}

function keyOf(point: RemotePoint): string {
  return `${point.volumeId}@${point.lsn}`;
}

function pause(clock: Clock, waitMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(waitMs, resolve);
  });
}

function closing(): VarveError {
  return new VarveError("ReplicaClosing", "Retry", "the image is being closed");
}

function closeQuietly(open: OpenPoint): void {
  open.source.then((source) => source.close()).catch(() => undefined);
}

function noSources(point: RemotePoint): VarveError {
  return new VarveError(
    "RemoteSourceMissing",
    "Retry",
    `bytes of this disk are in the bucket (volume id ${point.volumeId} at LSN ${point.lsn}), and no bucket is in use`,
    { hint: "Start again with the --bucket that the volume was archived to.", fields: { ...point } },
  );
}

function waitedTooLong(cause: VarveError | null): VarveError {
  return new VarveError(
    "BucketWaitError",
    "Retry",
    `a remote extent could not be read within ${limits.bucketWaitMs / 1000} s${cause === null ? "" : `: ${cause.message}`}`,
    {
      hint:
        cause?.hint === undefined || cause.hint === "" ? "Check that the bucket can be reached." : cause.hint,
      cause,
    },
  );
}
