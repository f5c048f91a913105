/*
 * The housekeeping of a bucket in a running server: collects by the clock, and answers check, usage, collect, scrub and undelete.
 * Made by services/archiver/keeper-layer.ts for `varve up` and, by parts, for the archivers of a cluster; HTTP API and CLI see it as BucketAdministration. One job at a time
 * of each kind, so that nobody starts ten checks by ten clicks.
 */
import type { BucketPrices } from "#shared/domain/bucket-prices.ts";
import { deletedView, isNameTaken, nameTaken, oneDeleted } from "#shared/domain/deleted-volume.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type {
  BucketAdministration,
  BucketLimits,
  BucketReport,
  BucketUsageReport,
  CollectOptions,
  CollectReport,
  DeletedVolume,
  RescuedVolume,
  ScrubOptions,
} from "#shared/ports/bucket-administration.ts";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";
import type { KeptVolume } from "#shared/ports/kept-volume.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { JobHandle, JobView } from "#shared/ports/past-administration.ts";
import type { RescuePlan } from "#shared/ports/rescue.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { checkBucket } from "./bucket-check.ts";
import { BucketReader } from "./bucket-reader.ts";
import { bucketUsage } from "./bucket-usage.ts";
import { Collector, type CollectorGrace, type RunOptions } from "./collector.ts";
import { CollectorLease } from "./collector-lease.ts";
import { type ExactBaseBuilder, HistoryTrimmer, type ServedVolume } from "./history-trimmer.ts";
import { Rescuer } from "./rescuer.ts";
import { Scrubber, type ScrubSubject } from "./scrubber.ts";

export interface KeeperParts {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  /** For people: host and process. */
  readonly who: string;
  /** Whether the store's probe passed. */
  conditionalPut(): Promise<boolean>;
  readonly prices: BucketPrices;
  readonly exactBase: ExactBaseBuilder;
  /** False while another process collects this bucket: then the clock only trims. Absent: this one does. */
  isCollector?(): boolean;
  kept(): readonly KeptVolume[];
  uploadsInFlight(): Iterable<string>;
  pointsInUse(volumeId: string): readonly number[];
  allocateSlab(bytes: number): Slab;
  startJob(kind: "check" | "collect" | "scrub", volume: string): JobHandle;
  /** Makes the volume's record and files, and serves it; `takeLine` is called when its name is found to be free. */
  bringBack(record: VolumeRecord, takeLine: () => Promise<RescuePlan>): Promise<RescuedVolume>;
  /** Deleted volumes whose files are still here: they come back without the bucket; null where it is none of them. Absent: there are none. */
  readonly settling?: {
    has(volumeId: string): boolean;
    takeBack(name: string, as: string | undefined): Promise<RescuedVolume | null>;
  };
  /** Of a cluster: its catalogue has a record of the volume, whatever state that is in. Rejects where nobody can say. */
  isKnown?(volumeId: string): Promise<boolean>;
  onNote(text: string): void;
  failpoint?(): void;
  /** The keeper closes: long work of its parts ends soon. */
  onClose?(): void;
  readonly grace?: Partial<CollectorGrace>;
  /** See CollectorParts.bucketBytesMax. */
  readonly bucketBytesMax: number | null;
  /** For reports: other parts keep to them. */
  readonly rates?: Omit<BucketLimits, "bytesMax">;
}

/** A server that has just started has better things to do. */
const firstRunMs = 10 * 60_000;

export class BucketKeeper implements BucketAdministration {
  private readonly parts: KeeperParts;
  private readonly reader: BucketReader;
  private readonly collector: Collector;
  private readonly rescuer: Rescuer;
  private readonly running = new Set<string>();
  /** Volumes that were undeleted since the start, or are being so. */
  private readonly returning = new Set<string>();
  private readonly reports = new Map<string, BucketReport>();
  private timer: Timer | null = null;
  private closed = false;
  private lastRun: Promise<unknown> = Promise.resolve();
  /** Monotonic time of the last sweep; before any: as if one were due. */
  private sweptMs = Number.NEGATIVE_INFINITY;
  private alarms: readonly string[] = [];

