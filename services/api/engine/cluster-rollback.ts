/*
 * Rollback of a cluster's volume: its point is kept in the bucket, the gateway that serves it gives it up, and the rebase entry is appended
 * here, under the volume's lease and an epoch of its own. Called by cluster-past.ts; the replicas apply it in services/storage/engine/, the
 * log is opened by cluster-layer.ts. Steps, and what a crash behind each leaves: docs/specs/cluster.md#rollback.
 *
 *   pin ─bucket has point and pin─a node can open it─► gateway gives it up ─► lease ─► epoch ─► resize, rebase ─► size in the catalogue
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { withPin } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { parsePoint } from "#shared/domain/point.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { StartedChange } from "#shared/ports/past-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import type { ApiJobs } from "./cluster-bucket.ts";
import { noHistory } from "./cluster-errors.ts";
import { untilKept } from "./kept-point.ts";
import { openLeased } from "./leased-log.ts";
import { requireReader } from "./point-readers.ts";
import { neverOpened, rollbackUnknown, stillHeld, toldByHolder, volumeGone } from "./rollback-errors.ts";
import { followUntilWhole } from "./whole-job.ts";

export interface ClusterRollbackOptions {
  /** Who writes, for the epoch entry. */
  readonly writer: string;
  readonly require: (name: string) => VolumeRecord;
  readonly show: (name: string) => VolumeView;
  readonly replicasOf: (record: VolumeRecord) => readonly ReplicaView[];
  readonly catalog: Pick<VolumeCatalog, "list" | "get" | "fetch" | "change">;
  readonly map: Pick<ClusterMap, "placementOf">;
  readonly past: Pick<PastRecords, "historyOf" | "changeHistory">;
  readonly leases: Pick<Leases, "view" | "take">;
  readonly bus: MessageBus;
  readonly clock: Clock;
  /** Throws Invalid for volumes that keep no history. */
  readonly historyOf: (record: VolumeRecord) => VolumeHistory;
  /** The archivers' bucket; null: this process was given none. */
  readonly images: Pick<ArchivedImages, "newest" | "point"> | null;
  readonly logOf: (volumeId: string) => Pick<LogFollower, "end">;
  /** The volume's log, not open yet, with the size and copies that it has. */
  readonly openLog: (volumeId: string) => Promise<WriteLog>;
  readonly allocateSlab: (bytes: number) => Slab;
  readonly jobs: Pick<ApiJobs, "start">;
}

/** Sessions close within it; one that does not is asked again. */
const yieldMs = 10_000;
/** A durable append takes milliseconds; servers that elect a leader, ten seconds. */
const appendMs = 30_000;
/** Clients that come back between two looks. */
const attemptsMax = 5;
/** Replicas say another size than the catalogue for so long: it is theirs. */
const sizeMs = 10_000;

export class ClusterRollback {
  readonly #options: ClusterRollbackOptions;
  /** Sizes that all replicas of a volume say, against its record, and since when. */
  readonly #otherSizes = new Map<string, { readonly sizeBytes: number; readonly sinceMs: number }>();
  #isClosed = false;

  constructor(options: ClusterRollbackOptions) {
    this.#options = options;
  }

  async rollback(name: string, text: string, isForced: boolean): Promise<StartedChange> {
    const { images, clock, map, bus, past, catalog, jobs, show, historyOf } = this.#options;
    const record = this.#options.require(name);
    if (images === null) throw noHistory(name);
    const history = historyOf(record);
    const point = await history.resolve(parsePoint(text));
    const sizeBytes = await history.sizeAt(point.lsn);
    // Whoever is attached hears of it before anything is changed.
    if (!isForced) await this.#freed(record, false);
    const pin = { lsn: point.lsn, holder: "rebase" };
    await past.changeHistory(record.id, (present) => {
      if (present === null) throw volumeGone(name);
      return withPin(present, pin);
    });
    await untilKept({ clock, images }, record, pin);
    const nodes = (map.placementOf(record.id)?.replicas ?? []).map(({ node }) => node);
    await requireReader({ bus, nodes }, record, point.lsn);
    const { lsn, disconnected } = await this.#underLease(record, isForced, async (lease) =>
      this.#append(record, lease, { toLsn: point.lsn, sizeBytes }),
    );
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

