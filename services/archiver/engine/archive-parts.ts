/*
 * What all parts of an archiver stand on, and what one may set. Made once per process by services/archiver/layer.ts; the classes
 * of this folder take from it what they need.
 */

import type { ArchiveWorker } from "#shared/ports/archive-worker.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { Failpoint } from "#shared/ports/failpoint.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ChunkDirectory } from "./chunk-directory.ts";
import type { UploadRegister } from "./upload-register.ts";
import type { WorkSlots } from "./work-slots.ts";

export interface ArchiverOptions {
  readonly segmentRecordBytes: number;
  readonly segmentAgeMs: number;
  /** Between two manifests that only add segments; see manifest-pace.ts. */
  readonly manifestEveryMs: number;
  /** zstd's; 0 stores as is. */
  readonly level: number;
  /** How long after its PUT an object is believed. Null: as the store's probe says. */
  readonly settleMs: number | null;
  /** The rest of the log gets so long at close(). */
  readonly closeMs: number;
  readonly baseLogBytesMin: number;
  readonly baseLogBytesMax: number;
  readonly baseReadBytesPerSecond: number;
}

export interface ArchiveParts {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly worker: ArchiveWorker;
  readonly failpoint: Failpoint;
  readonly options: ArchiverOptions;
  readonly segmentSlots: WorkSlots;
  /** Segments that fill from memory; see live-log.ts. */
  readonly liveSlots: WorkSlots;
  readonly extentSlots: WorkSlots;
  readonly uploads: UploadRegister;
  readonly chunks: ChunkDirectory;
  /** Memory of one extent that files can read into; given back after use. */
  readonly extentMemory: { take(): Slab; give(slab: Slab): void };
}
