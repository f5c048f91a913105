/*
 * One replica that a placement gives this node, for as long as it does: makes or opens its image, follows the log with it, fills it from
 * the bucket or other nodes where the log no longer goes on, and answers whoever asks about it. Made by replica-set.ts; below it
 * replica-follower.ts and replica-fill.ts, one at a time. Rules: docs/specs/replica-fill.md, of clones docs/specs/cluster.md#clones.
 *
 *   opening ─► following ─log released, repair─► filling ─► opening      any ─can't─► failed ─some seconds─► opening
 */
import type { PlacementOrigin, ReplicaPlace } from "#shared/domain/cluster.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { checkpointPathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FillOrigin, ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus, Subscription } from "#shared/ports/message-bus.ts";
import type { TendingLimits } from "#shared/ports/replica-home.ts";
import type { LocalReplica } from "#shared/ports/replica-image.ts";
import { FillFromBucket } from "./fill-from-bucket.ts";
import { FillFromPeers } from "./fill-from-peers.ts";
import { type FillSource, isToldAlready } from "./fill-source.ts";
import { beginningOf, KeptExtents, remoteSources, type SharedPast } from "./kept-extents.ts";
import type { OpenPool } from "./open-pool.ts";
import type { ReadGrant } from "./read-grant.ts";
import { type AnsweringReplica, answerCopyRequest, answerReadRequest } from "./replica-answers.ts";
import { findFill, keepFillOrigin, orderFill, ReplicaFill } from "./replica-fill.ts";
import { ReplicaFollower } from "./replica-follower.ts";
import { noBucket } from "./replica-reach.ts";
import type { ReadSlots } from "./replica-reads.ts";
import type { ScrubMeans } from "./replica-scrub.ts";

export interface KeptReplicaOptions {
  readonly node: string;
  readonly host: string;
  readonly record: VolumeRecord;
  readonly pool: OpenPool;
  readonly paths: VolumePaths;
  /** Size of the disk before entry 1. */
  readonly beginBytes: number;
  /** What it is before its first entry, of a clone or one that was undeleted; null: all zero. */
  readonly origin: PlacementOrigin | null;
  readonly store: FileStore;
  readonly clock: Clock;
  readonly bus: MessageBus;
  readonly log: LogFollower;
  readonly readSlots: ReadSlots;
  readonly copySlots: ReadSlots;
  /** For reads that may wait for the bucket. */
  readonly remoteSlots: ReadSlots;
  readonly tending: TendingLimits;
  readonly mendSlots: ReadSlots;
  readonly scrub: ScrubMeans | null;
  /** Policy, held base and pins of the volume. */
  readonly past: SharedPast;
  /** What the bucket has; null: this node was given none. */
  readonly archived: ArchivedImages | null;
  /** Other nodes that keep a replica now. */
  readonly peers: () => readonly ReplicaPlace[];
  /** By which gateways on this host read the image at that path; null: they ask for each read. */
  readonly openGrant: (imagePath: string) => Promise<ReadGrant | null>;
  readonly onChange: () => void;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

const retryMs = 2000;

export class KeptReplica implements AnsweringReplica {
  readonly #options: KeptReplicaOptions;
  readonly #served: readonly Subscription[];
  readonly #stop = new AbortController();
  #follower: ReplicaFollower | null = null;
  /** Fetches and evicts; null: all of it is here, and stays. */
  #extents: KeptExtents | null = null;
  #fill: ReplicaFill | null = null;
  /** Why neither of them runs. */
  #failure: VarveError | null = null;
  #turn: Promise<void>;
  #retryTimer: Timer | null = null;
  /** What alone may fill it, as somebody chose; kept beside the fill. */
  #fillOrigin: FillOrigin | null = null;
  /** Ends the fill under way, which begins again from where somebody chose meanwhile. */
  #fillStop = new AbortController();
  /** Fills in a row that copied something and failed. */
  #failedCopies = 0;

  constructor(options: KeptReplicaOptions) {
    this.#options = options;
    const { bus, node, record, readSlots: slots } = options;
    const bring = async (offset: number, length: number): Promise<void> =>
      this.#extents?.bring(offset, length);
    const means = { ...options, slots, bring };
    this.#served = [
      bus.serve(replicaReadSubject(record.id, node), (data) => answerReadRequest(data, this, means)),
      bus.serve(replicaCopySubject(record.id, node), async (data) => answerCopyRequest(data, this, means)),
    ];
    this.#turn = this.#begin();
  }

  /** Resolves when it was opened, or has a failure. Never rejects. */
  async opened(): Promise<void> {
    await this.#turn;
  }

  get record(): VolumeRecord {
    return this.#options.record;
  }

