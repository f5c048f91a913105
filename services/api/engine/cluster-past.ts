/*
 * The past of a cluster's volumes as its api process shows and changes it: snapshots and policy in the shared history records, timelines,
 * changes and bytes from the bucket and the log's tail. The HTTP routes call it through its port. See docs/specs/cluster.md#points.
 */

import type { SnapshotRecord } from "#shared/domain/archive.ts";
import { checkBlockRange } from "#shared/domain/block-range.ts";
import { volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import {
  checkNewSnapshot,
  checkSnapshotName,
  type HistoryPolicy,
  type HistoryRecord,
  withSnapshot,
} from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { parsePoint } from "#shared/domain/point.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { Leases } from "#shared/ports/lease.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type {
  BlocksAtPoint,
  ChangesView,
  HistoryView,
  HistoryWindow,
  JobView,
  NewFromPoint,
  PastAdministration,
  StartedChange,
} from "#shared/ports/past-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { ApiJobs } from "./cluster-bucket.ts";
import type { ClusterClones } from "./cluster-clones.ts";
import type { ClusterRollback } from "./cluster-rollback.ts";
import type { ClusterTiering } from "./cluster-tiering.ts";

export interface ClusterPastOptions {
  readonly require: (name: string) => VolumeRecord;
  readonly show: (name: string) => VolumeView;
  readonly past: PastRecords;
  readonly leases: Pick<Leases, "view">;
  readonly bus: MessageBus;
  readonly clock: Clock;
  /** Throws Invalid for volumes that keep no history. */
  readonly historyOf: (record: VolumeRecord) => VolumeHistory;
  readonly logOf: (volumeId: string) => LogFollower;
  readonly jobs: Pick<ApiJobs, "list" | "show">;
  readonly clones: Pick<ClusterClones, "createFrom">;
  readonly tiering: Pick<ClusterTiering, "fill" | "tier">;
  readonly rollbacks: Pick<ClusterRollback, "rollback">;
  readonly allocateSlab: (bytes: number) => Slab;
}

const markMs = 10_000;

export class ClusterPast implements PastAdministration {
  readonly #options: ClusterPastOptions;

  constructor(options: ClusterPastOptions) {
    this.#options = options;
  }

  snapshots(volume: string): readonly SnapshotRecord[] {
    return this.#record(volume).snapshots;
  }

