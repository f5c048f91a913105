/*
 * The storage service of one process: where replicas are made, attached, fed and repaired. Here its engines meet the raw
 * image adapter; the gateway sees the port (shared/ports/replica-home.ts). services/cli/single-machine.ts opens it.
 */
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import type { InspectRequest } from "#shared/adapters/write-log/inspect.ts";
import { historyPathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { readVolumeHistory } from "#shared/formats/volume-history.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { Failpoint } from "#shared/ports/failpoint.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { FedBatch, ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type {
  ImageOperation,
  RemoteBeginning,
  ReplicaHome,
  ReplicaTending,
  TendingOptions,
} from "#shared/ports/replica-home.ts";
import type { LocalReplica, ReplicaImage } from "#shared/ports/replica-image.ts";
import type { RemoteSources } from "#shared/ports/replica-residency.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import { ExtentTending, NothingToTend } from "./engine/extent-tending.ts";
import { ImageApplier } from "./engine/image-applier.ts";
import type { LogItem } from "./engine/image-files.ts";
import { SpaceReserve } from "./engine/space-reserve.ts";

export interface StorageSetup {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly dataDirectory: string;
  /** A line for the operator: the disk is full, or has room again. */
  readonly onNote?: (text: string) => void;
  readonly failpoint?: Failpoint;
  /** See ImageApplierOptions. */
  readonly checkpointBatches?: number;
}

/** Loaded when asked for: a start needs none of them. */
const repairs = {
  check: async () => (await import("./engine/image-check.ts")).checkImage,
  adopt: async () => (await import("./engine/image-adopt.ts")).adoptImage,
  discard: async () => (await import("./engine/image-discard.ts")).discardImage,
};

async function* inspectLater(request: InspectRequest): AsyncGenerator<LogItem, void, undefined> {
  const { inspectLog } = await import("#shared/adapters/write-log/inspect.ts");
  yield* inspectLog(request);
}

export class RawReplicas implements ReplicaHome {
  private readonly setup: StorageSetup;
  private readonly reserve: SpaceReserve;

  constructor(setup: StorageSetup) {
    this.setup = setup;
    const { store, clock, dataDirectory, onNote } = setup;
    this.reserve = new SpaceReserve({
      store,
      clock,
      path: dataDirectory,
      ...(onNote === undefined ? {} : { onNote }),
    });
  }

  get admission(): SpaceAdmission {
    return this.reserve;
  }

  /** Looks at the free space for the first time; the data directory exists. Before it everything is refused. */
  async start(): Promise<void> {
    await this.reserve.start();
  }

  async create(volume: VolumeRecord, paths: VolumePaths, begin?: RemoteBeginning): Promise<void> {
    const { point: remote, ...position } = begin ?? {};
    await RawFileImage.create({
      store: this.setup.store,
      directory: paths.directory,
      volumeId: volume.id,
      sizeBytes: volume.sizeBytes,
      ...position,
      ...(remote === undefined ? {} : { remote }),
    });
  }

  async attach(volume: VolumeRecord, paths: VolumePaths, sources?: RemoteSources): Promise<LocalReplica> {
    const { store, clock, failpoint = (): void => undefined } = this.setup;
    const place = { store, clock, failpoint, directory: paths.directory, volumeId: volume.id };
    const options = sources === undefined ? place : { ...place, sources };
    try {
      return await RawFileImage.attach(options);
    } catch (cause) {
      // The checkpoint that says "attached" takes a block, also on a full disk.
      const full = cause instanceof VarveError && cause.kind === "Full";
      if (!full || !(await this.reserve.makeRoom(() => false))) throw cause;
      return await RawFileImage.attach(options);
    }
  }

  tend(image: ReplicaImage, options: TendingOptions): ReplicaTending {
    const { extents } = image;
    if (extents === undefined) return new NothingToTend();
    return new ExtentTending({ image, clock: this.setup.clock, admission: this.reserve }, extents, options);
  }

  feed<D extends FedBatch>(image: ReplicaImage, handlers: ReplicaFeedHandlers<D>): ReplicaFeed<D> {
    const { clock, checkpointBatches } = this.setup;
    const makeRoom = async (mayWait: () => boolean): Promise<boolean> => this.reserve.makeRoom(mayWait);
    const common = { image, clock, makeRoom };
    return new ImageApplier<D>(
      checkpointBatches === undefined ? common : { ...common, checkpointBatches },
      handlers,
    );
  }

  async repair(
    operation: ImageOperation,
    volume: VolumeRecord,
    paths: VolumePaths,
    log: WriteLog,
  ): Promise<ImageReport> {
    const { store, clock } = this.setup;
    const repair = await repairs[operation]();
    const inspectLog = (fromLsn: number): AsyncIterable<LogItem> =>
      inspectLater({ store, directory: paths.log, volumeId: volume.id, fromLsn });
    const read = async (path: string): Promise<Buffer | null> => store.readWhole(path);
    const history = await readVolumeHistory(read, historyPathOf(paths), volume.id);
    const origin = history?.record.origin ?? null;
    return await repair({ store, clock, volume, paths, log, origin, inspectLog });
  }

  async close(): Promise<void> {
    await this.reserve.close();
  }
}
