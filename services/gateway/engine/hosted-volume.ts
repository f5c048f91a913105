/*
 * One volume as the host holds it: its catalogue record, its session while it is open, its past, why it is not open. Called
 * by volume-host.ts and past-changes.ts, which order the changes; here is what one volume may do in which state. The parts
 * that touch files come through VolumeParts, so that the host runs on memory adapters in tests.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import { exactByteSize } from "#shared/domain/byte-size.ts";
import { historyPathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { noOrders } from "#shared/domain/volume-orders.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { KeptVolume } from "#shared/ports/kept-volume.ts";
import type { ReplicaTending, TendingPolicy } from "#shared/ports/replica-home.ts";
import type { RemoteSources, ResidencyState } from "#shared/ports/replica-residency.ts";
import type { VolumeCondition, VolumeView } from "#shared/ports/volume-administration.ts";
import { refillExtent } from "./extent-repair.ts";
import { FillJobs, type FillKind } from "./fill-jobs.ts";
import { heldFrom } from "./held-waits.ts";
import { bucketNeeded, bucketNotTold, volumeBusy } from "./host-errors.ts";
import type { Job } from "./job-register.ts";
import { PointExport } from "./point-export.ts";
import type { HostedSession, HostedSetting } from "./volume-parts.ts";
import { VolumePast } from "./volume-past.ts";
import type { VolumeSessionStatus } from "./volume-session.ts";
import { figuresOf, pastViewOf } from "./volume-views.ts";

const hourMs = 3_600_000;

export class HostedVolume {
  readonly paths: VolumePaths;
  readonly past: VolumePast;
  readonly fills: FillJobs;
  private current: VolumeRecord;
  private readonly setting: HostedSetting;
  private session: HostedSession | null = null;
  private tending: ReplicaTending | null = null;
  /** Why it is not open. */
  failure: VarveError | null = null;
  private busy = false;
  /** The last entry that was durable when the session opened. */
  openedAtLsn = Number.MAX_SAFE_INTEGER;
  /** Extents that the rollback under way is known to change, asked for while its entry is applied. */
  private knownChanges: { readonly toLsn: number; readonly runs: readonly ExtentRun[] } | null = null;

  constructor(record: VolumeRecord, paths: VolumePaths, setting: HostedSetting) {
    this.current = record;
    this.paths = paths;
    this.setting = setting;
    this.fills = new FillJobs(setting.jobs, record.name);
    this.past = new VolumePast(record, {
      store: setting.store,
      clock: setting.clock,
      path: historyPathOf(paths),
      homes: () => setting.parts.homes,
      points: setting.points,
      onFenced: (reason) => this.fence(reason),
    });
  }

  get record(): VolumeRecord {
    return this.current;
  }

  set record(record: VolumeRecord) {
    this.current = record;
    this.past.recordIs(record);
  }

  get name(): string {
    return this.record.name;
  }

  get description(): string {
    return `${exactByteSize(this.record.sizeBytes)} durability=${this.record.durability}`;
  }

  get attachedClients(): number {
    return this.session?.attachedClients ?? 0;
  }

  residency(): ResidencyState | null {
    return this.session?.extents.residency() ?? null;
  }

  /** Whether bytes of its disk are still in another volume's past only; a volume that can't be asked is said to. */
  readsFrom(volumeId: string): boolean {
    if (this.session === null) return this.past.history?.origin?.volumeId === volumeId;
    return this.residency()?.points.some((point) => point.volumeId === volumeId) ?? false;
  }

  /** What a fill at the next open is called: a new clone's is the clone's. */
  fillKind: FillKind = "fill";

  /** `serve`: with its archive and background work, as clients will use it. */
  async open(serve: boolean): Promise<void> {
    await this.past.load();
    const { parts } = this.setting;
    const session = await parts.openSession(this.record, this.paths, {
      archived: parts.keepsLog,
      sources: this.sources(),
    });
    try {
      // The log's resize entries are the truth; the catalogue may be one crash behind.
      if (session.sizeBytes !== this.record.sizeBytes) {
        this.record = { ...this.record, sizeBytes: session.sizeBytes };
      }
      if (serve) this.requireReach(session);
      if (serve) await this.past.attach(session);
    } catch (cause) {
      await this.past.detach().catch(() => undefined);
      await session.close().catch(() => undefined);
      throw cause;
    }
    this.session = session;
    this.openedAtLsn = session.status().log.durableLsn;
    this.failure = null;
    if (serve) this.tend(session);
  }

  /** Opens; a failure is kept for view() and for whoever wants to attach. */
  async openKept(): Promise<void> {
    try {
      await this.open(true);
    } catch (cause) {
      this.failure = toVarveError(cause, `open volume ${this.name}`);
    }
  }

  /** The archive reads the session's log, so it ends first; both whatever becomes of the other. */
  async close(): Promise<void> {
    const { session } = this;
    this.session = null;
    this.fills.stop("the volume was closed");
    this.tending = null;
    if (session === null) {
      await this.past.settled();
      return;
    }
    try {
      await session.sync();
    } catch {
      // A halted session says so in close(), below.
    }
    try {
      await this.past.detach();
    } finally {
      await session.close();
    }
  }

  /** close(), where a volume that halted before need not say so again. */
  async closeKnown(): Promise<void> {
    const known = this.session?.status().error ?? null;
    try {
      await this.close();
    } catch (cause) {
      if (cause !== known) throw cause;
    }
  }

  openExport(): BlockExport {
    if (this.busy) throw volumeBusy(this.name);
    const { session } = this;
    if (session === null) throw this.whyClosed();
    return session.openExport(this.description, async (since) =>
      this.past.changesSince(since, session.hotLog().state().durableLsn),
    );
  }

  /** A point as a read-only export; also of a volume that is not open, as far as the bucket has it. */
  async openPoint(text: string): Promise<BlockExport> {
    const { lsn, wallTimeMs } = await this.past.resolve(text);
    const hold = await this.past.hold(lsn);
    try {
      return new PointExport({
        name: `${this.name}@${text}`,
        description: `${this.name} at entry ${lsn}, ${timeText(wallTimeMs)}, read-only`,
        hold,
        source: await hold.source(),
        changes: async (since) => this.past.changesSince(since, lsn),
      });
    } catch (cause) {
      hold.release();
      throw cause;
    }
  }

  /** Runs `work` on the open session, or, offline, on one opened for it. */
  async withSession<T>(work: (session: HostedSession) => Promise<T>): Promise<T> {
    if (this.session !== null) return await work(this.session);
    if (this.failure !== null) throw this.failure;
    await this.open(false);
    try {
      return await work(this.session ?? this.notOpen());
    } finally {
      await this.close();
    }
  }

  /** New clients are told to come again while `work` runs. */
  async whileBusy<T>(work: () => Promise<T>): Promise<T> {
    this.busy = true;
    try {
      return await work();
    } finally {
      this.busy = false;
    }
  }

  requireDetached(what: string, forceHint = ""): void {
    const attached = this.attachedClients;
    if (attached === 0) return;
    throw new VarveError(
      "VolumeAttachedError",
      "Invalid",
      `volume ${this.name} has ${attached} connection${attached === 1 ? "" : "s"}; it is not ${what}`,
      {
        hint: `Disconnect its clients first: varve volume show ${this.name} lists them.${forceHint}`,
        fields: { name: this.name, attachedClients: attached },
      },
    );
  }

  /** For what the bucket must be told of, while none is open. */
  async requireNeverArchived(): Promise<void> {
    await this.past.load();
    if ((this.past.history?.archiverEpoch ?? 0) > 0) throw bucketNotTold(this.name);
  }

  /** Appends the rollback. The volume is busy, nobody is attached; `runs`: extents that it can change at most, null: all. */
  async rollback(toLsn: number, sizeBytes: number, runs: readonly ExtentRun[] | null): Promise<number> {
    const session = this.session ?? this.notOpen();
    this.knownChanges = runs === null ? null : { toLsn, runs };
    try {
      return await session.rollback(toLsn, sizeBytes);
    } finally {
      this.knownChanges = null;
    }
  }

  /** Fetches everything that is not local; the job of a fill that is under way already. */
  fill(kind: FillKind): string {
    const { tending, session } = this;
    if (session === null) throw this.whyClosed();
    return this.fills.start(kind, tending, session.extents.residency());
  }

  /** Gives cold extents back to the bucket behind a base that is taken now. */
  async tier(coldAfterMs: number, job: Job): Promise<void> {
    // Last use is counted in hours: less than one means everything, also what was used in the present one.
    const nowMs = this.setting.clock.wallTimeMs();
    const beforeMs = coldAfterMs < hourMs ? nowMs + hourMs : nowMs - coldAfterMs;
    job.note = "taking a base";
    const base = await this.past.requireArchive().takeBase();
    job.note = "waiting until the bucket holds it";
    const held = await heldFrom(this.past, this.setting.clock, base.s, () => job.running);
    if (held === null) return;
    const session = this.session ?? this.notOpen();
    const evicted = await session.extents.evictCold(held, beforeMs);
    const bytes = evicted * limits.extentBytes;
    job.progress(bytes, bytes);
    const nothing = "no local extent was unused for so long: nothing went";
    job.done(evicted === 0 ? nothing : `${evicted} extents are in the bucket only now`);
  }

  /** The policy in the history file changed. */
  policyChanged(): void {
    const { history } = this.past;
    if (history === null) return;
    this.tending?.setPolicy(this.tendingPolicy());
    if (history.residency === "full" && this.session !== null) this.fillWhatIsRemote(this.session);
  }

  /** For the keeper of the bucket; null while nothing archives the volume. */
  kept(): KeptVolume | null {
    const { session, past } = this;
    const open = past.opened;
    if (session === null || open === null) return null;
    return {
      volumeId: this.record.id,
      name: this.name,
      ...open,
      image: session.baseImage(),
      refill: async (extent, memory) =>
        refillExtent({ volumeId: this.record.id, clock: this.setting.clock, past, session }, extent, memory),
    };
  }

  view(): VolumeView {
    const { session } = this;
    const status = session?.status() ?? null;
    const residency = session?.extents.residency() ?? null;
    const { record } = this;
    return {
      id: record.id,
      name: record.name,
      description: this.description,
      sizeBytes: record.sizeBytes,
      durability: record.durability,
      reads: "strict",
      orders: record.orders ?? noOrders,
      createdAtMs: record.createdAtMs,
      condition: this.condition(status),
      failure: status?.error ?? this.failure,
      attachedClients: status?.attachedClients ?? 0,
      imagePath: residency?.path ?? this.paths.image,
      logPath: this.paths.log,
      figures: session === null || status === null ? null : figuresOf(status, session.hotLog().room()),
      past: pastViewOf(this.past, residency, this.setting.parts, this.fills.lastJob),
    };
  }

  private tend(session: HostedSession): void {
    this.tending = session.extents.tend({
      policy: this.tendingPolicy(),
      heldBase: () => this.past.heldBase(),
      onNote: (text) => this.setting.parts.homes?.onNote(`${this.name}: ${text}`),
    });
    if (this.past.history?.residency === "full") this.fillWhatIsRemote(session);
  }

  /** What is in a bucket only can't be served without it: said at the start, not by reads that wait and fail. */
  private requireReach(session: HostedSession): void {
    const residency = session.extents.residency();
    if (this.setting.parts.homes !== null || residency === null) return;
    const remote = residency.extents - residency.localExtents;
    if (remote === 0) return;
    throw bucketNeeded(this.name, remote, residency.extents);
  }

  private fillWhatIsRemote(session: HostedSession): void {
    const residency = session.extents.residency();
    if (residency === null || residency.localExtents === residency.extents) return;
    this.fills.start(this.fillKind, this.tending, residency);
    this.fillKind = "fill";
  }

  private tendingPolicy(): TendingPolicy {
    const { history } = this.past;
    return {
      residency: history?.residency ?? "full",
      coldAfterMs: history?.coldAfterMs ?? Number.MAX_SAFE_INTEGER,
      ...this.setting.parts.tending,
    };
  }

  /** Both its own points and a parent's are found by their volume's id. */
  private sources(): RemoteSources {
    const { homes } = this.setting.parts;
    return {
      open: async ({ volumeId, lsn }) => {
        if (homes === null) {
          throw new VarveError("BucketAwayError", "Retry", `volume ${this.name}: its bytes are in a bucket`, {
            hint: "This command runs without the bucket. Start varve up with it and try again.",
            fields: { name: this.name },
          });
        }
        return await (await homes.histories.find(volumeId)).open(lsn);
      },
      changedExtents: (toLsn) => (this.knownChanges?.toLsn === toLsn ? this.knownChanges.runs : null),
    };
  }

  /** Rescued elsewhere: whatever is written here from now on would be lost. */
  private fence(reason: VarveError): void {
    this.failure = reason;
    const stop = this.whileBusy(async () => {
      await this.setting.disconnect(this);
      await this.closeKnown();
      this.failure = reason;
      this.setting.parts.homes?.onNote(
        `warning: volume ${this.name} stopped: ${reason.message}\nhint: ${reason.hint}`,
      );
    });
    stop.catch(() => undefined); // the reason is kept; a close can only add to it
  }

  private condition(status: VolumeSessionStatus | null): VolumeCondition {
    if (this.busy) return "busy";
    if (status !== null) return status.state;
    return this.failure === null ? "closed" : "failed";
  }

  private whyClosed(): VarveError {
    return (
      this.failure ??
      new VarveError("VolumeClosedError", "Retry", `volume ${this.name} is not open yet`, {
        hint: "Try again in a moment.",
        fields: { name: this.name },
      })
    );
  }

  private notOpen(): never {
    throw this.whyClosed();
  }
}
