/*
 * All replicas of one storage node: keeps those that placements give it, closes those that go and removes their files, says where
 * each stands. Made by the storage process's layer (node-layer.ts); below it kept-replica.ts, and unplaced-files.ts for what is
 * placed here no more. One volume's failure leaves the others alone.
 */
import type { PlacementRecord, ReplicaPlace } from "#shared/domain/cluster.ts";
import { replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import { volumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord, VolumeState } from "#shared/domain/volume.ts";
import { encodeMessage } from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock, Random, Timer } from "#shared/ports/clock.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { TendingLimits } from "#shared/ports/replica-home.ts";
import type { ScrubRun } from "#shared/ports/scrub.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { SharedPast } from "./kept-extents.ts";
import { KeptReplica } from "./kept-replica.ts";
import type { OpenPool } from "./open-pool.ts";
import { ReadGrant } from "./read-grant.ts";
import { mendSlotBytes } from "./replica-mend.ts";
import { ReadSlots } from "./replica-reads.ts";
import { type ScrubMeans, scrubSlotBytes } from "./replica-scrub.ts";
import { removeUnplaced } from "./unplaced-files.ts";

export type { OpenPool } from "./open-pool.ts";

export interface ReplicaSetOptions {
  readonly node: string;
  readonly host: string;
  readonly pools: readonly OpenPool[];
  readonly store: FileStore;
  readonly clock: Clock;
  /** For direct reads by gateways on this host; without it they ask for each read. */
  readonly random?: Random;
  readonly catalog: Pick<VolumeCatalog, "list">;
  readonly map: Pick<ClusterMap, "placementOf" | "changePlacement">;
  readonly bus: MessageBus;
  readonly logOf: (volumeId: string) => LogFollower;
  /** What the bucket has, to fill replicas from; null or none: they are filled from other nodes. */
  readonly archived?: ArchivedImages | null;
  /** Policy, held base and pins of volumes; absent: none is tiered. */
  readonly past?: SharedPast & Pick<PastRecords, "onChange">;
  /** How a replica is scrubbed; absent: it is compared with others only. */
  readonly scrub?: ScrubRun;
  /** A tiered image that takes more loses its coldest extents before their time; null or none: no such mark. */
  readonly imageBytesMax?: number | null;
  /** Only this volume; null: all that are placed here. */
  readonly only: string | null;
  /** Bytes a second that each fill copies at most; null: as fast as it goes. */
  readonly fillBytesPerSecond: number | null;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

/** One that settles may be taken back, and its archiver still reads it. */
const keptStates: ReadonlySet<VolumeState> = new Set(["active", "arriving", "settling"]);

const noPast: SharedPast = { historyOf: () => null, archiveOf: () => null, changeHistory: async () => null };

/** States go out at most this often. */
const stateGapMs = 2;
const retryMs = 2000;

export class ReplicaSet {
  readonly #options: ReplicaSetOptions;
  readonly #readSlots: ReadSlots;
  readonly #copySlots: ReadSlots;
  readonly #remoteSlots: ReadSlots;
  readonly #mendSlots: ReadSlots;
  readonly #scrub: ScrubMeans | null;
  readonly #noteSlab: Slab;
  readonly #kept = new Map<string, KeptReplica>();
  readonly #statesQueued = new Set<KeptReplica>();
  /** What could not be placed or removed, and why; tried again at each change and now and then. */
  readonly #failures = new Map<string, VarveError>();
  /** Why files stay that should go, as it was told. */
  #staying: ReadonlySet<string> = new Set();
  readonly #past: SharedPast;
  readonly #unfollow: (() => void) | null;
  #turn: Promise<void> = Promise.resolve();
  #closing = false;
  #stateTimer: Timer | null = null;
  #retryTimer: Timer | null = null;

