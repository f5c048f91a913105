/*
 * The past of one volume: its history file, the archive beside its session, its points. Owned by hosted-volume.ts, which
 * attaches it to each session and detaches it before the session closes; past-changes.ts builds clones and rollbacks on it.
 * Next: VolumeArchive and VolumeHistory (ports), which read and write the bucket. Rules: docs/specs/points.md.
 */
import type { PointPin, SnapshotRecord, VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import {
  bySnapshot,
  checkNewSnapshot,
  checkSnapshotName,
  type HistoryRecord,
  withoutPin,
  withPin,
  withSnapshot,
} from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { parsePoint } from "#shared/domain/point.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchiverHome, ArchiveStatus, ManifestFacts, VolumeArchive } from "#shared/ports/archive.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type {
  ByteRange,
  HistorySubject,
  PointSource,
  ResolvedPoint,
  VolumeHistory,
} from "#shared/ports/history.ts";
import type { HistoryHome } from "#shared/ports/history-home.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";
import { ArchiveLink } from "./archive-link.ts";
import { HistoryFile } from "./history-file.ts";
import { unknownSnapshot } from "./host-errors.ts";
import type { PointHold, PointSources } from "./point-sources.ts";
import type { VolumeSession } from "./volume-session.ts";

/** What the past needs of a session. */
export type PastSession = Pick<VolumeSession, "hotLog" | "baseImage" | "held" | "sync" | "mark" | "extents">;

/** Bucket and reader of a process. */
export interface PastHomes {
  readonly archiver: ArchiverHome;
  readonly histories: HistoryHome;
  /** Who uses points of a volume as roots of its own, beside open exports (tiered extents): see VolumeSession.residency. */
  readonly onNote: (text: string) => void;
}

export interface VolumePastOptions {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly path: string;
  readonly homes: () => PastHomes | null;
  readonly points: PointSources;
  readonly onFenced: (error: VarveError) => void;
}

export class VolumePast {
  private readonly options: VolumePastOptions;
  private record: VolumeRecord;
  private file: HistoryFile | null = null;
  private session: PastSession | null = null;
  private link: ArchiveLink | null = null;
  private stopServing: (() => void) | null = null;
  private reader: VolumeHistory | null = null;
  private deletedAtMs: number | null = null;

  constructor(record: VolumeRecord, options: VolumePastOptions) {
    this.record = record;
    this.options = options;
  }

  /** The name or size may have changed. */
  recordIs(record: VolumeRecord): void {
    this.record = record;
  }

  /** Reads the history file; before everything else, and again after the file was replaced. */
  async load(): Promise<void> {
    if (this.file !== null) return;
    const file = await HistoryFile.read(this.options.store, this.options.path, this.record);
    this.file = file;
    if (file.copyUsed !== null) {
      const told = `${this.record.name}: its history was read from history.copy.json; its next change writes both files anew`;
      this.options.homes()?.onNote(`${told}: ${file.copyUsed}`);
    }
  }

  /** Resolves when nothing is written to the history file or its copy any more. */
  async settled(): Promise<void> {
    await this.file?.settled();
  }

  /** The file's content. Null before load(). */
  get history(): HistoryRecord | null {
    return this.file?.current ?? null;
  }

  get attached(): boolean {
    return this.link !== null;
  }

  /** Archive and reader, while both are there. */
  get opened(): { readonly archive: VolumeArchive; readonly history: VolumeHistory } | null {
    const archive = this.link?.current ?? null;
    return archive === null || this.reader === null ? null : { archive, history: this.reader };
  }

  get archiveStatus(): ArchiveStatus | null {
    return this.link?.current?.status() ?? null;
  }

  get archiveError(): VarveError | null {
    return this.link?.error ?? null;
  }

  /** Opens the archive beside a session. Rejects Fenced where the volume was rescued elsewhere; a bucket that is away is waited for later. */
  async attach(session: PastSession): Promise<void> {
    this.session = session;
    const homes = this.options.homes();
    if (homes === null) return;
    const subject = this.subject();
    this.stopServing = homes.histories.serve(subject);
    this.reader = homes.histories.of(subject);
    this.link = new ArchiveLink({
      volume: this.record.name,
      clock: this.options.clock,
      open: async (abandoned) => this.openArchive(homes.archiver, session, abandoned),
      onNote: homes.onNote,
      onFenced: this.options.onFenced,
    });
    await this.link.start();
  }

  /**
   * Ends everything that reads the session's log or image, or writes beside them. The session is drained, nobody is attached to it; points
   * that are open go on by the bucket.
   */
  async detach(): Promise<void> {
    const { link } = this;
    await link?.close();
    await this.settled();
    this.link = null;
    this.stopServing?.();
    this.stopServing = null;
    this.reader = null;
    this.session = null;
  }

