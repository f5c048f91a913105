/*
 * The bucket of a cluster as its api process shows it: check and usage read it in this process, collections are asked of the archiver that
 * collects it (docs/specs/cluster.md#the-end-of-history). The HTTP routes call it through its port; the cluster's layer makes it.
 */
import { bucketCollectSubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type {
  BucketAdministration,
  BucketCheckReport,
  BucketReport,
  BucketUsageReport,
  CollectOptions,
  CollectReport,
  DeletedVolume,
  RescuedVolume,
  ScrubOptions,
} from "#shared/ports/bucket-administration.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { JobHandle, JobKind, JobView } from "#shared/ports/past-administration.ts";
import type { ClusterScrub } from "./cluster-scrub.ts";
import type { ClusterUndelete } from "./cluster-undelete.ts";

export type ApiJob = Omit<JobHandle, "stopped">;

export interface ApiJobs {
  start(kind: JobKind, volume: string): ApiJob;
  list(): readonly JobView[];
  show(id: string): JobView;
}

export interface ClusterBucketOptions {
  readonly bus: MessageBus;
  readonly clock: Clock;
  readonly random: Random;
  readonly jobs: ApiJobs;
  readonly scrubs: Pick<ClusterScrub, "prepare">;
  /** Requests to the store since the start. */
  readonly requests: () => Readonly<Record<string, number>>;
  readonly deleted: Pick<ClusterUndelete, "list" | "undelete">;
  readonly usage: () => Promise<BucketUsageReport>;
  readonly check: (
    quick: boolean,
    onProgress: (objects: number, bytes: number, totalBytes: number) => void,
  ) => Promise<BucketCheckReport>;
}

const askMs = 5000;
const againMs = 1000;
/** So often in a row the archiver may be away while it changes. */
const missesMax = 30;

export class ClusterBucket implements BucketAdministration {
  readonly #options: ClusterBucketOptions;
  readonly #running = new Set<string>();
  readonly #reports = new Map<string, BucketReport>();

  constructor(options: ClusterBucketOptions) {
    this.#options = options;
  }

  requests(): Readonly<Record<string, number>> {
    return this.#options.requests();
  }

  async usage(): Promise<BucketUsageReport> {
    return await this.#options.usage();
  }

  check({ quick }: { readonly quick: boolean }): JobView {
    return this.#begin("check", async (job) => {
      const report = await this.#options.check(quick, (_objects, bytes, total) => job.progress(bytes, total));
      job.done(`${report.problems} problems in ${report.objects} objects`);
      return { kind: "check", report };
    });
  }

  collect(options: CollectOptions): JobView {
    return this.#begin("collect", async (job) => {
      const report = await this.#collected(options);
      job.done(
        `${report.deleted} objects ${options.dryRun ? "would go" : "deleted"}, ${report.waiting} wait`,
      );
      return { kind: "collect", report };
    });
  }

  report(jobId: string): BucketReport {
    const found = this.#reports.get(jobId);
    if (found !== undefined) return found;
    throw new VarveError("UnknownJobError", "Invalid", `there is no report of job ${JSON.stringify(jobId)}`, {
      hint: "Only jobs that are done have one, the last few; GET /v1/jobs says how they ended.",
      fields: { id: jobId },
    });
  }

  scrub(volume: string, options: ScrubOptions): JobView {
    const scrub = this.#options.scrubs.prepare(volume, options);
    return this.#begin(
      "scrub",
      async (job) => {
        const report = await scrub((done, total) => job.progress(done, total));
        job.done(`${report.compared} extents compared, ${report.damaged.length} damaged`);
        return { kind: "scrub", report };
      },
      volume,
    );
  }

  async deletedVolumes(): Promise<readonly DeletedVolume[]> {
    return await this.#options.deleted.list();
  }

  async undelete(name: string, as?: string): Promise<RescuedVolume> {
    return await this.#options.deleted.undelete(name, as);
  }

  /** The run goes on while nobody asks; another archiver that took over meanwhile begins one under the same name. */
  async #collected(options: CollectOptions): Promise<CollectReport> {
    const { bus, clock, random } = this.#options;
    const request = encodeMessage({ type: "collect", run: random.hex(8), ...options });
    for (let misses = 0; ; ) {
      const data = await bus.request(bucketCollectSubject, request, askMs).catch((cause: unknown) => {
        misses += 1;
        if (misses >= missesMax) throw noCollector(cause);
        return null;
      });
      const report = data === null ? null : reportIn(data);
      if (report !== null) return report;
      if (data !== null) misses = 0;
      await new Promise<void>((resolve) => {
        clock.after(againMs, resolve);
      });
    }
  }

  /** One of a kind, and of a volume, at a time. */
  #begin(
    kind: "check" | "collect" | "scrub",
    work: (job: ApiJob) => Promise<BucketReport>,
    volume = "",
  ): JobView {
    const what = `${kind} ${volume}`.trimEnd();
    if (this.#running.has(what)) {
      throw new VarveError("AlreadyRunningError", "Retry", `a ${what} is under way already`, {
        hint: "Wait for it to end: varve job list.",
        fields: { what },
      });
    }
    this.#running.add(what);
    const job = this.#options.jobs.start(kind, volume);
    work(job)
      .then(
        (report) => this.#keep(job.id, report),
        (cause: unknown) => job.failed(cause),
      )
      .finally(() => this.#running.delete(what))
      .catch(() => undefined);
    return job.view();
  }

  #keep(jobId: string, report: BucketReport): void {
    this.#reports.set(jobId, report);
    for (const oldest of this.#reports.keys()) {
      if (this.#reports.size <= limits.bucketReportsMax) return;
      this.#reports.delete(oldest);
    }
  }
}

/** Null: it is not done yet. */
function reportIn(data: Uint8Array): CollectReport | null {
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) throw new VarveError("CollectAnswerError", "Retry", decoded.detail);
  const { message, payload } = decoded;
  if (message.type === "refused") throw new VarveError(message.tag, message.kind, message.message);
  if (message.type !== "collected")
    throw new VarveError("CollectAnswerError", "Retry", `a ${message.type} came`);
  return message.isDone ? (JSON.parse(payload.toString("utf8")) as CollectReport) : null;
}

/** Of an api that was given none. */
export const withoutBucket: Pick<ClusterBucketOptions, "requests" | "usage" | "check" | "deleted"> = {
  requests: () => ({}),
  usage: async () => Promise.reject(noBucket()),
  check: async () => Promise.reject(noBucket()),
  deleted: {
    list: async () => Promise.reject(noBucket()),
    undelete: async () => Promise.reject(noBucket()),
  },
};

function noCollector(cause: unknown): VarveError {
  return new VarveError("NoCollectorError", "Retry", "no archiver collects this bucket now", {
    hint: "Start a varve archiver, or wait until one takes over; its readiness says collects.",
    cause: toVarveError(cause, "ask"),
  });
}

function noBucket(): VarveError {
  return new VarveError("NoBucketError", "Invalid", "this api has no bucket", {
    hint: "Start it with the archivers' bucket: --bucket URL.",
  });
}
