/*
 * Room in the data directory's file system: what may still be promised to writes, and a reserve file for the case that the
 * promise was wrong (other programs fill the disk too). Asked by the volume writers for every write, before anything is
 * logged (refuse), told by the feeds what reached the image (settle), and by the image applier when an apply met ENOSPC all
 * the same (makeRoom). The sums are shared/domain/write-admission.ts. See docs/specs/replica.md, "Room".
 *
 *   holding ─ENOSPC in an apply─► released: every write is refused ─room is back─► holding
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { imageRoomBytes, SpaceLedger } from "#shared/domain/write-admission.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";

export interface SpaceReserveOptions {
  readonly store: FileStore;
  readonly clock: Clock;
  /** The data directory. */
  readonly path: string;
}

/** Never promised, beside the reserve file: two log segments made ready between two samples. */
const marginBytesMax = 2 * limits.logSegmentBytes;
/** A small file system keeps less back. */
const reserveShare = 16;
const marginShare = 64;
/** So much may be admitted on one look at the free space. */
const sampleBytes = 64 * 1024 * 1024;
const sampleMs = 1000;
/** While writes are refused, a refusal looks again this often. */
const refusedSampleMs = 200;
/** How long an apply that found no room waits, with the reserve already gone, before the replica halts. */
const roomWaitMs = 30_000;
const roomPollMs = 500;

type ReserveState = "none" | "holding" | "releasing" | "released" | "unsupported";

export class SpaceReserve {
  readonly #options: SpaceReserveOptions;
  #ledger = new SpaceLedger(0);
  #reserveBytes = 0;
  #marginBytes = 0;
  #freeBytes = 0;
  #file: BlockFile | null = null;
  #state: ReserveState = "none";
  #releasing: Promise<void> | null = null;
  #sampling: Promise<void> | null = null;
  #sampledAtMs = 0;
  #admittedSinceSample = 0;
  #timer: Timer | null = null;
  #closed = false;
  readonly counters = { samples: 0, refusals: 0, releases: 0, restores: 0 };

  constructor(options: SpaceReserveOptions) {
    this.#options = options;
  }

  /** Makes the reserve file and looks at the free space. Before it, everything is refused. */
  async start(): Promise<void> {
    const { store, path } = this.#options;
    const { totalBytes } = await store.freeSpace(path);
    this.#reserveBytes = Math.min(limits.reserveBytes, wholeBlocks(totalBytes / reserveShare));
    this.#marginBytes = Math.min(marginBytesMax, wholeBlocks(totalBytes / marginShare));
    this.#ledger = new SpaceLedger(this.#marginBytes);
    this.#file = await store.open(`${path}/${dataLayout.reserve}`, { create: true, access: "buffered" });
    this.#state = "released";
    await this.#sample();
  }

  /** Reserve held, room known: what a status shows. */
  status(): { readonly held: boolean; readonly roomBytes: number; readonly promisedBytes: number } {
    return {
      held: this.#state === "holding",
      roomBytes: this.#ledger.roomBytes,
      promisedBytes: this.#ledger.promisedBytes,
    };
  }