  /** Changes the history file: durable when it resolves; see HistoryFile.change. */
  async change(edit: (record: HistoryRecord) => HistoryRecord): Promise<HistoryRecord> {
    return await this.requireFile().change(edit);
  }

  /** Resolves when a manifest with the present facts is in the bucket. */
  async publish(): Promise<void> {
    await this.requireArchive().factsChanged();
  }

  /** Lets the next manifest carry the facts, whenever that is. */
  publishLater(): void {
    this.link?.current?.factsChanged().catch(() => undefined); // the archive itself tells of a bucket that is away
  }

  async pin(pin: PointPin): Promise<void> {
    await this.change((record) => withPin(record, pin));
    await this.publish();
  }

  async unpin(holder: string, lsn?: number): Promise<void> {
    const before = this.requireFile().current;
    const after = await this.change((record) => {
      const less = withoutPin(record, holder, lsn);
      return less.pins.length === record.pins.length ? record : less;
    });
    if (after !== before) this.publishLater();
  }

  /** From now on manifests say that the volume is deleted. */
  async publishDeleted(): Promise<void> {
    this.staysDeleted();
    await this.publish();
  }

  /** It comes back from the bucket: manifests say deleted until notDeleted(), so that a crash leaves it deleted. */
  staysDeleted(): void {
    this.deletedAtMs = this.options.clock.wallTimeMs();
  }

  /** What a start does of a deletion that is settling, and what a bucket that was away may have missed. */
  async tellDeleted(): Promise<void> {
    await this.archiveAll();
    await this.publish();
  }

  /** Until the bucket holds a deletion and all that it names, as far as is known; 0: it does; null: it may not have been told. */
  heldInMs(): number | null {
    const archive = this.link?.current;
    const { deletedAtMs = null, archivedLsn = 0 } = archive?.manifest() ?? {};
    const durableLsn = this.session?.hotLog().state().durableLsn ?? Number.MAX_SAFE_INTEGER;
    return deletedAtMs === null || archivedLsn < durableLsn ? null : (archive?.heldInMs() ?? null);
  }

  /** It lives, after all or again. Resolves when the bucket was told; one that is away is told by a later manifest. */
  async notDeleted(): Promise<void> {
    if (this.deletedAtMs === null) return;
    this.deletedAtMs = null;
    await this.link?.current?.factsChanged().catch(() => undefined);
  }

  manifest(): VolumeManifest | null {
    return this.link?.current?.manifest() ?? null;
  }

  requireArchive(): VolumeArchive {
    if (this.options.homes() === null) throw historyOff(this.record.name);
    if (this.link !== null) return this.link.require();
    throw new VarveError("VolumeClosedError", "Retry", `volume ${this.record.name} is not open yet`, {
      hint: "Try again in a moment.",
      fields: { name: this.record.name },
    });
  }

  /** Everything acknowledged so far is in the bucket when it resolves. */
  async archiveAll(): Promise<number> {
    const archive = this.requireArchive();
    const session = this.requireSession();
    await session.sync();
    const { durableLsn } = session.hotLog().state();
    await archive.archive(durableLsn);
    return durableLsn;
  }

  // --- snapshots

  snapshots(): readonly SnapshotRecord[] {
    return this.history?.snapshots ?? [];
  }

  async createSnapshot(name: string): Promise<SnapshotRecord> {
    if (this.options.homes() === null) throw historyOff(this.record.name);
    const file = this.requireFile();
    checkNewSnapshot(file.current, this.record.name, name, limits.snapshotsMax);
    const lsn = await this.requireSession().mark(name);
    const snapshot: SnapshotRecord = { name, lsn, wallTimeMs: this.options.clock.wallTimeMs() };
    await file.change((record) => {
      checkNewSnapshot(record, this.record.name, name, limits.snapshotsMax);
      return withSnapshot(record, snapshot);
    });
    this.publishLater();
    return snapshot;
  }

  async deleteSnapshot(name: string): Promise<void> {
    checkSnapshotName(name);
    await this.change((record) => {
      const snapshots = record.snapshots.filter((one) => one.name !== name);
      if (snapshots.length === record.snapshots.length) throw unknownSnapshot(record, this.record.name, name);
      return { ...record, snapshots };
    });
    this.publishLater();
  }

  // --- points

  /** The volume's history: of the session where it is open, else as the bucket has it. */
  async reading(): Promise<VolumeHistory> {
    const homes = this.options.homes();
    if (homes === null) throw historyOff(this.record.name);
    return this.reader ?? (await homes.histories.find(this.record.id));
  }

  async resolve(text: string): Promise<ResolvedPoint> {
    const point = parsePoint(text);
    return await (await this.reading()).resolve(point);
  }

