/*
 * What check, adopt and discard share: the files of a volume whose session is closed, how its log is opened for a repair, and
 * the memory that content passes through. Given by services/storage/layer.ts; the way of a repair goes on in image-check.ts,
 * image-adopt.ts and image-discard.ts. Rules: docs/specs/space-and-repair.md.
 */
import type { VolumeOrigin } from "#shared/domain/archive.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { checkpointPathOf, partialImagePathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  type BadCheckpoint,
  type Checkpoint,
  decodeCheckpoint,
  encodeCheckpoint,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile, FileFacts, FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { LogWriter, WriteLog } from "#shared/ports/write-log.ts";

/** What reading a closed log gives (adapters/write-log/inspect.ts gives more). */
export type LogItem =
  | { readonly kind: "segment" | "stop" }
  | { readonly kind: "record"; readonly lastLsn: number; readonly batch: Batch }
  | {
      readonly kind: "summary";
      readonly line: string | null;
      readonly oldestLsn: number;
      readonly lastLsn: number;
      readonly diskBytes: number;
      readonly refusal: VarveError | null;
    };

export interface RepairSetup {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly volume: VolumeRecord;
  readonly paths: VolumePaths;
  /** Not open; the repair opens and closes it. */
  readonly log: WriteLog;
  /** Where a clone began: its log alone does not hold the disk. */
  readonly origin?: VolumeOrigin | null;
  /** Reads the closed log without changing it, records from `fromLsn` on. */
  readonly inspectLog: (fromLsn: number) => AsyncIterable<LogItem>;
}

/** Image and checkpoint as they lie there. */
export interface ImageLook {
  /** The name that the file has: `.partial` where extents are remote. */
  readonly path: string;
  readonly facts: FileFacts | null;
  /** Null: there is none. */
  readonly checkpoint: Checkpoint | BadCheckpoint | null;
}

export async function lookAtImage(setup: RepairSetup): Promise<ImageLook> {
  const { image } = setup.paths;
  const bytes = await setup.store.readWhole(checkpointPathOf(image));
  const whole = await setup.store.facts(image);
  const partial = whole === null ? await setup.store.facts(partialImagePathOf(image)) : null;
  return {
    path: partial === null ? image : partialImagePathOf(image),
    facts: whole ?? partial,
    checkpoint: bytes === null ? null : decodeCheckpoint(bytes),
  };
}

/** Durable, atomic. */
export async function writeCheckpoint(setup: RepairSetup, checkpoint: Checkpoint): Promise<void> {
  await setup.store.replaceWhole(checkpointPathOf(setup.paths.image), encodeCheckpoint(checkpoint));
}

/** Stops at what no repair may touch: another volume's checkpoint, or one of a newer Varve. */
export function requireOwn(setup: RepairSetup, checkpoint: ImageLook["checkpoint"]): void {
  if (checkpoint === null) return;
  const path = checkpointPathOf(setup.paths.image);
  if (isBadCheckpoint(checkpoint)) {
    if (checkpoint.fault !== "version" && checkpoint.fault !== "flags") return;
    throw new VarveError("CheckpointNewer", "Invalid", `${path}: ${checkpoint.detail}`, {
      hint: "Use the newer Varve that wrote it. Nothing was changed.",
      fields: { path },
    });
  }
  const { id } = setup.volume;
  if (checkpoint.volumeId === id) return;
  throw new VarveError(
    "CheckpointOfOtherVolume",
    "Invalid",
    `${path} belongs to volume id ${checkpoint.volumeId}, not ${id}`,
    {
      hint: "Put this volume's own files back. Nothing was changed.",
      fields: { path, found: checkpoint.volumeId, volumeId: id },
    },
  );
}