  constructor(parts: KeeperParts) {
    this.parts = parts;
    const { store, clock, random, who } = parts;
    const conditionalPut = async (): Promise<boolean> => parts.conditionalPut();
    this.reader = new BucketReader(store);
    this.rescuer = new Rescuer({ reader: this.reader, clock, random, conditionalPut });
    this.collector = new Collector({
      reader: this.reader,
      lease: new CollectorLease({
        store,
        clock,
        random,
        who,
        conditionalPut,
        startedMs: clock.monotonicMs(),
      }),
      trimmer: new HistoryTrimmer({
        served: () => this.served(),
        exactBase: parts.exactBase,
      }),
      uploadsInFlight: () => parts.uploadsInFlight(),
      pointsInUse: (volumeId) => parts.pointsInUse(volumeId),
      isComingBack: async (volumeId) => this.isComingBack(volumeId),
      onNote: (text) => parts.onNote(text),
      bucketBytesMax: parts.bucketBytesMax,
      failpoint: () => parts.failpoint?.(),
      isStopped: () => this.closed,
      ...(parts.grace === undefined ? {} : { grace: parts.grace }),
    });
  }

  /** Collects by the clock from now on. */
  start(): void {
    this.plan(firstRunMs);
  }

  /** No further run begins; one under way deletes nothing more. Idempotent. */
  async close(): Promise<void> {
    this.closed = true;
    this.parts.onClose?.();
    this.timer?.cancel();
    await this.lastRun;
  }

  requests(): Readonly<Record<string, number>> {
    return this.parts.store.counters;
  }

  check(options: { readonly quick: boolean }): JobView {
    return this.begin("check", "", async (job) => {
      const onProgress = (_objects: number, bytes: number, total: number): void => job.progress(bytes, total);
      const report = await checkBucket(this.reader, {
        ...options,
        onProgress,
        breathe: async () => this.breathe(),
        isStopped: () => this.closed,
      });
      return {
        result: { kind: "check", report },
        note: `${report.problems} problems in ${report.objects} objects`,
      };
    });
  }

  collect(options: CollectOptions): JobView {
    return this.begin("collect", "", async () => {
      const report = await this.run({ ...options, sweep: true });
      const what = options.dryRun ? "would go" : "deleted";
      return {
        result: { kind: "collect", report },
        note: `${report.deleted} objects ${what}, ${report.waiting} wait`,
      };
    });
  }

  /** As collect(), without a job. */
  async collectNow(options: CollectOptions): Promise<CollectReport> {
    return await this.run({ ...options, sweep: true });
  }

  scrub(volume: string, options: ScrubOptions): JobView {
    const subject = this.scrubSubject(volume);
    return this.begin("scrub", volume, async (job) => {
      const scrubber = new Scrubber(
        {
          clock: this.parts.clock,
          allocateSlab: (bytes: number) => this.parts.allocateSlab(bytes),
          onProgress: (done, total) => job.progress(done, total),
          isStopped: () => this.closed,
        },
        subject,
      );
      const report = await scrubber.scrub(options);
      const note = `${report.compared} extents compared, ${report.damaged.length} damaged`;
      return { result: { kind: "scrub", report }, note };
    });
  }

  report(jobId: string): BucketReport {
    const found = this.reports.get(jobId);
    if (found !== undefined) return found;
    throw new VarveError("UnknownJobError", "Invalid", `there is no report of job ${JSON.stringify(jobId)}`, {
      hint: "Only jobs that are done have one, the last few; GET /v1/jobs says how they ended.",
      fields: { id: jobId },
    });
  }

  async usage(): Promise<BucketUsageReport> {
    return await bucketUsage(this.reader, this.parts.prices, this.alarms, {
      bytesMax: this.parts.bucketBytesMax,
      uploadBytesPerSecond: null,
      downloadBytesPerSecond: null,
      fillBytesPerSecond: null,
      ...this.parts.rates,
    });
  }

  async deletedVolumes(): Promise<readonly DeletedVolume[]> {
    const { deleted } = await this.rescuer.find();
    const left = await this.collector.deletedSince();
    return deleted.map(({ manifest }) => deletedView(manifest, left));
  }

  async undelete(name: string, as?: string): Promise<RescuedVolume> {
    const back = (await this.parts.settling?.takeBack(name, as)) ?? null;
    if (back !== null) return back;
    const { deleted } = await this.rescuer.find();
    const manifest = oneDeleted(
      name,
      deleted.map((one) => one.manifest),
    );
    const { volumeId } = manifest;
    this.returning.add(volumeId);
    try {
      const record = this.rescuer.recordOf(manifest);
      // Its archiver publishes the new name with its first manifest.
      const named = as === undefined ? record : { ...record, name: as };
      const reached = await this.parts.bringBack(named, async () => this.rescuer.takeLine(volumeId));
      return { ...reached, name: named.name };
    } catch (cause) {
      this.returning.delete(volumeId);
      throw isNameTaken(cause) ? nameTaken(name, as ?? manifest.name, cause) : cause;
    }
  }

