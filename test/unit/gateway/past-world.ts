// A volume host whose sessions, archives and histories are stand-ins that write down what is asked of them, on memory files and a
// clock that the test moves. Every step can fail, hang or be the last one before a crash. Callers: past-changes.test.ts.
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { emptyCatalogContent, MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import type { Point } from "#shared/domain/point.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchiveSubject, VolumeArchive } from "#shared/ports/archive.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { HistorySubject, PointSource, VolumeHistory } from "#shared/ports/history.ts";
import type { NewFromPoint } from "#shared/ports/past-administration.ts";
import type { RemoteBeginning } from "#shared/ports/replica-home.ts";
import type { ReplicaExtents } from "#shared/ports/replica-residency.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { SessionExtents } from "../../../services/gateway/engine/session-extents.ts";
import { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import type {
  HostedSession,
  SessionTerms,
  VolumeParts,
} from "../../../services/gateway/engine/volume-parts.ts";

interface Facts {
  points: { volumeId: string; lsn: number }[];
  manifest: Partial<VolumeManifest>;
  record: VolumeRecord | null;
  subject: ArchiveSubject | null;
}

const lastLsn = 7;
/** Of the file store, and of the catalogue, which replaces a file each time. */
const takesRoom = new Set(["makeDirectory", "open", "replaceWhole", "rename", "put", "remove", "save"]);

export class PastWorld {
  readonly calls: string[] = [];
  /** Steps that fail, by their first two words; that never end; and the one behind which the process is gone. */
  readonly broken = new Set<string>();
  readonly hanging = new Set<string>();
  readonly fencedAtOpen = new Set<string>();
  crashAfter: string | null = null;
  /** The process is gone before its n-th call to files, catalogue or stand-ins from now on. */
  crashAtCall: number | null = null;
  /** From the n-th call that takes room on, files and catalogue have none, for so many calls. */
  fullAtCall: number | null = null;
  fullCalls = 0;
  oldestLsn = 1;
  heldLsn = lastLsn;
  basesAreHeld = true;
  /** What every archiver says that it waits for. */
  archiveError: VarveError | null = null;
  private readonly pinned = new Set<number>();
  onPublish = (): void => {};
  readonly epochs: number[] = [];
  private readonly files = new MemoryFileStore();
  private mortalFiles: FileStore = this.files;
  private readonly content = emptyCatalogContent();
  private readonly volumes = new Map<string, Facts>();
  private nowMs = 0;
  private timers: { readonly atMs: number; readonly task: () => void }[] = [];
  private ids = 0;
  private life = { alive: true };

  async serving(...names: string[]): Promise<VolumeHost> {
    const host = await this.open();
    await host.serve();
    for (const name of names) await host.create({ name, sizeBytes: 4096, durability: "write" });
    return host;
  }

  /** One volume that exists already, opened by a start. */
  async start(name: string): Promise<VolumeHost> {
    const { hanging } = this;
    const later = new Set(hanging);
    hanging.clear();
    await (await this.serving(name)).close();
    for (const step of later) hanging.add(step);
    return await this.restart();
  }

  /** The next process on the same files. */
  async restart(): Promise<VolumeHost> {
    this.life.alive = false;
    this.life = { alive: true };
    this.crashAfter = null;
    this.crashAtCall = null;
    for (const timer of this.timers.splice(0)) void timer;
    await this.files.replaceWhole("/data/catalog.json", Buffer.from("{}"));
    // The lock went with the process.
    const host = await this.open();
    await host.serve();
    return host;
  }

  /** Time goes on; what is due runs, and what follows from it. */
  async pass(ms: number): Promise<void> {
    await this.settle();
    this.nowMs += ms;
    const due = this.timers.filter((one) => one.atMs <= this.nowMs);
    this.timers = this.timers.filter((one) => one.atMs > this.nowMs);
    for (const { task } of due) task();
    await this.settle();
  }

  wanted(name: string, parent: string, point: string): NewFromPoint {
    return { name, parent, point, sizeBytes: null, durability: null, policy: { residency: "tiered" } };
  }

  async directories(): Promise<readonly string[]> {
    return await this.files.list("/data/volumes");
  }

  /** The replica of a volume reads extents from this point of another; without one, from none. */
  readsFrom(name: string, parent?: string, lsn = 0): void {
    this.of(name).points = parent === undefined ? [] : [{ volumeId: this.of(parent).record?.id ?? "", lsn }];
  }

  manifestOf(name: string, manifest: object): void {
    this.of(name).manifest = manifest;
  }

  present(name: string): Partial<VolumeManifest> {
    return this.of(name).manifest;
  }

  /** Files of the present process. */
  disk(): FileStore {
    return this.mortalFiles;
  }

  fence(name: string): void {
    this.of(name).subject?.onFenced(fenced(name));
  }

  private of(name: string): Facts {
    const found = this.volumes.get(name) ?? { points: [], manifest: {}, record: null, subject: null };
    this.volumes.set(name, found);
    return found;
  }

  private async settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn += 1) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
  }

  /** Writes down a step, and lets it fail, hang or be the last. */
  async step(what: string): Promise<void> {
    const { life } = this;
    this.countCall(life);
    this.calls.push(what);
    const words = what.split(" ", 2).join(" ");
    if (this.broken.has(words)) throw new VarveError("BrokenError", "Internal", `${words} failed`);
    if (this.hanging.has(words)) await new Promise(() => {});
    if (this.crashAfter !== words) return;
    life.alive = false;
    throw new Error("crashed");
  }

  private countCall(life: { alive: boolean }): void {
    if (life === this.life && this.crashAtCall !== null) this.crashAtCall -= 1;
    if (life === this.life && this.crashAtCall === 0) life.alive = false;
    if (!life.alive) throw new Error("crashed");
  }

  private takeRoom(call: string): void {
    if (this.fullAtCall === null) return;
    this.fullAtCall -= 1;
    if (this.fullAtCall > 0) return;
    this.fullCalls -= 1;
    if (this.fullCalls >= 0) throw new FileStoreError(call, "/data", "ENOSPC");
  }

  /** Records of the catalogue, whatever their state. */
  records(): readonly string[] {
    return (this.content.records ?? []).map(({ name, state }) => `${name} ${state}`);
  }

  private clock(): Clock {
    return {
      wallTimeMs: () => 1_700_000_000_000 + this.nowMs,
      monotonicMs: () => this.nowMs,
      after: (delayMs, task) => {
        const timer = { atMs: this.nowMs + delayMs, task };
        this.timers.push(timer);
        return {
          cancel: () => {
            this.timers = this.timers.filter((one) => one !== timer);
          },
        };
      },
      soon: (task) => task(),
    };
  }

  private async open(): Promise<VolumeHost> {
    const { life } = this;
    const mortal = <T extends object>(target: T): T =>
      new Proxy(target, {
        get: (object, name) => {
          const value: unknown = Reflect.get(object, name, object);
          if (typeof value !== "function") return value;
          return (...args: unknown[]): unknown => {
            this.countCall(life);
            if (life === this.life && takesRoom.has(String(name))) this.takeRoom(String(name));
            return value.apply(object, args);
          };
        },
      });
    this.mortalFiles = mortal<FileStore>(withoutLock(this.files));
    return await VolumeHost.open({
      dataDirectory: "/data",
      create: true,
      store: this.mortalFiles,
      catalog: mortal<VolumeCatalog>(new MemoryVolumeCatalog(this.content)),
      clock: this.clock(),
      random: { hex: (bytes) => (this.ids += 1).toString(16).padStart(bytes * 2, "0"), next: () => 0.5 },
      parts: this.parts(),
      memory: { acquire: () => null, release: () => undefined },
    });
  }

  private parts(): VolumeParts {
    return {
      keepsLog: true,
      tending: { capacity: null, fillBytesPerSecond: null },
      homes: {
        archiver: {
          open: async (subject) => this.archive(subject),
          uploadsInFlight: () => [],
          close: async () => {},
        },
        histories: {
          serve: () => () => {},
          of: (subject) => this.history(subject),
          find: async () => {
            throw new VarveError("VolumeNotInBucket", "Invalid", "not in the bucket");
          },
          close: async () => {},
        },
        onNote: () => {},
      },
      createImage: async (record, _paths, begin?: RemoteBeginning) => {
        this.of(record.name).record = record;
        const from =
          begin === undefined ? "" : ` from ${this.nameOf(begin.point.volumeId)}@${begin.point.lsn}`;
        await this.step(`create ${record.name}${from}`);
      },
      openSession: async (record, _paths, terms) => {
        this.of(record.name).record = record;
        await this.step(`open ${record.name}`);
        return this.session(record, terms);
      },
      image: async (_operation, record) => ({ name: record.name, clean: true, findings: [], fields: {} }),
    };
  }

  private nameOf(volumeId: string): string {
    for (const [name, { record }] of this.volumes) if (record?.id === volumeId) return name;
    return volumeId;
  }

  private session(record: VolumeRecord, terms: SessionTerms): HostedSession {
    const facts = this.of(record.name);
    const extents = { residency: () => ({ points: facts.points, extents: 1, localExtents: 1 }) };
    let attachedClients = 0;
    const session: Partial<HostedSession> = {
      sizeBytes: record.sizeBytes,
      extents: new SessionExtents(extents as unknown as ReplicaExtents, undefined),
      openExport: () => {
        attachedClients += 1;
        const close = (): void => {
          attachedClients -= 1;
        };
        return { name: record.name, close } as unknown as BlockExport;
      },
      hotLog: () =>
        ({
          state: () => ({ oldestLsn: 1, durableLsn: lastLsn }),
          room: () => ({ diskBytes: 0, limitBytes: 1 }),
        }) as unknown as ReturnType<HostedSession["hotLog"]>,
      baseImage: () => ({}) as ReturnType<HostedSession["baseImage"]>,
      held: () => {},
      sync: async () => {},
      mark: async (name) => {
        await this.step(`mark ${record.name} ${name}`);
        return lastLsn;
      },
      rollback: async (toLsn, sizeBytes) => {
        const runs = terms.sources.changedExtents?.(toLsn, lastLsn + 1) ?? [];
        const changed = runs.map(({ first, count }) => `${first}+${count}`).join(" ");
        await this.step(`rollback ${record.name} ${toLsn} size ${sizeBytes} changed ${changed}`);
        return lastLsn + 1;
      },
      status: () =>
        ({
          state: "serving",
          error: null,
          attachedClients,
          log: { durableLsn: lastLsn },
          image: {},
          counters: {},
        }) as unknown as ReturnType<HostedSession["status"]>,
      close: async () => {},
    };
    return Object.defineProperty(session, "attachedClients", { get: () => attachedClients }) as HostedSession;
  }

  private async archive(subject: ArchiveSubject): Promise<VolumeArchive> {
    const { name } = subject.record;
    this.epochs.push(subject.archiverEpoch);
    this.of(name).subject = subject;
    if (this.fencedAtOpen.has(name)) throw fenced(name);
    if (this.hanging.has(`archiver ${name}`)) return await new Promise(() => {});
    if (this.broken.has(`archiver ${name}`)) {
      throw new VarveError("BrokenError", "Internal", `archiver ${name} failed`);
    }
    const empty = { bases: [], rebases: [], snapshots: [], pins: [], retainedFromLsn: 1, archivedLsn: 0 };
    return {
      status: () => ({
        state: "running",
        archivedLsn: 0,
        heldLsn: this.heldLsn,
        lastBaseLsn: 0,
        error: this.archiveError,
        counters: {},
      }),
      heldBase: () => null,
      isBaseHeld: () => this.basesAreHeld,
      watchBase: () => undefined,
      stop: () => undefined,
      manifest: () => ({ ...empty, ...this.of(name).manifest }) as unknown as VolumeManifest,
      archive: async (lsn) => {
        await this.step(`archive ${name} ${lsn}`);
        this.of(name).manifest = { ...this.of(name).manifest, archivedLsn: lsn };
      },
      heldInMs: () => (this.heldLsn >= lastLsn ? 0 : 300_000),
      factsChanged: async () => {
        const { pins, deletedAtMs } = subject.facts();
        const lsns = pins.map((pin) => pin.lsn).join(" ");
        for (const { lsn } of pins) this.pinned.add(lsn);
        await this.step(
          `publish ${name}${lsns === "" ? "" : ` pins ${lsns}`}${deletedAtMs === null ? "" : " deleted"}`,
        );
        this.of(name).manifest = { ...this.of(name).manifest, deletedAtMs };
        this.onPublish();
      },
      amend: async () => {
        throw new Error("not part of this test");
      },
      takeBase: async () => ({ s: lastLsn, e: lastLsn }),
      close: async () => {},
    };
  }

  private requirePoint(lsn: number): void {
    if (lsn >= this.oldestLsn && lsn <= lastLsn) return;
    throw new VarveError("PointNotThere", "Invalid", `there is no point lsn:${lsn}`);
  }

  private history(subject: HistorySubject): VolumeHistory {
    const name = this.nameOf(subject.volumeId);
    return {
      range: async () => ({ fromLsn: this.oldestLsn, toLsn: lastLsn, fromMs: 0, toMs: 1 }),
      snapshots: () => subject.snapshots(),
      resolve: async (point: Point) => {
        const lsn = point.kind === "lsn" ? point.lsn : 0;
        this.calls.push(`resolve ${name} lsn:${lsn}`);
        // A pin counts as a point, whether or not what it needs is still there.
        if (!this.pinned.has(lsn)) this.requirePoint(lsn);
        return { volumeId: subject.volumeId, lsn, wallTimeMs: 0 };
      },
      open: async (lsn) => {
        this.calls.push(`look at ${name} lsn:${lsn}`);
        this.requirePoint(lsn);
        return { close: async () => {} } as PointSource;
      },
      sizeAt: async () => 4096,
      timeline: async () => [],
      changes: async () => [{ offset: 0, length: 512 }],
    };
  }
}

const fenced = (name: string): VarveError =>
  new VarveError("RescuedElsewhereError", "Fenced", `volume ${name} was rescued elsewhere`);

/** The lock of a process that is gone is nobody's: the kernel gives it back. */
function withoutLock(files: MemoryFileStore): MemoryFileStore {
  return new Proxy(files, {
    get: (object, name) => {
      if (name === "lockDirectory") return async () => ({ release: async () => {} });
      const value: unknown = Reflect.get(object, name, object);
      return typeof value === "function" ? value.bind(object) : value;
    },
  });
}
