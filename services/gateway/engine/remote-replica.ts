/*
 * The replicas of one volume on storage nodes, as a volume session reads them: asks the nearest that is new enough, another one
 * where that does not answer, and notices when somebody newer writes. Made by the cluster gateway's layer for each session; what
 * the nodes say comes as state messages (docs/specs/cluster.md). remote-feed.ts drops the overlay by what is applied here.
 */
import { replicaReadSubject, replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import { type ReplicaReport, roomOfReplicas } from "#shared/domain/replica-report.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReadRequest,
} from "#shared/formats/replica-message.ts";
import { messageMemory } from "#shared/memory/message-memory.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { MessageBus, Subscription } from "#shared/ports/message-bus.ts";
import type { AllocationRun, ReplicaImage, ReplicaState } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { type DirectFiles, DirectReads } from "./direct-reads.ts";
import { GatheredReads } from "./gathered-reads.ts";
import { badAnswer, noReplica, replicaFenced } from "./replica-errors.ts";
import { ShownReads } from "./shown-reads.ts";

export interface RemoteReplicaOptions {
  readonly bus: MessageBus;
  readonly clock: Clock;
  readonly volumeId: string;
  /** Storage nodes that keep a replica, by the placement as it is now; see setNodes(). */
  readonly nodes: readonly string[];
  /** This machine's name: a node on it is asked first. */
  readonly host: string;
  /** For reads of the image itself on this machine; without it every read is asked for. */
  readonly files?: DirectFiles;
  /** A replica has applied a newer writer's batches. */
  readonly onFenced: (error: VarveError) => void;
  /** How much of its room the log uses, 0 to 1: what only a lost replica needs is not kept for ever. */
  readonly logShare: () => number;
  readonly onClosed?: () => void;
}

interface Heard {
  report: ReplicaReport;
  atMs: number;
}

const answerMs = 1000;
/** A replica that is behind may wait so long for what is asked; the last one that there is to ask, longer: a refusal brings nobody further. */
const behindWaitMs = 200;
const lastBehindWaitMs = 800;
const againMs = 50;

export class RemoteReplica implements ReplicaImage {
  readonly #options: RemoteReplicaOptions;
  readonly #madeAtMs: number;
  #nodes: readonly string[];
  readonly #heard = new Map<string, Heard>();
  /** Nodes that failed to answer lately go to the end of the order. */
  readonly #failedAtMs = new Map<string, number>();
  readonly #listeners = new Set<() => void>();
  /** Of the node on this machine, once it was heard of. */
  #direct: { readonly node: string; readonly reads: DirectReads } | null = null;
  readonly #gathered: GatheredReads;
  readonly #subscription: Subscription;
  readonly #asked: Promise<unknown>;
  /** Own epoch, once the log is open. */
  #epoch = Number.POSITIVE_INFINITY;
  /** Every read is at least as new as this: the overlay no longer has what is before it. */
  #leastLsn = 0;
  readonly #shown = new ShownReads();
  #fenced: VarveError | null = null;
  #closed = false;
  readonly counters = {
    directReads: 0,
    remoteReads: 0,
    gatheredReads: 0,
    remoteReadBytes: 0,
    hedgedReads: 0,
    failedAsks: 0,
  };

