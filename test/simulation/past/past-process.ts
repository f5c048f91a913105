/*
 * Wires one simulated process as services/cli/single-machine.ts wires the real one: volume host, replicas, archiver, histories, all
 * on the world's disk, bucket and clock, without threads. Each session that opens is remembered, and its log shown to the
 * volume's ledger before anybody else gets to it. Called by past-life.ts.
 */

import { InlineArchiveWorker } from "#shared/adapters/archive-worker/inline.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import { openSimulatedObjectStore } from "#shared/adapters/object-store/simulated.ts";
import { FileVolumeCatalog } from "#shared/adapters/volume-catalog/file.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { VolumePaths } from "#shared/domain/data-layout.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { openFrame } from "#shared/formats/object-frame.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import type { VolumeArchive } from "#shared/ports/archive.ts";
import type { RescuedVolume } from "#shared/ports/bucket-administration.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { RemoteBeginning } from "#shared/ports/replica-home.ts";
import { manifestEveryMs } from "../../../services/archiver/engine/manifest-pace.ts";
import { type BucketKeeper, openKeeper, openRescuer } from "../../../services/archiver/keeper-layer.ts";
import { Archiver } from "../../../services/archiver/layer.ts";
import { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import type { SessionTerms, VolumeParts } from "../../../services/gateway/engine/volume-parts.ts";
import { VolumeSession } from "../../../services/gateway/engine/volume-session.ts";
import { makeRescuedFiles } from "../../../services/gateway/rescued-volume.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { overriding } from "../mutant.ts";
import type { PastWorld } from "./past-world.ts";
import type { VolumeLedger } from "./volume-ledger.ts";

export const dataDirectory = "/data";

export interface ServedVolume {
  readonly name: string;
  readonly ledger: VolumeLedger;
  readonly session: VolumeSession;
  archive: VolumeArchive | null;
  closed: boolean;
}

export interface ProcessEvents {
  halted(volume: string, error: VarveError): void;
  /** The log of a volume was opened again: is everything answered required, or only what was promised? */
  answeredMustBeThere(): boolean;
}

export class PastProcess {
  readonly host: VolumeHost;
  readonly store: FileStore;
  readonly objects: ObjectStore;
  readonly histories: Histories;
  readonly archiver: Archiver;
  readonly replicas: RawReplicas;
  readonly pool: SlabPool;
  readonly keeper: BucketKeeper;
  /** By volume id. */
  readonly volumes: Map<string, ServedVolume>;

  private constructor(parts: Omit<PastProcess, "close" | "rescue">) {
    this.host = parts.host;
    this.store = parts.store;
    this.objects = parts.objects;
    this.histories = parts.histories;
    this.archiver = parts.archiver;
    this.replicas = parts.replicas;
    this.pool = parts.pool;
    this.keeper = parts.keeper;
    this.volumes = parts.volumes;
  }

  static async open(world: PastWorld, events: ProcessEvents): Promise<PastProcess> {
    const { scheduler, mutant, plan } = world;
    const { clock } = scheduler;
    const store = world.newStore();
    const place = { scheduler, store };
    const objects = mutant.objects(openSimulatedObjectStore(world.bucket, clock, world.random.fork()), place);
    const volumes = new Map<string, ServedVolume>();
    const archiver = new Archiver({
      store: objects,
      clock,
      random: world.random.fork(),
      slabs: store,
      worker: new InlineArchiveWorker(),
      options: {
        level: 1,
        settleMs: mutant.settleMs ?? plan.settleMs + settleMarginMs,
        segmentRecordBytes: plan.segmentRecordBytes,
        segmentAgeMs: plan.segmentAgeMs,
        // Worlds of both kinds: each segment with a manifest of its own, and many in one.
        manifestEveryMs: plan.segmentAgeMs < 1000 ? 0 : manifestEveryMs,
        baseLogBytesMin: plan.baseLogBytesMin,
      },
    });
    const histories = new Histories({
      store: objects,
      clock,
      openFrame: async (stored, frame) => openFrame(stored, frame),
    });
    const pool = new SlabPool(store, clock, payloadBytesMax);
    const replicas = new RawReplicas({ store, clock, dataDirectory });
    const watched = overriding(mutant.archiver(archiver, place), {
      open: async (subject) => {
        const archive = await mutant.archiver(archiver, place).open(subject);
        const volume = volumes.get(subject.record.id);
        if (volume !== undefined) volume.archive = archive;
        return archive;
      },
    });
    const parts: VolumeParts = {
      homes: {
        archiver: watched,
        histories: mutant.histories(histories),
        onNote: (text) => world.note(text),
      },
      keepsLog: true,
      tending: { capacity: null, fillBytesPerSecond: null },
      createImage: async (record, paths, begin) => {
        beginLedger(world, record, begin);
        await replicas.create(record, paths, begin);
      },
      openSession: async (record, paths, terms) => {
        const volume = await openSession({ world, events, store, pool, replicas }, record, paths, terms);
        volumes.set(record.id, volume);
        return volume.session;
      },
      image: () => {
        throw new Error("no image is repaired in this world");
      },
    };
    const host = await VolumeHost.open({
      dataDirectory,
      create: true,
      store,
      catalog: new FileVolumeCatalog(store, dataDirectory),
      clock,
      random: world.random.fork(),
      parts,
      memory: pool,
    });
    const keeper = openKeeper({
      store: objects,
      archiver,
      histories,
      clock,
      random: world.random.fork(),
      who: "simulated 1",
      kept: () => host.kept().map((volume) => mutant.kept(volume)),
      pointsInUse: (volumeId) => {
        const used = host.pointsInUse().flatMap((point) => (point.volumeId === volumeId ? [point.lsn] : []));
        return mutant.forgetsPoints ? [] : used;
      },
      startJob: (kind, volume) => host.jobs.start(kind, volume),
      allocateSlab: (bytes) => store.allocateSlab(bytes),
      bringBack: async (record, takeLine) => {
        let reached: RescuedVolume | null = null;
        await host.bringBack(record, async (paths) => {
          const plan = mutant.plan(await takeLine());
          const rescued = { store, clock, random: world.random.fork(), replicas, writer: "undelete" };
          await makeRescuedFiles(rescued, plan, paths);
          reached = plan.reached;
        });
        if (reached === null) throw new Error("a volume that came back was prepared");
        return reached;
      },
      settling: host.settling,
      onNote: (text) => world.note(text),
      bucketBytesMax: null,
      grace: {
        supersededManifestMs: plan.graceMs,
        unnamedObjectMs: 2 * plan.graceMs,
        deletedVolumeMs: 4 * plan.graceMs,
      },
    });
    return new PastProcess({ host, store, objects, histories, archiver, replicas, pool, keeper, volumes });
  }

  /** Brings every volume back that the bucket has, on a machine without any; says which entry each one reached. */
  async rescue(world: PastWorld): Promise<ReadonlyMap<string, number>> {
    const { host, store, objects, replicas } = this;
    const { clock } = world.scheduler;
    const random = world.random.fork();
    const rescuer = openRescuer(objects, clock, random);
    const reached = new Map<string, number>();
    const { live } = await rescuer.find();
    for (const { manifest } of live) {
      if (host.list().some(({ id }) => id === manifest.volumeId)) continue;
      await host.bringBack(rescuer.recordOf(manifest), async (paths) => {
        const plan = await rescuer.takeLine(manifest.volumeId);
        reached.set(manifest.volumeId, plan.reached.lsn);
        await makeRescuedFiles({ store, clock, random, replicas, writer: "rescue" }, plan, paths);
      });
    }
    return reached;
  }

  /** In the order of single-machine.ts. */
  async close(): Promise<void> {
    await this.keeper.close();
    await this.host.close();
    await this.archiver.close();
    await this.histories.close();
    await this.replicas.close();
    await this.objects.close();
  }
}

const payloadBytesMax = 24 * 1024 * 1024;
/** What is believed after the settle time must be beyond what a power loss can take. */
const settleMarginMs = 10;

/** A new volume, or one that a rescue brings back and whose ledger is there. */
function beginLedger(world: PastWorld, record: VolumeRecord, begin: RemoteBeginning | undefined): void {
  if (begin !== undefined && begin.appliedLsn > 0) return;
  const origin =
    begin === undefined ? null : { ledger: world.ledgerOf(begin.point.volumeId), lsn: begin.point.lsn };
  world.addLedger(record.id, record.name, { sizeBytes: record.sizeBytes, origin });
}

interface SessionSetting {
  readonly world: PastWorld;
  readonly events: ProcessEvents;
  readonly store: FileStore;
  readonly pool: SlabPool;
  readonly replicas: RawReplicas;
}

async function openSession(
  { world, events, store, pool, replicas }: SessionSetting,
  record: VolumeRecord,
  paths: VolumePaths,
  terms: SessionTerms,
): Promise<ServedVolume> {
  const { scheduler, plan, mutant } = world;
  const { clock } = scheduler;
  const ledger = world.ledgerOf(record.id);
  const image = mutant.image(await replicas.attach(record, paths, terms.sources), terms.sources, {
    scheduler,
    store,
  });
  const session = await VolumeSession.open({
    name: record.name,
    durability: record.durability,
    log: new EmbeddedFileLog({
      store,
      clock,
      random: world.random.fork(),
      directory: paths.log,
      volumeId: record.id,
      options: plan.log,
    }),
    image,
    pool,
    admission: replicas.admission,
    feed: (handlers) => replicas.feed(image, handlers),
    tend: (options) => replicas.tend(image, options),
    archived: terms.archived,
    logBytesMax: plan.log.logBytesMax,
    writer: "simulated 1",
    onHalted: (error) => events.halted(record.name, error),
  });
  const log = session.hotLog();
  const { durableLsn } = log.state();
  if (durableLsn > ledger.lastLsn) {
    for await (const batch of log.read(ledger.lastLsn + 1)) ledger.takeLogged(batch, scheduler.nowMs);
  }
  ledger.judgeReopened(events.answeredMustBeThere(), durableLsn);
  ledger.beginSession();
  log.follow((batch) => {
    invariant(batch instanceof BatchDraft, "a session tells of its writer's drafts");
    ledger.takeDraft(batch, scheduler.nowMs);
  });
  world.throwFailure();
  return { name: record.name, ledger, session, archive: null, closed: false };
}
