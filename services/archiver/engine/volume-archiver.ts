/*
 * The archiver of one open volume: log-sealer, manifest-publisher, held-ledger and base-taker joined, from open to close. Opened by
 * services/archiver/layer.ts beside a volume session; rules, states and what a crash leaves are in docs/specs/archive.md.
 *
 *   opening ─manifest found, log continues it─► running ⇄ waiting for the bucket      any ─rescued elsewhere, damage, close()─► stopped
 */
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchiveStatus, ArchiveSubject, BaseObjects, VolumeArchive } from "#shared/ports/archive.ts";
import type { StoreCapabilities } from "#shared/ports/object-store.ts";
import { ArchiveGap, findJoint, type LogJoint } from "./archive-gap.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { BaseBuilder } from "./base-builder.ts";
import { BaseSchedule } from "./base-schedule.ts";
import { BaseTaker } from "./base-taker.ts";
import { boundedWait } from "./bounded-wait.ts";
import { BucketPatience } from "./bucket-patience.ts";
import { HeldBases } from "./held-bases.ts";
import { HeldLedger } from "./held-ledger.ts";
import { HeldObjects } from "./held-objects.ts";
import { LogSealer, type UploadedSegment } from "./log-sealer.ts";
import { LogWatch } from "./log-watch.ts";
import { archiveClosed, LsnWaiters } from "./lsn-waiters.ts";
import {
  type ManifestChange,
  ManifestPublisher,
  type StoredObject,
  type StoredPage,
} from "./manifest-publisher.ts";
import { withSegment } from "./manifest-segments.ts";
import { type ArchiveStart, openStart } from "./manifest-start.ts";

export class VolumeArchiver implements VolumeArchive {
  private readonly parts: ArchiveParts;
  private readonly subject: ArchiveSubject;
  private readonly patience: BucketPatience;
  private readonly watch: LogWatch;
  private readonly sealer: LogSealer;
  private readonly schedule: BaseSchedule;
  private readonly gap: ArchiveGap;
  private readonly unfollow: () => void;
  private leaveChunks: () => void = () => undefined;
  private publisher: ManifestPublisher | null = null;
  private ledger: HeldLedger | null = null;
  private builder: BaseBuilder | null = null;
  private bases: BaseTaker | null = null;
  private heldObjects: HeldObjects | null = null;
  private heldBases: HeldBases | null = null;
  private lastRebaseLsn = 0;
  /** Segments of the manifest that is being published. */
  private taken: UploadedSegment[] = [];
  private readonly waiters = new LsnWaiters();
  private publishing = false;
  private dropping = false;
  private failure: VarveError | null = null;
  private stopped: VarveError | null = null;
  private closing: Promise<void> | null = null;

  constructor(parts: ArchiveParts, subject: ArchiveSubject) {
    this.parts = parts;
    this.subject = subject;
    const { clock, random, store } = parts;
    this.patience = new BucketPatience({
      clock,
      random,
      place: store.place,
      onNote: (text) => subject.onNote(text),
    });
    this.sealer = new LogSealer({
      parts,
      patience: this.patience,
      log: subject.log,
      volumeId: subject.record.id,
      archiverEpoch: subject.archiverEpoch,
      onReady: () => this.publishReady(),
      onFailed: (error) => this.failed(error),
    });
    this.schedule = new BaseSchedule(parts, this.patience);
    this.gap = new ArchiveGap();
    this.watch = new LogWatch({
      subject,
      isAway: () => this.patience.isWaiting,
      onDrop: () => this.dropHistory(),
    });
    this.unfollow = subject.log.follow((batch) => this.follow(batch));
  }

  /** Finds where to go on. Pending while the bucket is away; on rejection everything has stopped. */
  async begin(probe: () => Promise<StoreCapabilities>): Promise<void> {
    const { parts, subject, patience } = this;
    try {
      const found = await patience.run("ask the bucket", probe, () => subject.abandoned());
      const start = await openStart(parts.store, subject, found, patience);
      if (subject.abandoned()) throw archiveClosed(subject.record.name);
      this.run(found, start);
    } catch (cause) {
      const error = toVarveError(cause, "opening the archive");
      this.stop(error);
      throw error;
    }
  }

