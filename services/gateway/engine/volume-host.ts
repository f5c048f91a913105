/*
 * All volumes of one data directory: opens them, serves their exports to NBD connections, and makes every change to the
 * set of volumes. Owned by `varve up` (services/gateway/layer.ts) and, offline, by single CLI commands. Below it: the
 * catalogue, one volume session per volume (volume-session.ts). States and crash rules: docs/specs/volume-host.md.
 *
 *   opening ─► serving ─► busy (resize, set, image) ─► serving      deleting ─► gone
 *      └─► failed (kept, with its reason)   serving ─► halted
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import {
  checkVolumeName,
  checkVolumeSize,
  type VolumeDurability,
  type VolumeRecord,
} from "#shared/domain/volume.ts";
import type { BlockExport, ExportDirectory } from "#shared/ports/block-export.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type {
  ImageReport,
  NewVolume,
  VolumeAdministration,
  VolumeView,
} from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { DataDirectory } from "./data-directory.ts";
import { HostedVolume, type VolumeParts } from "./hosted-volume.ts";

export interface VolumeHostOptions {
  readonly dataDirectory: string;
  /** Make the data directory where it is missing. */
  readonly create: boolean;
  readonly store: FileStore;
  readonly catalog: VolumeCatalog;
  readonly clock: Clock;
  readonly random: Random;
  readonly parts: VolumeParts;
}

/** Volumes opened at once at start: replay is disk-bound, more only makes each slower. */
const openedAtOnceMax = 4;

export class VolumeHost implements VolumeAdministration, ExportDirectory {
  private readonly options: VolumeHostOptions;
  private readonly directory: DataDirectory;
  private readonly volumes = new Map<string, HostedVolume>();
  private lastChange: Promise<unknown> = Promise.resolve();
  private serving = false;
  private closing: Promise<void> | null = null;

  private constructor(options: VolumeHostOptions, directory: DataDirectory) {
    this.options = options;
    this.directory = directory;
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
    const waiting = [...this.volumes.values()];
    const lane = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await next.openKept();
    };
    await Promise.all(Array.from({ length: openedAtOnceMax }, lane));
  }

  list(): readonly VolumeView[] {
    return [...this.volumes.values()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((volume) => volume.view());
  }

  show(name: string): VolumeView {
    return this.require(name).view();
  }

  /** Directories in volumes/ that the catalogue does not know. */
  async strangers(): Promise<readonly string[]> {
    return await this.directory.strangers([...this.volumes.keys()]);
  }

  async open(name: string): Promise<BlockExport | null> {
    const volume = this.volumes.get(name);
    return volume === undefined ? null : volume.openExport();
  }

  async create(volume: NewVolume): Promise<VolumeView> {
    checkVolumeName(volume.name);
    checkVolumeSize(volume.sizeBytes);
    return await this.change(async () => {
      await this.requireFreeName(volume.name);
      const record: VolumeRecord = {
        id: this.options.random.hex(8),
        name: volume.name,
        sizeBytes: volume.sizeBytes,
        durability: volume.durability,
        createdAtMs: this.options.clock.wallTimeMs(),
        state: "creating",
      };
      await this.options.catalog.put(record);
      const hosted = this.hosted({ ...record, state: "active" });
      try {
        await this.directory.makeVolume(volume.name);
        await this.options.parts.createImage(record, this.directory.pathsOf(volume.name));
        if (this.serving) await hosted.open();
        await this.options.catalog.put(hosted.record);
      } catch (cause) {
        await hosted.close().catch(() => undefined);
        // Where even this fails, the record stays "creating" and the next start ends the work.
        await this.forget(record).catch(() => undefined);
        throw cause;
      }
      this.volumes.set(volume.name, hosted);
      return hosted.view();
    });
  }

  async delete(name: string): Promise<void> {
    await this.change(async () => {
      const volume = this.require(name);
      volume.requireDetached("deleted");
      await volume.whileBusy(async () => {
        await this.options.catalog.put({ ...volume.record, state: "deleting" });
        this.volumes.delete(name);
        // Its data goes now: what a last checkpoint could still complain about does not matter.
        await volume.close().catch(() => undefined);
        await this.forget(volume.record);
      });
    });
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

  async setDurability(name: string, durability: VolumeDurability): Promise<VolumeView> {
    return await this.change(async () => {
      const volume = this.require(name);
      if (volume.record.durability === durability) return volume.view();
      await this.whileClosed(volume, "changed", async () => {
        await this.record(volume, { durability });
      });
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
    return this.closing;
  }

  private async load(): Promise<void> {
    const { catalog } = this.options;
    await catalog.load();
    if (!catalog.exists()) await catalog.save();
    for (const record of catalog.list()) {
      if (record.state === "active") this.volumes.set(record.name, this.hosted(record));
      // A half-made volume was promised to nobody, a half-deleted one was promised to go.
      else await this.forget(record);
    }
  }

  private hosted(record: VolumeRecord): HostedVolume {
    return new HostedVolume(record, this.directory.pathsOf(record.name), this.options.parts);
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

  private require(name: string): HostedVolume {
    const volume = this.volumes.get(name);
    if (volume !== undefined) return volume;
    const names = [...this.volumes.keys()].sort();
    throw new VarveError(
      "UnknownVolumeError",
      "Invalid",
      `there is no volume named ${JSON.stringify(name)}`,
      {
        hint: names.length === 0 ? "There are no volumes yet." : `Volumes: ${names.join(", ")}.`,
        fields: { name },
      },
    );
  }

  private async requireFreeName(name: string): Promise<void> {
    if (this.volumes.has(name)) {
      throw new VarveError("VolumeExistsError", "Invalid", `a volume named ${name} exists already`, {
        hint: "Choose another name, or delete that volume first: varve volume delete NAME.",
        fields: { name },
      });
    }
    if (!(await this.strangers()).includes(name)) return;
    const { directory } = this.directory.pathsOf(name);
    throw new VarveError(
      "VolumeDirectoryTakenError",
      "Invalid",
      `${directory} exists, but the catalogue knows no volume ${name}`,
      {
        hint: "Move that directory away, or choose another name. Nothing in it was touched.",
        fields: { name },
      },
    );
  }

  /** One change after the other, whatever became of the one before. */
  private async change<T>(work: () => Promise<T>): Promise<T> {
    if (this.closing !== null) {
      throw new VarveError("HostClosingError", "Retry", "the server is shutting down", {
        hint: "Try again when it runs again.",
      });
    }
    const turn = this.lastChange.then(work);
    this.lastChange = turn.catch(() => undefined);
    return await turn;
  }

  private async shutDown(): Promise<void> {
    await this.lastChange.catch(() => undefined);
    const closed = await Promise.allSettled([...this.volumes.values()].map(async (volume) => volume.close()));
    await this.directory.close();
    const failed = closed.find((one) => one.status === "rejected");
    if (failed !== undefined) throw toVarveError(failed.reason, "close a volume");
  }
}

function shrinkNotAllowed(name: string, before: number, after: number): VarveError {
  return new VarveError(
    "ShrinkNotAllowedError",
    "Invalid",
    `volume ${name} has ${before} bytes; ${after} bytes would cut off its end`,
    {
      hint: "Shrink the file system first, then say so with --shrink: what lies behind the new end is lost.",
      fields: { name, sizeBytes: before, wantedBytes: after },
    },
  );
}
