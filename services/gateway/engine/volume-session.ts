/*
 * An open volume: log, image, overlay, writer, reader and applier wired together, with the order of opening and closing.
 * Opened by volume-host.ts; gives a BlockExport to each NBD connection.
 *
 *   attach image ─► open log (recover, fence) ─► replay into the image ─► serve ─► drain ─► log closed ─► image detached
 * Halted: log or image failed. Writes get EIO, reads go on as far as the image can, where nobody newer writes; the log stays the truth.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { SlabPool } from "#shared/memory/slab-pool.ts";
import type { ArchivedLog, BaseImage } from "#shared/ports/archive.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Failpoint } from "#shared/ports/failpoint.ts";
import type { ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type { ReplicaTending, TendingOptions } from "#shared/ports/replica-home.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import type { Durability, LogOpenOptions, LogWriter, WriteLog } from "#shared/ports/write-log.ts";
import { appendWhenRoom } from "./append-when-room.ts";
import { LogRelease } from "./log-release.ts";
import { replayLog } from "./log-replay.ts";
import { Overlay } from "./overlay.ts";
import { PendingBatch } from "./pending-batch.ts";
import { SessionExtents } from "./session-extents.ts";
import type { VolumeSessionStatus } from "./session-status.ts";
import { type ChangesSince, type StrictReads, VolumeExport } from "./volume-export.ts";
import { VolumeReader } from "./volume-reader.ts";
import { VolumeWriter } from "./volume-writer.ts";
import type { WritePatience } from "./write-patience.ts";

export type { VolumeSessionStatus };

export interface VolumeSessionOptions {
  readonly name: string;
  readonly durability: Durability;
  readonly log: WriteLog;
  readonly image: ReplicaImage;
  readonly pool: SlabPool;
  readonly admission: SpaceAdmission;
  /** Applies durable batches to `image`. */
  readonly feed: (handlers: ReplicaFeedHandlers<PendingBatch>) => ReplicaFeed<PendingBatch>;
  /** Fills and evicts extents of `image`; not there where every extent is always local. */
  readonly tend?: (options: TendingOptions) => ReplicaTending;
  /** Who writes, for the epoch entry. */
  readonly writer: string;
  /** What the lease says, where several machines may write: see LogOpenOptions. */
  readonly tenure?: Pick<LogOpenOptions, "epoch" | "renewEpoch">;
  /** Log is released only up to what held() was told, too: something archives it. */
  readonly archived?: boolean;
  /** What the log's files may take, for those who watch how full it is. */
  readonly logBytesMax?: number;
  /** For crash tests: `append`, when a batch is durable and no answer has left yet. */
  readonly failpoint?: Failpoint;
  /** How long writes wait while the log can't be reached. */
  readonly patience?: WritePatience;
  /** Told once when log or image halt. */
  readonly onHalted: (error: VarveError) => void;
  /** Replay progress at open: LSN applied, last LSN. */
  readonly onReplay?: (appliedLsn: number, lastLsn: number) => void;
  /** A checkpoint follows behind a long replay each so many bytes; the simulator wants them often. */
  readonly replayBytesPerCheckpoint?: number;
}

export class VolumeSession {
  readonly extents: SessionExtents;
  private readonly options: VolumeSessionOptions;
  private readonly image: ReplicaImage;
  private readonly overlay = new Overlay();
  private readonly reader: VolumeReader;
  private readonly applier: ReplicaFeed<PendingBatch>;
  private readonly exports = new Set<VolumeExport>();
  private logWriter: LogWriter | null = null;
  private volumeWriter: VolumeWriter | null = null;
  private haltError: VarveError | null = null;
  private durability: Durability;
  private closing: Promise<void> | null = null;
  private readonly release: LogRelease;
  private readonly followers = new Set<(batch: PendingBatch) => void>();
  private readonly logWaiters: (() => void)[] = [];
  private readonly memoryWaiters = new Set<() => void>();
  private callQueued = false;