  private async isComingBack(volumeId: string): Promise<boolean> {
    if (this.parts.settling?.has(volumeId) === true) return true;
    if ((await this.parts.isKnown?.(volumeId)) === true) return true;
    return this.returning.has(volumeId) || this.parts.kept().some((one) => one.volumeId === volumeId);
  }

  private plan(delayMs: number): void {
    if (this.closed) return;
    this.timer = this.parts.clock.after(delayMs, () => {
      // Only a sweep knows how much the bucket holds.
      const everyMs = this.parts.bucketBytesMax === null ? limits.collectorSweepEveryMs : 0;
      const isDue = this.parts.clock.monotonicMs() - this.sweptMs >= everyMs;
      const mine = this.parts.isCollector?.() ?? true;
      const work = mine ? this.run({ dryRun: false, acceptClock: false, sweep: isDue }) : this.trimOnly();
      work.then(
        () => this.plan(limits.collectorTrimEveryMs),
        (cause: unknown) => {
          const error = toVarveError(cause, "collect");
          // A bucket that is away, or another collector at work: told where it is asked, not each hour.
          if (error.kind !== "Retry")
            this.parts.onNote(`warning: the bucket is not collected: ${error.message}`);
          this.plan(limits.collectorLeaseMs);
        },
      );
    });
  }

  /** Runs follow each other. */
  private async run(options: RunOptions): Promise<CollectReport> {
    const turn = this.lastRun.then(async () => this.collector.run(options));
    this.lastRun = turn.catch(() => undefined);
    const report = await turn;
    this.alarms = [
      ...(report.paused === null ? [] : [report.paused]),
      ...(report.behindMs < limits.retentionBehindToldMs ? [] : [behindText(report.behindMs)]),
      ...report.findings.slice(0, 20).map((one) => `${one.key}: ${one.problem}`),
    ];
    if (options.sweep && !options.dryRun) this.sweptMs = this.parts.clock.monotonicMs();
    return report;
  }

  private async trimOnly(): Promise<void> {
    const turn = this.lastRun.then(async () => this.collector.trimOnly());
    this.lastRun = turn.catch(() => undefined);
    for (const { key, problem } of await turn) this.parts.onNote(`warning: ${key}: ${problem}`);
  }

  /** One of a kind, and of a volume, at a time. */
  private begin(
    kind: "check" | "collect" | "scrub",
    volume: string,
    work: (job: JobHandle) => Promise<{ readonly result: BucketReport; readonly note: string }>,
  ): JobView {
    const what = `${kind} ${volume}`.trimEnd();
    if (this.running.has(what)) {
      throw new VarveError("AlreadyRunningError", "Retry", `a ${what} is under way already`, {
        hint: "Wait for it to end: varve job list.",
        fields: { what },
      });
    }
    this.running.add(what);
    const job = this.parts.startJob(kind, volume);
    work(job)
      .then(({ result, note }) => {
        this.keep(job.id, result);
        if (this.closed) job.stopped(note);
        else job.done(note);
      })
      .catch((cause: unknown) => job.failed(cause))
      .finally(() => this.running.delete(what))
      .catch(() => undefined);
    return job.view();
  }

  private keep(jobId: string, report: BucketReport): void {
    this.reports.set(jobId, report);
    for (const oldest of this.reports.keys()) {
      if (this.reports.size <= limits.bucketReportsMax) return;
      this.reports.delete(oldest);
    }
  }

  private served(): readonly ServedVolume[] {
    return this.parts.kept().map((volume) => ({
      ...volume,
      pointsInUse: () => this.parts.pointsInUse(volume.volumeId),
    }));
  }

  private scrubSubject(name: string): ScrubSubject {
    const volume = this.parts.kept().find((one) => one.name === name);
    if (volume !== undefined)
      return { ...volume, repair: async (extent, memory) => volume.refill(extent, memory) };
    throw new VarveError(
      "VolumeNotArchivedError",
      "Invalid",
      `there is no served volume ${JSON.stringify(name)}`,
      {
        hint: "Scrub compares a volume that is served with its history in the bucket: varve volume show says its state.",
        fields: { name },
      },
    );
  }

  /** Others get their turn between two objects that were hashed on this thread. */
  private async breathe(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.parts.clock.soon(resolve);
    });
  }
}

function behindText(behindMs: number): string {
  const days = Math.floor(behindMs / 86_400_000);
  return `retention time is ${days} days behind the wall clock, so history is kept that much longer; where the clock is right: varve bucket collect --accept-clock`;
}
