/*
 * Clones of a cluster's volumes: a volume that begins as another one was at a point. Makes the record, the history with its origin, the
 * pin in the parent and the placement, in an order that a crash anywhere leaves deletable, and drops pins of clones that are gone. Called
 * by cluster-past.ts; the replicas begin in services/storage/engine/kept-extents.ts. Rules: docs/specs/cluster.md#clones.
 *
 *   creating ─history with origin─pin in the parent─bucket has point and pin─the point opens─placed─► active
 */
import { cloneSize } from "#shared/domain/clone-size.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import {
  type HistoryRecord,
  newHistoryRecord,
  replicaPinNode,
  withoutPin,
  withPin,
} from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { type PlacementGround, placeReplicas } from "#shared/domain/placement.ts";
import { parsePoint } from "#shared/domain/point.ts";
import { checkVolumeName, checkVolumeSize, type VolumeRecord } from "#shared/domain/volume.ts";
import { newVolumeRecord } from "#shared/domain/volume-orders.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { ResolvedPoint, VolumeHistory } from "#shared/ports/history.ts";
import type { NewFromPoint, StartedChange } from "#shared/ports/past-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { madeOf, replicaCount } from "./arrivals.ts";
import type { ApiJobs } from "./cluster-bucket.ts";
import { noHistory, refuseSettling, writeOnly } from "./cluster-errors.ts";
import { untilKept } from "./kept-point.ts";
import { neverOpened } from "./rollback-errors.ts";
import { followUntilWhole } from "./whole-job.ts";

export interface ClusterClonesOptions {
  readonly require: (name: string) => VolumeRecord;
  readonly show: (name: string) => VolumeView;
  readonly replicasOf: (record: VolumeRecord) => readonly ReplicaView[];
  readonly catalog: VolumeCatalog;
  readonly map: Pick<ClusterMap, "placementOf" | "changePlacement">;
  readonly past: PastRecords;
  readonly clock: Clock;
  readonly random: Random;
  /** Where replicas may be placed now. */
  readonly ground: () => PlacementGround;
  /** Throws Invalid for volumes that keep no history. */
  readonly historyOf: (record: VolumeRecord) => VolumeHistory;
  /** The archivers' bucket; null: this process was given none. */
  readonly images: Pick<ArchivedImages, "newest" | "point"> | null;
  readonly jobs: Pick<ApiJobs, "start">;
}

/** The id of a volume: who holds a pin for a rollback or a reader has a word of another form. */
const volumeIdPattern = /^[0-9a-f]{16}$/;

export class ClusterClones {
  readonly #options: ClusterClonesOptions;
  /** Pins whose volume is not there, and since when: those of a clone that another api begins are among them for a moment. */
  readonly #orphans = new Map<string, number>();
  #isClosed = false;

  constructor(options: ClusterClonesOptions) {
    this.#options = options;
  }

