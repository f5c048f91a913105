/*
 * Room in the data directory's file system: what may still be promised to writes, and a reserve file for the case that a
 * promise was wrong (other programs fill the disk too). Asked by the volume writers for every write, before it is logged;
 * told what reached the image; asked for room by the image applier when an apply met ENOSPC all the same. The sums are
 * shared/domain/write-admission.ts. See docs/specs/space-and-repair.md.
 *
 *   holding ─makeRoom─► releasing ─► released: every write is refused ─free ≥ reserve + margin─► holding
 */
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { SpaceLedger } from "#shared/domain/write-admission.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";

export interface SpaceReserveOptions {
  readonly store: FileStore;
  readonly clock: Clock;
  /** The data directory. */
  readonly path: string;
  /** A line for the operator: the reserve was given up, or is back. */
  readonly onNote?: (text: string) => void;
}

/** Never promised, beside the reserve file: two log segments made ready between two samples. */
const marginBytesMax = 2 * limits.logSegmentBytes;
/** A small file system keeps less back. */
const reserveShare = 16;
const marginShare = 64;
/** So much may be admitted on one look at the free space; less where little is left, because logs and others take room, too. */
const sampleBytesMax = 64 * 1024 * 1024;
const sampleBytesMin = 1024 * 1024;
const sampleRoomShare = 4;
/** Less than what a write may need. */
const lowRoomBytes = limits.nbdPayloadBytesMax;
/** While anything is promised, while there is little room, and while the reserve is gone. */
const sampleMs = 1000;
/** While writes are refused, a refusal looks again this often. */
const refusedSampleMs = 200;
const roomPollMs = 500;

/** unsupported: the file system can't allocate ahead, so the reserve is only left unpromised. */
type ReserveState = "holding" | "releasing" | "released" | "unsupported";

export class SpaceReserve implements SpaceAdmission {
  readonly #options: SpaceReserveOptions;
  readonly #ledger = new SpaceLedger(0);
  #reserveBytes = 0;
  #marginBytes = 0;
  #freeBytes = 0;
  #file: BlockFile | null = null;
  #state: ReserveState = "released";
  /** The data directory is not where it was: nothing more is promised. */
  #gone: VarveError | null = null;
  #releasing: Promise<void> | null = null;
  #sampling: Promise<void> | null = null;
  #sampledAtMs = 0;
  #admittedSinceSample = 0;
  #sampleDueBytes = 0;
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
    this.#file = await store.open(`${path}/${dataLayout.reserve}`, { create: true, access: "buffered" });
    await this.#sample();
    this.#noteStart();
    if (this.#state === "released") this.#scheduleSample(sampleMs);
  }