  private constructor(options: VolumeSessionOptions) {
    this.options = options;
    this.image = options.image;
    this.extents = new SessionExtents(options.image.extents, options.tend);
    this.durability = options.durability;
    this.release = new LogRelease(options.archived === true);
    this.reader = new VolumeReader(options.image, this.overlay);
    this.applier = options.feed({
      onApplied: (batches) => this.dropApplied(batches),
      onHalted: (error) => this.halt(error),
      onCheckpoint: (lsn) => this.release.checkpointed(lsn),
    });
  }

  /** Takes over `options.image` (attached) and `options.log` (not yet open). On failure both are left closed. */
  static async open(options: VolumeSessionOptions): Promise<VolumeSession> {
    const session = new VolumeSession(options);
    try {
      await session.start();
    } catch (cause) {
      session.haltError ??= cause instanceof VarveError ? cause : null;
      await session.applier.close().catch(() => undefined);
      await session.logWriter?.close().catch(() => undefined);
      await options.log.close().catch(() => undefined);
      await options.image.abandon().catch(() => undefined);
      throw cause;
    }
    return session;
  }

  get sizeBytes(): number {
    return this.image.state().sizeBytes;
  }

  get attachedClients(): number {
    return this.exports.size;
  }

  openExport(description: string, changesSince?: ChangesSince, strictReads?: StrictReads): BlockExport {
    invariant(this.volumeWriter !== null, "an export is opened on a started session");
    if (this.closing !== null) {
      throw new VarveError("VolumeClosing", "Retry", `volume ${this.options.name} is closing`);
    }
    const { extents } = this.image;
    const opened = new VolumeExport({
      name: this.options.name,
      description,
      sizeBytes: this.sizeBytes,
      readOnly: false,
      reader: this.reader,
      writer: this.volumeWriter,
      onRoom: (callback) => this.waitForRoom(callback),
      onClose: (closed) => {
        this.exports.delete(closed);
      },
      isLocal: extents === undefined ? undefined : (extent) => extents.isLocal(extent),
      changesSince,
      strictReads,
    });
    this.exports.add(opened);
    return opened;
  }

  /** Grows or shrinks by a resize entry; resolves when the image has the new size. Connected clients keep the size they were told. */
  async resize(sizeBytes: number): Promise<void> {
    await this.appendNow([[6, sizeBytes]]);
    await this.applier.drain();
    invariant(this.sizeBytes === sizeBytes, "a resize entry was applied");
    await this.applier.checkpoint();
  }

  /** Appends a mark entry; resolves with its LSN when durable. */
  async mark(name: string): Promise<number> {
    const append = () => this.requireWriter().appendValues([[5, name]]);
    return await appendWhenRoom(append, (callback) => this.waitForRoom(callback));
  }

  /**
   * Puts the disk back to what it was at `toLsn`, with the size it had: one batch, so that a crash leaves both or none. Nobody
   * is attached. Resolves with the rebase entry's LSN when the image knows it; the extents' bytes come later.
   */
  async rollback(toLsn: number, sizeBytes: number): Promise<number> {
    invariant(this.exports.size === 0, "a volume is rolled back with nobody attached");
    const rebase = [7, toLsn] as const;
    const lsn = await this.appendNow(sizeBytes === this.sizeBytes ? [rebase] : [[6, sizeBytes], rebase]);
    await this.applier.drain();
    invariant(this.sizeBytes === sizeBytes, "a rollback's resize entry was applied");
    await this.applier.checkpoint();
    return lsn;
  }

  /** Everything acknowledged so far is durable when it resolves. */
  sync = async (): Promise<void> => this.requireWriter().drain();
  checkpoint = async (): Promise<void> => this.applier.checkpoint();

  /** The log as archiver and history read it, for as long as the session is open. */
  hotLog(): ArchivedLog {
    const log = this.logWriter;
    invariant(log !== null, "the hot log of a started session");
    const limitBytes = this.options.logBytesMax ?? limits.logBytesMaxDefault;
    return {
      line: log.state().line,
      state: () => log.state(),
      read: (fromLsn) => log.read(fromLsn),
      pin: (lsn) => this.release.pin(lsn),
      follow: (listener) => {
        this.followers.add(listener);
        return () => this.followers.delete(listener);
      },
      room: () => ({ diskBytes: log.state().diskBytes, limitBytes }),
    };
  }

