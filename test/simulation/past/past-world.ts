/*
 * The world of one seed with a past: machine and disk, bucket, clock, plan, and the ledgers that outlive every process and
 * every machine. Made by past-run.ts; past-life.ts lives in it, one process after the other. Whatever is wrong is told to
 * fail(). The one-machine world without a bucket is ../world.ts.
 */
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { SimulatedBucket } from "#shared/adapters/object-store/simulated-bucket.ts";
import type { EmbeddedLogOptions } from "#shared/adapters/write-log/log-options.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ClientProfile } from "../client.ts";
import { Scheduler, SeededRandom } from "../scheduler.ts";
import { SlabStock } from "../slab-stock.ts";
import { SimulationFailure } from "../world.ts";
import { BucketWatch } from "./bucket-watch.ts";
import type { PastMutant } from "./past-mutant.ts";
import { SharedDisk } from "./shared-disk.ts";
import { type LedgerBeginning, VolumeLedger } from "./volume-ledger.ts";

const KiB = 1024;
const diskBytes = 512 * 1024 * KiB;

export interface Region {
  readonly offset: number;
  readonly length: number;
}

export interface PastPlan {
  readonly sizeBytes: number;
  readonly lives: number;
  readonly clientsMax: number;
  readonly volumesMax: number;
  readonly stepsMax: number;
  readonly profile: ClientProfile;
  readonly regions: readonly Region[];
  readonly log: EmbeddedLogOptions & { readonly segmentBytes: number; readonly logBytesMax: number };
  /** How long the bucket may take back what it acknowledged, in a power loss of its own. 0: never. */
  readonly settleMs: number;
  readonly segmentRecordBytes: number;
  readonly segmentAgeMs: number;
  readonly baseLogBytesMin: number;
  /** The store ignores If-None-Match. */
  readonly conditionalPutLies: boolean;
  /** Superseded manifests go after this time, what nothing names after twice. */
  readonly graceMs: number;
  readonly historyMs: number;
}

export class PastWorld {
  readonly seed: number;
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly plan: PastPlan;
  readonly bucket: SimulatedBucket;
  readonly watch: BucketWatch;
  readonly mutant: PastMutant;
  /** Where the bucket is a directory of the machine's disk. */
  readonly shared: SharedDisk | null;
  /** Of the present machine; another one after it was lost. */
  disk: SimulatedDisk;
  /** By volume id. Deleted ones stay: others may begin with their points. */
  readonly ledgers = new Map<string, VolumeLedger>();
  readonly counts = new Map<string, number>();
  failure: SimulationFailure | null = null;
  /** Somebody set retention time to the wall clock, which may have jumped. */
  clockAccepted = false;
  /** Until then requests may fail for what the bucket did before. */
  private troubledUntilMs = -1;
  private readonly print: ((line: string) => void) | null;
  private readonly slabs = new SlabStock();
  private readonly source: SeededRandom;
  private lifeNumber = 0;

  constructor(seed: number, mutant: PastMutant, print: ((line: string) => void) | null) {
    this.seed = seed;
    this.mutant = mutant;
    this.print = print;
    this.source = new SeededRandom(Math.imul(seed, 0x85ebca6b) ^ 0x3c6ef372);
    for (let index = 0; index < 8; index++) this.source.next();
    this.random = this.source.fork();
    this.scheduler = new Scheduler(this.source.fork());
    const isShared = seed % 11 >= 9;
    const plan = planOf(this.source.fork());
    // A directory syncs what it answers.
    this.plan = isShared ? { ...plan, settleMs: 0, conditionalPutLies: false } : plan;
    this.bucket = new SimulatedBucket({
      clock: this.scheduler.clock,
      random: this.source.fork(),
      latencyMsMax: 20,
      settleMs: this.plan.settleMs,
      faults: { conditionalPutLies: this.plan.conditionalPutLies },
    });
    this.watch = new BucketWatch(this.bucket, this.scheduler.clock, this.plan.settleMs, (what) =>
      this.fail(what),
    );
    this.disk = this.newDisk();
    this.shared = isShared ? new SharedDisk(this, diskBytes) : null;
    this.bucket.space = this.shared;
  }

  /** Another machine: nothing on its disk. */
  newDisk(): SimulatedDisk {
    return new SimulatedDisk({
      random: this.source.fork(),
      schedule: this.scheduler.schedule,
      quotaBytes: diskBytes,
    });
  }

  /** The store of a new process, with the memory of those before it. */
  newStore(): FileStore {
    const store = this.disk.store();
    store.allocateSlab = (bytes) => this.slabs.take(bytes);
    store.shrinkSlab = () => undefined;
    return store;
  }

  /** Nothing of the process runs any more; its memory serves the next. */
  processEnded(): void {
    this.slabs.takeAllBack();
  }

  end(): void {
    this.scheduler.reset();
    const { requests, faults, late, lost, damaged } = this.bucket.counters;
    this.count("bucket requests", requests);
    this.count("bucket faults", faults);
    this.count("bucket requests that came late", late);
    this.count("objects lost by the bucket", lost);
    this.count("objects damaged", damaged);
    this.disk.kill();
    this.slabs.giveUp();
  }