  /** What a status shows. */
  status(): { readonly state: ReserveState; readonly roomBytes: number; readonly promisedBytes: number } {
    return { state: this.#state, roomBytes: this.#roomBytes, promisedBytes: this.#ledger.promisedBytes };
  }

  get takesOverwrites(): boolean {
    return this.#gone === null && (this.#state === "holding" || this.#state === "unsupported");
  }

  /** Cheap and synchronous: no call of the system, no allocation where it admits. */
  refuse(bytes: number): VarveError | null {
    return bytes <= this.#roomBytes || bytes === 0 ? null : this.#refusal(bytes);
  }

  admit(bytes: number): void {
    if (bytes === 0) return;
    this.#ledger.admit(bytes);
    this.#admittedSinceSample += bytes;
    if (this.#admittedSinceSample >= this.#sampleDueBytes) this.#startSample();
    else if (this.#timer === null) this.#scheduleSample(sampleMs);
  }

  settle(bytes: number): void {
    this.#ledger.settle(bytes);
  }

  withdraw(bytes: number): void {
    this.#ledger.withdraw(bytes);
  }

  async makeRoom(mayWait: () => boolean): Promise<boolean> {
    if (this.#closed) return false;
    if (this.#state === "holding" || this.#state === "releasing") {
      await this.#release();
      return true;
    }
    const { clock, store, path } = this.#options;
    // Always a pause first: an image that finds no room in spite of free space (a quota) is tried again at this pace.
    while (!this.#closed && mayWait()) {
      await new Promise<void>((resolve) => {
        clock.after(roomPollMs, resolve);
      });
      const { freeBytes } = await store.freeSpace(path);
      if (freeBytes > 0) return true;
    }
    return false;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
    await this.#sampling;
    await this.#releasing?.catch(() => undefined);
    await this.#file?.close();
    this.#file = null;
  }

  get #roomBytes(): number {
    return this.takesOverwrites ? this.#ledger.roomBytes : 0;
  }

  #refusal(bytes: number): VarveError {
    this.counters.refusals += 1;
    if (this.#options.clock.monotonicMs() - this.#sampledAtMs >= refusedSampleMs) this.#startSample();
    else this.#scheduleSample(refusedSampleMs);
    if (this.#gone !== null) return this.#gone;
    const { path } = this.#options;
    const held = this.takesOverwrites ? "" : ", and the reserve is not held";
    return new VarveError(
      "OutOfSpaceError",
      "Full",
      `no room for a write of ${bytes} bytes: ${this.#freeBytes} bytes are free in the file system of ${path}${held}`,
      {
        hint: `Free space there (writes go on when ${readableByteSize(this.#neededBytes)} are free), or trim and delete inside the disk.`,
        fields: { bytes, freeBytes: this.#freeBytes, neededBytes: this.#neededBytes, reserve: this.#state },
      },
    );
  }

  /** Free bytes from which on writes are admitted. */
  get #neededBytes(): number {
    return this.#marginBytes + (this.#state === "holding" ? 0 : this.#reserveBytes);
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
    this.#note(
      `the disk of ${this.#options.path} is full; the reserve of ${readableByteSize(this.#reserveBytes)} was given up for what was ` +
        `acknowledged. Writes are refused until ${readableByteSize(this.#neededBytes)} are free there`,
    );
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
      .catch((cause: unknown) => {
        if (cause instanceof FileStoreError && cause.code === "ENOENT") this.#loses(cause);
      })
      .finally(() => {
        this.#sampling = null;
        // Idle is idle: nothing promised, nothing to wait for, no timer.
        // Where the next write might be refused, somebody may make room before it comes.
        const isFull =
          this.#gone !== null || this.#state === "released" || this.#ledger.roomBytes < lowRoomBytes;
        if (isFull || this.#ledger.promisedBytes > 0) this.#scheduleSample(sampleMs);
      });
  }

  async #sample(): Promise<void> {
    const { store, clock, path } = this.#options;
    this.#admittedSinceSample = 0;
    this.#sampledAtMs = clock.monotonicMs();
    this.#ledger.beginSample();
    let { freeBytes } = await store.freeSpace(path);
    if (this.#gone !== null) this.#note(`the data directory ${path} is there again: writes go on`);
    this.#gone = null;
    let next = this.#state;
    if (next === "released") {
      next = await this.#restored(freeBytes);
      if (next === "holding") ({ freeBytes } = await store.freeSpace(path));
    }
    this.#freeBytes = freeBytes;
    const keptBytes = this.#marginBytes + (next === "unsupported" ? this.#reserveBytes : 0);
    this.#ledger.endSample(Math.max(0, freeBytes - keptBytes));
    const dueBytes = this.#ledger.roomBytes / sampleRoomShare;
    this.#sampleDueBytes = Math.min(sampleBytesMax, Math.max(sampleBytesMin, dueBytes));
    this.counters.samples += 1;
    if (this.#state === "released" && next !== "released") this.#restore(next);
  }

  /** Files that are open can be written on, and are lost with the last of them: nobody is promised anything there. */
  #loses(cause: FileStoreError): void {
    if (this.#gone !== null) return;
    const { path } = this.#options;
    this.#gone = new VarveError("DataDirectoryGone", "Internal", `the data directory ${path} is gone`, {
      hint: "Was it moved or deleted under a running server? Put it back where it was, and writes go on; else stop the server.",
      fields: { path },
      cause,
    });
    this.#note(`${this.#gone.message}: writes are refused. ${this.#gone.hint}`);
  }

  #restore(state: ReserveState): void {
    this.#state = state;
    this.counters.restores += 1;
    if (this.counters.releases > 0) {
      this.#note(`there is room again in the file system of ${this.#options.path}: writes go on`);
    }
  }

  /** Takes the reserve back once there is room for it and for everything promised; says the state after it. */
  async #restored(freeBytes: number): Promise<ReserveState> {
    const file = this.#file;
    if (file === null) return "released";
    // A file that a former process left already has its blocks.
    const wantedBytes = Math.max(0, this.#reserveBytes - (await file.facts()).allocatedBytes);
    if (wantedBytes === 0) return "holding";
    if (freeBytes < wantedBytes + this.#marginBytes + this.#ledger.promisedBytes) return "released";
    try {
      await file.allocate(0, this.#reserveBytes);
      return "holding";
    } catch (cause) {
      if (cause instanceof FileStoreError && cause.code === "EOPNOTSUPP") return "unsupported";
      // A part of it helps nobody; another look follows.
      await file.truncate(0);
      return "released";
    }
  }

  #noteStart(): void {
    const { path } = this.#options;
    if (this.#state === "released") {
      this.#note(
        `${readableByteSize(this.#freeBytes)} are free in the file system of ${path}: writes are refused until ` +
          `${readableByteSize(this.#neededBytes)} are`,
      );
    } else if (this.#reserveBytes < limits.reserveBytes) {
      this.#note(
        `the file system of ${path} is small: the reserve for a full disk is ${readableByteSize(this.#reserveBytes)} instead of ` +
          readableByteSize(limits.reserveBytes),
      );
    }
  }

  #note(text: string): void {
    this.#options.onNote?.(text);
  }
}

function wholeBlocks(bytes: number): number {
  return Math.floor(bytes / limits.blockBytes) * limits.blockBytes;
}