  async hold(lsn: number): Promise<PointHold> {
    return await this.options.points.hold(this.record.id, lsn, async () => (await this.reading()).open(lsn));
  }

  /** For remote extents of a replica, which close what they got. */
  async open(lsn: number): Promise<PointSource> {
    return await (await this.reading()).open(lsn);
  }

  /** Where the disk at `toLsn` may differ from the one at a point. */
  async changesSince(text: string, toLsn: number): Promise<readonly ByteRange[]> {
    const history = await this.reading();
    const { lsn } = await history.resolve(parsePoint(text));
    return await history.changes(lsn, toLsn);
  }

  /** For evictions: the newest base that the bucket holds, and the point that the extents are read from then. */
  heldBase(): { readonly baseLsn: number; readonly point: RemotePoint } | null {
    const base = this.link?.current?.heldBase() ?? null;
    const lastRebase = this.manifest()?.rebases.at(-1)?.lsn ?? 0;
    if (base === null || base.s < lastRebase) return null;
    return { baseLsn: base.s, point: { volumeId: this.record.id, lsn: base.e } };
  }

  private facts(): ManifestFacts {
    const record = this.requireFile().current;
    return {
      snapshots: [...record.snapshots].sort(bySnapshot),
      pins: this.presentPins(record),
      origin: record.origin,
      beginBytes: record.beginBytes,
      historyMs: record.historyMs,
      deletedAtMs: this.deletedAtMs,
      residency: record.residency,
      coldAfterMs: record.coldAfterMs,
      bucketAway: record.bucketAway,
    };
  }

  /** Stored pins, and what is read from this volume now: open points, and extents of its own replica that are remote. */
  private presentPins(record: HistoryRecord): readonly PointPin[] {
    const pins = new Map(record.pins.map((pin) => [`${pin.lsn} ${pin.holder}`, pin]));
    const used = [...this.options.points.inUse(), ...(this.session?.extents.residency()?.points ?? [])];
    for (const { volumeId, lsn } of used) {
      if (volumeId === this.record.id) pins.set(`${lsn} reader`, { lsn, holder: "reader" });
    }
    return [...pins.values()].sort((a, b) => a.lsn - b.lsn || (a.holder < b.holder ? -1 : 1));
  }

  private subject(): HistorySubject {
    const record = this.requireFile().current;
    return {
      volumeId: this.record.id,
      manifest: async () => {
        const archive = this.link?.current ?? null;
        return archive === null ? null : archive.manifest();
      },
      trouble: () => this.archiveError,
      hotLog: () => this.session?.hotLog() ?? null,
      snapshots: () => this.snapshots(),
      begin: { sizeBytes: record.beginBytes, origin: record.origin },
    };
  }

  private async openArchive(
    archiver: ArchiverHome,
    session: PastSession,
    abandoned: () => boolean,
  ): Promise<VolumeArchive> {
    // Stored before anything is uploaded: no key of an earlier tenure is ever made again.
    const { archiverEpoch, line } = await this.change((record) => ({
      ...record,
      archiverEpoch: record.archiverEpoch + 1,
    }));
    const archive = await archiver.open({
      record: this.record,
      archiverEpoch,
      taken: line,
      facts: () => this.facts(),
      log: session.hotLog(),
      image: session.baseImage(),
      abandoned,
      onHeld: (lsn) => session.held(lsn),
      onNote: (text) => this.options.homes()?.onNote(`${this.record.name}: ${text}`),
      onFenced: this.options.onFenced,
    });
    // A crash in the middle of a deletion or an undeletion: the catalogue has the volume, so it lives, and the bucket is told.
    const deletedAtMs = archive.manifest()?.deletedAtMs ?? null;
    if (this.deletedAtMs !== null) this.deletedAtMs = deletedAtMs ?? this.deletedAtMs;
    else if (deletedAtMs !== null) archive.factsChanged().catch(() => undefined);
    return archive;
  }

  private requireFile(): HistoryFile {
    if (this.file !== null) return this.file;
    throw new VarveError("VolumeClosedError", "Retry", `volume ${this.record.name} is not open yet`, {
      hint: "Try again in a moment.",
      fields: { name: this.record.name },
    });
  }

  private requireSession(): PastSession {
    if (this.session !== null) return this.session;
    throw new VarveError("VolumeClosedError", "Retry", `volume ${this.record.name} is not open now`, {
      hint: `varve volume show ${this.record.name} says why.`,
      fields: { name: this.record.name },
    });
  }
}

export function historyOff(name: string): VarveError {
  return new VarveError(
    "HistoryOffError",
    "Invalid",
    `volume ${name} has no history: this server keeps none`,
    {
      hint: "It was started with --bucket none. Start it with a bucket; history begins then.",
      fields: { name },
    },
  );
}
