/*
 * Fetches bytes of points for one image: opens each point when its first byte is needed, tries again while the bucket is
 * away, gives up after limits.bucketWaitMs. Fetched bytes come in memory of its own, because a store that answers too late
 * must not write into memory that serves another request by then. Called by partial-read.ts and image-extents.ts; next:
 * shared/ports/history.ts.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { RemotePoint, RemoteSources } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";

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
    this.#frames = new FetchMemory(parts.store, limits.archiveFrameBytes, limits.remoteReadsMax);
    this.#extents = new FetchMemory(parts.store, limits.extentBytes, limits.fillsMax);
  }

  /** The point, where it is open already: what it knows without asking the bucket. */
  opened(point: RemotePoint): PointSource | null {
    return this.#open.get(keyOf(point))?.opened ?? null;
  }

  /** At most an extent; up to limits.archiveFrameBytes from the memory of reads, more from that of fills. */
  async fetch(point: RemotePoint, offset: number, length: number): Promise<Fetched> {
    const memory = length <= limits.archiveFrameBytes ? this.#frames : this.#extents;
    const slab = await this.#untilStopped(memory.take(), (late) => memory.give(late));
    let lent = true;
    const release = (): void => {
      if (lent) memory.give(slab);
      lent = false;
    };
    // A read that was given up goes on writing into its memory until it settles.
    const work = this.#readWithRetries(point, slab, offset, length);
    try {
      await this.#withinLimit(work);
      this.counters.reads += 1;
      this.counters.bytes += length;
      return { slab, release };
    } catch (cause) {
      this.counters.failures += 1;
      work.gaveUp = true;
      work.done.then(release, release);
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
    const error = new VarveError("ReplicaClosing", "Retry", "the image is being closed");
    for (const stop of this.#stops) stop(error);
    for (const [key, open] of this.#open) this.#retire(key, open);
  }

  #readWithRetries(point: RemotePoint, slab: Slab, offset: number, length: number): Work {
    const work: Work = { done: Promise.resolve(), gaveUp: false, lastError: null };
    work.done = (async () => {
      for (let waitMs = retryMsMin; ; waitMs = Math.min(retryMsMax, 2 * waitMs)) {
        try {
          await this.#readOnce(point, slab, offset, length);
          return;
        } catch (cause) {
          const error = toVarveError(cause, "remote read");
          work.lastError = error;
          if (error.kind !== "Retry" || this.#parts.clock === null || this.#closed) throw error;
          await this.#pause(this.#parts.clock, waitMs);
          if (work.gaveUp) throw error;
        }
      }
    })();
    return work;
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

  #withinLimit(work: Work): Promise<void> {
    const { clock } = this.#parts;
    return new Promise((resolve, reject) => {
      let timer: Timer | null = null;
      const settle = (): void => {
        timer?.cancel();
        this.#stops.delete(stop);
      };
      const stop = (error: VarveError): void => {
        settle();
        reject(error);
      };
      this.#stops.add(stop);
      timer = clock?.after(limits.bucketWaitMs, () => stop(waitedTooLong(work.lastError))) ?? null;
      work.done.then(
        () => {
          settle();
          resolve();
        },
        (cause: unknown) => stop(toVarveError(cause, "remote read")),
      );
    });
  }

  /** `late`: what to do with a result that comes after the stop. */
  #untilStopped<T>(promise: Promise<T>, late: (result: T) => void): Promise<T> {
    if (this.#closed) {
      promise.then(late, () => undefined);
      return Promise.reject(new VarveError("ReplicaClosing", "Retry", "the image is being closed"));
    }
    return new Promise<T>((resolve, reject) => {
      let stopped = false;
      const stop = (error: VarveError): void => {
        stopped = true;
        this.#stops.delete(stop);
        reject(error);
      };
      this.#stops.add(stop);
      promise.then(
        (result) => {
          this.#stops.delete(stop);
          if (stopped) late(result);
          else resolve(result);
        },
        (cause: unknown) => stop(toVarveError(cause, "remote read")),
      );
    });
  }

  #pause(clock: Clock, waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      clock.after(waitMs, resolve);
    });
  }
}

interface Work {
  done: Promise<void>;
  gaveUp: boolean;
  lastError: VarveError | null;
}

/** Slabs of one size, made when needed, kept, bounded: who finds none waits its turn. */
class FetchMemory {
  readonly #store: FileStore;
  readonly #bytes: number;
  readonly #most: number;
  readonly #waiting: ((slab: Slab) => void)[] = [];
  #made = 0;

  constructor(store: FileStore, bytes: number, most: number) {
    this.#store = store;
    this.#bytes = bytes;
    this.#most = most;
  }

  take(): Promise<Slab> {
    const free = spareSlabs(this.#store, this.#bytes);
    if (this.#made < this.#most) {
      this.#made += 1;
      return Promise.resolve(free.pop() ?? this.#store.allocateSlab(this.#bytes));
    }
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  give(slab: Slab): void {
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next(slab);
      return;
    }
    this.#made -= 1;
    this.#store.shrinkSlab(slab);
    spareSlabs(this.#store, this.#bytes).push(slab);
  }
}

/** A store's slabs are never unmapped: those not in use are there for all its images. */
const spare = new WeakMap<FileStore, Map<number, Slab[]>>();

function spareSlabs(store: FileStore, bytes: number): Slab[] {
  const sizes = spare.get(store) ?? new Map<number, Slab[]>();
  spare.set(store, sizes);
  const free = sizes.get(bytes) ?? [];
  sizes.set(bytes, free);
  return free;
}

function keyOf(point: RemotePoint): string {
  return `${point.volumeId}@${point.lsn}`;
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