  get place(): ReplicaPlace {
    return { node: this.#options.node, pool: this.#options.pool.name };
  }

  /** Why it is not open. */
  get failure(): VarveError | null {
    return this.#failure;
  }

  get follower(): ReplicaFollower | null {
    return this.#follower;
  }

  get extents(): KeptExtents | null {
    return this.#extents;
  }

  get isFilling(): boolean {
    return this.#fill !== null;
  }

  report(): ReplicaReport {
    if (this.#follower !== null) return { ...this.#follower.report(), ...this.#extents?.report() };
    const { node, host, pool, record, origin } = this.#options;
    // What failed before is told until another attempt gets further.
    const failure = this.#fill?.isCopying === true ? null : this.#failure;
    return {
      node,
      host,
      condition: failure !== null && failure.kind !== "Retry" ? "halted" : "filling",
      reason: failure?.message ?? this.#fill?.progress ?? "",
      appliedLsn: 0,
      checkpointLsn: 0,
      epoch: 0,
      sizeBytes: record.sizeBytes,
      allocatedBytes: this.#fill?.copiedBytes ?? 0,
      roomBytes: Math.max(0, Math.floor(pool.roomBytes())),
      // Until it is open nobody may count on it.
      ...(origin === null ? {} : { remoteExtents: Math.ceil(record.sizeBytes / limits.extentBytes) }),
    };
  }

  /** Checkpoints and detaches the image; a fill is left to be begun again. Never rejects. */
  async close(): Promise<void> {
    for (const served of this.#served) served.close();
    this.#stop.abort();
    this.#retryTimer?.cancel();
    await this.#turn;
    await this.#closeFollower();
  }

  /** One step after the other; the next one begins only when this one has ended. */
  #next(step: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.then(step);
    return this.#turn;
  }

  async #begin(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { store, paths, record, onNote } = this.#options;
    try {
      const { isWanted, from } = await findFill(store, paths);
      if (isWanted) this.#fillOrigin ??= from;
      if (isWanted || (await this.#isCopiedClone())) this.#startFill();
      else await this.#open(0);
    } catch (cause) {
      const error = toVarveError(cause, `open the replica of ${record.name}`);
      if (!isToldAlready(error, this.#failure)) {
        onNote(`warning: the replica of ${record.name} is not open: ${error.message}`);
      }
      this.#failed(error);
    }
  }

  /** A new replica of a clone on a node that does not read the bucket: an empty image would be another disk. */
  async #isCopiedClone(): Promise<boolean> {
    const { origin, archived, store, paths } = this.#options;
    if (origin === null || archived !== null) return false;
    return (await store.readWhole(checkpointPathOf(paths.image))) === null;
  }

  async #open(exactFromLsn: number): Promise<void> {
    const { node, host, record, pool, paths, beginBytes, origin, archived, store, clock, log } =
      this.#options;
    if ((await store.readWhole(checkpointPathOf(paths.image))) === null) {
      await store.makeDirectory(paths.directory);
      const begin = origin === null ? undefined : await beginningOf(record.id, origin, log);
      await pool.replicas.create({ ...record, sizeBytes: beginBytes }, paths, begin);
    }
    // Before the image changes: what was granted before a crash is void.
    const grant = await this.#options.openGrant(paths.image);
    const sources = remoteSources(node, archived);
    const image = await pool.replicas.attach(record, paths, sources).catch(async (cause: unknown) => {
      await grant?.close();
      throw cause;
    });
    this.#failure = null;
    const follower = new ReplicaFollower({
      node,
      host,
      image,
      log,
      clock,
      exactFromLsn,
      takesRebases: archived !== null,
      grant,
      feed: (attached, handlers) => pool.replicas.feed(attached, handlers),
      roomBytes: () => pool.roomBytes(),
      mayGrant: () => this.#extents?.mayLeave !== true,
      onChange: () => {
        this.#options.onChange();
        if (isFillDue(follower)) this.#fillSoon();
      },
    });
    this.#follower = follower;
    if (origin !== null || archived !== null) this.#extents = this.#tend(image, follower);
    follower.start();
    this.#options.onChange();
  }

  #tend(image: LocalReplica, follower: ReplicaFollower): KeptExtents {
    const { node, record, pool, clock, tending, archived, past, onChange, onNote } = this.#options;
    const { bus, scrub: means } = this.#options;
    const peers = (): readonly string[] => this.#options.peers().map((one) => one.node);
    return new KeptExtents({
      scrub: { means, bus, peers, follower },
      node,
      volumeId: record.id,
      replicas: pool.replicas,
      image,
      clock,
      archived,
      past,
      onChange,
      limits: tending,
      isExact: () => follower.exact,
      revokeReads: () => follower.revokeReads(),
      onLost: () => void this.refill(null).catch(() => undefined), // looked at again in a minute
      onNote: (text) => onNote(`the replica of ${record.name}: ${text}`),
    });
  }

  /** The volume's history record may say something else. */
  policyChanged(): void {
    this.#extents?.policyChanged();
  }

  /** The log no longer leads on from this replica; once there is a bucket or another one, that is copied. */
  #fillSoon(): void {
    if (this.#retryTimer !== null || this.#stop.signal.aborted) return;
    const look = (): void => {
      this.#retryTimer = null;
      if (!isFillDue(this.#follower)) return;
      if (this.#sources(null).length === 0) this.#fillSoon();
      // What keeps it from beginning (a full disk) may pass.
      else this.refill(null).catch(() => this.#fillSoon());
    };
    this.#retryTimer = this.#options.clock.after(this.#sources(null).length > 0 ? 0 : retryMs, look);
  }

  /** Fills it again, whatever it holds; that stays until the copy is whole. Rejects where the wish could not be kept. */
  async refill(from: FillOrigin | null): Promise<void> {
    const { store, paths, archived, node } = this.#options;
    if (from === "bucket" && archived === null) throw noBucket(node);
    const isOther = this.#fillOrigin !== from;
    this.#fillOrigin = from;
    await keepFillOrigin(store, paths, from);
    if (this.#fill !== null) {
      if (isOther) this.#fillStop.abort();
      return;
    }
    await orderFill(store, paths);
    await this.#next(async () => {
      if (this.#fill !== null || this.#stop.signal.aborted) return;
      await this.#closeFollower();
      this.#startFill();
    });
  }

  /** Goes on by itself; close() waits for its end. */
  #startFill(): void {
    const { record, paths, store, clock, pool, tending, onNote } = this.#options;
    this.#fillStop = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, this.#fillStop.signal]);
    const sources = this.#sources(this.#fillOrigin, signal);
    this.#retryTimer?.cancel();
    this.#retryTimer = null;
    const fill = new ReplicaFill(
      {
        volumeId: record.id,
        paths,
        sources,
        store,
        clock,
        roomBytes: () => pool.roomBytes(),
        bytesPerSecond: tending.fillBytesPerSecond,
        onChange: () => this.#options.onChange(),
        // Told once, not with each attempt.
        onNote: (text) => {
          if (this.#failure === null) onNote(`the replica of ${record.name}: ${text}`);
        },
      },
      signal,
    );
    this.#fill = fill;
    const from = sources.map(({ name }) => name).join(", else from ");
    if (this.#failure === null && from !== "") onNote(`the replica of ${record.name} is filled from ${from}`);
    const running = fill.run();
    // Not part of this step: whoever waits for opened() does not wait for the copy.
    void this.#afterFill(fill, running);
  }

  /** The bucket, whose copy costs the other nodes nothing, then the others. */
  #sources(from: FillOrigin | null, signal = this.#stop.signal): readonly FillSource[] {
    const { record, beginBytes, origin, bus, log, pool, archived: images } = this.#options;
    const common = { volumeId: record.id, log, signal };
    const peers = this.#options.peers().map(({ node }) => node);
    const sources: FillSource[] = [];
    if (images !== null && from !== "peers")
      sources.push(new FillFromBucket({ ...common, beginBytes, origin, images }));
    if (peers.length > 0 && from !== "bucket")
      sources.push(new FillFromPeers({ ...common, peers, bus, roomBytes: () => pool.roomBytes() }));
    return sources;
  }

  async #afterFill(fill: ReplicaFill, running: Promise<number>): Promise<void> {
    const { record, store, paths, onNote } = this.#options;
    const ended = running.then(
      (exactFromLsn) => ({ exactFromLsn }),
      (cause: unknown) => ({ error: toVarveError(cause, `fill the replica of ${record.name}`) }),
    );
    await this.#next(async () => {
      const end = await ended;
      this.#fill = null;
      if ("error" in end && this.#fillStop.signal.aborted && !this.#stop.signal.aborted) {
        this.#startFill();
        return;
      }
      if ("error" in end) {
        if (!isToldAlready(end.error, this.#failure) && !this.#stop.signal.aborted) {
          onNote(`warning: the replica of ${record.name} is not filled: ${end.error.message}`);
        }
        if (fill.copiedBytes > 0) this.#failedCopies += 1;
        this.#failed(end.error);
        return;
      }
      this.#failedCopies = 0;
      this.#fillOrigin = null;
      // Without a fill nobody looks at it, and the next order replaces it.
      await keepFillOrigin(store, paths, null).catch(() => undefined);
      onNote(`the replica of ${record.name} is filled`);
      if (this.#stop.signal.aborted) return;
      await this.#open(end.exactFromLsn).catch((cause: unknown) =>
        this.#failed(toVarveError(cause, "open the filled replica")),
      );
    });
  }

  #failed(error: VarveError): void {
    this.#failure = error;
    this.#options.onChange();
    if (this.#stop.signal.aborted || this.#retryTimer !== null) return;
    // What is copied in vain may cost money.
    const waitMs = Math.min(limits.replicaFillPatienceMs, retryMs * 2 ** Math.min(10, this.#failedCopies));
    this.#retryTimer = this.#options.clock.after(waitMs, () => {
      this.#retryTimer = null;
      void this.#next(async () => {
        if (this.#follower === null && this.#fill === null) await this.#begin();
      });
    });
  }

  async #closeFollower(): Promise<void> {
    const [follower, extents] = [this.#follower, this.#extents];
    this.#follower = null;
    this.#extents = null;
    await extents?.close();
    if (follower === null) return;
    await follower.close();
    const { failure } = follower;
    if (failure !== null) this.#options.onNote(`warning: ${this.record.name}: ${failure.message}`);
  }
}

function isFillDue(follower: ReplicaFollower | null): boolean {
  const tag = follower?.failure?._tag;
  return tag === "LogReleased" || tag === "RebaseNeedsBucket";
}