  status(): ArchiveStatus {
    const { publisher, ledger } = this;
    const manifest = publisher?.present ?? null;
    return {
      state:
        this.stopped !== null ? "stopped" : this.patience.isWaiting ? "waiting for the bucket" : "running",
      archivedLsn: manifest?.archivedLsn ?? 0,
      heldLsn: ledger?.heldLsn ?? 0,
      lastBaseLsn: manifest?.bases.at(-1)?.s ?? 0,
      error: this.failure ?? this.patience.error,
      counters: {
        ...this.sealer.counters,
        ...publisher?.counters,
        ...ledger?.counters,
        ...this.builder?.counters,
      },
    };
  }

  manifest(): VolumeManifest | null {
    return this.publisher?.present ?? null;
  }

  heldBase(): BaseRef | null {
    return this.heldBases?.newest() ?? null;
  }

  isBaseHeld(key: string): boolean {
    return this.ledger?.heldBaseKeys.has(key) ?? false;
  }

  watchBase(base: BaseRef, { stored, borrowedKeys }: BaseObjects): void {
    this.ledger?.add(0, this.heldObjects?.ofBase(base, stored, borrowedKeys) ?? [], base.key);
  }

  heldInMs(): number | null {
    if (this.stopped !== null || this.publisher === null || this.ledger === null) return null;
    return Math.max(this.ledger.leftMs, this.publisher.isPublishing ? 1 : 0);
  }

  archive(lsn: number): Promise<void> {
    if (this.stopped !== null) return Promise.reject(this.stopped);
    if ((this.manifest()?.archivedLsn ?? 0) >= lsn) return Promise.resolve();
    const archived = this.waiters.wait(lsn);
    this.sealer.demand(lsn);
    return archived;
  }

  async factsChanged(): Promise<void> {
    await this.publish((manifest) => manifest);
  }

  amend(change: ManifestChange): Promise<VolumeManifest> {
    return this.publish(change);
  }

  async takeBase(): Promise<{ readonly s: number; readonly e: number }> {
    const { durableLsn } = this.subject.log.state();
    await this.archive(durableLsn);
    if (this.stopped !== null || this.bases === null)
      throw this.stopped ?? archiveClosed(this.subject.record.name);
    return await this.bases.since(durableLsn);
  }

  close(): Promise<void> {
    this.closing ??= this.finish();
    return this.closing;
  }

  private run(capabilities: StoreCapabilities, start: ArchiveStart): void {
    const { parts, subject, patience } = this;
    const settleMs = parts.options.settleMs ?? (capabilities.durablePut ? 0 : limits.bucketSettleMs);
    const onFailed = (error: VarveError): void => this.failed(error);
    const { oldestLsn, durableLsn } = subject.log.state();
    const ledger = new HeldLedger(
      { parts, patience, settleMs, onFailed, onHeld: (lsn) => subject.onHeld(lsn) },
      Math.max(0, oldestLsn - 1),
    );
    const publisher = new ManifestPublisher(
      {
        parts,
        patience,
        subject,
        conditionalPut: capabilities.conditionalPut,
        lineNumber: start.lineNumber,
        onPublished: (manifest, stored, pages) => this.published(manifest, stored, pages),
        onFailed,
      },
      start.found?.manifest ?? null,
    );
    this.ledger = ledger;
    this.publisher = publisher;
    this.heldObjects = new HeldObjects({
      parts,
      subject,
      sealer: this.sealer,
      publish: async (change) => this.publish(change),
      present: () => publisher.present,
      isBaseJudgedAlone: (key) => this.isBaseHeld(key) || (this.heldBases?.isEarlier(key) ?? false),
    });
    this.builder = new BaseBuilder({
      parts,
      patience,
      subject,
      schedule: this.schedule,
      present: () => {
        invariant(publisher.present !== null, "bases are taken of archived volumes");
        return publisher.present;
      },
      archive: (lsn) => this.archive(lsn),
      publish: async (change) => this.publish(change),
      lastRebaseLsn: () => Math.max(this.lastRebaseLsn, publisher.present?.rebases.at(-1)?.lsn ?? 0),
      onBase: (base, objects) => this.watchBase(base, objects),
    });
    this.bases = new BaseTaker({
      builder: this.builder,
      schedule: this.schedule,
      present: () => publisher.present,
      openedLsn: durableLsn,
      onNote: (text) => subject.onNote(text),
    });
    this.heldBases = new HeldBases({
      parts,
      patience,
      ledger,
      settleMs,
      present: () => publisher.present,
      withoutBase: async (key) => (await this.heldObjects?.withoutBase(key)) ?? [],
    });
    this.leaveChunks = parts.chunks.join(subject.record.id, () => publisher.present);
    if (start.marker !== null) ledger.add(0, [start.marker]);
    this.adopt(start);
  }

