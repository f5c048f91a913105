// One volume with everything below its session on a simulated disk with a quota: log, image, applier and space reserve. Tests
// open and close sessions, write through them, change the image behind Varve's back, repair it, crash and kill, all in an
// order that one seed gives.
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import { inspectLog } from "#shared/adapters/write-log/inspect.ts";
import type { EmbeddedLogOptions } from "#shared/adapters/write-log/log-options.ts";
import { volumePaths } from "#shared/domain/data-layout.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { BlockExport, Completion } from "#shared/ports/block-export.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { VolumeSession } from "../../../services/gateway/engine/volume-session.ts";
import { ImageApplier } from "../../../services/storage/engine/image-applier.ts";
import type { RepairSetup } from "../../../services/storage/engine/image-files.ts";
import { SpaceReserve } from "../../../services/storage/engine/space-reserve.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

export const dataDirectory = "/data";
export const MiB = 1024 * 1024;

export interface WorldOptions {
  readonly sizeBytes: number;
  readonly quotaBytes?: number;
  readonly log?: EmbeddedLogOptions;
}

const smallLog: EmbeddedLogOptions = {
  segmentBytes: 2 * MiB,
  preparedAheadBytes: 64 * 1024,
  logBytesMax: 64 * MiB,
  retainedBytes: 64 * MiB,
  sparesMax: 2,
};

class Answer implements Completion {
  readonly promise: Promise<VarveError | null>;
  #resolve: (error: VarveError | null) => void = () => undefined;
  constructor() {
    this.promise = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }
  complete(error: VarveError | null): void {
    this.#resolve(error);
  }
}

export interface OpenSession {
  readonly session: VolumeSession;
  readonly reserve: SpaceReserve;
  readonly disk: BlockExport;
  readonly halts: VarveError[];
}

export class StorageWorld {
  readonly clock: SteppedClock;
  readonly disk: SimulatedDisk;
  store: FileStore;
  record: VolumeRecord;
  readonly paths = volumePaths(dataDirectory, "disk0");
  readonly notes: string[] = [];
  logOptions: EmbeddedLogOptions;
  readonly #slab: Slab;

  constructor(seed: number, options: WorldOptions) {
    this.clock = new SteppedClock(seed);
    this.disk = new SimulatedDisk({
      random: this.clock.random,
      schedule: this.clock.schedule,
      ...(options.quotaBytes === undefined ? {} : { quotaBytes: options.quotaBytes }),
    });
    this.store = this.disk.store();
    this.logOptions = { ...smallLog, ...options.log };
    this.#slab = this.store.allocateSlab(4 * MiB);
    const { sizeBytes } = options;
    const shape = { name: "disk0", durability: "write", createdAtMs: 0, state: "active" } as const;
    this.record = { ...shape, id: "5ca1ab1e00c0ffee", sizeBytes };
  }

  async makeVolume(): Promise<void> {
    const { store, paths, record } = this;
    await this.until(store.makeDirectory(paths.directory));
    const { id: volumeId, sizeBytes } = record;
    await this.until(RawFileImage.create({ store, directory: paths.directory, volumeId, sizeBytes }));
  }

  until<T>(promise: Promise<T>): Promise<T> {
    return this.clock.until(promise);
  }

  log(): EmbeddedFileLog {
    const { store, clock, paths, record, logOptions: options } = this;
    return new EmbeddedFileLog({
      store,
      clock,
      random: clock.random,
      directory: paths.log,
      volumeId: record.id,
      options,
    });
  }

  attach(): Promise<RawFileImage> {
    const { store, paths, record } = this;
    return RawFileImage.attach({ store, directory: paths.directory, volumeId: record.id });
  }

  repairSetup(): RepairSetup {
    const { store, clock, record: volume, paths } = this;
    const log = this.log();
    const directory = paths.log;
    return {
      store,
      clock,
      volume,
      paths,
      log,
      inspectLog: (fromLsn) => inspectLog({ store, directory, volumeId: volume.id, fromLsn }),
    };
  }

