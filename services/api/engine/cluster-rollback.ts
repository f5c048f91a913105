/*
 * Rollback of a cluster's volume: its point is kept in the bucket, the gateway that serves it gives it up, and the rebase entry is appended
 * here, under the volume's lease and an epoch of its own. Called by cluster-past.ts; the replicas apply it in services/storage/engine/, the
 * log is opened by cluster-layer.ts. Steps, and what a crash behind each leaves: docs/specs/cluster.md#rollback.
 *
 *   pin ─bucket has point and pin─a node can open it─► gateway gives it up ─► lease ─► epoch ─► resize, rebase ─► size in the catalogue
 */
import { entryKind } from "#shared/domain/entry.ts";
import { withPin } from "#shared/domain/history-record.ts";
import { parsePoint } from "#shared/domain/point.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { StartedChange } from "#shared/ports/past-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { ApiJobs } from "./cluster-bucket.ts";
import { noHistory } from "./cluster-errors.ts";
import { untilKept } from "./kept-point.ts";
import { requireReader } from "./point-readers.ts";
import { neverOpened, rollbackUnknown, volumeGone } from "./rollback-errors.ts";
import { VolumeWriting, type VolumeWritingParts } from "./volume-writing.ts";
import { followUntilWhole } from "./whole-job.ts";

export interface ClusterRollbackOptions extends VolumeWritingParts {
  readonly require: (name: string) => VolumeRecord;
  readonly show: (name: string) => VolumeView;
  readonly replicasOf: (record: VolumeRecord) => readonly ReplicaView[];
  readonly catalog: Pick<VolumeCatalog, "list" | "get" | "fetch" | "change">;
  readonly map: Pick<ClusterMap, "placementOf">;
  readonly past: Pick<PastRecords, "historyOf" | "changeHistory">;
  readonly bus: MessageBus;
  /** Throws Invalid for volumes that keep no history. */
  readonly historyOf: (record: VolumeRecord) => VolumeHistory;
  /** The archivers' bucket; null: this process was given none. */
  readonly images: Pick<ArchivedImages, "newest" | "point"> | null;
  readonly jobs: Pick<ApiJobs, "start">;
}

/** Replicas say another size than the catalogue for so long: it is theirs. */
const sizeMs = 10_000;

export class ClusterRollback {
  readonly #options: ClusterRollbackOptions;
  readonly #writing: VolumeWriting;
  /** Sizes that all replicas of a volume say, against its record, and since when. */
  readonly #otherSizes = new Map<string, { readonly sizeBytes: number; readonly sinceMs: number }>();
  #isClosed = false;

  constructor(options: ClusterRollbackOptions) {
    this.#options = options;
    this.#writing = new VolumeWriting(options);
  }

  async rollback(name: string, text: string, isForced: boolean): Promise<StartedChange> {
    const { images, clock, map, bus, past, catalog, jobs, show, historyOf } = this.#options;
    const record = this.#options.require(name);
    if (images === null) throw noHistory(name);
    const history = historyOf(record);
    const point = await history.resolve(parsePoint(text));
    const sizeBytes = await history.sizeAt(point.lsn);
    // Whoever is attached hears of it before anything is changed.
    const purpose = { holder: "rollback", refused: "rolled back", isForced };
    if (!isForced) await this.#writing.freed(record, purpose);
    const pin = { lsn: point.lsn, holder: "rebase" };
    await past.changeHistory(record.id, (present) => {
      if (present === null) throw volumeGone(name);
      return withPin(present, pin);
    });
    await untilKept({ clock, images }, record, pin);
    const nodes = (map.placementOf(record.id)?.replicas ?? []).map(({ node }) => node);
    await requireReader({ bus, nodes }, record, point.lsn);
    const { lsn, disconnected } = await this.#writing.append(record, purpose, {
      fill: (draft) => {
        // Also where it is the same: what the catalogue says of the present one may be a crash behind.
        draft.addValue(entryKind.resize, sizeBytes);
        draft.addValue(entryKind.rebase, point.lsn);
      },
      missing: () => neverOpened(name),
      unknown: (cause) => rollbackUnknown(name, point.lsn, cause),
    });
    // It has happened; where this fails tend() sees to it.
    await catalog.change(record.id, (one) => ({ ...one, sizeBytes })).catch(() => undefined);
    const job = jobs.start("rollback", name);
    if (past.historyOf(record.id)?.residency === "tiered") job.done("it is fetched as it is read");
    else followUntilWhole({ ...this.#options, isClosed: () => this.#isClosed }, job, record.id, lsn);
    return { volume: show(name), point, job: job.view(), disconnected };
  }

  /** The log's resize entries are the truth; the catalogue may be one crash behind. Called now and then. */
  async tend(): Promise<void> {
    const { catalog, replicasOf, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const record of catalog.list()) {
      const following = replicasOf(record).filter(({ report }) => report?.condition === "following");
      const sizes = new Set(following.map(({ report }) => report?.sizeBytes ?? 0));
      const [sizeBytes] = sizes;
      const isOther = record.state === "active" && sizes.size === 1 && sizeBytes !== record.sizeBytes;
      if (!isOther || sizeBytes === undefined) {
        this.#otherSizes.delete(record.id);
        continue;
      }
      const known = this.#otherSizes.get(record.id);
      if (known?.sizeBytes !== sizeBytes) this.#otherSizes.set(record.id, { sizeBytes, sinceMs: nowMs });
      else if (nowMs - known.sinceMs >= sizeMs) {
        const before = record.sizeBytes;
        await catalog.change(record.id, (one) => (one.sizeBytes === before ? { ...one, sizeBytes } : one));
      }
    }
  }

  close(): void {
    this.#isClosed = true;
  }
}