  /** Resolves with how many clients were cut off. A gateway that does not answer is dead, and its lease runs out, or take() says that it lives. */
  async #freed({ id, name }: VolumeRecord, isForced: boolean): Promise<number> {
    const { leases, bus } = this.#options;
    if (leases.view(`volume.${id}`)?.state !== "held") return 0;
    const request = encodeMessage({ type: "yield", isForced });
    const data = await bus.request(volumeHolderSubject(id), request, yieldMs).catch((cause: unknown) => {
      if (toVarveError(cause, "ask the gateway").kind !== "Retry") throw cause;
      return null;
    });
    const decoded = data === null ? null : decodeMessage(data);
    if (decoded === null || isBadMessage(decoded)) return 0;
    const { message } = decoded;
    if (message.type === "refused" && message.kind !== "Retry") throw toldByHolder(name, message);
    return message.type === "yielded" ? message.disconnected : 0;
  }

  /** No gateway can serve it while `work` runs; one that thinks it does is fenced by the epoch that `work` appends. */
  async #underLease<T>(
    record: VolumeRecord,
    isForced: boolean,
    work: (lease: Lease) => Promise<T>,
  ): Promise<{ readonly lsn: T; readonly disconnected: number }> {
    const { leases, catalog } = this.#options;
    let disconnected = 0;
    let lease: Lease | null = null;
    for (let attempt = 1; lease === null; attempt += 1) {
      disconnected += await this.#freed(record, isForced);
      // A client that came between the two opened it again.
      lease = await leases
        .take(`volume.${record.id}`, { holder: "rollback", address: "" })
        .catch((cause: unknown) => {
          const error = toVarveError(cause, "take the lease");
          if (error._tag !== "LeaseHeldError") throw error;
          if (attempt === attemptsMax) throw stillHeld(record.name, error);
          return null;
        });
    }
    try {
      const stored = await catalog.fetch(record.id);
      if (stored?.state !== "active") throw volumeGone(record.name);
      return { lsn: await work(lease), disconnected };
    } finally {
      await lease.release();
    }
  }

  /** Resolves with the rebase entry's LSN when it is durable. */
  async #append(
    { id, name }: VolumeRecord,
    lease: Lease,
    { toLsn, sizeBytes }: { readonly toLsn: number; readonly sizeBytes: number },
  ): Promise<number> {
    const { logOf, openLog, allocateSlab, clock } = this.#options;
    const end = await logOf(id).end();
    if (end === null) throw neverOpened(name);
    const log = await openLog(id);
    try {
      const writer = await openLeased(log, lease, { writer: this.#options.writer, knownLsn: end.lastLsn });
      const draft = new BatchDraft(allocateSlab(limits.batchHeaderBytesMax + limits.blockBytes));
      // Also where it is the same: what the catalogue says of the present one may be a crash behind.
      draft.addValue(entryKind.resize, sizeBytes);
      draft.addValue(entryKind.rebase, toLsn);
      writer.append(draft);
      writer.pump(false);
      await within(clock, writer.sync()).catch((cause: unknown) => {
        throw rollbackUnknown(name, toLsn, toVarveError(cause, "append"));
      });
      return draft.lastLsn;
    } finally {
      await log.close().catch(() => undefined); // what it holds is durable, or said to be unknown
    }
  }
}

async function within(clock: Clock, work: Promise<void>): Promise<void> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const timer = clock.after(appendMs, () => {
      reject(new VarveError("LogAway", "Retry", "the log did not answer in time"));
    });
    cancel = () => timer.cancel();
  });
  await Promise.race([work, late]).finally(() => cancel());
}
