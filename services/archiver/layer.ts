/*
 * The archiver of one process: one VolumeArchiver per open volume, over one bucket, one archive thread and one budget of memory. Opened
 * by services/cli/single-machine.ts; the volume host sees shared/ports/archive.ts.
 */
import { ArchiveThread } from "#shared/adapters/archive-worker/thread.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import type { ArchiverHome, ArchiveSubject } from "#shared/ports/archive.ts";
import type { ArchiveWorker } from "#shared/ports/archive-worker.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { Failpoint } from "#shared/ports/failpoint.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ObjectStore, StoreCapabilities } from "#shared/ports/object-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ArchiveParts, ArchiverOptions } from "./engine/archive-parts.ts";
import { ChunkDirectory } from "./engine/chunk-directory.ts";
import { manifestEveryMs } from "./engine/manifest-pace.ts";
import { UploadRegister } from "./engine/upload-register.ts";
import { VolumeArchiver } from "./engine/volume-archiver.ts";
import { WorkSlots } from "./engine/work-slots.ts";

export type { ArchiverOptions };

export interface ArchiverSetup {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  /** Memory that images are read into. */
  readonly slabs: Pick<FileStore, "allocateSlab" | "shrinkSlab">;
  readonly worker?: ArchiveWorker;
  /** Requests of clients in this process, which the archive thread gives way to. */
  readonly foreground?: ForegroundLoad;
  readonly options?: Partial<ArchiverOptions>;
  readonly failpoint?: Failpoint;
}

export const archiverDefaults: ArchiverOptions = {
  segmentRecordBytes: limits.segmentRecordBytes,
  segmentAgeMs: limits.segmentAgeMs,
  manifestEveryMs: manifestEveryMs,
  // One thread seals 180-230 MB/s of records at this level, 130 MB/s at 3: it must keep up with writes and bases together.
  level: 1,
  settleMs: null,
  closeMs: limits.archiveCloseMs,
  baseLogBytesMin: limits.baseLogBytesMin,
  baseLogBytesMax: limits.baseLogBytesMax,
  baseReadBytesPerSecond: limits.baseReadBytesPerSecond,
};

export class Archiver implements ArchiverHome {
  /** For the others of this service: retention writes exact bases with the same parts. */
  readonly parts: ArchiveParts;
  private readonly archivers = new Set<VolumeArchiver>();
  private capabilities: Promise<StoreCapabilities> | null = null;

  constructor(setup: ArchiverSetup) {
    this.parts = {
      store: setup.store,
      clock: setup.clock,
      random: setup.random,
      worker: setup.worker ?? new ArchiveThread(setup.clock, setup.foreground),
      failpoint: setup.failpoint ?? (() => undefined),
      options: { ...archiverDefaults, ...setup.options },
      segmentSlots: new WorkSlots(limits.archiveSegmentsAtOnceMax),
      liveSlots: new WorkSlots(limits.archiveLiveSegmentsMax),
      extentSlots: new WorkSlots(limits.archiveExtentsAtOnceMax),
      uploads: new UploadRegister(),
      chunks: new ChunkDirectory(),
      extentMemory: new ExtentMemory(setup.slabs),
    };
  }

  async open(subject: ArchiveSubject): Promise<VolumeArchiver> {
    const archiver = new VolumeArchiver(this.parts, subject);
    for (const one of this.archivers) if (one.status().state === "stopped") this.archivers.delete(one);
    this.archivers.add(archiver);
    try {
      await archiver.begin(() => this.probe());
    } catch (cause) {
      this.archivers.delete(archiver);
      throw cause;
    }
    return archiver;
  }

  uploadsInFlight(): Iterable<string> {
    return this.parts.uploads.keys();
  }

  /** Closes what is still open, then the archive thread. The store is its owner's. */
  async close(): Promise<void> {
    await Promise.all([...this.archivers].map(async (archiver) => archiver.close()));
    this.archivers.clear();
    await this.parts.worker.close();
  }

  /** Once per process, however many volumes ask; again where it failed. */
  private probe(): Promise<StoreCapabilities> {
    this.capabilities ??= this.parts.store.probe().catch((cause: unknown) => {
      this.capabilities = null;
      throw cause;
    });
    return this.capabilities;
  }
}

/** One slab for each extent that may be under way; without pages while no base is taken. */
class ExtentMemory {
  private readonly slabs: ArchiverSetup["slabs"];
  private readonly free: Slab[] = [];

  constructor(slabs: ArchiverSetup["slabs"]) {
    this.slabs = slabs;
  }

  take(): Slab {
    return this.free.pop() ?? this.slabs.allocateSlab(limits.extentBytes);
  }

  give(slab: Slab): void {
    this.slabs.shrinkSlab(slab);
    this.free.push(slab);
  }
}
