/*
 * All replicas of one storage node: makes and opens those that placements give it, closes those that go, answers reads, says where
 * each stands. Made by the storage process's layer (node-layer.ts); below it replica-follower.ts and replica-reads.ts. One volume's
 * failure leaves the others alone.
 */
import type { PlacementRecord, ReplicaPlace } from "#shared/domain/cluster.ts";
import { replicaReadSubject, replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import { checkpointPathOf, type VolumePaths, volumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { encodeMessage } from "#shared/formats/replica-message.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus, Subscription } from "#shared/ports/message-bus.ts";
import type { ReplicaHome } from "#shared/ports/replica-home.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { ReplicaFollower } from "./replica-follower.ts";
import { answerRead, ReadSlots } from "./replica-reads.ts";

/** A pool as the set uses it: locked, its room watched. */
export interface OpenPool {
  readonly name: string;
  readonly dataDirectory: string;
  readonly replicas: ReplicaHome;
  roomBytes(): number;
}

export interface ReplicaSetOptions {
  readonly node: string;
  readonly host: string;
  readonly pools: readonly OpenPool[];
  readonly store: FileStore;
  readonly clock: Clock;
  readonly catalog: Pick<VolumeCatalog, "list">;
  readonly map: Pick<ClusterMap, "placementOf" | "changePlacement">;
  readonly bus: MessageBus;
  readonly logOf: (volumeId: string) => LogFollower;
  /** Only this volume; null: all that are placed here. */
  readonly only: string | null;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

interface OpenReplica {
  readonly record: VolumeRecord;
  readonly pool: OpenPool;
  readonly paths: VolumePaths;
  readonly follower: ReplicaFollower;
  readonly served: Subscription;
  stateQueued: boolean;
}

/** States go out at most this often. */
const stateGapMs = 2;
const retryMs = 2000;

export class ReplicaSet {
  readonly #options: ReplicaSetOptions;
  readonly #slots: ReadSlots;
  readonly #open = new Map<string, OpenReplica>();
  /** Replicas that could not be opened, and why; tried again at each change and now and then. */
  readonly #failures = new Map<string, VarveError>();
  #turn: Promise<void> = Promise.resolve();
  #closing = false;
  #stateTimer: Timer | null = null;
  #retryTimer: Timer | null = null;

  constructor(options: ReplicaSetOptions) {
    this.#options = options;
    this.#slots = new ReadSlots((bytes) => options.store.allocateSlab(bytes));
    this.#tellAllLater();
  }

  /** Opens and closes what the catalogue says now. Resolves when each was opened or has a failure; never rejects. */
  async reconcile(): Promise<void> {
    const turn = this.#turn.then(() => this.#reconcile());
    this.#turn = turn;
    await turn;
  }

  /** One per replica that is open, and one per failure. */
  reports(): readonly (ReplicaReport & { readonly volume: string })[] {
    return [...this.#open.values()].map(({ record, follower }) => ({
      volume: record.name,
      ...follower.report(),
    }));
  }

  failures(): readonly { readonly volumeId: string; readonly error: VarveError }[] {
    return [...this.#failures].map(([volumeId, error]) => ({ volumeId, error }));
  }

  /** Checkpoints and detaches every image. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#stateTimer?.cancel();
    this.#retryTimer?.cancel();
    await this.#turn;
    await Promise.all([...this.#open.values()].map(async (replica) => this.#close(replica)));
  }

  async #reconcile(): Promise<void> {
    if (this.#closing) return;
    const { catalog, map, node, only } = this.#options;
    const wanted = new Map<string, VolumeRecord>();
    this.#failures.clear();
    for (const record of catalog.list()) {
      const place = placeOn(map.placementOf(record.id), node);
      if (place === null || (only !== null && record.name !== only)) continue;
      if (record.state === "deleting") await this.#forget(record, place);
      else if (record.state === "active") wanted.set(record.id, record);
    }
    for (const replica of this.#open.values()) {
      if (!wanted.has(replica.record.id)) await this.#close(replica);
    }
    for (const record of wanted.values()) {
      if (!this.#open.has(record.id) && !this.#closing) await this.#tryOpen(record);
    }
    this.#retryTimer?.cancel();
    if (this.#failures.size === 0) return;
    this.#retryTimer = this.#options.clock.after(retryMs, () => {
      this.reconcile().catch(() => undefined); // it never rejects
    });
  }

  async #tryOpen(record: VolumeRecord): Promise<void> {
    const { map, node } = this.#options;
    const placement = map.placementOf(record.id);
    const place = placeOn(placement, node);
    if (placement === null || place === null) return;
    try {
      await this.#openReplica(record, placement, place);
    } catch (cause) {
      const error = toVarveError(cause, `open the replica of ${record.name}`);
      this.#failures.set(record.id, error);
      this.#options.onNote(`warning: the replica of ${record.name} is not open: ${error.message}`);
    }
  }

  async #openReplica(record: VolumeRecord, placement: PlacementRecord, place: ReplicaPlace): Promise<void> {
    const { node, host, store, clock, bus, logOf } = this.#options;
    const pool = this.#poolOf(place);
    const paths = volumePaths(pool.dataDirectory, record.name);
    if ((await store.readWhole(checkpointPathOf(paths.image))) === null) {
      await store.makeDirectory(paths.directory);
      await pool.replicas.create({ ...record, sizeBytes: placement.beginBytes }, paths);
    }
    const image = await pool.replicas.attach(record, paths);
    const follower = new ReplicaFollower({
      node,
      host,
      image,
      log: logOf(record.id),
      clock,
      feed: (attached, handlers) => pool.replicas.feed(attached, handlers),
      roomBytes: () => pool.roomBytes(),
      onChange: () => this.#changed(record.id),
    });
    const served = bus.serve(replicaReadSubject(record.id, node), async (data) =>
      answerRead(data, follower, this.#slots),
    );
    this.#open.set(record.id, { record, pool, paths, follower, served, stateQueued: false });
    follower.start();
    this.#changed(record.id);
  }

  #poolOf(place: ReplicaPlace): OpenPool {
    const pool = this.#options.pools.find((one) => one.name === place.pool);
    if (pool !== undefined) return pool;
    throw new VarveError("PoolMissing", "Invalid", `this node has no pool ${place.pool}`, {
      hint: `Start it with that pool again: --pool ${place.pool}:DIR.`,
      fields: { pool: place.pool },
    });
  }

  async #close(replica: OpenReplica): Promise<void> {
    this.#open.delete(replica.record.id);
    replica.served.close();
    await replica.follower.close();
    const { failure } = replica.follower;
    if (failure !== null) this.#options.onNote(`warning: ${replica.record.name}: ${failure.message}`);
  }

  /** The user was told that it goes: its files, then this node's place, so that the last one ends the work. */
  async #forget(record: VolumeRecord, place: ReplicaPlace): Promise<void> {
    const { store, map, node, onNote } = this.#options;
    const open = this.#open.get(record.id);
    if (open !== undefined) await this.#close(open);
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
    const replica = this.#open.get(volumeId);
    if (replica === undefined || replica.stateQueued) return;
    replica.stateQueued = true;
    this.#options.clock.after(stateGapMs, () => {
      replica.stateQueued = false;
      if (this.#open.get(volumeId) === replica) this.#tell(replica);
    });
  }

  #tell({ record, follower }: OpenReplica): void {
    const { bus, node } = this.#options;
    const message = encodeMessage({ type: "state", report: follower.report() });
    bus.publish(replicaStateSubject(record.id, node), message);
  }

  #tellAllLater(): void {
    this.#stateTimer = this.#options.clock.after(limits.replicaStateMs, () => {
      for (const replica of this.#open.values()) this.#tell(replica);
      if (!this.#closing) this.#tellAllLater();
    });
  }
}

function placeOn(placement: PlacementRecord | null, node: string): ReplicaPlace | null {
  return placement?.replicas.find((place) => place.node === node) ?? null;
}
