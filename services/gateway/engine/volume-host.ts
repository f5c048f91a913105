/*
 * All volumes of one data directory: opens them, serves their exports to NBD connections, and makes every change to the
 * set of volumes. Owned by `varve up` (services/gateway/layer.ts) and, offline, by single CLI commands. Below it: the
 * catalogue, one volume session per volume (volume-session.ts). States and crash rules: docs/specs/volume-host.md.
 *
 *   opening ─► serving ─► busy (resize, set, image) ─► serving      deleting ─► gone
 *      └─► failed (kept, with its reason)   serving ─► halted
 */
import { historyPathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import {
  checkVolumeName,
  checkVolumeSize,
  type ReadPolicy,
  shrinkNotAllowed,
  type VolumeDurability,
  type VolumeRecord,
} from "#shared/domain/volume.ts";
import { newVolumeRecord, noOrders, type OrdersChange, orderedFrom } from "#shared/domain/volume-orders.ts";
import type { ExportDirectory } from "#shared/ports/block-export.ts";
import type { KeptVolume } from "#shared/ports/kept-volume.ts";
import type { PastAdministration } from "#shared/ports/past-administration.ts";
import type {
  ImageReport,
  NewVolume,
  VolumeAdministration,
  VolumeView,
} from "#shared/ports/volume-administration.ts";
import { DataDirectory } from "./data-directory.ts";
import { leftovers, requireNotNeeded } from "./deletion-rules.ts";
import { HistoryFile } from "./history-file.ts";
import {
  directoryTaken,
  hostClosing,
  requireStrictReads,
  unknownVolume,
  volumeExists,
} from "./host-errors.ts";
import { type ConnectionCutter, HostWaits } from "./host-waits.ts";
import { HostedVolume } from "./hosted-volume.ts";
import { JobRegister } from "./job-register.ts";
import { type MoveCopy, MovedVolumes } from "./moved-volumes.ts";
import { PastChanges } from "./past-changes.ts";
import { dropNeedlessPins, PinUpkeep } from "./pin-upkeep.ts";
import { PointSources } from "./point-sources.ts";
import { SettlingVolumes } from "./settling-volumes.ts";
import { VolumeExports } from "./volume-exports.ts";
import type { VolumeHostOptions } from "./volume-parts.ts";

/** Volumes opened at once at start: replay is disk-bound, more only makes each slower. */
const openedAtOnceMax = 4;

export class VolumeHost implements VolumeAdministration {
  /** What NBD clients may attach to: volumes and their points. */
  readonly exports: ExportDirectory;
  readonly past: PastAdministration;
  readonly jobs: JobRegister;
  readonly moved: MovedVolumes;
  readonly settling: SettlingVolumes;
  private readonly options: VolumeHostOptions;
  private readonly directory: DataDirectory;
  private readonly volumes = new Map<string, HostedVolume>();
  private readonly points: PointSources;
  private readonly waits: HostWaits;
  private readonly upkeep: PinUpkeep;
  private lastChange: Promise<unknown> = Promise.resolve();
  private serving = false;
  private closing: Promise<void> | null = null;

  private constructor(options: VolumeHostOptions, directory: DataDirectory) {
    this.options = options;
    this.directory = directory;
    this.moved = new MovedVolumes(options.catalog, this.volumes);
    this.points = new PointSources(options.clock);
    this.waits = new HostWaits(options.clock);
    const dropPins = async (): Promise<void> => dropNeedlessPins(this.all());
    this.upkeep = new PinUpkeep(options.clock, async () => this.change(dropPins));
    this.settling = new SettlingVolumes({
      clock: options.clock,
      catalog: options.catalog,
      waits: this.waits,
      here: this.volumes,
      mode: () => (this.serving ? (options.parts.homes === null ? "no bucket" : "archiving") : "offline"),
      change: async (work) => this.change(work),
      forget: async (record) => this.forget(record),
      dropPins,
    });
    this.jobs = new JobRegister(options.clock, options.random);
    this.exports = new VolumeExports(this.volumes, (name) => this.settling.refusal(name));
    this.past = new PastChanges({
      clock: options.clock,
      jobs: this.jobs,
      memory: options.memory,
      host: {
        require: (name) => this.require(name),
        requireFreeName: async (name) => this.requireFreeName(name),
        change: async (work) => this.change(work),
        waitForBucket: async (volume, work) => this.waits.forBucket(work, volume.past),
        make: async (record, history, begin) =>
          this.make(record, history, async (made, paths) => options.parts.createImage(made, paths, begin)),
        sizeIs: async (volume, sizeBytes) => this.record(volume, { sizeBytes }),
        disconnect: async (volume) => this.waits.disconnect(volume),
        newId: () => options.random.hex(8),
        historyOn: () => options.parts.homes !== null,
      },
    });
  }

  /**
   * Locks the data directory, reads the catalogue and finishes what a crash left half done. Volumes are not opened yet:
   * see serve(). On failure nothing is held and nothing was changed.
   */
  static async open(options: VolumeHostOptions): Promise<VolumeHost> {
    const directory = await DataDirectory.open(options.store, options.dataDirectory, options.create);
    try {
      const host = new VolumeHost(options, directory);
      await host.load();
      return host;
    } catch (cause) {
      await directory.close();
      throw cause;
    }
  }

  /** Opens every volume. One that can't be opened is kept as failed, with its reason; the others are served. */
  async serve(): Promise<void> {
    this.serving = true;
    const waiting = this.all();
    const lane = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        await (this.settling.has(next.record.id) ? this.settling.open(next) : next.openKept());
      }
    };
    await Promise.all(Array.from({ length: openedAtOnceMax }, lane));
    if (this.options.parts.homes !== null) this.upkeep.start();
  }

  /** Connections are cut through this from now on (rollback --force, a volume that was rescued elsewhere). */
  connectionsAre(cutter: ConnectionCutter): void {
    this.waits.cutter = cutter;
  }

  /** Points that something reads from, or may read from again: the collector keeps what they stand on. */
  pointsInUse(): readonly { readonly volumeId: string; readonly lsn: number }[] {
    const replicas = this.all().flatMap((volume) => volume.residency()?.points ?? []);
    return [...this.points.inUse(), ...replicas];
  }

  /** Volumes that are archived now, for the keeper of the bucket. */
  kept(): readonly KeptVolume[] {
    return this.all().flatMap((volume) => volume.kept() ?? []);
  }

  list(): readonly VolumeView[] {
    return [...this.volumes.keys(), ...this.settling.names()].sort().map((name) => this.show(name));
  }

  show(name: string): VolumeView {
    return this.settling.view(name) ?? this.require(name).view();
  }

  /** Directories in volumes/ that the catalogue does not know. */
  strangers = async (): Promise<readonly string[]> =>
    this.directory.strangers([...this.all().map((one) => one.name), ...this.moved.names()]);

  async create(volume: NewVolume): Promise<VolumeView> {
    checkVolumeName(volume.name);
    checkVolumeSize(volume.sizeBytes);
    requireStrictReads(volume.name, volume.reads);
    return await this.change(async () => {
      await this.requireFreeName(volume.name);
      const { random, clock, parts } = this.options;
      const record = newVolumeRecord(volume, random.hex(8), clock.wallTimeMs());
      const history = { ...newHistoryRecord(record.id, record.sizeBytes), ...volume.policy };
      return (await this.make(record, history, async (made, paths) => parts.createImage(made, paths))).view();
    });
  }

  /** A volume that comes back from the bucket: as create(), but `prepare` makes its files, the history file among them. */
  async bringBack(record: VolumeRecord, prepare: (paths: VolumePaths) => Promise<void>): Promise<VolumeView> {
    return await this.change(async () => {
      checkVolumeName(record.name);
      await this.requireFreeName(record.name);
      const made = await this.make(record, null, async (_volume, paths) => prepare(paths));
      // Where the bucket does not answer in time, it is told later: the volume is back.
      if (this.serving) await this.waits.forBucket(made.past.notDeleted()).catch(() => undefined);
      return made.view();
    });
  }

  async delete(name: string): Promise<void> {
    await this.change(async () => {
      const moved = this.moved.find(name);
      if (moved !== null) return await this.moved.drop(moved, async () => this.forget(moved));
      if (this.settling.refusal(name) !== null) return await this.settling.deleteAgain(name);
      const volume = this.require(name);
      volume.requireDetached("deleted");
      requireNotNeeded(volume, [...this.volumes.values()]);
      if (!this.serving) await volume.requireNeverArchived();
      await volume.whileBusy(async () => this.settling.delete(volume));
    });
    await this.settling.goneSoon(name);
  }

  async resize(name: string, sizeBytes: number, shrink: boolean): Promise<VolumeView> {
    checkVolumeSize(sizeBytes);
    return await this.change(async () => {
      const volume = this.require(name);
      const before = volume.record.sizeBytes;
      if (sizeBytes === before) return volume.view();
      if (sizeBytes < before) {
        if (!shrink) throw shrinkNotAllowed(name, before, sizeBytes);
        volume.requireDetached("shrunk");
      }
      const resize = async (): Promise<void> => {
        await volume.withSession((session) => session.resize(sizeBytes));
        await this.record(volume, { sizeBytes });
      };
      await (sizeBytes < before ? volume.whileBusy(resize) : resize());
      return volume.view();
    });
  }

  /** While nothing is served: `copy` takes the volume to another place; from then on it is never served here again. */
  async moveAway(name: string, place: string, copy: MoveCopy): Promise<void> {
    await this.change(async () => this.moved.move(this.require(name), place, copy));
  }

  async setDurability(name: string, durability: VolumeDurability): Promise<VolumeView> {
    return await this.change(async () => {
      const volume = this.require(name);
      if (volume.record.durability === durability) return volume.view();
      await this.whileClosed(volume, "changed", async () => this.record(volume, { durability }));
      return volume.view();
    });
  }

  async setReads(name: string, reads: ReadPolicy): Promise<VolumeView> {
    requireStrictReads(name, reads);
    return this.show(name);
  }

  async setOrders(name: string, change: OrdersChange): Promise<VolumeView> {
    return await this.change(async () => {
      const volume = this.require(name);
      await this.record(volume, { orders: orderedFrom(volume.record.orders ?? noOrders, change) });
      return volume.view();
    });
  }

  async checkImage(name: string): Promise<ImageReport> {
    return await this.onImage(name, "checked", "check");
  }

  async adoptImage(name: string): Promise<ImageReport> {
    return await this.onImage(name, "adopted", "adopt");
  }

  async discardImage(name: string): Promise<ImageReport> {
    return await this.onImage(name, "discarded", "discard");
  }

  /** Closes every volume (flush the log, checkpoint, detach the image) and gives the data directory back. Idempotent. */
  close(): Promise<void> {
    this.closing ??= this.shutDown();
    this.waits.close();
    return this.closing;
  }

  private async load(): Promise<void> {
    const { catalog } = this.options;
    await catalog.load();
    if (!catalog.exists()) await catalog.save();
    for (const record of catalog.list()) {
      if (record.state === "active") this.volumes.set(record.name, this.hosted(record));
      else if (record.state === "moved") this.moved.add(record);
      else if (record.state === "settling") this.settling.found(this.hosted(record));
      // A half-made volume was promised to nobody, a half-deleted one was promised to go.
      else await this.forget(record);
    }
  }

  private hosted(record: VolumeRecord): HostedVolume {
    const { store, clock, parts } = this.options;
    return new HostedVolume(record, this.directory.pathsOf(record.name), {
      store,
      clock,
      parts,
      points: this.points,
      jobs: this.jobs,
      disconnect: async (volume) => this.waits.disconnect(volume),
    });
  }

  /** Within a change: record, directory, history file (null: `fill` makes it), files, session; all of it or nothing. */
  private async make(
    record: VolumeRecord,
    history: HistoryRecord | null,
    fill: (record: VolumeRecord, paths: VolumePaths) => Promise<void>,
  ): Promise<HostedVolume> {
    await this.options.catalog.put({ ...record, state: "creating" });
    const hosted = this.hosted({ ...record, state: "active" });
    if (history === null) hosted.past.staysDeleted();
    else if (history.origin !== null) hosted.fillKind = "create from";
    const paths = this.directory.pathsOf(record.name);
    try {
      await this.directory.makeVolume(record.name);
      if (history !== null) await HistoryFile.create(this.options.store, historyPathOf(paths), history);
      await fill(record, paths);
      if (this.serving) await hosted.open(true);
      await this.options.catalog.put(hosted.record);
    } catch (cause) {
      await hosted.close().catch(() => undefined);
      // Where even this fails, the record stays "creating" and the next start ends the work.
      await this.forget(record).catch(() => undefined);
      throw cause;
    }
    this.volumes.set(record.name, hosted);
    return hosted;
  }

  /** Files first, then the entry: a crash between finds the entry again and ends the work. */
  private async forget(record: VolumeRecord): Promise<void> {
    await this.directory.removeVolume(record.name);
    await this.options.catalog.remove(record.id);
  }

  private async record(volume: HostedVolume, change: Partial<VolumeRecord>): Promise<void> {
    const next = { ...volume.record, ...change };
    await this.options.catalog.put(next);
    volume.record = next;
  }

  private async onImage(
    name: string,
    what: string,
    operation: "check" | "adopt" | "discard",
  ): Promise<ImageReport> {
    return await this.change(async () => {
      const volume = this.require(name);
      return await this.whileClosed(volume, what, async () =>
        this.options.parts.image(operation, volume.record, volume.paths),
      );
    });
  }

  /** Nobody attached, session closed, `work`, session open again where volumes are served. */
  private async whileClosed<T>(volume: HostedVolume, what: string, work: () => Promise<T>): Promise<T> {
    volume.requireDetached(what);
    return await volume.whileBusy(async () => {
      try {
        await volume.closeKnown();
        return await work();
      } finally {
        if (this.serving) await volume.openKept();
      }
    });
  }

  /** Also those that are deleted and still here. */
  private all(): HostedVolume[] {
    return [...this.volumes.values(), ...this.settling.list()];
  }

  private require(name: string): HostedVolume {
    const volume = this.volumes.get(name);
    if (volume !== undefined) return volume;
    const refusal = this.moved.refusal(name) ?? this.settling.refusal(name);
    throw refusal ?? unknownVolume(name, [...this.volumes.keys()].sort());
  }

  private async requireFreeName(name: string): Promise<void> {
    if (this.volumes.has(name)) throw volumeExists(name);
    this.moved.refuse(name);
    this.settling.refuse(name);
    for (const left of leftovers(this.options.catalog, name)) await this.forget(left);
    if (!(await this.strangers()).includes(name)) return;
    throw directoryTaken(name, this.directory.pathsOf(name).directory);
  }

  /** One change after the other, whatever became of the one before. */
  private async change<T>(work: () => Promise<T>): Promise<T> {
    if (this.closing !== null) throw hostClosing();
    const turn = this.lastChange.then(work);
    this.lastChange = turn.catch(() => undefined);
    return await turn;
  }

  private async shutDown(): Promise<void> {
    this.upkeep.stop();
    this.settling.stop();
    await this.lastChange.catch(() => undefined);
    const closed = await Promise.allSettled(this.all().map(async (volume) => volume.close()));
    await this.points.close();
    await this.directory.close();
    const failed = closed.find((one) => one.status === "rejected");
    if (failed !== undefined) throw toVarveError(failed.reason, "close a volume");
  }
}