  /** The image as bases are read from it: without the overlay. */
  baseImage(): BaseImage {
    const { image } = this;
    return {
      state: () => image.state(),
      read: (slab, start, length, offset) => image.read(slab, start, length, offset),
      allocation: (offset, length, runsMax) => image.allocation(offset, length, runsMax),
      isLocal: (extent) => image.extents?.isLocal(extent) ?? true,
    };
  }

  /** The bucket holds the log up to `lsn`. */
  held = (lsn: number): void => this.release.held(lsn);

  status(): VolumeSessionStatus {
    const log = this.logWriter;
    invariant(log !== null && this.volumeWriter !== null, "status of a started session");
    return {
      name: this.options.name,
      state: this.haltError !== null ? "halted" : this.closing !== null ? "closed" : "serving",
      error: this.haltError,
      durability: this.durability,
      attachedClients: this.exports.size,
      log: log.state(),
      image: this.image.state(),
      overlayRanges: this.overlay.rangeCount,
      counters: { ...this.reader.counters, ...this.volumeWriter.counters, ...this.applier.counters },
    };
  }

  /** Somebody newer writes: everything that waits and all that comes gets the error. */
  fence = (error: VarveError): void => this.halt(error);

  /** Drains, closes the log, applies the rest, detaches the image cleanly. After a halt: closes without a checkpoint. */
  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async start(): Promise<void> {
    const { options } = this;
    const attached = this.image.state();
    this.logWriter = await options.log.open({
      writer: options.writer,
      durability: options.durability,
      knownLsn: attached.appliedLsn,
      ...options.tenure,
      listener: {
        stored: (lsn) => this.volumeWriter?.stored(lsn),
        durable: (lsn) => this.volumeWriter?.durable(lsn),
        halted: (error) => this.halt(error),
        stalled: (error) =>
          options.patience?.stalled(error, (late) => this.volumeWriter?.answerWaiting(late)),
        room: () => {
          this.callLogWaiters();
          this.emptyFullLog();
        },
      },
    });
    this.release.start(this.logWriter, attached.checkpointLsn);
    if (this.image.follow === undefined) await this.replay(this.logWriter);
    else await this.image.follow(this.logWriter.state().lastLsn, this.logWriter.state().epoch);
    if (this.haltError !== null) throw this.haltError;
    this.volumeWriter = new VolumeWriter({
      log: this.logWriter,
      durability: options.durability,
      overlay: this.overlay,
      pool: options.pool,
      admission: options.admission,
      holdsSpace: (offset, length) => this.holdsSpace(offset, length),
      onDurable: (batch) => {
        options.failpoint?.("append");
        for (const follow of this.followers) follow(batch);
        this.applier.enqueue(batch);
      },
      onRoomReturned: () => this.callLogWaitersSoon(),
    });
  }

  private async replay(log: LogWriter): Promise<void> {
    const { admission, replayBytesPerCheckpoint: bytesPerCheckpoint, onReplay } = this.options;
    const checkpoint = (): void => {
      this.applier.checkpoint().catch(() => undefined); // the applier tells of a failure
    };
    await replayLog({ log, image: this.image, admission, checkpoint, bytesPerCheckpoint, onReplay });
  }

  /** Whether a write of the range can do with the blocks it has, whatever of what was taken in before it is applied when. */
  private holdsSpace(offset: number, length: number): boolean {
    // What is in the bucket has no blocks here.
    if (this.image.extents?.isRangeLocal(offset, length) === false) return false;
    const now = this.image.allocation(offset, length, 1)[0];
    if (now?.allocated !== true || now.length < length) return false;
    const then = this.reader.blockStatus(offset, length, 1)[0];
    return then?.allocated === true && then.length >= length;
  }