  open(): Promise<OpenSession> {
    return this.until(this.#open());
  }

  async #open(): Promise<OpenSession> {
    const { store, clock } = this;
    const onNote = (text: string): void => {
      this.notes.push(text);
    };
    const reserve = new SpaceReserve({ store, clock, path: dataDirectory, onNote });
    await reserve.start();
    const halts: VarveError[] = [];
    const image = await this.attach();
    const session = await VolumeSession.open({
      name: "disk0",
      durability: "write",
      log: this.log(),
      image,
      pool: new SlabPool(store, clock, 16 * MiB),
      admission: reserve,
      feed: (handlers) =>
        new ImageApplier({ image, clock, makeRoom: (mayWait) => reserve.makeRoom(mayWait) }, handlers),
      writer: "test",
      onHalted: (error) => halts.push(error),
    });
    return { session, reserve, disk: session.openExport("test"), halts };
  }

  async close(opened: OpenSession): Promise<void> {
    opened.disk.close();
    await this.until(opened.session.close());
    await this.until(opened.reserve.close());
  }

  /** The error it was answered with. The write is made at once, its answer waited for. */
  write({ disk }: OpenSession, offset: number, bytes: Uint8Array): Promise<VarveError | null> {
    const slab = this.store.allocateSlab(Math.ceil(bytes.length / limits.blockBytes) * limits.blockBytes);
    slab.bytes.set(bytes);
    return this.#ask(disk, (answer) => disk.write(offset, slab, 0, bytes.length, false, answer));
  }

  trim({ disk }: OpenSession, offset: number, length: number): Promise<VarveError | null> {
    return this.#ask(disk, (answer) => disk.trim(offset, length, false, answer));
  }

  async #ask(disk: BlockExport, take: (answer: Answer) => boolean): Promise<VarveError | null> {
    const answer = new Answer();
    while (!take(answer)) await new Promise<void>((resolve) => disk.onRoom(resolve));
    disk.endOfInput(false);
    return answer.promise;
  }

  async read({ disk }: OpenSession, offset: number, length: number): Promise<Buffer> {
    const answer = new Answer();
    const slab = this.store.allocateSlab(Math.ceil(length / limits.blockBytes) * limits.blockBytes);
    if (!disk.read(offset, length, slab, 0, answer)) {
      const error = await this.until(answer.promise);
      if (error !== null) throw error;
    }
    return Buffer.from(slab.bytes.subarray(0, length));
  }

  /** The image file as it is seen now. */
  async imageContent(): Promise<Buffer> {
    return (await this.until(this.store.readWhole(this.paths.image))) ?? Buffer.alloc(0);
  }

  /** Somebody else writes to the image, whose process ends in good order. */
  async changeImage(changes: readonly { offset: number; bytes: Uint8Array | number }[]): Promise<void> {
    const file = await this.until(this.store.open(this.paths.image, { access: "buffered" }));
    for (const { offset, bytes } of changes) {
      if (typeof bytes === "number") {
        await this.until(file.applyAll([{ kind: "punch", offset, length: bytes }]));
        continue;
      }
      this.#slab.bytes.set(bytes);
      await this.until(file.write([{ slab: this.#slab, start: 0, length: bytes.length }], offset));
    }
    await this.until(file.syncWithTimes());
    await this.until(file.close());
  }

  async resizeImage(sizeBytes: number): Promise<void> {
    const file = await this.until(this.store.open(this.paths.image, { access: "buffered" }));
    await this.until(file.truncate(sizeBytes));
    await this.until(file.syncWithTimes());
    await this.until(file.close());
  }

  /** Another program's file takes this much. */
  async foreignFile(bytes: number): Promise<void> {
    const file = await this.until(
      this.store.open(`${dataDirectory}/foreign`, { create: true, access: "buffered" }),
    );
    await this.until(file.truncate(0));
    const room = Math.min(bytes, this.disk.quotaBytes - this.disk.usedBytes);
    const whole = Math.floor(room / limits.blockBytes) * limits.blockBytes;
    // Who takes room at the same time may have it first.
    if (whole > 0) await this.until(file.allocate(0, whole)).catch(() => undefined);
    await this.until(file.close());
  }

  crash(): void {
    this.disk.crash();
    this.#restart();
  }

  kill(): void {
    this.disk.kill();
    this.#restart();
  }

  #restart(): void {
    this.clock.reset();
    this.store = this.disk.store();
  }

  random(from: number, to: number): number {
    return this.clock.random.integer(from, to);
  }

  /** Bytes that are told apart by place and time. */
  content(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    let word = this.random(1, 2 ** 31);
    for (let at = 0; at < length; at += 4) {
      word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0;
      bytes.writeUInt32LE(word, Math.min(at, Math.max(0, length - 4)));
    }
    return bytes;
  }
}