  constructor(options: RemoteReplicaOptions) {
    this.#options = options;
    this.#madeAtMs = options.clock.monotonicMs();
    this.#nodes = options.nodes;
    this.#gathered = new GatheredReads({
      bus: options.bus,
      clock: options.clock,
      node: () => this.#order()[0] ?? null,
      subject: (node) => replicaReadSubject(options.volumeId, node),
      leastLsn: (node) => this.#shown.leastLsn(node, this.#leastLsn),
      onShown: (node, lsn) => this.#shown.answered(node, lsn),
      onEpoch: (epoch) => this.#judgeEpoch(epoch),
      counters: this.counters,
    });
    const states = replicaStateSubject(options.volumeId, "*");
    this.#subscription = options.bus.subscribe(states, (data) => this.#hear(data));
    this.#asked = Promise.all(options.nodes.map(async (node) => this.#askState(node)));
  }

  /**
   * Resolves when every node has said where its replica stands, or was found to be away: what the log must at least hold is the most
   * that any of them has applied. Rejects Retry after limits.replicaPatienceMs where none was heard of.
   */
  async heard(): Promise<void> {
    await this.#asked;
    await this.#until(() => this.#heard.size > 0);
  }

  /** The placement changed: those that are new count at once, with 0 until they are heard of; those that went are forgotten. */
  setNodes(nodes: readonly string[]): void {
    const added = nodes.filter((node) => !this.#nodes.includes(node));
    this.#nodes = nodes;
    for (const node of this.#heard.keys()) if (!nodes.includes(node)) this.#heard.delete(node);
    for (const node of added) void this.#askState(node);
    for (const listener of this.#listeners) listener();
  }

  reports(): readonly ReplicaReport[] {
    return [...this.#heard.values()].map(({ report }) => report);
  }

  /** Told of every report. */
  onReport(listener: () => void): void {
    this.#listeners.add(listener);
  }

  state(): ReplicaState {
    const reports = this.reports();
    const best = reports.reduce<ReplicaReport | null>(
      (found, one) => (found === null || one.appliedLsn > found.appliedLsn ? one : found),
      null,
    );
    const appliedLsn = best?.appliedLsn ?? 0;
    return {
      sizeBytes: best?.sizeBytes ?? 0,
      appliedLsn,
      begunLsn: appliedLsn,
      checkpointLsn: this.#releasableLsn(),
      dirtyBytes: 0,
      allocatedBytes: best?.allocatedBytes ?? 0,
    };
  }

  /** The least checkpoint of those that count (docs/specs/replica-fill.md, "What keeps the log"). */
  #releasableLsn(): number {
    const checkpointOf = (node: string): number => this.#heard.get(node)?.report.checkpointLsn ?? 0;
    const counting = this.#nodes.filter((node) => !this.#isLost(node));
    // Only where another one holds the rest.
    const least = Math.min(...(counting.length > 0 ? counting : this.#nodes).map(checkpointOf));
    return Number.isFinite(least) ? least : 0;
  }

  #isLost(node: string): boolean {
    const heard = this.#heard.get(node);
    const silentMs = this.#options.clock.monotonicMs() - (heard?.atMs ?? this.#madeAtMs);
    const condition = heard?.report.condition;
    if (silentMs > limits.replicaLostMs || condition === "halted") {
      return this.#options.logShare() >= limits.replicaLostLogShare;
    }
    return condition === "filling" && this.#options.logShare() >= limits.replicaFillLogShare;
  }

  /** What entries may still take. */
  roomBytes(): number {
    const nowMs = this.#options.clock.monotonicMs();
    return roomOfReplicas([...this.#heard.values()].map((one) => ({ ...one, silentMs: nowMs - one.atMs })));
  }

  async follow(lastLsn: number, epoch: number): Promise<void> {
    this.#epoch = epoch;
    await this.#until(() => this.state().appliedLsn >= lastLsn);
    this.dropped(lastLsn);
  }

  /** The writer goes on under a greater number of its own lease, which nobody else has. */
  raiseEpoch(epoch: number): void {
    if (Number.isFinite(this.#epoch)) this.#epoch = Math.max(this.#epoch, epoch);
  }

  /** The overlay dropped entries up to `lsn`: reads must not be older. */
  dropped(lsn: number): void {
    this.#leastLsn = Math.max(this.#leastLsn, lsn);
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    return this.#directReads()?.readInline(slab, start, length, offset, this.#leastLsn) ?? -1;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    const direct = this.#directReads();
    if (direct !== null && (await direct.read(slab, start, length, offset, this.#leastLsn))) return;
    this.counters.remoteReads += 1;
    this.counters.remoteReadBytes += length;
    const pieces: Promise<void>[] = [];
    for (let at = 0; at < length; at += limits.replicaReadBytesMax) {
      const bytes = Math.min(limits.replicaReadBytesMax, length - at);
      pieces.push(this.#readPiece(slab, start + at, bytes, offset + at));
    }
    await Promise.all(pieces);
  }

  async apply(): Promise<void> {
    invariant(false, "replicas on other machines apply the log by themselves");
  }

  /** What is allocated is known on the node only: nothing is called a hole here. */
  allocation(offset: number, length: number): readonly AllocationRun[] {
    return [{ offset, length, allocated: true }];
  }

  async checkpoint(): Promise<number> {
    return this.state().checkpointLsn;
  }

  async detach(): Promise<void> {
    this.#close();
  }

  async abandon(): Promise<void> {
    this.#close();
  }

  #close(): void {
    if (!this.#closed) this.#options.onClosed?.();
    this.#closed = true;
    this.#subscription.close();
    this.#direct?.reads.close();
    for (const listener of this.#listeners) listener();
    this.#listeners.clear();
  }

  #hear(data: Uint8Array): void {
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded) || decoded.message.type !== "state") return;
    const { report } = decoded.message;
    if (this.#closed || !this.#nodes.includes(report.node)) return;
    this.#heard.set(report.node, { report, atMs: this.#options.clock.monotonicMs() });
    this.#judgeEpoch(report.epoch);
    if (report.host === this.#options.host) this.#hearNeighbour(report.node);
    for (const listener of this.#listeners) listener();
  }

  #hearNeighbour(node: string): void {
    const { counters } = this;
    const { files, bus, clock, volumeId } = this.#options;
    if (files === undefined) return;
    const subject = replicaReadSubject(volumeId, node);
    const onEpoch = (epoch: number): void => this.#judgeEpoch(epoch);
    this.#direct ??= { node, reads: new DirectReads({ files, bus, clock, subject, onEpoch, counters }) };
    if (this.#direct.node === node) this.#direct.reads.heard();
  }

  /** While its node gives signs of life and no newer writer is known. */
  #directReads(): DirectReads | null {
    if (this.#direct === null || this.#fenced !== null || this.#closed) return null;
    const heard = this.#heard.get(this.#direct.node);
    const silentMs = this.#options.clock.monotonicMs() - (heard?.atMs ?? Number.NEGATIVE_INFINITY);
    return silentMs <= limits.replicaSilentMs ? this.#direct.reads : null;
  }

  /** Sooner than the next sign of life. */
  async #askState(node: string): Promise<void> {
    const subject = replicaReadSubject(this.#options.volumeId, node);
    await this.#options.bus.request(subject, encodeMessage({ type: "ask" }), answerMs).then(
      (data) => this.#hear(data),
      () => undefined, // away: it will be heard of when it is back
    );
  }

  async #readPiece(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    if (await this.#gathered.read(slab, start, length, offset)) return this.#requireUnfenced();
    const { clock } = this.#options;
    const patience = new Patience(clock, limits.replicaPatienceMs);
    let failure: VarveError | null = null;
    while (!this.#closed && !patience.isOver()) {
      this.#requireUnfenced();
      const result = await this.#askInTurn({ type: "read", offset, length, leastLsn: this.#leastLsn });
      this.#requireUnfenced();
      if (result instanceof Uint8Array) {
        messageMemory.place(result, slab.bytes, start);
        return;
      }
      failure = result;
      if (failure !== null && failure.kind !== "Retry") throw failure;
      await new Promise<void>((resolve) => void clock.after(againMs, resolve));
    }
    throw noReplica(this.#options.volumeId, failure);
  }

  /** The first good answer; a node that is slow is not waited for alone. Else the last failure. */
  #askInTurn(request: Omit<ReadRequest, "waitMs">): Promise<Uint8Array | VarveError | null> {
    const { clock } = this.#options;
    const nodes = this.#order();
    return new Promise((resolve) => {
      let next = 0;
      let waiting = 0;
      const askNext = (): void => {
        const node = nodes[next];
        if (node === undefined) return;
        next += 1;
        waiting += 1;
        if (next > 1) this.counters.hedgedReads += 1;
        const hedge = clock.after(limits.replicaHedgeMs, askNext);
        const waitMs = next === nodes.length ? lastBehindWaitMs : behindWaitMs;
        this.#ask(node, { ...request, waitMs }).then(
          (bytes) => {
            hedge.cancel();
            next = nodes.length;
            resolve(bytes);
          },
          (cause: unknown) => {
            hedge.cancel();
            waiting -= 1;
            askNext();
            if (waiting === 0) resolve(toVarveError(cause, "read a replica"));
          },
        );
      };
      askNext();
      if (waiting === 0) resolve(null);
    });
  }

  async #ask(node: string, request: ReadRequest): Promise<Uint8Array> {
    const { bus, volumeId, clock } = this.#options;
    try {
      const asked = { ...request, leastLsn: this.#shown.leastLsn(node, request.leastLsn) };
      const data = await bus.request(replicaReadSubject(volumeId, node), encodeMessage(asked), answerMs);
      const decoded = decodeMessage(data);
      if (isBadMessage(decoded)) throw badAnswer(node, decoded.detail);
      const { message, payload } = decoded;
      if (message.type === "refused") {
        this.#judgeEpoch(message.epoch);
        throw new VarveError(message.tag, message.kind, `${node}: ${message.message}`);
      }
      if (message.type !== "bytes" || payload.length !== request.length) throw badAnswer(node, message.type);
      this.#judgeEpoch(message.epoch);
      this.#failedAtMs.delete(node);
      this.#shown.answered(node, message.shownLsn);
      return payload;
    } catch (cause) {
      this.counters.failedAsks += 1;
      this.#failedAtMs.set(node, clock.monotonicMs());
      this.#shown.failed(node);
      throw cause;
    }
  }

  /** Nodes to ask, best first: alive and not halted, not failed lately, on this machine, furthest. */
  #order(): readonly string[] {
    const { host, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const rank = (node: string): number => {
      const heard = this.#heard.get(node);
      if (heard === undefined || heard.report.condition === "halted") return 4;
      if (nowMs - heard.atMs > limits.replicaSilentMs) return 3;
      if (nowMs - (this.#failedAtMs.get(node) ?? -limits.replicaSilentMs) < limits.replicaSilentMs) return 2;
      if (heard.report.condition === "filling") return 3;
      return heard.report.host === host ? 0 : 1;
    };
    const lsn = (node: string): number => this.#heard.get(node)?.report.appliedLsn ?? 0;
    return [...this.#nodes].sort((a, b) => rank(a) - rank(b) || lsn(b) - lsn(a));
  }

  #requireUnfenced(): void {
    if (this.#fenced !== null) throw this.#fenced;
  }

  #judgeEpoch(epoch: number): void {
    if (epoch <= this.#epoch || this.#fenced !== null) return;
    this.#fenced = replicaFenced(epoch, this.#epoch);
    this.#options.onFenced(this.#fenced);
  }

  async #until(condition: () => boolean): Promise<void> {
    const { clock, volumeId } = this.#options;
    if (condition()) return;
    await new Promise<void>((resolve, reject) => {
      const end = (): void => {
        this.#listeners.delete(listener);
        timer.cancel();
      };
      const listener = (): void => {
        if (!condition() && !this.#closed) return;
        end();
        if (this.#closed) reject(noReplica(volumeId, null));
        else resolve();
      };
      const timer = new Patience(clock, limits.replicaPatienceMs).wait(() => {
        end();
        reject(noReplica(volumeId, null, this.reports()));
      });
      this.#listeners.add(listener);
    });
  }
}
