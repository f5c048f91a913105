/*
 * The gateway of one process as resources: volumes behind a data directory, and the NBD server in front of them. Here the
 * engines meet their adapters. services/cli/single-machine.ts calls it with the storage side (ReplicaHome) that it wired.
 */
import { FileVolumeCatalog } from "#shared/adapters/volume-catalog/file.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import type { VolumePaths } from "#shared/domain/data-layout.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import type { SlabPool } from "#shared/memory/slab-pool.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ConnectionRegister, ConnectionView } from "#shared/ports/connection-register.ts";
import type { Failpoint } from "#shared/ports/failpoint.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { RemoteBeginning, ReplicaHome, TendingLimits } from "#shared/ports/replica-home.ts";
import type { ListenAddress } from "#shared/shell/listen-address.ts";
import { JobRegister } from "./engine/job-register.ts";
import { NbdServer } from "./engine/nbd-server.ts";
import { VolumeHost } from "./engine/volume-host.ts";
import type { SessionTerms, VolumeParts } from "./engine/volume-parts.ts";
import type { PastHomes } from "./engine/volume-past.ts";
import { VolumeSession } from "./engine/volume-session.ts";

export type { PastHomes, VolumeHost };
export { JobRegister };

export interface GatewayEvents {
  /** Log or image of a served volume stopped. */
  halted(volume: string, error: VarveError): void;
  /** A volume that is being opened applies its log: called at most once a second. */
  replaying(volume: string, appliedLsn: number, lastLsn: number): void;
}

export interface GatewaySetup {
  readonly dataDirectory: string;
  readonly create: boolean;
  readonly store: FileStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly pool: SlabPool;
  readonly replicas: ReplicaHome;
  /**
   * Archiver and readers of the past, asked for from host.serve() on; null with `--bucket none`, and for commands that work on
   * files. Not there from the beginning, because a bucket inside the data directory waits for its lock.
   */
  readonly homes: () => PastHomes | null;
  /** The log waits for a bucket, also while nothing archives it (commands that work on files). */
  readonly keepsLog: boolean;
  /** Limits of filling and tiering. */
  readonly tending: TendingLimits;
  /** Who writes, for the epoch entries: host and pid. */
  readonly writer: string;
  readonly logBytesMax: number;
  readonly logRetainedBytes: number;
  readonly events: GatewayEvents;
  readonly failpoint?: Failpoint;
}

/** Opens the data directory. Volumes are served from host.serve() on. */
export async function openHost(setup: GatewaySetup): Promise<VolumeHost> {
  const { dataDirectory, create, store, clock, random } = setup;
  const catalog = new FileVolumeCatalog(store, dataDirectory);
  return await VolumeHost.open({
    dataDirectory,
    create,
    store,
    catalog,
    clock,
    random,
    parts: partsOf(setup),
    memory: setup.pool,
  });
}

function partsOf(setup: GatewaySetup): VolumeParts {
  const { replicas } = setup;
  const logOf = (record: VolumeRecord, paths: VolumePaths): EmbeddedFileLog =>
    new EmbeddedFileLog({
      store: setup.store,
      clock: setup.clock,
      random: setup.random,
      directory: paths.log,
      volumeId: record.id,
      options: { logBytesMax: setup.logBytesMax, retainedBytes: setup.logRetainedBytes },
    });
  return {
    get homes() {
      return setup.homes();
    },
    keepsLog: setup.keepsLog,
    tending: setup.tending,
    createImage: async (record: VolumeRecord, paths: VolumePaths, begin?: RemoteBeginning) =>
      replicas.create(record, paths, begin),
    openSession: async (record: VolumeRecord, paths: VolumePaths, terms: SessionTerms) => {
      const image = await replicas.attach(record, paths, terms.sources);
      return await VolumeSession.open({
        name: record.name,
        durability: record.durability,
        log: logOf(record, paths),
        image,
        pool: setup.pool,
        admission: replicas.admission,
        feed: (handlers) => replicas.feed(image, handlers),
        tend: (options) => replicas.tend(image, options),
        archived: terms.archived,
        logBytesMax: setup.logBytesMax,
        writer: setup.writer,
        ...(setup.failpoint === undefined ? {} : { failpoint: setup.failpoint }),
        onHalted: (error) => setup.events.halted(record.name, error),
        onReplay: onReplay(record.name, setup),
      });
    },
    image: async (operation, record, paths) =>
      replicas.repair(operation, record, paths, logOf(record, paths)),
  };
}

/** Replay of a long log is worth a word each second; of a short one, none. */
function onReplay(name: string, setup: GatewaySetup): (appliedLsn: number, lastLsn: number) => void {
  const everyMs = 1000;
  let toldMs = setup.clock.monotonicMs();
  return (appliedLsn, lastLsn) => {
    if (setup.clock.monotonicMs() - toldMs < everyMs) return;
    toldMs = setup.clock.monotonicMs();
    setup.events.replaying(name, appliedLsn, lastLsn);
  };
}

export interface NbdSetup {
  readonly host: VolumeHost;
  readonly store: FileStore;
  readonly clock: Clock;
  readonly foreground: ForegroundLoad;
  readonly addresses: readonly ListenAddress[];
  readonly connectionsMax: number;
}

/** Requests under way at shutdown get this long; then the connection is cut. */
const drainMs = 20_000;

/** A listening NBD server, as those who watch it see it. */
export class NbdGateway implements ConnectionRegister {
  private readonly server: NbdServer;

  private constructor(server: NbdServer) {
    this.server = server;
  }

  static async start(setup: NbdSetup): Promise<NbdGateway> {
    const server = new NbdServer({
      directory: setup.host.exports,
      listen: setup.addresses.map((one) =>
        one.kind === "unix" ? { path: one.path } : { host: one.host, port: one.port },
      ),
      clock: setup.clock,
      slabs: setup.store,
      foreground: setup.foreground,
      connectionsMax: setup.connectionsMax,
    });
    setup.host.connectionsAre(server);
    await server.start();
    return new NbdGateway(server);
  }

  connections(): readonly ConnectionView[] {
    return this.server.connections().map((facts) => ({
      volume: facts.exportName,
      peer: facts.peer,
      requestsInFlight: facts.inFlight,
      unsentBytes: facts.unsentBytes,
      counters: { ...facts.counters },
    }));
  }

  totals(): Readonly<Record<string, number>> {
    return Object.fromEntries(Object.entries(this.server.counters()));
  }

  /** Accepts nobody more, answers what is under way, closes. */
  async stop(): Promise<void> {
    await this.server.drain(drainMs);
    this.server.close();
  }
}
