// Points of disks that a test holds as reference folds: what a bucket would give, with delays, failures and a memory of what
// was asked. For tests of whatever reads points (replicas with remote extents, fillers, exports of points).
import { VarveError } from "#shared/domain/errors.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import { limits } from "#shared/domain/limits.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { RemotePoint, RemoteSources } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";

export interface MemoryPointOptions {
  /** Resolves when an answer may come: the test's own delays. */
  readonly delay?: () => Promise<void>;
  /** Whether this call fails, with what. */
  readonly fails?: (what: "open" | "read", point: RemotePoint) => VarveError | null;
}

export function bucketAway(): VarveError {
  return new VarveError("BucketAway", "Retry", "the bucket does not answer", { hint: "Wait." });
}

export class MemoryPoints implements RemoteSources {
  readonly #disks = new Map<string, FoldedDisk>();
  readonly #options: MemoryPointOptions;
  /** See RemoteSources; a test sets what it knows. */
  changedExtents: NonNullable<RemoteSources["changedExtents"]> = () => null;
  readonly counters = { opens: 0, reads: 0, open: 0, readsUnderWay: 0 };

  constructor(options: MemoryPointOptions = {}) {
    this.#options = options;
  }

  /** The disk as it is now, as that point. */
  keep(point: RemotePoint, disk: FoldedDisk): void {
    this.#disks.set(`${point.volumeId}@${point.lsn}`, disk.copy());
  }

  async open(point: RemotePoint): Promise<PointSource> {
    this.counters.opens += 1;
    await this.#answer("open", point);
    const disk = this.#disks.get(`${point.volumeId}@${point.lsn}`);
    if (disk === undefined) {
      throw new VarveError(
        "PointUnknown",
        "Invalid",
        `no point ${point.volumeId} at LSN ${point.lsn} was kept`,
      );
    }
    this.counters.open += 1;
    let closed = false;
    return {
      ...point,
      sizeBytes: disk.sizeBytes,
      read: async (slab: Slab, start: number, length: number, offset: number): Promise<void> => {
        if (closed) throw new Error("a closed point is read");
        this.counters.reads += 1;
        this.counters.readsUnderWay += 1;
        try {
          await this.#answer("read", point);
          if (closed) throw new Error("a point is closed under a read");
          copyFrom(disk, slab, start, length, offset);
        } finally {
          this.counters.readsUnderWay -= 1;
        }
      },
      allocation: (offset: number, length: number): readonly AllocationRun[] => [
        { offset, length, allocated: offset < disk.sizeBytes },
      ],
      extents: async function* () {
        for (let extent = 0; extent * limits.extentBytes < disk.sizeBytes; extent += 1) yield extent;
      },
      close: async () => {
        if (!closed) this.counters.open -= 1;
        closed = true;
      },
    };
  }

  async #answer(what: "open" | "read", point: RemotePoint): Promise<void> {
    await this.#options.delay?.();
    const failure = this.#options.fails?.(what, point) ?? null;
    if (failure !== null) throw failure;
  }
}

function copyFrom(disk: FoldedDisk, slab: Slab, start: number, length: number, offset: number): void {
  slab.bytes.fill(0, start, start + length);
  const end = Math.min(offset + length, disk.sizeBytes);
  if (end > offset) slab.bytes.set(disk.read(offset, end - offset), start);
}