/** Stops at an image that is not the disk: a part of its bytes is in the bucket only. */
export function requireWhole(setup: RepairSetup, { checkpoint, path }: ImageLook): void {
  const partial = path !== setup.paths.image;
  const recorded = checkpoint !== null && !isBadCheckpoint(checkpoint) && checkpoint.residency !== "full";
  if (!partial && !recorded) return;
  const { name } = setup.volume;
  throw new VarveError(
    "ImagePartial",
    "Invalid",
    `${path} holds only a part of the disk: the rest is in the bucket`,
    {
      hint:
        `Start varve up; if it takes the image, varve volume fill ${name} makes it whole. If it does not, bring the volume back from the ` +
        `bucket: varve volume create NEW --from ${name}@POINT, or varve rescue into another data directory. Nothing was changed.`,
      fields: { path },
    },
  );
}

/** The image file, under qemu's own lock: whoever has it open for writing keeps the repair away. Null: it does not exist. */
export async function openLocked(setup: RepairSetup): Promise<BlockFile | null> {
  const { image } = setup.paths;
  let file: BlockFile;
  try {
    file = await setup.store.open(image, { access: "buffered" });
  } catch (cause) {
    if (cause instanceof FileStoreError && cause.code === "ENOENT") return null;
    throw cause;
  }
  try {
    file.lockAsImageWriter();
  } catch (cause) {
    await file.close();
    throw cause;
  }
  return file;
}

/** Where a discard builds the image, beside the one that it will replace. */
export function rebuildPathOf(setup: RepairSetup): string {
  return `${setup.paths.image}.rebuild`;
}

/** What a discard left that did not end; of no use to anybody. */
export async function removeRebuild(setup: RepairSetup): Promise<void> {
  const path = rebuildPathOf(setup);
  if ((await setup.store.facts(path)) === null) return;
  await setup.store.remove(path);
  await setup.store.syncDirectory(setup.paths.directory);
}

/** The log of a volume under repair, and what it tells. */
export class RepairLog {
  readonly writer: LogWriter;
  readonly #clock: Clock;
  readonly #events: LogEvents;

  private constructor(writer: LogWriter, clock: Clock, events: LogEvents) {
    this.writer = writer;
    this.#clock = clock;
    this.#events = events;
  }

  /** Recovers and fences, as every open does: the log gains an epoch entry. */
  static async open(setup: RepairSetup, what: string, knownLsn: number): Promise<RepairLog> {
    const events: LogEvents = { halted: null, wake: () => undefined };
    const writer = await setup.log.open({
      writer: `varve image ${what}`,
      durability: "write",
      knownLsn,
      listener: {
        stored: () => undefined,
        durable: () => undefined,
        halted: (error) => {
          events.halted = error;
          events.wake();
        },
        room: () => events.wake(),
      },
    });
    return new RepairLog(writer, setup.clock, events);
  }

  /** Why nothing can be appended any more. */
  get halted(): VarveError | null {
    return this.#events.halted;
  }

  /** Until the log's room may have changed, but no longer than `waitMs`. */
  async roomChanged(waitMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = this.#clock.after(waitMs, resolve);
      this.#events.wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  /** The batch that holds `lsn`. */
  async batchAt(lsn: number): Promise<Batch> {
    for await (const batch of this.writer.read(lsn)) return batch;
    throw new VarveError("LogShort", "Corrupt", `the log ends before LSN ${lsn}`, {
      hint: "Look at it with `varve log inspect`.",
      fields: { lsn },
    });
  }
}

interface LogEvents {
  halted: VarveError | null;
  wake: () => void;
}

const spare = new WeakMap<FileStore, Map<number, Slab[]>>();

/** Runs `work` with `count` slabs. A store's slabs are never unmapped, so they are kept for the next repair. */
export async function withSlabs<T>(
  store: FileStore,
  count: number,
  bytes: number,
  work: (slabs: readonly Slab[]) => Promise<T>,
): Promise<T> {
  const kept = spare.get(store) ?? new Map<number, Slab[]>();
  spare.set(store, kept);
  const free = kept.get(bytes) ?? [];
  kept.set(bytes, free);
  const slabs = Array.from({ length: count }, () => free.pop() ?? store.allocateSlab(bytes));
  try {
    return await work(slabs);
  } finally {
    for (const slab of slabs) store.shrinkSlab(slab);
    free.push(...slabs);
  }
}