  async createFrom(wanted: NewFromPoint): Promise<StartedChange> {
    const { clock, random, catalog } = this.#options;
    const { parent, images, point, sizeBytes, replicas } = await this.#judge(wanted);
    const origin = { volumeId: parent.id, lsn: point.lsn };
    const places = placeReplicas({ sizeBytes, replicas, tags: [] }, this.#options.ground());
    const plain = { name: wanted.name, sizeBytes, durability: "write" } as const;
    const record: VolumeRecord = {
      ...newVolumeRecord(plain, random.hex(8), clock.wallTimeMs()),
      ...(parent.reads === "strict" ? { reads: "strict" } : {}),
    };
    const { id } = record;
    await catalog.put(record);
    try {
      await this.#beginHistory(wanted, record, parent, point.lsn);
      await untilKept({ clock, images }, parent, { lsn: point.lsn, holder: id });
      const placement = { volumeId: id, beginBytes: sizeBytes, replicas: places, origin };
      await this.#options.map.changePlacement(id, () => placement);
      // As the catalogue is when it is stored: a parent that is deleted first has no clone, one that has a clone is not deleted.
      await catalog.change(id, (present) => {
        if (catalog.get(parent.id)?.state !== "active") throw parentGone(parent.name);
        return madeOf(present, "active");
      });
    } catch (cause) {
      // Nobody was told that it exists. Where even this fails, or the process ends here, delete() takes it away.
      await this.#forget(id, parent.id).catch(() => undefined);
      throw cause;
    }
    const job = this.#options.jobs.start("create from", record.name);
    followUntilWhole({ ...this.#options, isClosed: () => this.#isClosed }, job, id, 0);
    return { volume: this.#options.show(record.name), point, job: job.view(), disconnected: 0 };
  }

  /**
   * Drops pins whose clone is gone, as its own manifest names its origin for as long as it may come back, and those of replicas that are
   * placed no more. Called now and then.
   */
  async tend(): Promise<void> {
    const { catalog, past, clock } = this.#options;
    const known = new Set(catalog.list().map(({ id }) => id));
    const isKept = (id: string, holder: string): boolean => {
      const node = replicaPinNode(holder);
      if (node === null) return !volumeIdPattern.test(holder) || known.has(holder);
      return this.#options.map.placementOf(id)?.replicas.some((one) => one.node === node) !== false;
    };
    const nowMs = clock.monotonicMs();
    const orphans = new Set<string>();
    for (const { id, state } of catalog.list()) {
      if (state !== "active") continue;
      for (const { holder } of past.historyOf(id)?.pins ?? []) {
        if (isKept(id, holder)) continue;
        const key = `${id}.${holder}`;
        orphans.add(key);
        const sinceMs = this.#orphans.get(key) ?? nowMs;
        this.#orphans.set(key, sinceMs);
        if (nowMs - sinceMs >= limits.pinUpkeepMs) await this.#unpin(id, holder);
      }
    }
    for (const key of this.#orphans.keys()) if (!orphans.has(key)) this.#orphans.delete(key);
  }

  close(): void {
    this.#isClosed = true;
  }

  /** Nothing was written yet. */
  async #judge(wanted: NewFromPoint) {
    const { images, map, require, historyOf } = this.#options;
    checkVolumeName(wanted.name);
    refuseSettling(this.#options.catalog, wanted.name);
    if (wanted.sizeBytes !== null) checkVolumeSize(wanted.sizeBytes);
    if (wanted.durability === "flush") throw writeOnly(wanted.name);
    if (images === null) throw noHistory(wanted.name);
    const parent = require(wanted.parent);
    const placed = (map.placementOf(parent.id)?.replicas ?? []).filter(({ leaving }) => leaving !== true);
    const replicas = wanted.replicas ?? Math.max(1, placed.length);
    if (!(replicas >= 1 && replicas <= limits.replicasMax)) throw replicaCount(replicas);
    const history = historyOf(parent);
    const asked = parsePoint(wanted.point);
    const point: ResolvedPoint = await history.resolve(asked).catch(async (cause: unknown) => {
      throw (await nothingOpens(history)) ? neverOpened(parent.name, this.#originOf(parent)) : cause;
    });
    const sizeBytes = cloneSize(wanted, await history.sizeAt(point.lsn));
    return { parent, images, point, sizeBytes, replicas };
  }

  /** As `--from` takes it; null: the volume is no clone, or its parent is gone. */
  #originOf({ id }: VolumeRecord): string | null {
    const origin = this.#options.map.placementOf(id)?.origin;
    const from = origin === undefined ? null : this.#options.catalog.get(origin.volumeId);
    return origin === undefined || from?.state !== "active" ? null : `${from.name}@lsn:${origin.lsn}`;
  }

  /** The origin first: from then on the parent's deletion is refused. */
  async #beginHistory(
    { policy }: NewFromPoint,
    { id, sizeBytes }: VolumeRecord,
    parent: VolumeRecord,
    lsn: number,
  ): Promise<void> {
    const { past } = this.#options;
    const { historyMs, bucketAway } = past.historyOf(parent.id) ?? newHistoryRecord(id, sizeBytes);
    const history: HistoryRecord = {
      ...newHistoryRecord(id, sizeBytes),
      historyMs,
      bucketAway,
      ...policy,
      origin: {
        volumeId: parent.id,
        name: parent.name,
        lsn,
      },
    };
    await past.changeHistory(id, () => history);
    await past.changeHistory(parent.id, (present) => {
      if (present === null) throw parentGone(parent.name);
      return withPin(present, { lsn, holder: id });
    });
  }

  async #forget(id: string, parentId: string): Promise<void> {
    const { past, map, catalog } = this.#options;
    await map.changePlacement(id, () => null);
    await past.forget(id);
    await this.#unpin(parentId, id);
    await catalog.remove(id);
  }

  async #unpin(volumeId: string, holder: string): Promise<void> {
    await this.#options.past.changeHistory(volumeId, (present) =>
      present === null ? null : withoutPin(present, holder),
    );
  }
}

/** Not one entry of it is anywhere; where that can't be told it is not said. */
async function nothingOpens(history: VolumeHistory): Promise<boolean> {
  return await history.range().then(
    () => false,
    (cause: unknown) => toVarveError(cause, "look for its points")._tag === "PointNotThere",
  );
}

function parentGone(name: string): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `volume ${name} was deleted meanwhile`, {
    hint: "Nothing was made of it.",
    fields: { name },
  });
}
