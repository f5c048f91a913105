/*
 * A deleted volume of a cluster comes back: as it is while it settles, else from the bucket, on a line of its own behind the last archived
 * entry. Called by cluster-bucket.ts; the replicas begin in services/storage/engine/kept-extents.ts, the archiver tells the bucket. Steps, and
 * what a crash behind each leaves: docs/specs/cluster.md#undelete.
 *
 *   settling ─► active
 *   (none) ─► creating ─► line in the history record ─► marker, manifest ─► log on the line ─► placement ─► active
 */
import { deletedView, isNameTaken, nameTaken, oneDeleted } from "#shared/domain/deleted-volume.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { type HistoryRecord, withPin } from "#shared/domain/history-record.ts";
import { type PlacementGround, placeReplicas } from "#shared/domain/placement.ts";
import { checkVolumeName, type VolumeRecord } from "#shared/domain/volume.ts";
import type { DeletedVolume, RescuedVolume } from "#shared/ports/bucket-administration.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { UndeleteStep } from "#shared/ports/failpoint.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { DeletedVolumes, RescuePlan } from "#shared/ports/rescue.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import { madeOf } from "./arrivals.ts";
import { openLeased } from "./leased-log.ts";
import { comesBackAs, logOfAnother, stillGoing, takenAway } from "./undelete-errors.ts";

export interface ClusterUndeleteOptions {
  /** Who begins the log, for the epoch entry. */
  readonly writer: string;
  readonly catalog: Pick<VolumeCatalog, "list" | "get" | "find" | "fetch" | "put" | "change" | "remove">;
  readonly map: Pick<ClusterMap, "changePlacement">;
  readonly past: Pick<PastRecords, "historyOf" | "archiveOf" | "changeHistory">;
  readonly leases: Pick<Leases, "take">;
  readonly clock: Clock;
  readonly bucket: DeletedVolumes;
  /** Wall time of a volume's last entry; null: it has none. */
  readonly lastMs: (record: VolumeRecord) => Promise<number | null>;
  /** Where replicas may be placed now. */
  readonly ground: () => PlacementGround;
  readonly replicasOf: (record: VolumeRecord) => readonly Pick<ReplicaView, "report">[];
  readonly logOf: (volumeId: string) => Pick<LogFollower, "end">;
  /** The log of a volume that has none yet, or has it already; not open. */
  readonly newLog: (volumeId: string) => WriteLog;
  /** Crash tests end the process here. */
  readonly failpoint?: (step: UndeleteStep) => void;
}

/** A replica is waited for so long: until then a gateway would refuse. */
const servableMs = 10_000;
const lookMs = 100;

export class ClusterUndelete {
  readonly #options: ClusterUndeleteOptions;

  constructor(options: ClusterUndeleteOptions) {
    this.#options = options;
  }

  /** Also those that settle; not those that are back, of which the bucket was not told yet. */
  async list(): Promise<readonly DeletedVolume[]> {
    const { bucket, catalog } = this.#options;
    const [deleted, left] = [await bucket.find(), await bucket.left()];
    return deleted
      .filter(({ volumeId }) => catalog.get(volumeId)?.state !== "active")
      .map((manifest) => deletedView(manifest, left));
  }

  async undelete(name: string, as?: string): Promise<RescuedVolume> {
    if (as !== undefined) checkVolumeName(as);
    const settling = this.#options.catalog
      .list()
      .find((one) => one.state === "settling" && (one.name === name || one.id === name));
    if (settling !== undefined) {
      const back = await this.#takenBack(settling, as);
      if (back !== null) return back;
    }
    const { catalog, bucket } = this.#options;
    const deleted = await bucket.find();
    const { volumeId, name: itsName } = oneDeleted(
      name,
      deleted.filter((one) => catalog.get(one.volumeId)?.state !== "active"),
    );
    return await this.#fromBucket(volumeId, name, as ?? itsName);
  }

