// One machine with everything on the way of data, wired as services/cli/single-machine.ts wires it: host, log, image, archiver, bucket and
// history, all on one simulated disk whose n-th call that changes something fails, with ENOSPC or EIO, once or until there is room
// again. A client writes blocks, remembers what was acknowledged, and comes again where it was refused. Callers: full-data-path.deep.test.ts.
import { InlineArchiveWorker } from "#shared/adapters/archive-worker/inline.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import { directoryError } from "#shared/adapters/object-store/directory-errors.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { FileVolumeCatalog } from "#shared/adapters/volume-catalog/file.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import { FileStoreError, toVarveError, VarveError } from "#shared/domain/errors.ts";
import { openFrame } from "#shared/formats/object-frame.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { VolumeArchive } from "#shared/ports/archive.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { Archiver } from "../../../services/archiver/layer.ts";
import { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import type { VolumeParts } from "../../../services/gateway/engine/volume-parts.ts";
import { VolumeSession } from "../../../services/gateway/engine/volume-session.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { Scheduler, SeededRandom } from "../../simulation/scheduler.ts";
import { SlabStock } from "../../simulation/slab-stock.ts";

export const blockBytes = 4096;
export const blocks = 48;
const dataDirectory = "/data";
const MiB = 1024 * 1024;
const logOptions = {
  segmentBytes: 256 * 1024,
  preparedAheadBytes: 16 * 1024,
  logBytesMax: 4 * MiB,
  retainedBytes: 0,
  sparesMax: 1,
};

/** How the n-th call fails. "in part": some of it is done all the same, or all of it. */
export interface Trouble {
  readonly code: "ENOSPC" | "EIO";
  readonly how: "before" | "in part";
  /** 0: that call alone; else all calls that take room, for so long. */
  readonly forMs: number;
}

const storeCalls = new Set([
  "makeDirectory",
  "replaceWhole",
  "rename",
  "remove",
  "removeTree",
  "syncDirectory",
]);
const fileCalls = new Set([
  "write",
  "writeDurable",
  "writeInline",
  "writeDurableInline",
  "sync",
  "syncWithTimes",
  "writeBack",
  "applyAll",
  "allocate",
  "truncate",
]);
/** Whatever a full disk refuses, it lets go of what is there. */
const givesRoom = new Set(["remove", "removeTree", "truncate"]);

type Call = (...args: unknown[]) => unknown;

interface Process {
  readonly host: VolumeHost;
  readonly archiver: Archiver;
  readonly histories: Histories;
  readonly replicas: RawReplicas;
  readonly files: FileStore;
  session: VolumeSession | null;
  archive: VolumeArchive | null;
}

export class DataPathWorld {
  readonly scheduler: Scheduler;
  readonly disk: SimulatedDisk;
  readonly bucket: MemoryObjectStore;
  readonly notes: string[] = [];
  /** Of all lives, in order: what was called and where. */
  readonly calls: string[] = [];
  /** What a block may show: the last one was acknowledged last, those behind it were asked for and not acknowledged. */
  readonly acknowledged: Buffer[] = Array.from({ length: blocks }, () => Buffer.alloc(blockBytes));
  private readonly unsure: Buffer[][] = Array.from({ length: blocks }, () => []);
  private trouble: Trouble | null;
  private readonly failsAt: number;
  private readonly slabs = new SlabStock();
  private fullUntilMs = -1;
  private written = 0;
  private process: Process | null = null;

  constructor(failsAt: number, trouble: Trouble | null) {
    this.failsAt = failsAt;
    this.trouble = trouble;
    this.scheduler = new Scheduler(new SeededRandom(1));
    this.scheduler.hesitates = false;
    const { schedule, random } = this.scheduler;
    this.disk = new SimulatedDisk({ random, schedule, quotaBytes: 64 * MiB });
    this.bucket = new MemoryObjectStore(this.scheduler.clock);
  }

  get wasMet(): boolean {
    return this.calls.length >= this.failsAt;
  }

  /** Nothing fails any more. */
  heal(): void {
    this.trouble = null;
  }

  until<T>(work: Promise<T>, what = "the test"): Promise<T> {
    return this.scheduler.until(work, what);
  }

  get opened(): Process {
    if (this.process === null) throw new Error("nothing runs");
    return this.process;
  }

  get session(): VolumeSession {
    const { session } = this.opened;
    if (session === null) throw new Error("no session is open");
    return session;
  }

  get archive(): VolumeArchive {
    const { archive } = this.opened;
    // It is opened again within seconds.
    if (archive === null) throw new VarveError("NoArchive", "Full", "no archive is open yet");
    return archive;
  }

  /** The next process. */
  async start(): Promise<void> {
    const { scheduler, disk } = this;
    const { clock, random } = scheduler;
    this.slabs.takeAllBack();
    const store = disk.store();
    store.allocateSlab = (bytes) => this.slabs.take(bytes);
    store.shrinkSlab = () => undefined;
    const files = this.failing(store);
    const objects = this.failingBucket();
    const histories = new Histories({
      store: objects,
      clock,
      openFrame: async (stored, frame) => openFrame(stored, frame),
    });
    const archiver = new Archiver({
      store: objects,
      clock,
      random,
      slabs: files,
      worker: new InlineArchiveWorker(),
      options: { level: 1, segmentRecordBytes: 512 * 1024, baseLogBytesMin: Number.POSITIVE_INFINITY },
    });
    const replicas = new RawReplicas({
      store: files,
      clock,
      dataDirectory,
      onNote: (text) => this.notes.push(text),
    });
    const pool = new SlabPool(files, clock, 24 * MiB);
    const opened = { archiver, histories, replicas, files, session: null, archive: null };
    const parts = this.parts(opened, pool);
    const catalog = new FileVolumeCatalog(files, dataDirectory);
    const options = {
      dataDirectory,
      create: true,
      store: files,
      catalog,
      clock,
      random,
      parts,
      memory: pool,
    };
    const host = await VolumeHost.open(options);
    this.process = Object.assign(opened, { host });
    await replicas.start();
    await host.serve();
  }

  /** In good order, as far as that goes. */
  async stop(): Promise<VarveError | null> {
    const { process } = this;
    this.process = null;
    if (process === null) return null;
    const failures: unknown[] = [];
    for (const part of [process.host, process.archiver, process.histories, process.replicas])
      await part.close().catch((cause: unknown) => failures.push(cause));
    return failures.length === 0 ? null : toVarveError(failures[0], "close");
  }

  /** Its memory serves the next world. */
  end(): void {
    this.slabs.giveUp();
  }

  /** kill -9, or the power fails. */
  die(how: "kill" | "crash"): void {
    this.process = null;
    this.disk[how]();
    this.scheduler.reset();
  }

  /** One request of `count` blocks; throws what it was answered. */
  async write(first: number, count: number): Promise<void> {
    const bytes = Buffer.alloc(count * blockBytes);
    for (let index = 0; index < count; index += 1) {
      this.written += 1;
      bytes.fill(
        `block ${first + index}, write ${this.written}. `,
        index * blockBytes,
        (index + 1) * blockBytes,
      );
      this.unsure[first + index]?.push(bytes.subarray(index * blockBytes, (index + 1) * blockBytes));
    }
    await this.request((disk, slab, done) => {
      slab.bytes.set(bytes);
      return disk.write(first * blockBytes, slab, 0, bytes.length, false, { complete: done });
    });
    this.settled(first, count, (index) => bytes.subarray(index * blockBytes, (index + 1) * blockBytes));
  }

  async trim(first: number, count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) this.unsure[first + index]?.push(Buffer.alloc(blockBytes));
    await this.request((disk, _slab, done) =>
      disk.trim(first * blockBytes, count * blockBytes, false, { complete: done }),
    );
    this.settled(first, count, () => Buffer.alloc(blockBytes));
  }

  private settled(first: number, count: number, content: (index: number) => Buffer): void {
    for (let index = 0; index < count; index += 1) {
      this.acknowledged[first + index] = content(index);
      this.unsure[first + index] = [];
    }
  }

  /** The whole disk, read by a client. Says which block shows what it must not; a refused write may have happened once. */
  async wrongBlock(): Promise<string | null> {
    const bytes = Buffer.alloc(blocks * blockBytes);
    await this.request((disk, slab, done) => {
      const finish = (error: VarveError | null): void => {
        slab.bytes.copy(bytes);
        done(error);
      };
      if (disk.read(0, bytes.length, slab, 0, { complete: finish })) finish(null);
      return true;
    });
    return this.wrongIn(bytes);
  }

  wrongIn(bytes: Buffer): string | null {
    for (let block = 0; block < blocks; block += 1) {
      const found = bytes.subarray(block * blockBytes, (block + 1) * blockBytes);
      const may = [this.acknowledged[block] as Buffer, ...(this.unsure[block] ?? [])];
      const seen = may.find((one) => one.equals(found));
      if (seen === undefined) {
        return `block ${block} shows "${found.toString("latin1", 0, 24)}", not "${may[0]?.toString("latin1", 0, 24)}"`;
      }
      // Once shown it stays.
      this.acknowledged[block] = seen;
    }
    return null;
  }

  private async request(
    ask: (
      disk: ReturnType<VolumeSession["openExport"]>,
      slab: Slab & { readonly bytes: Buffer },
      done: (error: VarveError | null) => void,
    ) => boolean,
  ): Promise<void> {
    const disk = this.session.openExport("test");
    try {
      const slab = { bytes: Buffer.alloc(blocks * blockBytes), address: 0 };
      const error = await new Promise<VarveError | null>((resolve) => {
        const attempt = (): void => {
          if (ask(disk, slab, resolve)) disk.endOfInput(false);
          else disk.onRoom(attempt);
        };
        attempt();
      });
      if (error !== null) throw error;
    } finally {
      disk.close();
    }
  }

  /** What the disk has under a name, and of how many bytes. */
  file(path: string): { readonly bytes: Buffer; readonly allocatedBytes: number } | null {
    const content = this.disk.names.seen.files.get(`${dataDirectory}/${path}`)?.cache;
    if (content === undefined) return null;
    const bytes = Buffer.alloc(content.sizeBytes);
    content.read(bytes, 0);
    return { bytes, allocatedBytes: content.allocatedBytes };
  }

  pass(ms: number): Promise<void> {
    return new Promise((resolve) => void this.scheduler.after(ms, resolve));
  }

  private parts(opened: Omit<Process, "host">, pool: SlabPool): VolumeParts {
    const { archiver, histories, replicas, files } = opened;
    const { clock, random } = this.scheduler;
    const onNote = (text: string): void => void this.notes.push(text);
    return {
      homes: {
        archiver: {
          open: async (subject) => (opened.archive = await archiver.open(subject)),
          uploadsInFlight: () => archiver.uploadsInFlight(),
          close: async () => archiver.close(),
        },
        histories,
        onNote,
      },
      keepsLog: true,
      tending: { capacity: null, fillBytesPerSecond: null },
      createImage: async (record, paths, begin) => replicas.create(record, paths, begin),
      openSession: async (record, paths, terms) => {
        const image = await replicas.attach(record, paths, terms.sources);
        const log = new EmbeddedFileLog({
          store: files,
          clock,
          random,
          directory: paths.log,
          volumeId: record.id,
          options: logOptions,
        });
        opened.session = await VolumeSession.open({
          name: record.name,
          durability: record.durability,
          log,
          image,
          pool,
          admission: replicas.admission,
          feed: (handlers) => replicas.feed(image, handlers),
          tend: (options) => replicas.tend(image, options),
          archived: terms.archived,
          logBytesMax: logOptions.logBytesMax,
          writer: "test",
          onHalted: (error) => onNote(`halted: ${error.message}`),
        });
        return opened.session;
      },
      image: () => {
        throw new Error("no image is repaired here");
      },
    };
  }

  /** Whether this call fails. */
  private fails(call: string): boolean {
    this.calls.push(call);
    const { trouble } = this;
    if (trouble === null) return false;
    const [operation = ""] = call.split(" ", 1);
    const mayFail = trouble.code === "EIO" || !givesRoom.has(operation);
    if (this.calls.length === this.failsAt) this.fullUntilMs = this.scheduler.nowMs + trouble.forMs;
    return mayFail && (this.calls.length === this.failsAt || this.isFull);
  }

  private get isFull(): boolean {
    return (this.trouble?.forMs ?? 0) > 0 && this.scheduler.nowMs < this.fullUntilMs;
  }

  private failing(store: FileStore): FileStore {
    return this.watched(store, storeCalls, "", {
      open: async (path, options) => {
        const isNew = options.create === true && !this.disk.names.seen.files.has(path);
        if (isNew && this.fails(`open ${path}`))
          throw new FileStoreError("open", path, this.trouble?.code ?? "");
        return this.watched(await store.open(path, options), fileCalls, path, {});
      },
      freeSpace: async (path) => {
        const space = await store.freeSpace(path);
        return this.isFull && this.trouble?.code === "ENOSPC" ? { ...space, freeBytes: 0 } : space;
      },
    });
  }

  private watched<T extends object>(
    target: T,
    names: ReadonlySet<string>,
    place: string,
    instead: Partial<T>,
  ): T {
    return new Proxy(target, {
      get: (object, name) => {
        const other: unknown = Reflect.get(instead, name);
        if (other !== undefined) return other;
        const value: unknown = Reflect.get(object, name, object);
        if (typeof value !== "function") return value;
        const call = value.bind(object) as Call;
        const operation = String(name);
        if (!names.has(operation)) return call;
        return (...args: unknown[]): unknown => {
          const path = place === "" ? String(args[0]) : place;
          return this.fails(`${operation} ${path}`)
            ? this.refuse(operation, path, () => call(...args))
            : call(...args);
        };
      },
    });
  }

  /** As the disk fails by itself where it is to be in part: a write is torn, the pages of a sync are lost. */
  private refuse(operation: string, path: string, call: () => unknown): unknown {
    const { code = "EIO", how = "before" } = this.trouble ?? {};
    const error = new FileStoreError(operation, path, code);
    const isInline = operation.endsWith("Inline");
    if (how === "before" && !operation.startsWith("sync") && operation !== "writeBack") {
      if (isInline) throw error;
      return this.pass(1).then(() => {
        throw error;
      });
    }
    const { faults } = this.disk;
    const isName = storeCalls.has(operation);
    // A name's change is done, and only the answer is an error.
    if (!isName) Object.assign(faults, { writeError: 1, syncError: 1 });
    const end = (): never => {
      Object.assign(faults, { writeError: 0, syncError: 0 });
      throw error;
    };
    if (!isInline) return (call() as Promise<unknown>).then(end, end);
    try {
      call();
    } catch {}
    return end();
  }

  private failingBucket(): ObjectStore {
    const { bucket } = this;
    return new Proxy<ObjectStore>(bucket, {
      get: (object, name) => {
        const value: unknown = Reflect.get(object, name, object);
        if (name !== "put" || typeof value !== "function")
          return typeof value === "function" ? value.bind(object) : value;
        return async (...args: Parameters<ObjectStore["put"]>) => {
          // Of another process that was killed.
          await this.pass(0.1);
          const { code = "EIO", how = "before" } = this.trouble ?? {};
          const fails = this.fails(`put ${args[0]}`);
          if (!fails || how === "in part") {
            const answer = await bucket.put(...args);
            if (!fails) return answer;
          }
          throw directoryError("put", bucket.place, args[0], { code });
        };
      },
    });
  }
}