  /**
   * Null: an entry with `bytes` to find room for is admitted, and its room is promised until settle(). Else why not. Cheap and
   * synchronous: no call of the system.
   */
  refuse(bytes: number): VarveError | null {
    if (bytes === 0) return null;
    const roomBytes = roomFor(bytes);
    const admits =
      (this.#state === "holding" || this.#state === "unsupported") && roomBytes <= this.#ledger.roomBytes;
    if (!admits) return this.#refusal(bytes);
    this.#ledger.admit(roomBytes);
    this.#admittedSinceSample += roomBytes;
    if (this.#admittedSinceSample >= sampleBytes) this.#startSample();
    else this.#scheduleSample(sampleMs);
    return null;
  }

  /** A batch of admitted entries is in the image. */
  settle(draft: BatchDraft): void {
    let bytes = 0;
    for (let index = 0; index < draft.entryCount; index += 1) {
      const kind = draft.kinds[index];
      const length = draft.lengths[index] ?? 0;
      if (kind !== undefined && imageRoomBytes(kind, 0, length) > 0) bytes += roomFor(length);
    }
    // Entries of a writer that asked nobody (a repair, a test) were never promised.
    this.#ledger.settle(Math.min(bytes, this.#ledger.promisedBytes));
  }

  /**
   * An apply (or a checkpoint) met ENOSPC: gives the reserve up, or waits for room where it is gone. False: no room came in
   * time. Admission refuses from now until the reserve is back.
   */
  async makeRoom(): Promise<boolean> {
    if (this.#closed) return false;
    if (this.#state === "holding" || this.#state === "releasing") {
      await this.#release();
      return true;
    }
    const { clock, store, path } = this.#options;
    const startedMs = clock.monotonicMs();
    while (!this.#closed && clock.monotonicMs() - startedMs < roomWaitMs) {
      const { freeBytes } = await store.freeSpace(path);
      if (freeBytes > this.#marginBytes) return true;
      await new Promise<void>((resolve) => {
        clock.after(roomPollMs, resolve);
      });
    }
    return false;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
    await this.#sampling?.catch(() => undefined);
    await this.#releasing?.catch(() => undefined);
    await this.#file?.close();
    this.#file = null;
  }

  #refusal(bytes: number): VarveError {
    this.counters.refusals += 1;
    const now = this.#options.clock.monotonicMs();
    if (now - this.#sampledAtMs >= refusedSampleMs) this.#startSample();
    else this.#scheduleSample(refusedSampleMs);
    return new VarveError(
      "OutOfSpaceError",
      "Full",
      `no room for a write of ${bytes} bytes: ${this.#freeBytes} bytes are free in the file system of ${this.#options.path}`,
      {
        hint: "Free space in the file system of the data directory, or trim and delete inside the disk.",
        fields: {
          bytes,
          freeBytes: this.#freeBytes,
          roomBytes: this.#ledger.roomBytes,
          reserve: this.#state,
        },
      },
    );
  }

  #release(): Promise<void> {
    this.#state = "releasing";
    this.#releasing ??= this.#giveUp().finally(() => {
      this.#releasing = null;
    });
    return this.#releasing;
  }

  async #giveUp(): Promise<void> {
    await this.#file?.truncate(0);
    this.#state = "released";
    this.counters.releases += 1;
    this.#scheduleSample(sampleMs);
  }

  #scheduleSample(delayMs: number): void {
    if (this.#timer !== null || this.#closed) return;
    this.#timer = this.#options.clock.after(delayMs, () => {
      this.#timer = null;
      this.#startSample();
    });
  }

  #startSample(): void {
    if (this.#sampling !== null || this.#closed) return;
    this.#sampling = this.#sample()
      // A file system that does not answer gives no room: the last figures stay, and what was admitted counts against them.
      .catch(() => undefined)
      .finally(() => {
        this.#sampling = null;
        if (this.#state === "released" || this.#ledger.promisedBytes > 0) this.#scheduleSample(sampleMs);
      });
  }

  async #sample(): Promise<void> {
    const { store, clock, path } = this.#options;
    this.#admittedSinceSample = 0;
    this.#sampledAtMs = clock.monotonicMs();
    this.#ledger.beginSample();
    let { freeBytes } = await store.freeSpace(path);
    if (this.#state === "released" && (await this.#restore(freeBytes))) {
      ({ freeBytes } = await store.freeSpace(path));
    }
    this.#freeBytes = freeBytes;
    this.#ledger.endSample(freeBytes);
    this.counters.samples += 1;
  }

  /** Takes the reserve back once there is room for it and for everything promised. */
  async #restore(freeBytes: number): Promise<boolean> {
    // A file that a former process left already has its blocks.
    const heldBytes = (await this.#file?.facts())?.allocatedBytes ?? 0;
    const wantedBytes = Math.max(0, this.#reserveBytes - heldBytes);
    if (freeBytes < wantedBytes + this.#ledger.promisedBytes + (wantedBytes > 0 ? this.#marginBytes : 0))
      return false;
    try {
      await this.#file?.allocate(0, this.#reserveBytes);
      // With a size, so that every file system frees all of it with the next truncate.
      await this.#file?.truncate(this.#reserveBytes);
    } catch (cause) {
      if (cause instanceof FileStoreError && cause.kind === "Full") {
        await this.#file?.truncate(0);
        return false;
      }
      if (!(cause instanceof FileStoreError) || cause.code !== "EOPNOTSUPP") throw cause;
      // Without allocation a reserve can't be held: its bytes are never promised instead.
      this.#ledger = new SpaceLedger(this.#marginBytes + this.#reserveBytes);
      this.#state = "unsupported";
      return true;
    }
    this.#state = "holding";
    this.counters.restores += 1;
    return true;
  }
}

/** The most blocks that a range of so many bytes touches, wherever it lies. */
function roomFor(bytes: number): number {
  return imageRoomBytes(0, limits.blockBytes - 1, bytes);
}

function wholeBlocks(bytes: number): number {
  return Math.floor(bytes / limits.blockBytes) * limits.blockBytes;
}
