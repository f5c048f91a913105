/*
 * Fills one replica from the bucket or from other nodes' images, whichever of its sources can: copies the disk while writes go on, then
 * leaves an image with a checkpoint at the LSN where the copy began, so that the log does the rest. Made by kept-replica.ts, which follows
 * the log afterwards; below it fill-copy.ts and the sources. Rules and what each crash leaves: docs/specs/replica-fill.md.
 */
import {
  checkpointPathOf,
  fillOriginPathOf,
  fillPathOf,
  partialImagePathOf,
  type VolumePaths,
} from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { type FillOrigin, fillOrigins } from "#shared/domain/replica-report.ts";
import { encodeCheckpoint } from "#shared/formats/checkpoint.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { FillCopy } from "./fill-copy.ts";
import { type FillSource, type FillStart, fillStopped } from "./fill-source.ts";

export interface ReplicaFillOptions {
  readonly volumeId: string;
  readonly paths: VolumePaths;
  /** Tried in this order until one has given everything. */
  readonly sources: readonly FillSource[];
  readonly store: FileStore;
  readonly clock: Clock;
  readonly roomBytes: () => number;
  /** Bytes a second at most; null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  readonly onChange: () => void;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

/** The fill that is wanted, durably: whoever opens the replica next fills it. */
export async function orderFill(store: FileStore, paths: VolumePaths): Promise<void> {
  await store.makeDirectory(paths.directory);
  const file = await store.open(fillPathOf(paths.image), { create: true, access: "buffered" });
  await file.close();
  await store.syncDirectory(paths.directory);
}

/** What alone may fill it, durably; null: any. Told before the fill is ordered, so that none begins from elsewhere. */
export async function keepFillOrigin(
  store: FileStore,
  paths: VolumePaths,
  from: FillOrigin | null,
): Promise<void> {
  const path = fillOriginPathOf(paths.image);
  if (from !== null) {
    await store.makeDirectory(paths.directory);
    await store.replaceWhole(path, Buffer.from(`${from}\n`));
  } else if ((await store.facts(path)) !== null) {
    await store.remove(path);
    await store.syncDirectory(paths.directory);
  }
}

/** A fill that was ordered and has not ended; also one whose copy was installed without its checkpoint when the node was killed. */
export async function findFill(
  store: FileStore,
  paths: VolumePaths,
): Promise<{ readonly isWanted: boolean; readonly from: FillOrigin | null }> {
  const text = (await store.readWhole(fillOriginPathOf(paths.image)))?.toString("utf8").trim();
  const from = fillOrigins.find((origin) => origin === text) ?? null;
  const isOrdered = (await store.facts(fillPathOf(paths.image))) !== null;
  const isBroken = from !== null && (await store.readWhole(checkpointPathOf(paths.image))) === null;
  return { isWanted: isOrdered || isBroken, from };
}

export class ReplicaFill {
  readonly #options: ReplicaFillOptions;
  readonly #signal: AbortSignal;
  #copy: FillCopy | null = null;
  #copiedBefore = 0;

  constructor(options: ReplicaFillOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
  }

  /** Of all attempts. */
  get copiedBytes(): number {
    return this.#copiedBefore + (this.#copy?.copiedBytes ?? 0);
  }

  get isCopying(): boolean {
    return this.#copy?.isCopying ?? false;
  }

  /** For the operator. */
  get progress(): string {
    return this.#copy?.progress ?? "begins to be filled";
  }

  /** Resolves, when image and checkpoint stand there, with the LSN from which on the image is exact. Rejects when it can't go on. */
  async run(): Promise<number> {
    const { store, paths } = this.#options;
    await orderFill(store, paths);
    const file = await store.open(fillPathOf(paths.image), { access: "buffered" });
    let start: FillStart;
    try {
      file.lockAsImageWriter();
      start = await this.#copyFromAny((source) => {
        const { clock, roomBytes, bytesPerSecond, onChange } = this.#options;
        const parts = { source, file, store, clock, roomBytes, bytesPerSecond, onChange };
        return new FillCopy({ ...parts, signal: this.#signal });
      });
      await file.syncWithTimes();
    } finally {
      await file.close();
    }
    await this.#install(start);
    return Math.max(this.#copy?.begunLsn ?? 0, start.appliedLsn);
  }

  async #copyFromAny(begin: (source: FillSource) => FillCopy): Promise<FillStart> {
    const failures: VarveError[] = [];
    const { sources, onNote } = this.#options;
    for (const [index, source] of sources.entries()) {
      this.#copiedBefore = this.copiedBytes;
      this.#copy = begin(source);
      this.#options.onChange();
      try {
        return await this.#copy.run();
      } catch (cause) {
        const failure = toVarveError(cause, `fill from ${source.name}`);
        if (this.#signal.aborted) throw fillStopped();
        // No other source takes less room.
        if (failure.kind === "Full") throw failure;
        failures.push(failure);
        const next = sources[index + 1];
        if (next !== undefined) onNote(`${failure.message}; ${next.name} is tried`);
      }
    }
    throw noSource(failures);
  }

  /** See docs/specs/replica-fill.md, "After a crash": no checkpoint ever speaks of another image than its own. */
  async #install(start: FillStart): Promise<void> {
    const { store, paths, volumeId } = this.#options;
    const { directory, image } = paths;
    for (const path of [checkpointPathOf(image), partialImagePathOf(image)]) {
      if ((await store.facts(path)) !== null) await store.remove(path);
    }
    await store.syncDirectory(directory);
    await store.rename(fillPathOf(image), image);
    await store.syncDirectory(directory);
    const { line, epoch, appliedLsn, checksum: batchChecksum, sequence, sizeBytes } = start;
    const checkpoint = {
      volumeId,
      line: line === "" ? null : line,
      epoch,
      appliedLsn,
      batchChecksum,
      sizeBytes,
      residency: "full",
      position: sequence === 0 ? null : { sequence, offset: 0 },
      detached: null,
    } as const;
    await store.replaceWhole(checkpointPathOf(image), encodeCheckpoint(checkpoint));
  }
}

/** Of several the one that may pass by itself says what is to be done. */
function noSource(failures: readonly VarveError[]): VarveError {
  const [only] = failures;
  if (only !== undefined && failures.length === 1) return only;
  const kind = failures.some((one) => one.kind === "Retry") ? "Retry" : (only?.kind ?? "Retry");
  const why =
    failures.map(({ message }) => message).join("; ") || "there is no other one, and this node has no bucket";
  return new VarveError("FillNoSource", kind, `nothing can fill the replica now: ${why}`, {
    hint: "It is tried again. Look at the others: varve replica list. Give this node the archivers' bucket: --bucket URL.",
  });
}