  constructor(options: ReplicaSetOptions) {
    this.#options = options;
    this.#readSlots = new ReadSlots((bytes) => options.store.allocateSlab(bytes), limits.replicaReadsMax);
    this.#copySlots = new ReadSlots((bytes) => options.store.allocateSlab(bytes), limits.replicaCopiesMax);
    this.#remoteSlots = new ReadSlots(
      (bytes) => options.store.allocateSlab(bytes),
      limits.bucketFill.cloneReadsMax,
    );
    const allocate = (bytes: number): Slab => options.store.allocateSlab(bytes);
    this.#mendSlots = new ReadSlots(allocate, limits.scrub.mendsMax, mendSlotBytes);
    const slots = new ReadSlots(allocate, limits.scrub.runsMax, scrubSlotBytes);
    this.#scrub = options.scrub === undefined ? null : { run: options.scrub, slots };
    this.#noteSlab = options.store.allocateSlab(limits.blockBytes);
    this.#past = options.past ?? noPast;
    this.#unfollow = options.past?.onChange((id) => this.#kept.get(id)?.policyChanged()) ?? null;
    this.#tellAllLater();
  }

  /** Opens and closes what the catalogue says now. Resolves when each was opened or has a failure; never rejects. */
  async reconcile(): Promise<void> {
    const turn = this.#turn.then(() => this.#reconcile());
    this.#turn = turn;
    await turn;
  }