  /** Goes on from what is in the bucket: all of it that the log still has is checked before the log lets go of it. */
  private adopt(start: ArchiveStart): void {
    const { found } = start;
    if (found !== null) {
      for (const text of found.damaged) this.subject.onNote(`an object of the history was lost: ${text}`);
      this.schedule.published(found.manifest, []);
      const { oldestLsn } = this.subject.log.state();
      const objects = this.heldObjects?.ofEarlier(found, oldestLsn) ?? [];
      this.ledger?.add(found.manifest.archivedLsn, objects);
      this.heldBases?.earlier(found.manifest);
      if (start.isLineLost) {
        this.subject.onNote(`the bucket lost line ${start.lineNumber} of the volume: it is published again`);
        this.factsChanged().catch(() => undefined); // failed() was told of it
      }
    }
    if (start.gap === null) return this.goOn();
    const upTo = `entries up to ${start.gap.lsn}`;
    this.subject.onNote(`${upTo} are neither in the bucket nor in the log: no point there opens`);
    this.giveUp(start.gap);
  }

  private follow(batch: Parameters<LogSealer["follow"]>[0]): void {
    if (this.stopped !== null) return;
    if (batch.values.size > 0) {
      const place = batch.kinds.lastIndexOf(entryKind.rebase);
      if (place >= 0) this.lastRebaseLsn = batch.firstLsn + place;
    }
    if (this.publisher !== null) this.sealer.follow(batch);
    this.watch.follow(batch);
  }

  /** Everything that is ready goes into the next manifest, which waits a little where others went lately and nobody waits for it. */
  private publishReady(): void {
    if (this.publishing || this.stopped !== null) return;
    if (!this.waiters.some && !this.sealer.isDue()) return;
    this.publishing = true;
    const change = (manifest: VolumeManifest): VolumeManifest => {
      this.publishing = false;
      const ready = this.sealer.takeReady(manifest.archivedLsn + 1);
      this.taken.push(...ready);
      return ready.reduce(withSegment, manifest);
    };
    this.publish(change).catch(() => undefined); // failed() was told of it
  }

  private async publish(change: ManifestChange): Promise<VolumeManifest> {
    const { publisher } = this;
    if (this.stopped !== null || publisher === null)
      throw this.stopped ?? archiveClosed(this.subject.record.name);
    return await publisher.publish(change);
  }

  private published(manifest: VolumeManifest, stored: StoredObject, pages: readonly StoredPage[]): void {
    // Of a manifest that failed, segments may be left; they come again.
    const taken = this.taken.filter((segment) => segment.ref.lastLsn <= manifest.archivedLsn);
    this.taken = this.taken.filter((segment) => segment.ref.lastLsn > manifest.archivedLsn);
    this.failure = null;
    this.sealer.published();
    this.gap.published(manifest);
    if (this.gap.isOpen) this.publishGap();
    // Ready before the gap was there that they come behind.
    if (this.sealer.isReady(manifest.archivedLsn + 1)) this.publishReady();
    const summaries = taken.map((segment) => segment.summary);
    this.schedule.published(manifest, summaries);
    for (const { ref } of taken) this.parts.uploads.end(ref.key);
    this.ledger?.add(manifest.archivedLsn, this.heldObjects?.ofManifest(stored, taken, pages) ?? []);
    this.waiters.reached(manifest.archivedLsn);
    this.bases?.consider(manifest);
  }

