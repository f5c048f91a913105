/*
 * The housekeeping of a bucket in a running server: collects by the clock, and answers check, usage, collect, scrub and undelete.
 * Made by services/archiver/keeper-layer.ts for `varve up`; HTTP API and CLI see it as BucketAdministration. One job at a time
 * of each kind, so that nobody starts ten checks by ten clicks.
 */
import type { BucketPrices } from "#shared/domain/bucket-prices.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type {
  BucketAdministration,
  BucketCheckReport,
  BucketUsageReport,
  CollectOptions,
  CollectReport,
  DeletedVolume,
  RescuedVolume,
  ScrubOptions,
  ScrubReport,
} from "#shared/ports/bucket-administration.ts";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { checkBucket } from "./bucket-check.ts";
import { BucketReader, type PresentManifest } from "./bucket-reader.ts";
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
  readonly conditionalPut: boolean;
  readonly settleMs: number;
  readonly prices: BucketPrices;
  readonly exactBase: ExactBaseBuilder;
  served(): readonly ServedVolume[];
  uploadsInFlight(): Iterable<string>;
  pointsInUse(volumeId: string): readonly number[];
  /** Throws Invalid for a volume that is not served. */
  scrubSubject(volume: string): ScrubSubject;
  allocateSlab(bytes: number): Slab;
  /** Makes the volume's record and files, and serves it; `takeLine` is called when its name is found to be free. */
  bringBack(found: PresentManifest, rescuer: Rescuer): Promise<RescuedVolume>;
  onNote(text: string): void;
  failpoint?(): void;
  readonly grace?: Partial<CollectorGrace>;
}

/** A server that has just started has better things to do. */
const firstRunMs = 10 * 60_000;

export class BucketKeeper implements BucketAdministration {
  private readonly parts: KeeperParts;
  private readonly reader: BucketReader;
  private readonly collector: Collector;
  private readonly rescuer: Rescuer;
  private readonly running = new Set<string>();
  private timer: Timer | null = null;
  private closed = false;
  private lastRun: Promise<unknown> = Promise.resolve();
  /** Monotonic time of the last sweep; before any: as if one were due. */
  private sweptMs = Number.NEGATIVE_INFINITY;
  private alarms: readonly string[] = [];

  constructor(parts: KeeperParts) {
    this.parts = parts;
    const { store, clock, random, who, conditionalPut } = parts;
    this.reader = new BucketReader(store);
    this.rescuer = new Rescuer({ reader: this.reader, clock, random, conditionalPut });
    this.collector = new Collector({
      reader: this.reader,
      lease: new CollectorLease({ store, clock, random, who, conditionalPut }),
      trimmer: new HistoryTrimmer({
        clock,
        served: () => parts.served(),
        exactBase: parts.exactBase,
        settleMs: parts.settleMs,
      }),
      uploadsInFlight: () => parts.uploadsInFlight(),
      pointsInUse: (volumeId) => parts.pointsInUse(volumeId),
      onNote: (text) => parts.onNote(text),
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
    this.timer?.cancel();
    await this.lastRun;
  }

  async check(options: { readonly quick: boolean }): Promise<BucketCheckReport> {
    return await this.alone("check", async () =>
      checkBucket(this.reader, { ...options, breathe: () => this.breathe() }),
    );
  }

  async usage(): Promise<BucketUsageReport> {
    return await this.alone("usage", async () => bucketUsage(this.reader, this.parts.prices, this.alarms));
  }

  async collect(options: CollectOptions): Promise<CollectReport> {
    return await this.run({ ...options, sweep: true });
  }

  async scrub(volume: string, options: ScrubOptions): Promise<ScrubReport> {
    return await this.alone(`scrub of ${volume}`, async () => {
      const parts = {
        clock: this.parts.clock,
        allocateSlab: (bytes: number) => this.parts.allocateSlab(bytes),
        isStopped: () => this.closed,
      };
      return await new Scrubber(parts, this.parts.scrubSubject(volume)).scrub(options);
    });
  }

  async deletedVolumes(): Promise<readonly DeletedVolume[]> {
    const { deleted } = await this.rescuer.find();
    const left = await this.collector.deletedSince();
    return deleted.map(({ manifest }) => ({
      volumeId: manifest.volumeId,
      name: manifest.name,
      sizeBytes: manifest.sizeBytes,
      deletedAtMs: manifest.deletedAtMs ?? 0,
      archivedLsn: manifest.archivedLsn,
      goesInMs: left.get(manifest.volumeId) ?? null,
    }));
  }

  async undelete(name: string): Promise<RescuedVolume> {
    return await this.alone("undelete", async () => {
      const { deleted } = await this.rescuer.find();
      const found = deleted.filter(({ manifest }) => manifest.name === name || manifest.volumeId === name);
      const [one] = found;
      if (one === undefined) throw notDeleted(name, deleted);
      if (found.length > 1) throw severalDeleted(name, found);
      return await this.parts.bringBack(one, this.rescuer);
    });
  }

  private plan(delayMs: number): void {
    if (this.closed) return;
    this.timer = this.parts.clock.after(delayMs, () => {
      const isDue = this.parts.clock.monotonicMs() - this.sweptMs >= limits.collectorSweepEveryMs;
      this.run({ dryRun: false, acceptClock: false, sweep: isDue }).then(
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
      ...report.findings.slice(0, 20).map((one) => `${one.key}: ${one.problem}`),
    ];
    if (options.sweep && !options.dryRun) this.sweptMs = this.parts.clock.monotonicMs();
    return report;
  }

  private async alone<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.running.has(what)) {
      throw new VarveError("AlreadyRunningError", "Retry", `a ${what} is under way already`, {
        hint: "Wait for it to end.",
        fields: { what },
      });
    }
    this.running.add(what);
    try {
      return await work();
    } finally {
      this.running.delete(what);
    }
  }

  /** Others get their turn between two objects that were hashed on this thread. */
  private async breathe(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.parts.clock.soon(resolve);
    });
  }
}

function notDeleted(name: string, deleted: readonly PresentManifest[]): VarveError {
  const names = deleted.map(({ manifest }) => manifest.name);
  return new VarveError(
    "UnknownVolumeError",
    "Invalid",
    `there is no deleted volume ${JSON.stringify(name)}`,
    {
      hint:
        names.length === 0 ? "The bucket has no deleted volumes." : `Deleted volumes: ${names.join(", ")}.`,
      fields: { name },
    },
  );
}

function severalDeleted(name: string, found: readonly PresentManifest[]): VarveError {
  const ids = found.map(({ manifest }) => manifest.volumeId).join(", ");
  return new VarveError("AmbiguousVolumeError", "Invalid", `several deleted volumes had the name ${name}`, {
    hint: `Say which by its id: ${ids}. varve volume list --deleted shows when each was deleted.`,
    fields: { name },
  });
}