  /** One per replica that is kept here. */
  reports(): readonly (ReplicaReport & { readonly volume: string })[] {
    return [...this.#kept.values()].map((replica) => ({
      volume: replica.record.name,
      ...replica.report(),
    }));
  }

  failures(): readonly { readonly volumeId: string; readonly error: VarveError }[] {
    const closed = [...this.#kept].flatMap(([volumeId, { failure }]) =>
      failure === null ? [] : [{ volumeId, error: failure }],
    );
    return [...closed, ...[...this.#failures].map(([volumeId, error]) => ({ volumeId, error }))];
  }

  /** Checkpoints and detaches every image. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#unfollow?.();
    this.#stateTimer?.cancel();
    this.#retryTimer?.cancel();
    await this.#turn;
    await Promise.all([...this.#kept.values()].map(async (replica) => replica.close()));
  }

  async #reconcile(): Promise<void> {
    if (this.#closing) return;
    const { catalog, map, node, only } = this.#options;
    this.#failures.clear();
    const wanted = new Map<string, VolumeRecord>();
    for (const record of catalog.list()) {
      const place = placeOn(map.placementOf(record.id), node);
      if (place === null || (only !== null && record.name !== only)) continue;
      if (record.state === "deleting") await this.#forget(record, place);
      else if (keptStates.has(record.state)) wanted.set(record.id, record);
    }
    for (const [id, replica] of this.#kept) {
      const place = wanted.has(id) ? placeOn(map.placementOf(id), node) : null;
      if (place?.pool !== replica.place.pool) await this.#close(replica);
    }
    for (const record of wanted.values()) {
      if (!this.#kept.has(record.id) && !this.#closing) await this.#keep(record);
    }
    const staying = await removeUnplaced(this.#options, (id) => this.#kept.has(id)).catch(
      (cause: unknown) => [toVarveError(cause, "remove files of replicas that went")],
    );
    const told = this.#staying;
    this.#staying = new Set(staying.map(({ message }) => message));
    for (const message of this.#staying) if (!told.has(message)) this.#options.onNote(`warning: ${message}`);
    this.#retryTimer?.cancel();
    if (this.#failures.size === 0 && staying.length === 0) return;
    this.#retryTimer = this.#options.clock.after(retryMs, () => {
      this.reconcile().catch(() => undefined); // it never rejects
    });
  }

  async #keep(record: VolumeRecord): Promise<void> {
    const { map, node, store, clock, bus, host, logOf, onNote } = this.#options;
    const placement = map.placementOf(record.id);
    const place = placeOn(placement, node);
    if (placement === null || place === null) return;
    try {
      const pool = this.#poolOf(place);
      const replica: KeptReplica = new KeptReplica({
        node,
        host,
        record,
        pool,
        paths: volumePaths(pool.dataDirectory, record.name),
        beginBytes: placement.beginBytes,
        origin: placement.origin ?? null,
        store,
        clock,
        bus,
        log: logOf(record.id),
        readSlots: this.#readSlots,
        copySlots: this.#copySlots,
        remoteSlots: this.#remoteSlots,
        tending: this.#tending(),
        mendSlots: this.#mendSlots,
        scrub: this.#scrub,
        past: this.#past,
        archived: this.#options.archived ?? null,
        peers: () => (map.placementOf(record.id)?.replicas ?? []).filter((one) => one.node !== node),
        onChange: () => this.#changed(record.id),
        onNote,
        openGrant: (path) => this.#openGrant(path),
      });
      this.#kept.set(record.id, replica);
      await replica.opened();
    } catch (cause) {
      const error = toVarveError(cause, `open the replica of ${record.name}`);
      this.#failures.set(record.id, error);
      onNote(`warning: the replica of ${record.name} is not open: ${error.message}`);
    }
  }

  /** One that is too large loses a tenth of the mark, so that it is not looked through each minute. */
  #tending(): TendingLimits {
    const { fillBytesPerSecond, imageBytesMax = null } = this.#options;
    const capacity =
      imageBytesMax === null ? null : { highBytes: imageBytesMax, lowBytes: imageBytesMax * 0.9 };
    return { capacity, fillBytesPerSecond };
  }

  async #openGrant(imagePath: string): Promise<ReadGrant | null> {
    const { store, random } = this.#options;
    return random === undefined ? null : await ReadGrant.open(store, random, imagePath, this.#noteSlab);
  }

  #poolOf(place: ReplicaPlace): OpenPool {
    const pool = this.#options.pools.find((one) => one.name === place.pool);
    if (pool !== undefined) return pool;
    throw new VarveError("PoolMissing", "Invalid", `this node has no pool ${place.pool}`, {
      hint: `Start it with that pool again: --pool ${place.pool}:DIR.`,
      fields: { pool: place.pool },
    });
  }

  async #close(replica: KeptReplica): Promise<void> {
    this.#kept.delete(replica.record.id);
    await replica.close();
  }

  /** The user was told that it goes: its files, then this node's place, so that the last one ends the work. */
  async #forget(record: VolumeRecord, place: ReplicaPlace): Promise<void> {
    const { store, map, node, onNote } = this.#options;
    const kept = this.#kept.get(record.id);
    if (kept !== undefined) await this.#close(kept);
    try {
      const pool = this.#poolOf(place);
      await store.removeTree(volumePaths(pool.dataDirectory, record.name).directory);
      await map.changePlacement(record.id, (present) =>
        present === null
          ? null
          : { ...present, replicas: present.replicas.filter((one) => one.node !== node) },
      );
    } catch (cause) {
      const error = toVarveError(cause, `remove the replica of ${record.name}`);
      this.#failures.set(record.id, error);
      onNote(`warning: the replica of ${record.name} is not removed: ${error.message}`);
    }
  }

  /** Tells soon; many changes in a row are told once. */
  #changed(volumeId: string): void {
    const replica = this.#kept.get(volumeId);
    if (replica === undefined || this.#statesQueued.has(replica)) return;
    this.#statesQueued.add(replica);
    this.#options.clock.after(stateGapMs, () => {
      this.#statesQueued.delete(replica);
      if (this.#kept.get(volumeId) === replica) this.#tell(replica);
    });
  }

  #tell(replica: KeptReplica): void {
    const { bus, node } = this.#options;
    const message = encodeMessage({ type: "state", report: replica.report() });
    bus.publish(replicaStateSubject(replica.record.id, node), message);
  }

  #tellAllLater(): void {
    this.#stateTimer = this.#options.clock.after(limits.replicaStateMs, () => {
      for (const replica of this.#kept.values()) this.#tell(replica);
      if (!this.#closing) this.#tellAllLater();
    });
  }
}

function placeOn(placement: PlacementRecord | null, node: string): ReplicaPlace | null {
  return placement?.replicas.find((place) => place.node === node) ?? null;
}