  startLife(): number {
    this.lifeNumber += 1;
    return this.lifeNumber;
  }

  ledgerOf(id: string): VolumeLedger {
    const ledger = this.ledgers.get(id);
    if (ledger === undefined) throw new Error(`no ledger of volume ${id}`);
    return ledger;
  }

  addLedger(id: string, name: string, begin: LedgerBeginning): void {
    this.ledgers.set(id, new VolumeLedger(id, name, begin, (what) => this.fail(what)));
  }

  /** The bucket answers badly, or did so until now; requests that wait for it may fail for so long. */
  bucketTroubled(): void {
    this.troubledUntilMs = Math.max(this.troubledUntilMs, this.scheduler.nowMs + troubleMs);
  }

  /** Windows are so short that points leave them within a seed. */
  get trims(): boolean {
    return this.plan.historyMs < 60 * 60_000;
  }

  get bucketMayFail(): boolean {
    const { faults } = this.bucket;
    const bad =
      faults.away ||
      faults.full ||
      (this.shared?.mayBeFull ?? false) ||
      faults.errorBefore + faults.errorAfter + faults.hang + faults.brokenBody > 0;
    if (bad) this.bucketTroubled();
    return bad || this.scheduler.nowMs < this.troubledUntilMs;
  }

  note(what: string): void {
    this.print?.(`${this.scheduler.nowMs.toFixed(3).padStart(12)} ms  life ${this.lifeNumber}  ${what}`);
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** May be called from inside the product, so it only takes a note: the next step ends the seed. */
  fail(what: string, cause?: unknown): void {
    if (this.failure !== null) return;
    this.failure = new SimulationFailure(what, cause === undefined ? undefined : { cause });
    this.note(`FAILED: ${what}`);
  }

  throwFailure(): void {
    if (this.failure !== null) throw this.failure;
  }
}

/** What a request may have waited for: the store's own retries, then the wait of a read. */
const troubleMs = 2 * (limits.bucketRetryMs + limits.bucketWaitMs) + limits.bucketAnswerMs;

function planOf(random: SeededRandom): PastPlan {
  // Two or three extents, the last one seldom whole.
  const sizeBytes = limits.extentBytes + random.integer(1, 7) * 1024 * KiB + random.integer(0, 3) * 4 * KiB;
  const regions = regionsOf(random, sizeBytes);
  const segmentBytes = 512 * KiB + random.integer(0, 8) * 64 * KiB;
  return {
    sizeBytes,
    lives: random.integer(2, 5),
    clientsMax: random.integer(1, 3),
    volumesMax: random.integer(1, 4),
    stepsMax: random.pick([150, 400, 800]),
    regions,
    profile: {
      depthMax: random.integer(1, 5),
      roundMax: random.integer(1, 5),
      writeBytesMax: random.pick([2 * KiB, 8 * KiB, 32 * KiB]),
      partBytesMax: 48 * KiB,
      pauseMs: random.pick([1, 5, 40]),
      alignBytes: random.pick([1, 1, 512, 4 * KiB]),
      regions,
      weights: {
        write: 40,
        received: 3,
        zero: 4,
        zeroAllocated: 3,
        trim: 6,
        flush: 4,
        read: 12,
        status: 3,
        cache: 1,
        reopen: 1,
      },
    },
    log: {
      segmentBytes,
      preparedAheadBytes: random.pick([32 * KiB, segmentBytes]),
      logBytesMax: segmentBytes * random.pick([4, 40]),
      retainedBytes: random.pick([0, 0, segmentBytes]),
      sparesMax: random.integer(1, 4),
      unsyncedBytesMax: 256 * KiB,
      unsyncedAgeMsMax: random.pick([20, 1000]),
      groupBatchesMax: random.pick([2, 64]),
    },
    settleMs: random.pick([0, 3_000, 30_000]),
    segmentRecordBytes: random.pick([32 * KiB, 128 * KiB, 512 * KiB]),
    segmentAgeMs: random.pick([200, 2_000, 20_000]),
    baseLogBytesMin: random.pick([64 * KiB, 512 * KiB]),
    conditionalPutLies: random.chance(0.2),
    graceMs: 35_000,
    historyMs: random.pick([1_000, 30_000, 7 * 24 * 60 * 60_000]),
  };
}

/** Where clients write: small places, some of them across the border of extents, so that every LSN can be compared quickly. */
function regionsOf(random: SeededRandom, sizeBytes: number): readonly Region[] {
  const regions: Region[] = [];
  for (let start = limits.extentBytes; start < sizeBytes; start += limits.extentBytes) {
    if (random.chance(0.5)) regions.push(clipped(start - 16 * KiB, 32 * KiB, sizeBytes));
  }
  const count = random.integer(1, 4);
  for (let index = 0; index < count; index++) {
    const length = random.pick([16, 40, 64]) * KiB;
    regions.push(clipped(random.integer(0, sizeBytes), length, sizeBytes));
  }
  regions.push(clipped(sizeBytes - 24 * KiB, 24 * KiB, sizeBytes));
  return regions;
}

function clipped(offset: number, length: number, sizeBytes: number): Region {
  const end = Math.min(sizeBytes, offset + length);
  return { offset: Math.max(0, end - length), length: Math.min(length, end) };
}
