/*
 * The world of one seed: its disk, its clock, its plan (sizes, limits, habits), and the oracle that outlives every process.
 * Made by run-seed.ts; life.ts lives in it, one process after the other. Whatever is wrong is reported to fail().
 */
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import type { EmbeddedLogOptions } from "#shared/adapters/write-log/log-options.ts";
import { type VolumePaths, volumePaths } from "#shared/domain/data-layout.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import { slabClassBytes } from "#shared/memory/slab-pool.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { SlabPiece } from "#shared/ports/slab.ts";
import type { Durability } from "#shared/ports/write-log.ts";
import type { ClientProfile } from "./client.ts";
import { type Mutant, overriding } from "./mutant.ts";
import { PrefixOracle } from "./oracle.ts";
import { Scheduler, SeededRandom } from "./scheduler.ts";
import { SlabStock } from "./slab-stock.ts";

const KiB = 1024;

export const dataDirectory = "/data";

export interface WorldPlan {
  readonly sizeBytes: number;
  readonly durability: Durability;
  readonly lives: number;
  readonly clientsMax: number;
  readonly profile: ClientProfile;
  readonly log: EmbeddedLogOptions;
  /** Payload memory that is left to the volume; other volumes of the process hold the rest. */
  readonly memoryBytes: number;
  readonly stepsMax: number;
  /** Answers so fast that log writes on the event loop's own thread are allowed. */
  readonly diskIsFast: boolean;
  /** What is left of the disk for this data directory while nobody else fills it. */
  readonly diskBytes: number;
  /** What the file system calls its size: the reserve is a share of it. */
  readonly fileSystemBytes: number;
  /** The disk may be too small for volume and log: then writes are refused, and nothing ever halts for it. */
  readonly diskIsSmall: boolean;
}

/** Something was wrong: the seed fails with it. */
export class SimulationFailure extends Error {}

export class World {
  readonly seed: number;
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly disk: SimulatedDisk;
  readonly plan: WorldPlan;
  readonly oracle: PrefixOracle;
  readonly mutant: Mutant;
  readonly paths: VolumePaths;
  readonly volumeId: string;
  /** The line, once a log was opened; it never changes. */
  line: string | null = null;
  epoch = 0;
  /** What happened how often, for the report. */
  readonly counts = new Map<string, number>();
  failure: SimulationFailure | null = null;
  /** While set, a write on the loop may be the process's last deed; then powerFails. */
  mayFailInline = false;
  powerFails = false;
  private readonly print: ((line: string) => void) | null;
  private readonly slabs = new SlabStock();
  private lifeNumber = 0;

  /** False: what the product says of itself is not looked at between steps, only what it serves. */
  readonly watchesSteps: boolean;

  constructor(seed: number, mutant: Mutant, print: ((line: string) => void) | null, watchesSteps: boolean) {
    this.seed = seed;
    this.watchesSteps = watchesSteps;
    this.mutant = mutant;
    this.print = print;
    const source = new SeededRandom(Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995);
    // Consecutive seeds start with unlike draws only after a few.
    for (let index = 0; index < 8; index++) source.next();
    this.random = source.fork();
    this.scheduler = new Scheduler(source.fork());
    this.plan = planOf(source.fork());
    this.disk = new SimulatedDisk({
      random: source.fork(),
      schedule: this.scheduler.schedule,
      quotaBytes: this.plan.diskBytes,
    });
    if (this.plan.diskIsFast) {
      this.scheduler.latencyMsMax = 0.4;
      this.scheduler.hesitates = false;
    }
    this.oracle = new PrefixOracle(this.plan.sizeBytes);
    this.paths = volumePaths(dataDirectory, "disk0");
    this.volumeId = source.hex(8);
  }

  /**
   * The store of a new process. Its slabs are those of the processes before it, which are dead: memory with the remains of
   * other lives, as a real process may get, and far cheaper than new.
   */
  newStore(): FileStore {
    const store = this.disk.store();
    store.allocateSlab = (bytes) => this.slabs.take(bytes);
    store.shrinkSlab = () => undefined;
    if (this.plan.diskIsFast) this.tearInlineWrites(store);
    const quota = this.disk.store();
    store.freeSpace = async (path) => {
      const { freeBytes } = await quota.freeSpace(path);
      return { freeBytes, totalBytes: this.plan.fileSystemBytes };
    };
    return store;
  }

  /** The power may fail in the middle of a write on the event loop's own thread, where no step of the scheduler can. */
  private tearInlineWrites(store: FileStore): void {
    const plain = this.disk.store();
    const torn = (file: BlockFile, pieces: readonly SlabPiece[], offset: number): boolean => {
      if (!this.mayFailInline || !this.random.chance(0.01)) return false;
      // Not synced: the power loss leaves any part of it.
      file.writeInline(pieces, offset);
      this.note("the power fails in a write");
      this.count("power lost in a write on the loop");
      this.powerFails = true;
      return true;
    };
    store.open = async (path, options) => {
      const file = await plain.open(path, options);
      if (!path.startsWith(`${this.paths.log}/`)) return file;
      return overriding(file, {
        writeDurableInline: (pieces, offset) => {
          if (torn(file, pieces, offset)) throw new FileStoreError("durable write", path, "EIO");
          file.writeDurableInline(pieces, offset);
        },
      });
    };
  }

