/*
 * The past of volumes as the API and the command line use it: snapshots, timeline, changed ranges, reads at a point, clones
 * and restores, rollback, policy. Implements PastAdministration for volume-host.ts, whose order of changes it keeps; next
 * are the volumes' own pasts (volume-past.ts). The steps and what a crash leaves: docs/specs/points.md §3 to §6.
 */
import type { ExtentRun, SnapshotRecord } from "#shared/domain/archive.ts";
import { checkBlockRange } from "#shared/domain/block-range.ts";
import { cloneSize } from "#shared/domain/clone-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { HistoryRecord } from "#shared/domain/history-record.ts";
import { type HistoryPolicy, newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { checkVolumeName, checkVolumeSize, type VolumeRecord } from "#shared/domain/volume.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ByteRange, ResolvedPoint } from "#shared/ports/history.ts";
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
import type { RemoteBeginning } from "#shared/ports/replica-home.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { HostedVolume } from "./hosted-volume.ts";
import type { JobRegister } from "./job-register.ts";
import { historyOff } from "./volume-past.ts";

/** What a host does for these changes. */
export interface PastHost {
  require(name: string): HostedVolume;
  requireFreeName(name: string): Promise<void>;
  /** One change after the other. */
  change<T>(work: () => Promise<T>): Promise<T>;
  /** Waits for the bucket: rejects Retry after limits.bucketCommandMs, and when the host closes. */
  waitForBucket<T>(volume: HostedVolume, work: Promise<T>): Promise<T>;
  /** Within a change: makes and opens a volume, or leaves nothing. */
  make(record: VolumeRecord, history: HistoryRecord, begin?: RemoteBeginning): Promise<HostedVolume>;
  /** Within a change: the catalogue learns of a new size. */
  sizeIs(volume: HostedVolume, sizeBytes: number): Promise<void>;
  disconnect(volume: HostedVolume): Promise<number>;
  newId(): string;
  historyOn(): boolean;
}

export interface PastChangesOptions {
  readonly host: PastHost;
  readonly clock: Clock;
  readonly jobs: JobRegister;
  /** Memory for reads at a point, given back after each; null where none is free. */
  readonly memory: { acquire(bytes: number): Slab | null; release(slab: Slab): void };
}

export class PastChanges implements PastAdministration {
  private readonly host: PastHost;
  private readonly options: PastChangesOptions;

  constructor(options: PastChangesOptions) {
    this.host = options.host;
    this.options = options;
  }

  snapshots(volume: string): readonly SnapshotRecord[] {
    return this.host.require(volume).past.snapshots();
  }

  async createSnapshot(volume: string, name: string): Promise<SnapshotRecord> {
    return await this.host.require(volume).past.createSnapshot(name);
  }

  async deleteSnapshot(volume: string, name: string): Promise<void> {
    await this.host.require(volume).past.deleteSnapshot(name);
  }

  async history(name: string, window: HistoryWindow): Promise<HistoryView> {
    const { past } = this.host.require(name);
    const { intervals } = window;
    if (!Number.isSafeInteger(intervals) || intervals < 1 || intervals > limits.timelineIntervalsMax) {
      throw new VarveError(
        "HistoryWindowError",
        "Invalid",
        `a timeline has 1 to ${limits.timelineIntervalsMax} intervals, not ${intervals}`,
        { hint: "For example: varve history VOL --intervals 24." },
      );
    }
    const reading = await past.reading();
    const range = await reading.range();
    const sinceMs = window.sinceMs ?? range.fromMs;
    const untilMs = window.untilMs ?? Math.max(range.toMs, sinceMs) + 1;
    if (untilMs <= sinceMs) {
      throw new VarveError("HistoryWindowError", "Invalid", "a timeline ends after it begins", {
        hint: `Give --since a time before --until. The history spans ${rangeText(range)}.`,
      });
    }
    const status = past.archiveStatus;
    return {
      volume: name,
      range,
      archivedLsn: status?.archivedLsn ?? 0,
      heldLsn: status?.heldLsn ?? 0,
      sinceMs,
      untilMs,
      intervals: await reading.timeline(sinceMs, untilMs, intervals),
      snapshots: reading.snapshots(),
    };
  }

  async changes(name: string, fromText: string, toText: string): Promise<ChangesView> {
    const { past } = this.host.require(name);
    const from = await past.resolve(fromText);
    const to = await past.resolve(toText);
    const reading = await past.reading();
    const ranges = await reading.changes(from.lsn, to.lsn);
    return {
      volume: name,
      from,
      to,
      sizeBytes: await reading.sizeAt(to.lsn),
      changedBytes: ranges.reduce((sum, range) => sum + range.length, 0),
      ranges,
    };
  }

  async readPoint(name: string, text: string, offset: number, length: number): Promise<BlocksAtPoint> {
    const { past } = this.host.require(name);
    const point = await past.resolve(text);
    const hold = await past.hold(point.lsn);
    try {
      const source = await hold.source();
      checkBlockRange(offset, length, source.sizeBytes);
      const slab = this.options.memory.acquire(length);
      if (slab === null) {
        throw new VarveError("NoMemory", "Retry", "all payload memory is lent out", {
          hint: "Try again in a moment.",
        });
      }
      try {
        await source.read(slab, 0, length, offset);
        return { point, sizeBytes: source.sizeBytes, bytes: Buffer.from(slab.bytes.subarray(0, length)) };
      } finally {
        this.options.memory.release(slab);
      }
    } finally {
      hold.release();
    }
  }

  async createFrom(wanted: NewFromPoint): Promise<StartedChange> {
    checkVolumeName(wanted.name);
    if (wanted.sizeBytes !== null) checkVolumeSize(wanted.sizeBytes);
    return await this.host.change(async () => {
      const { host } = this;
      const parent = host.require(wanted.parent);
      await host.requireFreeName(wanted.name);
      const point = await this.archivedPoint(parent, wanted.point);
      const pointBytes = await (await parent.past.reading()).sizeAt(point.lsn);
      const sizeBytes = cloneSize(wanted, pointBytes);
      const id = host.newId();
      const record: VolumeRecord = {
        id,
        name: wanted.name,
        sizeBytes,
        durability: wanted.durability ?? parent.record.durability,
        createdAtMs: this.options.clock.wallTimeMs(),
        state: "creating",
      };
      const history: HistoryRecord = {
        ...newHistoryRecord(id, sizeBytes),
        ...policyOf(parent),
        ...wanted.policy,
        origin: { volumeId: parent.record.id, name: parent.name, lsn: point.lsn },
      };
      try {
        await this.pinned(parent, point, id);
        const from = { volumeId: parent.record.id, lsn: point.lsn };
        const made = await host.make(record, history, { point: from, appliedLsn: 0, line: null, epoch: 0 });
        return this.started(made, point, "create from", 0);
      } catch (cause) {
        await parent.past.unpin(id).catch(() => undefined); // the next start takes it out
        throw cause;
      }
    });
  }

  async rollback(name: string, text: string, force: boolean): Promise<StartedChange> {
    return await this.host.change(async () => {
      const { host } = this;
      const volume = host.require(name);
      const wanted = await volume.past.resolve(text);
      const toForce = " Or add --force: their connections are cut then.";
      if (!force) volume.requireDetached("rolled back", toForce);
      return await volume.whileBusy(async () => {
        const disconnected = force ? await host.disconnect(volume) : 0;
        volume.requireDetached("rolled back", toForce);
        // Everything up to now first, so that rolling forward again works; also what was written while the clients left.
        const lastLsn = await host.waitForBucket(volume, volume.past.archiveAll());
        const reading = await volume.past.reading();
        const sizeBytes = await reading.sizeAt(wanted.lsn);
        const runs = extentRuns(await host.waitForBucket(volume, reading.changes(wanted.lsn, lastLsn)));
        await this.pinned(volume, wanted, "rebase");
        try {
          await volume.rollback(wanted.lsn, sizeBytes, runs);
        } catch (cause) {
          // Without its entry the pin is nobody's; where the entry did reach the log, the next start finds both.
          await volume.past.unpin("rebase", wanted.lsn).catch(() => undefined);
          throw cause;
        }
        await host.sizeIs(volume, sizeBytes);
        return this.started(volume, wanted, "rollback", disconnected);
      });
    });
  }

  async fill(name: string): Promise<JobView> {
    return this.options.jobs.show(this.host.require(name).fill("fill"));
  }

  async tier(name: string, coldAfterMs: number | null): Promise<JobView> {
    const volume = this.host.require(name);
    const { history } = volume.past;
    volume.past.requireArchive();
    if (history?.residency !== "tiered") {
      throw new VarveError(
        "ResidencyFullError",
        "Invalid",
        `volume ${name} has residency full: all of it stays here`,
        {
          hint: `varve volume set ${name} --residency tiered lets cold extents go.`,
          fields: { name },
        },
      );
    }
    const job = this.options.jobs.start("tier", name);
    volume.tier(coldAfterMs ?? history.coldAfterMs, job).then(
      () => job.stopped("the volume was closed"),
      (cause: unknown) => job.failed(cause),
    );
    return job.view();
  }

  async setPolicy(name: string, change: Partial<HistoryPolicy>): Promise<VolumeView> {
    return await this.host.change(async () => {
      const volume = this.host.require(name);
      await volume.past.load();
      await volume.past.change((record) => ({ ...record, ...change }));
      volume.policyChanged();
      volume.past.publishLater();
      return volume.view();
    });
  }

  jobs(): readonly JobView[] {
    return this.options.jobs.list();
  }

  job(id: string): JobView {
    return this.options.jobs.show(id);
  }

  /** Resolves a point and sees to it that the bucket has everything up to it. */
  private async archivedPoint(volume: HostedVolume, text: string): Promise<ResolvedPoint> {
    if (!this.host.historyOn()) throw historyOff(volume.name);
    const point = await volume.past.resolve(text);
    const archived = volume.past.archiveStatus?.archivedLsn ?? 0;
    if (archived < point.lsn) await this.host.waitForBucket(volume, volume.past.archiveAll());
    return point;
  }

  /**
   * The pin is published first; then the point must still open, for retention may have passed it meanwhile: that it is pinned now
   * does not bring back what it needs.
   */
  private async pinned(volume: HostedVolume, point: ResolvedPoint, holder: string): Promise<void> {
    await this.host.waitForBucket(volume, volume.past.pin({ lsn: point.lsn, holder }));
    const source = await this.host.waitForBucket(volume, volume.past.open(point.lsn));
    await source.close();
  }

  private started(
    volume: HostedVolume,
    point: ResolvedPoint,
    kind: "create from" | "rollback",
    disconnected: number,
  ): StartedChange {
    const tiered = volume.past.history?.residency === "tiered";
    const job = tiered ? volume.fills.onDemand(kind) : volume.fill(kind);
    return { volume: volume.view(), point, job: this.options.jobs.show(job), disconnected };
  }
}

function policyOf(volume: HostedVolume): Partial<HistoryPolicy> {
  const { history } = volume.past;
  if (history === null) return {};
  const { historyMs, residency, coldAfterMs, bucketAway } = history;
  return { historyMs, residency, coldAfterMs, bucketAway };
}

/** The extents that byte ranges touch, merged. */
export function extentRuns(ranges: readonly ByteRange[]): readonly ExtentRun[] {
  const runs: { first: number; count: number }[] = [];
  for (const { offset, length } of ranges) {
    const first = Math.floor(offset / limits.extentBytes);
    const end = Math.ceil((offset + length) / limits.extentBytes);
    const last = runs.at(-1);
    if (last !== undefined && first <= last.first + last.count) {
      last.count = Math.max(last.count, end - last.first);
    } else {
      runs.push({ first, count: end - first });
    }
  }
  return runs;
}

function rangeText(range: { readonly fromMs: number; readonly toMs: number }): string {
  return `${timeText(range.fromMs)} to ${timeText(range.toMs)}`;
}
