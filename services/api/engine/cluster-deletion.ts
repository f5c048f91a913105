/*
 * How a cluster's volume goes: refused while a gateway serves it, then settling while the bucket does not hold all of it, then its files, its
 * log and its records. Part of cluster-volumes.ts; cluster-undelete.ts has the way back. docs/specs/cluster.md#a-deleted-volume.
 *
 *   active ─with history─► settling ─bucket holds it (archiver)─► deleting ─nodes remove files and places─► log and records removed
 *   active without history, creating, arriving ───────────────────► deleting
 */
import type { LeaseRecord } from "#shared/domain/cluster.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { requireNotNeeded } from "./clone-rules.ts";
import { stillServed, volumeSettling } from "./cluster-errors.ts";

export interface ClusterDeletionOptions {
  readonly catalog: VolumeCatalog;
  readonly map: Pick<ClusterMap, "placementOf" | "changePlacement">;
  readonly past: PastRecords;
  readonly leases: Pick<Leases, "take">;
  readonly clock: Clock;
  readonly removeLog: (volumeId: string) => Promise<void>;
  readonly replicasOf: (record: VolumeRecord) => readonly ReplicaView[];
  /** The lease of the gateway that serves it. */
  readonly serving: (volumeId: string) => LeaseRecord | null;
}

const leaseHeldTag = "LeaseHeldError";
/** A deletion waits so long for its nodes; those that are away go on with it when they are back. */
const deletedMs = 10_000;
/** And so long for a bucket that may hold it at once; others need minutes. */
const settledMs = 2000;
const lookMs = 100;

export class ClusterDeletion {
  readonly #options: ClusterDeletionOptions;

  constructor(options: ClusterDeletionOptions) {
    this.#options = options;
  }

  async delete(record: VolumeRecord): Promise<void> {
    if (record.state === "settling") await this.#deleteAgain(record);
    else await this.#delete(record);
    const { clock, catalog } = this.#options;
    const beganMs = clock.monotonicMs();
    while (!(await this.#finish(record.id))) {
      const waitedMs = clock.monotonicMs() - beganMs;
      const isSettling = catalog.get(record.id)?.state === "settling";
      if (waitedMs >= (isSettling ? settledMs : deletedMs)) return;
      await new Promise<void>((resolve) => {
        clock.after(lookMs, resolve);
      });
    }
  }

  /** Ends deletions whose nodes are done. Called now and then. */
  async finishAll(): Promise<void> {
    for (const { id } of this.#options.catalog.list()) await this.#finish(id);
  }

  /** Nothing stays of it but what the bucket has. */
  async forget(id: string): Promise<void> {
    const { past, map, catalog } = this.#options;
    await past.forget(id);
    await map.changePlacement(id, () => null);
    await catalog.remove(id);
  }

  async #delete(record: VolumeRecord): Promise<void> {
    const { catalog, past, replicasOf } = this.#options;
    const lease = await this.#takenFromGateways(record);
    try {
      await catalog.change(record.id, (present) => {
        // By the catalogue as it is then: a clone that is made meanwhile finds its parent gone, or is found.
        requireNotNeeded(record, catalog.list(), { past, replicasOf });
        const { move: _move, ...one } = present;
        const settles = present.state === "active" && past.historyOf(record.id) !== null;
        return { ...one, state: settles ? "settling" : "deleting" };
      });
    } finally {
      await lease.release();
    }
  }

  /** Where nothing can bring it into the bucket any more, it goes as it is. */
  async #deleteAgain({ id, name }: VolumeRecord): Promise<void> {
    const { catalog, past } = this.#options;
    const archive = past.archiveOf(id);
    if (archive?.state !== "stopped") throw volumeSettling(name);
    await catalog.change(id, (present) =>
      present.state === "settling" ? { ...present, state: "deleting" } : present,
    );
    if (catalog.get(id)?.state === "deleting") await past.forget(id);
  }

  /**
   * No gateway takes the volume while this is held; one that takes it afterwards looks at the record that was stored meanwhile
   * (cluster-volume.ts). A gateway that died holds it until its lease has run out.
   */
  async #takenFromGateways({ id, name }: VolumeRecord): Promise<Lease> {
    const { leases, serving } = this.#options;
    return await leases.take(`volume.${id}`, { holder: "deletion", address: "" }).catch((cause: unknown) => {
      const holder = serving(id);
      if (holder === null || toVarveError(cause, "delete")._tag !== leaseHeldTag) throw cause;
      throw stillServed(name, holder);
    });
  }

  /** True when nothing of it is left, or it is not deleted (any more). */
  async #finish(id: string): Promise<boolean> {
    const { catalog, map, past, removeLog } = this.#options;
    const state = catalog.get(id)?.state;
    if (state === "settling") {
      // As it is stored: one that this process can't read is none that is not there.
      if ((await past.changeHistory(id, (present) => present)) !== null) return false;
      // Nobody keeps its past any more: there is nothing to wait for.
      await catalog.change(id, (one) => (one.state === "settling" ? { ...one, state: "deleting" } : one));
      return false;
    }
    if (state !== "deleting") return true;
    const placement = map.placementOf(id);
    if (placement !== null && placement.replicas.length > 0) return false;
    // Its archiver says in the bucket that it is gone, and needs the log for the rest of its past.
    if (past.historyOf(id) !== null) return false;
    await removeLog(id);
    await this.forget(id);
    return true;
  }
}
