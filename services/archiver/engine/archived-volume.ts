/*
 * One volume of a cluster as an archiver process archives it: takes the volume's archive lease, raises the archiver's epoch, opens the
 * archive over the followed log and the replicas on storage nodes, and ends all of it when the lease is lost, the archive stops or the
 * volume goes. Made by cluster-archiver.ts; below it volume-archiver.ts, which knows no cluster. Rules: docs/specs/cluster.md#an-archiver.
 *
 *   waiting ─lease taken, log is there─► opening ─► running ─lease lost, fenced, damage─► waiting      any ─close()─► closed
 */
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchiverHome, ManifestFacts, VolumeArchive } from "#shared/ports/archive.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { LogEnd, LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { FollowedLog } from "./followed-log.ts";
import { factsOf, isTold } from "./manifest-facts.ts";
import { RemoteBaseImage } from "./remote-base-image.ts";

export interface ArchivedVolumeSetting {
  /** Name of this archiver process. */
  readonly name: string;
  readonly clock: Clock;
  readonly leases: Leases;
  readonly past: PastRecords;
  readonly map: Pick<ClusterMap, "placementOf">;
  readonly catalog: Pick<VolumeCatalog, "list">;
  readonly bus: MessageBus;
  readonly archiver: ArchiverHome;
  readonly logOf: (volumeId: string) => LogFollower;
  readonly onNote: (text: string) => void;
}

/** What one tenure has. */
export interface ArchiveTenure {
  readonly epoch: number;
  readonly log: FollowedLog;
  readonly image: RemoteBaseImage;
  archive: VolumeArchive | null;
}

const againMs = 1000;

export class ArchivedVolume {
  readonly record: VolumeRecord;
  readonly #setting: ArchivedVolumeSetting;
  readonly #log: LogFollower;
  #tenure: ArchiveTenure | null = null;
  /** Ends the tenure under way. */
  #end: ((error: VarveError | null) => void) | null = null;
  #wake: () => void = () => undefined;
  #closing = false;
  #heldLsn = 0;
  #failure: VarveError | null = null;
  #deletedAtMs: number | null = null;
  #facts = "";
  #reported: ArchiveRecord | null = null;
  #reporting: Promise<void> | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(record: VolumeRecord, setting: ArchivedVolumeSetting) {
    this.record = record;
    this.#setting = setting;
    this.#log = setting.logOf(record.id);
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Null while another process has it, or nothing was written yet. */
  get tenure(): ArchiveTenure | null {
    return this.#tenure;
  }

  get failure(): VarveError | null {
    return this.#tenure?.archive?.status().error ?? this.#failure;
  }