  async createSnapshot(volume: string, name: string): Promise<SnapshotRecord> {
    const { clock } = this.#options;
    checkNewSnapshot(this.#record(volume), volume, name, limits.snapshotsMax);
    const lsn = await this.#mark(volume, name);
    const snapshot: SnapshotRecord = { name, lsn, wallTimeMs: clock.wallTimeMs() };
    await this.#change(volume, (record) => {
      checkNewSnapshot(record, volume, name, limits.snapshotsMax);
      return withSnapshot(record, snapshot);
    });
    return snapshot;
  }

  async deleteSnapshot(volume: string, name: string): Promise<void> {
    checkSnapshotName(name);
    await this.#change(volume, (record) => {
      const snapshots = record.snapshots.filter((one) => one.name !== name);
      if (snapshots.length < record.snapshots.length) return { ...record, snapshots };
      const names = record.snapshots.map((one) => one.name);
      throw new VarveError("UnknownSnapshotError", "Invalid", `volume ${volume} has no snapshot ${name}`, {
        hint: names.length === 0 ? "It has none." : `It has: ${names.slice(-20).join(", ")}.`,
        fields: { name: volume, snapshot: name },
      });
    });
  }

  async history(volume: string, window: HistoryWindow): Promise<HistoryView> {
    const { past, historyOf } = this.#options;
    const record = this.#options.require(volume);
    const history = historyOf(record);
    const range = await history.range();
    const sinceMs = window.sinceMs ?? range.fromMs;
    const untilMs = window.untilMs ?? Math.max(range.toMs, sinceMs) + 1;
    const archive = past.archiveOf(record.id);
    return {
      volume,
      range,
      archivedLsn: archive?.archivedLsn ?? 0,
      heldLsn: archive?.heldLsn ?? 0,
      sinceMs,
      untilMs,
      intervals: await history.timeline(sinceMs, untilMs, window.intervals),
      snapshots: history.snapshots(),
    };
  }

  async changes(volume: string, fromText: string, toText: string): Promise<ChangesView> {
    const history = this.#history(volume);
    const from = await history.resolve(parsePoint(fromText));
    const to = await history.resolve(parsePoint(toText));
    const ranges = await history.changes(from.lsn, to.lsn);
    const changedBytes = ranges.reduce((sum, { length }) => sum + length, 0);
    return { volume, from, to, sizeBytes: await history.sizeAt(to.lsn), changedBytes, ranges };
  }

  async readPoint(volume: string, text: string, offset: number, length: number): Promise<BlocksAtPoint> {
    const history = this.#history(volume);
    const point = await history.resolve(parsePoint(text));
    const source = await history.open(point.lsn);
    try {
      const { sizeBytes } = source;
      checkBlockRange(offset, length, sizeBytes);
      const slab = this.#options.allocateSlab(length);
      await source.read(slab, 0, length, offset);
      return { point, sizeBytes, bytes: Buffer.from(slab.bytes.subarray(0, length)) };
    } finally {
      await source.close();
    }
  }

  async setPolicy(volume: string, change: Partial<HistoryPolicy>): Promise<VolumeView> {
    await this.#change(volume, (record) => ({ ...record, ...change }));
    return this.#options.show(volume);
  }

  createFrom = async (wanted: NewFromPoint): Promise<StartedChange> =>
    await this.#options.clones.createFrom(wanted);
  rollback = async (volume: string, point: string, force: boolean): Promise<StartedChange> =>
    await this.#options.rollbacks.rollback(volume, point, force);
  fill = async (volume: string): Promise<JobView> => this.#options.tiering.fill(volume);
  tier = async (volume: string, coldAfterMs: number | null): Promise<JobView> =>
    this.#options.tiering.tier(volume, coldAfterMs);
  jobs = (): readonly JobView[] => this.#options.jobs.list();
  job = (id: string): JobView => this.#options.jobs.show(id);

  /** Who serves the volume knows what was acknowledged; where nobody does, the log's end has all of it. */
  async #mark(volume: string, name: string): Promise<number> {
    const { require, leases, bus, logOf } = this.#options;
    const { id } = require(volume);
    if (leases.view(`volume.${id}`)?.state !== "held") {
      const end = await logOf(id).end();
      if (end !== null) return end.lastLsn;
      throw new VarveError("NothingWritten", "Invalid", `volume ${volume} was never opened: it has no past`, {
        hint: "Connect to it first.",
        fields: { name: volume },
      });
    }
    const data = await bus.request(volumeHolderSubject(id), encodeMessage({ type: "mark", name }), markMs);
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded)) throw noMark(volume, decoded.detail);
    const { message } = decoded;
    if (message.type === "refused") throw new VarveError(message.tag, message.kind, message.message);
    if (message.type !== "marked") throw noMark(volume, message.type);
    return message.lsn;
  }

  #history(volume: string): VolumeHistory {
    return this.#options.historyOf(this.#options.require(volume));
  }

  #record(volume: string): HistoryRecord {
    const record = this.#options.past.historyOf(this.#options.require(volume).id);
    if (record !== null) return record;
    throw noPast(volume);
  }

  async #change(volume: string, edit: (record: HistoryRecord) => HistoryRecord): Promise<void> {
    await this.#options.past.changeHistory(this.#options.require(volume).id, (present) => {
      if (present === null) throw noPast(volume);
      return edit(present);
    });
  }
}

function noPast(name: string): VarveError {
  return new VarveError("HistoryOffError", "Invalid", `volume ${name} has no history: nothing archives it`, {
    hint: "Start a varve archiver; its history begins then. Nothing was changed.",
    fields: { name },
  });
}

function noMark(name: string, detail: string): VarveError {
  return new VarveError("MarkAnswerError", "Retry", `the gateway of volume ${name} gave no mark: ${detail}`, {
    hint: "Try again in a moment.",
  });
}