  /** Null: it settles no more, so it comes from the bucket. Whoever changes the record first, this or its archiver, has decided. */
  async #takenBack(record: VolumeRecord, as: string | undefined): Promise<RescuedVolume | null> {
    const { catalog, logOf, past, lastMs } = this.#options;
    if (as !== undefined && as !== record.name) throw comesBackAs(record.name, as);
    await catalog
      .change(record.id, (present) =>
        present.state === "settling" ? { ...present, state: "active" } : present,
      )
      .catch((cause: unknown) => {
        if (toVarveError(cause, "undelete")._tag !== "UnknownVolumeError") throw cause;
      });
    if (catalog.get(record.id)?.state !== "active") return null;
    // It is back, whatever can be said of it now.
    const end = await logOf(record.id)
      .end()
      .catch(() => null);
    const reachedMs = await lastMs(record).catch(() => null);
    const { id: volumeId, name, sizeBytes } = record;
    const { lastLsn: lsn = 0, line = "" } = end ?? {};
    const lineNumber = past.historyOf(volumeId)?.line?.number ?? 1;
    return { name, volumeId, sizeBytes, lsn, reachedMs, line, lineNumber };
  }

  /** The lease keeps gateways and another undelete out while the record is not active. */
  async #fromBucket(volumeId: string, asked: string, name: string): Promise<RescuedVolume> {
    const { leases, catalog } = this.#options;
    const lease = await leases.take(`volume.${volumeId}`, { holder: "undelete", address: "" });
    let reached: RescuedVolume;
    try {
      const found = await catalog.fetch(volumeId);
      if (found !== null && found.state !== "creating") throw stillGoing(found);
      if (found !== null && found.name !== name) throw comesBackAs(found.name, name);
      reached = await this.#made(volumeId, { asked, name, found, lease });
    } finally {
      await lease.release();
    }
    await this.#untilServable(volumeId, reached.lsn);
    return { ...reached, name };
  }

  /** Every step is one that may have been done before: whoever comes again after a crash ends it. */
  async #made(
    volumeId: string,
    { asked, name, found, lease }: { asked: string; name: string; found: VolumeRecord | null; lease: Lease },
  ): Promise<RescuedVolume> {
    const { catalog, map, bucket, failpoint = () => undefined } = this.#options;
    const plan = await bucket.plan(volumeId);
    const { sizeBytes } = plan.record;
    // Nothing is written where there is no room for it.
    const replicas = placeReplicas({ sizeBytes, replicas: 1, tags: [] }, this.#options.ground());
    const record: VolumeRecord = { ...plan.record, name, durability: "write", state: "creating" };
    if (found === null) {
      await catalog.put(record).catch((cause: unknown) => {
        throw isNameTaken(cause) ? nameTaken(asked, name, cause) : cause;
      });
    }
    failpoint("undelete-record");
    const { line } = await this.#decided(plan, found === null);
    failpoint("undelete-line");
    const taken = await bucket.takeLine(volumeId, line);
    failpoint("undelete-taken");
    await this.#begunLog(taken, lease);
    failpoint("undelete-log");
    const point = taken.replica?.point;
    const origin = point === undefined ? {} : { origin: { volumeId: point.volumeId, lsn: point.lsn } };
    await map.changePlacement(
      volumeId,
      (present) => present ?? { volumeId, beginBytes: sizeBytes, replicas, ...origin },
    );
    failpoint("undelete-placed");
    await catalog.change(volumeId, (present) => madeOf(present, "active"));
    failpoint("undelete-active");
    return taken.reached;
  }

  /**
   * The history record says which line it is, before the bucket is asked for it: whoever else undeletes the volume, also one that was
   * paused for long, takes the same. Until then nothing of it is anywhere but the catalogue's record.
   */
  async #decided(plan: RescuePlan, isNew: boolean): Promise<Required<Pick<HistoryRecord, "line">>> {
    const { past, catalog } = this.#options;
    const { id } = plan.record;
    try {
      const history = await past.changeHistory(id, (present) => present ?? this.#historyOf(plan));
      if (history?.line === undefined) throw takenAway(plan.record.name);
      return { line: history.line };
    } catch (cause) {
      if (isNew) await catalog.remove(id).catch(() => undefined); // volume delete takes it away
      throw cause;
    }
  }

  /** The point that replicas begin with stays as long as the volume: nodes that come later begin with it, too. */
  #historyOf({ history, replica, record }: RescuePlan): HistoryRecord {
    const archiverEpoch = Math.max(
      history.archiverEpoch,
      this.#options.past.archiveOf(record.id)?.archiverEpoch ?? 0,
    );
    const known = { ...history, archiverEpoch };
    return replica === null || replica.point.volumeId !== record.id
      ? known
      : withPin(known, { lsn: replica.point.lsn, holder: "rebase" });
  }

  /** Behind the archived entry, with the epoch entry of this undelete, which fences whatever was before. */
  async #begunLog({ record, log: begin }: RescuePlan, lease: Lease): Promise<void> {
    const { logOf, newLog, writer } = this.#options;
    const end = await logOf(record.id).end();
    if (end !== null && end.line !== begin.line) throw logOfAnother(record.name);
    if (end !== null) return;
    if (lease.epoch <= begin.epoch && (await lease.raiseEpoch(begin.epoch)) === null) {
      throw takenAway(record.name);
    }
    const log = newLog(record.id);
    try {
      await openLeased(log, lease, { writer, knownLsn: begin.lastLsn, begin });
    } finally {
      await log.close().catch(() => undefined); // what it holds is durable
    }
  }

  /** It is back by now: a node that is slow only makes who attaches at once wait. */
  async #untilServable(volumeId: string, lsn: number): Promise<void> {
    const { catalog, clock, replicasOf } = this.#options;
    const endMs = clock.monotonicMs() + servableMs;
    const isServable = (): boolean => {
      const record = catalog.get(volumeId);
      return record === null || replicasOf(record).some(({ report }) => (report?.appliedLsn ?? 0) > lsn);
    };
    while (!isServable() && clock.monotonicMs() < endMs) {
      await new Promise<void>((resolve) => {
        clock.after(lookMs, resolve);
      });
    }
  }
}