  /** Nothing of the process runs any more; its memory serves the next. */
  processEnded(): void {
    this.slabs.takeAllBack();
  }

  /** The seed is over. */
  end(): void {
    this.scheduler.reset();
    const { operations, faults, crashes, kills } = this.disk.counters;
    this.count("disk operations", operations);
    this.count("disk errors answered", faults);
    this.count("power losses", crashes);
    this.count("kills", kills);
    if (this.plan.diskIsSmall) this.count("seeds with a disk that is too small");
    this.disk.kill();
    this.slabs.giveUp();
  }

  startLife(): number {
    this.lifeNumber += 1;
    return this.lifeNumber;
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

  /** A file's bytes as a process sees them, or null. */
  fileBytes(path: string): Buffer | null {
    const content = this.disk.names.seen.files.get(path)?.cache;
    if (content === undefined) return null;
    const bytes = Buffer.alloc(content.sizeBytes);
    content.read(bytes, 0);
    return bytes;
  }
}

function planOf(random: SeededRandom): WorldPlan {
  const large = random.chance(0.2);
  const sizeBlocks = large ? random.integer(128, 256) : random.integer(8, 96);
  // A volume may have any size; a file system's is whole blocks.
  const sizeBytes = sizeBlocks * 4 * KiB - (random.chance(0.2) ? random.integer(0, 4 * KiB) : 0);
  const clientsMax = random.integer(1, 4);
  const profile = profileOf(random, large);
  const recordBytes = recordBytesMaxOf(profile, clientsMax);
  // Room is promised by slabs, and an untouched segment keeps 64 KiB of it for epoch entries.
  const diskIsSmall = random.chance(0.15);
  const segmentBytes = slabBytesFor(recordBytes) + random.integer(1, 32) * 4 * KiB + 72 * KiB;
  return {
    sizeBytes,
    durability: random.chance(0.55) ? "write" : "flush",
    lives: random.integer(3, 7),
    clientsMax,
    profile,
    log: {
      segmentBytes,
      preparedAheadBytes: random.pick([32 * KiB, segmentBytes, 2 * segmentBytes]),
      logBytesMax: segmentBytes * random.integer(2, 8),
      retainedBytes: random.pick([0, segmentBytes, 2 * segmentBytes]),
      sparesMax: random.integer(1, 4),
      unsyncedBytesMax: random.pick([64 * KiB, 256 * KiB, 1024 * KiB]),
      unsyncedAgeMsMax: random.pick([20, 1000]),
      groupBatchesMax: random.pick([2, 64]),
    },
    memoryBytes: memoryBytesOf(random, recordBytes),
    stepsMax: large ? 300 : 500,
    diskIsFast: random.chance(0.4),
    diskIsSmall,
    diskBytes: diskIsSmall
      ? 12 * segmentBytes + Math.ceil(random.next() * (2 * segmentBytes + sizeBytes))
      : 32 * 1024 * KiB,
    fileSystemBytes: diskIsSmall ? 128 * segmentBytes : 32 * 1024 * KiB,
  };
}

function profileOf(random: SeededRandom, large: boolean): ClientProfile {
  return {
    depthMax: random.integer(1, large ? 3 : 7),
    roundMax: random.integer(1, 7),
    writeBytesMax: large ? 64 * KiB : random.pick([2 * KiB, 8 * KiB, 16 * KiB]),
    partBytesMax: large ? random.pick([64 * KiB, 200 * KiB, 300 * KiB]) : 24 * KiB,
    pauseMs: random.pick([0.5, 2, 5]),
    alignBytes: random.pick([1, 1, 1, 512, 4 * KiB]),
    regions: null,
    weights: {
      write: 40,
      received: large ? 10 : 3,
      zero: 4,
      zeroAllocated: 4,
      trim: 6,
      flush: random.pick([2, 10]),
      read: random.pick([10, 25]),
      status: 5,
      cache: 1,
      reopen: 1,
    },
  };
}

/** The largest record that these clients can cause: one payload, or all that can gather in one batch. */
function recordBytesMaxOf(profile: ClientProfile, clients: number): number {
  const gathered = clients * profile.depthMax * profile.writeBytesMax;
  const payload = Math.max(profile.partBytesMax, gathered);
  return 4 * KiB + Math.ceil(payload / (4 * KiB)) * 4 * KiB;
}

/** From just enough for the largest single batch to more than the clients can use. */
function memoryBytesOf(random: SeededRandom, recordBytes: number): number {
  return slabBytesFor(recordBytes) + (slabClassBytes[0] as number) * random.pick([1, 2, 4, 40]);
}

/** A batch is given twice what its predecessors had, so that it can grow; the first one 128 KiB. */
function slabBytesFor(recordBytes: number): number {
  return slabClassBytes.find((bytes) => bytes >= Math.max(2 * recordBytes, 132 * KiB)) ?? 0;
}