  /** The history record changed: the next manifest has it. */
  factsChanged(): void {
    const archive = this.#tenure?.archive ?? null;
    const facts = JSON.stringify(this.#presentFacts());
    if (archive === null || facts === this.#facts) return;
    this.#facts = facts;
    archive.factsChanged().catch(() => undefined); // the archive itself tells of a bucket that is away
    this.#archivePins(archive);
  }

  /** Who pins a point waits until the bucket has it (docs/specs/cluster.md#clones). */
  #archivePins(archive: VolumeArchive): void {
    const pins = this.#setting.past.historyOf(this.record.id)?.pins ?? [];
    const lsn = pins.reduce((most, pin) => Math.max(most, pin.lsn), 0);
    if (lsn > archive.status().archivedLsn) archive.archive(lsn).catch(() => undefined); // the archive tells why
  }

  /** Says what changed since it was said last. Called now and then; a report that fails is made again. */
  report(): void {
    if (this.#tenure === null || this.#reporting !== null) return;
    const record = this.#present(this.#tenure);
    if (JSON.stringify(record) === JSON.stringify(this.#reported)) return;
    this.#reporting = this.#setting.past
      .putArchive(this.record.id, record)
      .then(
        () => {
          this.#reported = record;
        },
        (cause: unknown) => {
          const error = toVarveError(cause, "report");
          if (error.kind === "Fenced") this.#end?.(error);
        },
      )
      .finally(() => {
        this.#reporting = null;
      });
  }

  /**
   * Everything that is in the log now is in the bucket, and the bucket says that the volume is deleted. Resolves with whether it holds
   * both: from then on nothing else needs to have them.
   */
  async bury(): Promise<boolean> {
    const tenure = this.#tenure;
    if (tenure?.archive === null || tenure === null) throw notOpen(this.record.name);
    const { archive } = tenure;
    const end = await this.#log.end();
    if (end !== null && end.lastLsn > tenure.log.state().durableLsn) throw notOpen(this.record.name);
    const { durableLsn } = tenure.log.state();
    const told = archive.manifest();
    if (told === null || told.deletedAtMs === null || told.archivedLsn < durableLsn) {
      await archive.archive(durableLsn);
      this.#deletedAtMs ??= told?.deletedAtMs ?? this.#setting.clock.wallTimeMs();
      this.#facts = JSON.stringify(this.#presentFacts());
      await archive.factsChanged();
    }
    return archive.heldInMs() === 0;
  }

  /** It lives, after all or again: manifests say no more that it is deleted. */
  lives(): void {
    if (this.#deletedAtMs === null) return;
    this.#deletedAtMs = null;
    this.factsChanged();
  }

  /** Archives the rest where the bucket answers, then lets the volume go. Never rejects. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#end?.(null);
    this.#wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#closing) {
      let waitMs: number = againMs;
      try {
        const end = await this.#log.end();
        if (end !== null) await this.#underLease(end);
        this.#failure = null;
      } catch (cause) {
        const error = toVarveError(cause, `archive volume ${this.record.name}`);
        if (error._tag !== "LeaseHeldError") {
          waitMs = error.kind === "Retry" ? againMs : limits.archiveRetryMs;
          this.#tell(error);
        }
      }
      if (!this.#closing) await this.#pause(waitMs);
    }
  }

  async #underLease(end: LogEnd): Promise<void> {
    const { leases, name } = this.#setting;
    const lease = await leases.take(`archive.${this.record.id}`, { holder: name, address: "" });
    try {
      if (!this.#closing) await this.#archive(lease, end);
    } finally {
      await lease.release();
    }
  }

  /** Resolves when the tenure ended by close(), rejects with what ended it else. */
  async #archive(lease: Lease, end: LogEnd): Promise<void> {
    const { clock, archiver } = this.#setting;
    let ended = null as { readonly error: VarveError | null } | null;
    const over = new Promise<void>((resolve) => {
      this.#end = (error) => {
        ended ??= { error };
        resolve();
      };
    });
    const isOver = (): boolean => ended !== null || this.#closing;
    lease.onLost((error) => this.#end?.(error));
    const tenure = await this.#begin(end, (error) => this.#end?.(error));
    try {
      tenure.log.start();
      const { log, image, epoch: archiverEpoch } = tenure;
      this.#facts = JSON.stringify(this.#presentFacts());
      const opening = archiver.open({
        record: this.record,
        archiverEpoch,
        log,
        image,
        facts: () => this.#presentFacts(),
        taken: this.#setting.past.historyOf(this.record.id)?.line,
        onHeld: (lsn) => {
          if (this.#tenure === tenure) this.#heldLsn = Math.max(this.#heldLsn, lsn);
        },
        onNote: (text) => this.#setting.onNote(`${this.record.name}: ${text}`),
        onFenced: (error) => this.#end?.(error),
        abandoned: isOver,
      });
      tenure.archive = await opening;
      this.#tellWhatIsUntold(tenure.archive);
      this.#archivePins(tenure.archive);
      // One that stopped by itself is opened again under a new epoch, after a while.
      while (!isOver() && tenure.archive.status().state !== "stopped") {
        await Promise.race([over, new Promise<void>((resolve) => void clock.after(againMs, resolve))]);
      }
      const error = ended?.error ?? tenure.archive.status().error;
      if (error !== null && !this.#closing) throw error;
    } finally {
      await this.#leave(tenure, ended?.error ?? null);
    }
  }

  /** From here on nothing that an earlier archiver says counts: what it named in the bucket before is found by the one who opens now. */
  async #begin(end: LogEnd, onFailed: (error: VarveError) => void): Promise<ArchiveTenure> {
    const { past, map, catalog, clock, bus, name, onNote } = this.#setting;
    const { id, sizeBytes } = this.record;
    const isNew = past.historyOf(id) === null;
    const beginBytes = map.placementOf(id)?.beginBytes ?? sizeBytes;
    const history = await past.changeHistory(id, (present) => {
      const isActive = catalog.list().some((one) => one.id === id && one.state !== "deleting");
      // Somebody else buried it.
      if (present === null && !isActive) throw notOpen(this.record.name);
      const record = present ?? newHistoryRecord(id, beginBytes);
      return { ...record, archiverEpoch: record.archiverEpoch + 1 };
    });
    const epoch = history?.archiverEpoch ?? 1;
    const before = past.archiveOf(id);
    this.#heldLsn = before?.line === end.line ? before.heldLsn : 0;
    this.#reported = null;
    const image = new RemoteBaseImage({
      bus,
      clock,
      volumeId: id,
      sizeBytes,
      nodes: () => (map.placementOf(id)?.replicas ?? []).map(({ node }) => node),
    });
    try {
      await past.putArchive(id, {
        archiver: name,
        archiverEpoch: epoch,
        line: end.line,
        archivedLsn: 0,
        lastBaseLsn: 0,
        heldLsn: this.#heldLsn,
        state: "waiting for the bucket",
        error: "",
      });
      if (isNew) {
        onNote(`${this.record.name}: its history begins now`);
        await this.#pause(limits.archiveNoticeMs);
      }
      const fresh = (await this.#log.end()) ?? end;
      const log = new FollowedLog({ log: this.#log, end: fresh, clock, onFailed });
      this.#tenure = { epoch, log, image, archive: null };
      return this.#tenure;
    } catch (cause) {
      image.close();
      throw cause;
    }
  }

  /**
   * What changed while nobody archived the volume is in no manifest yet: a pin that somebody waits for, a deletion or its end. Of a volume
   * that nobody writes to no other manifest would come.
   */
  #tellWhatIsUntold(archive: VolumeArchive): void {
    const manifest = archive.manifest();
    const { id } = this.record;
    const lives = this.#setting.catalog.list().some((one) => one.id === id && one.state === "active");
    this.#deletedAtMs = lives ? null : (manifest?.deletedAtMs ?? null);
    const facts = this.#presentFacts();
    this.#facts = JSON.stringify(facts);
    if (manifest !== null && !isTold(facts, manifest)) archive.factsChanged().catch(() => undefined); // as factsChanged()
  }

  /** Without an error the rest is archived first; after one somebody else may do it, and this one touches nothing more. */
  async #leave(tenure: ArchiveTenure, error: VarveError | null): Promise<void> {
    this.#end = null;
    if (error !== null) tenure.archive?.stop(error);
    await tenure.archive?.close();
    if (error === null) {
      await this.#reporting;
      this.report();
      await this.#reporting;
    }
    this.#tenure = null;
    tenure.image.close();
    await tenure.log.close();
  }

  #present({ archive, epoch, log }: ArchiveTenure): ArchiveRecord {
    const status = archive?.status() ?? null;
    const { archivedLsn = 0, lastBaseLsn = 0, state = "waiting for the bucket", error = null } = status ?? {};
    return {
      archiver: this.#setting.name,
      archiverEpoch: epoch,
      line: log.line,
      archivedLsn,
      lastBaseLsn,
      state,
      heldLsn: this.#heldLsn,
      error: plainText(error?.message ?? ""),
      ...this.#heldBase(archive),
    };
  }

  /** What replicas of a tiered volume may evict behind. A rollback after it makes other extents of it the disk's. */
  #heldBase(archive: VolumeArchive | null): Pick<ArchiveRecord, "heldBase"> {
    if (this.#setting.past.historyOf(this.record.id)?.residency !== "tiered") return {};
    const base = archive?.heldBase() ?? null;
    const lastRebase = archive?.manifest()?.rebases.at(-1)?.lsn ?? 0;
    return base === null || base.s < lastRebase ? {} : { heldBase: { s: base.s, e: base.e } };
  }

  #presentFacts(): ManifestFacts {
    const history: HistoryRecord =
      this.#setting.past.historyOf(this.record.id) ?? newHistoryRecord(this.record.id, this.record.sizeBytes);
    return factsOf(history, this.#deletedAtMs);
  }

  #tell(error: VarveError): void {
    const told = this.#failure?.message === error.message;
    this.#failure = error;
    if (told || this.#closing) return;
    this.#setting.onNote(`warning: volume ${this.record.name} is not archived here: ${error.message}`);
  }

  async #pause(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = this.#setting.clock.after(delayMs, resolve);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }
}

/** What a record can hold: ASCII, not too long. */
function plainText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 255);
}

function notOpen(name: string): VarveError {
  return new VarveError("ArchiveNotOpen", "Retry", `the archive of volume ${name} is not ready`, {
    hint: "Try again in a moment.",
  });
}
