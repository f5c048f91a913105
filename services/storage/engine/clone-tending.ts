/*
 * A clone's replica while its bytes are still in the bucket: how it begins (every extent remote, read from the parent's point), where
 * remote bytes come from, and the filler that fetches them behind what is read. Used by kept-replica.ts; below it the residency of the
 * image (docs/specs/residency.md) and the reader of the past. Rules: docs/specs/cluster.md#clones.
 */
import type { PlacementOrigin } from "#shared/domain/cluster.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { RemoteBeginning, ReplicaHome, ReplicaTending } from "#shared/ports/replica-home.ts";
import type { LocalReplica } from "#shared/ports/replica-image.ts";
import type { RemoteSources } from "#shared/ports/replica-residency.ts";

export interface CloneTendingOptions {
  readonly replicas: Pick<ReplicaHome, "tend">;
  readonly image: LocalReplica;
  /** Bytes a second at most; null: as fast as it goes. */
  readonly fillBytesPerSecond: number | null;
  readonly onChange: () => void;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

/** Its own log begins with entry 1. */
export function cloneBeginning({ volumeId, lsn }: PlacementOrigin): RemoteBeginning {
  return { point: { volumeId, lsn }, appliedLsn: 0, line: null, epoch: 0 };
}

export function originSources(archived: ArchivedImages): RemoteSources {
  return { open: async ({ volumeId, lsn }) => archived.point(volumeId, lsn) };
}

export class CloneTending {
  readonly #tending: ReplicaTending;
  #isWhole: boolean;

  constructor({ replicas, image, fillBytesPerSecond, onChange, onNote }: CloneTendingOptions) {
    this.#isWhole = image.extents === undefined || image.extents.nextRemote(0) === -1;
    this.#tending = replicas.tend(image, {
      // Nothing is evicted: residency full, and no base that could give it back.
      policy: { residency: "full", coldAfterMs: 0, capacity: null, fillBytesPerSecond },
      heldBase: () => null,
      onWhole: () => {
        this.#isWhole = true;
        onChange();
      },
      onNote,
    });
  }

  /** Every byte is in the file. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** What the replica's report says beside its place in the log, while something is missing. */
  report(): Pick<ReplicaReport, "reason"> | null {
    const { remainingExtents, extents, error } = this.#tending.status();
    if (remainingExtents === 0) return null;
    const here = `${extents - remainingExtents} of ${extents} extents are here, the others are read from the bucket`;
    return { reason: error === null ? here : `${here}: ${error.message}` };
  }

  async close(): Promise<void> {
    await this.#tending.close();
  }
}