  /** The log is nearly full and the bucket away: what the image has needs no log, so its history goes. */
  private dropHistory(): void {
    const { appliedLsn } = this.subject.image.state();
    if (this.stopped !== null || appliedLsn <= (this.ledger?.heldLsn ?? 0)) return;
    if (!this.gap.isOpen) {
      this.subject.onNote(
        `the log is nearly full: history that is not archived is given up, as of entry ${appliedLsn}`,
      );
    }
    // Before the first manifest is found nothing is sealed; what is missing then shows as a gap.
    if (this.publisher === null) this.subject.onHeld(appliedLsn);
    else if (!this.dropping) this.giveUpTo(appliedLsn);
  }

  /** What the next record continues is read before the log lets go of it. */
  private giveUpTo(lsn: number): void {
    this.dropping = true;
    findJoint(this.subject, lsn)
      .then((joint) => {
        if (joint === null || this.stopped !== null) return;
        this.giveUp(joint);
        this.subject.onHeld(lsn);
      })
      .catch((cause: unknown) => this.failed(toVarveError(cause, "giving up history")))
      .finally(() => {
        this.dropping = false;
      });
  }

  private giveUp(joint: LogJoint): void {
    this.sealer.begin(joint.lsn, joint.checksum);
    this.patience.wake();
    if (this.gap.extend(joint)) this.publishGap();
  }

  private publishGap(): void {
    this.publish((manifest) => this.gap.applyTo(manifest))
      .then((manifest) => {
        // Archived meanwhile although it was given up: no gap, and sealing goes on behind what is archived.
        const { sealedLsn } = this.sealer;
        if (sealedLsn < manifest.archivedLsn) this.goOn();
      })
      .catch(() => undefined); // failed() was told of it
  }

  /** From the last manifest on. */
  private goOn(): void {
    const manifest = this.manifest();
    this.sealer.begin(manifest?.archivedLsn ?? 0, BigInt(`0x${manifest?.archivedChecksum ?? "0"}`));
  }

  /** Fenced and damaged: for good. Anything else: from the last manifest on, after a while. */
  private failed(error: VarveError): void {
    if (this.stopped !== null) return;
    this.failure = error;
    if (error.kind === "Fenced" || error.kind === "Corrupt" || error.kind === "Internal") {
      this.stop(error);
      this.subject.onNote(`history is not archived any more: ${error.message}. ${error.hint}`);
      if (error.kind === "Fenced") this.subject.onFenced(error);
      return;
    }
    this.parts.clock.after(limits.archiveRetryFirstWaitMs, () => {
      if (this.stopped === null && !this.gap.isOpen) this.goOn();
    });
  }

  stop(error: VarveError): void {
    this.stopped ??= error;
    this.unfollow();
    this.leaveChunks();
    this.sealer.stop();
    this.bases?.stop();
    this.ledger?.stop();
    this.patience.stop(this.stopped);
    this.waiters.fail(this.stopped);
  }

  private async finish(): Promise<void> {
    const { clock, options } = this.parts;
    this.bases?.stop();
    if (this.stopped === null && this.publisher !== null) {
      const rest = this.archive(this.subject.log.state().durableLsn).then(() => this.ledger?.settled());
      const ended = rest.catch(() => undefined);
      this.patience.wake(); // a bucket that was away may be back, and there is no time for its next turn
      await boundedWait(ended, clock, options.closeMs);
    }
    this.stop(archiveClosed(this.subject.record.name));
    // No read of the image is under way when this resolves, unless an upload hangs.
    if (this.bases !== null) await boundedWait(this.bases.settled(), clock, options.closeMs);
  }
}