  /** See BlockExport.onRoom: waits for whatever the last request lacked, log room or memory. */
  private waitForRoom(callback: () => void): void {
    if (this.haltError === null && this.volumeWriter?.takeWaitsForLog()) {
      this.logWaiters.push(callback);
      return;
    }
    const waiter = (): void => {
      if (this.memoryWaiters.delete(waiter)) callback();
    };
    this.memoryWaiters.add(waiter);
    this.options.pool.onRoom(waiter, this.haltError !== null);
    // Memory comes back when batches are applied; do not let them gather while somebody waits.
    this.applier.hurry();
    this.volumeWriter?.relieve();
  }

  /** Whoever changes a disk's size or content for everybody is told that there is no room, and decides. */
  private async appendNow(entries: Parameters<VolumeWriter["appendValues"]>[0]): Promise<number> {
    const appended = this.requireWriter().appendValues(entries);
    if (appended !== null) return await appended;
    const hint = { hint: "Try again in a moment." };
    throw new VarveError("NoMemory", "Retry", "the log has no room for it now, or memory has none", hint);
  }

  /** A log without room gets some from a checkpoint, where the image is ahead of the last one. */
  private emptyFullLog(): void {
    if (this.volumeWriter === null || this.haltError !== null) return;
    const { appliedLsn, checkpointLsn } = this.image.state();
    if (this.logWriter?.state().refusal?.kind !== "Full" || appliedLsn === checkpointLsn) return;
    this.applier.checkpoint().catch(() => undefined); // the applier tells of a failure
  }

  private callLogWaiters = (): void => this.logWaiters.splice(0).forEach((callback) => callback());

  /** Room that was promised came back unused; told later, because the writer is in the middle of something. */
  private callLogWaitersSoon(): void {
    if (this.logWaiters.length === 0 || this.callQueued) return;
    this.callQueued = true;
    queueMicrotask(() => {
      this.callQueued = false;
      this.callLogWaiters();
    });
  }

  /** After a halt, when neither log nor image uses them any more: the pool serves other volumes, too. */
  private releaseSlabs(): void {
    const batches = new Set<PendingBatch>(this.volumeWriter?.takePending() ?? []);
    for (const draft of this.overlay.drafts()) {
      invariant(draft instanceof PendingBatch, "the overlay holds the writer's batches");
      batches.add(draft);
    }
    this.overlay.clear();
    for (const batch of batches) {
      this.options.admission.withdraw(batch.imageRoomBytes);
      this.options.pool.release(batch.slab);
    }
  }

  private dropApplied(batches: readonly PendingBatch[]): void {
    for (const batch of batches) {
      this.overlay.drop(batch);
      this.options.admission.settle(batch.imageRoomBytes);
      this.options.pool.release(batch.slab);
    }
  }

  private halt(error: VarveError): void {
    if (this.haltError !== null) return;
    this.haltError = error;
    if (error.kind === "Fenced") this.reader.fence(error);
    this.release.stop();
    this.volumeWriter?.stop(error);
    this.callLogWaiters();
    // Memory of a halted volume comes back at its close only; who waits for it is refused now, or waits again (so a copy is walked).
    for (const waiter of Array.from(this.memoryWaiters)) waiter();
    this.options.onHalted(error);
  }

  private requireWriter(): VolumeWriter {
    if (this.haltError !== null) throw this.haltError;
    invariant(this.volumeWriter !== null, "a started session has a writer");
    return this.volumeWriter;
  }

  private async shutDown(): Promise<void> {
    const log = this.logWriter;
    await this.extents.close();
    try {
      if (this.haltError === null) await this.volumeWriter?.drain();
      // After a halt, too: an apply that is under way uses slabs and the image's file.
      await this.applier.close();
    } catch (cause) {
      this.halt(toVarveError(cause, "close"));
    }
    this.volumeWriter?.stop(new VarveError("VolumeClosed", "Retry", `volume ${this.options.name} is closed`));
    await log?.close().catch((cause: unknown) => this.halt(toVarveError(cause, "close")));
    await this.options.log.close();
    if (this.haltError === null) {
      await this.image.detach();
      this.overlay.clear();
    } else {
      await this.image.abandon();
      this.releaseSlabs();
      throw this.haltError;
    }
  }
}
