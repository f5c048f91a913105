/*
 * Scrub of one replica of a cluster: the engine of `varve up` (ports/scrub.ts) on the node's own file, against a point of the volume that the
 * bucket was made to hold. What differs and no entry touched is put right from there, unless another replica has the same bytes. Made by
 * kept-extents.ts for each image that is opened; asked by the api again and again until the run is done. Rules: docs/specs/cluster.md#scrub.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { extentSumOf, sumText } from "#shared/formats/extent-sum.ts";
import { encodeWith, type ScrubRequest, sealMessage } from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { DamagedExtent, ReplicaScrubReport } from "#shared/ports/bucket-administration.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ByteRange, PointSource } from "#shared/ports/history.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { LocalReplica } from "#shared/ports/replica-image.ts";
import type { ExtentMending, ReplicaExtents } from "#shared/ports/replica-residency.ts";
import type { ScrubRun, ScrubSubject } from "#shared/ports/scrub.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import { askPeer, slabPart, withRoom } from "./replica-mend.ts";
import type { ReadSlots } from "./replica-reads.ts";

/** What all replicas of a node scrub with. */
export interface ScrubMeans {
  readonly run: ScrubRun;
  /** Of scrubSlotBytes each: so many run at once, others wait. */
  readonly slots: ReadSlots;
}

export interface ReplicaScrubOptions {
  readonly node: string;
  readonly volumeId: string;
  readonly means: ScrubMeans | null;
  readonly image: LocalReplica;
  readonly clock: Clock;
  readonly admission: SpaceAdmission;
  readonly bus: Pick<MessageBus, "request">;
  /** Null: this node was given no bucket. */
  readonly archived: Pick<ArchivedImages, "point"> | null;
  /** Has the bucket hold the point, and keep it until the function is called. */
  readonly keep: (lsn: number) => Promise<() => void>;
  /** As ReplicaFollower. */
  readonly follower: {
    readonly exact: boolean;
    reached(lsn: number, waitMs: number): Promise<boolean>;
  };
  /** Other nodes that keep a replica now. */
  readonly peers: () => readonly string[];
}

const { extentBytes } = limits;
/** Mine, the bucket's, and what a repair compares. */
export const scrubSlotBytes = 3 * extentBytes;
/** What was written to at each look is looked at again, behind a newer point. */
const passesMax = 3;
/** A point makes the archiver publish a manifest: not more often than this. */
const pointMsMin = 30_000;
const reachedMs = 5000;

interface Run {
  readonly name: string;
  askedMs: number;
  doneBytes: number;
  totalBytes: number;
  report: ReplicaScrubReport | null;
  failure: VarveError | null;
}

interface KeptPoint {
  readonly source: PointSource;
  readonly release: () => void;
  readonly openedMs: number;
}

export class ReplicaScrub {
  readonly #options: ReplicaScrubOptions;
  #run: Run | null = null;
  #point: KeptPoint | null = null;
  #isPointOld = false;
  /** Of extents that were not repaired, where it is known. */
  readonly #why = new Map<number, string>();
  #hasMended = false;
  #reading: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: ReplicaScrubOptions) {
    this.#options = options;
  }

  /** Begins it, or says how far the run of that name is. Throws what ended it. */
  answer(request: ScrubRequest): Uint8Array {
    const nowMs = this.#options.clock.monotonicMs();
    let run = this.#run;
    if (run?.name !== request.run) {
      if (run !== null && run.report === null && run.failure === null) throw underWay();
      run = this.#begin(request);
    }
    run.askedMs = nowMs;
    if (run.failure !== null) throw run.failure;
    const { doneBytes, totalBytes, report } = run;
    const payload = Buffer.from(report === null ? "" : JSON.stringify(report));
    const answer = { type: "scrubbed", isDone: report !== null, doneBytes, totalBytes } as const;
    const { bytes, payloadAt } = encodeWith(answer, payload.length);
    payload.copy(bytes, payloadAt);
    sealMessage(bytes);
    return bytes;
  }

  /** The run ends by itself soon; the image is not read any more when this resolves. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#reading.catch(() => undefined);
  }

  #begin(request: ScrubRequest): Run {
    const { image, archived, means, node, follower } = this.#options;
    const { extents } = image;
    if (archived === null || means === null || extents === undefined) throw noBucket(node);
    // What a replay has still to write again may be in the file already.
    if (!follower.exact) throw notCaughtUp(node);
    const { sizeBytes } = image.state();
    const totalBytes = request.count === 0 ? sizeBytes : request.count * extentBytes;
    const run: Run = {
      ...({ name: request.run, askedMs: 0, doneBytes: 0, report: null, failure: null } as const),
      totalBytes,
    };
    this.#run = run;
    this.#why.clear();
    this.#work(request, run, means, extents).then(
      (report) => {
        run.report = report;
      },
      (cause: unknown) => {
        run.failure = toVarveError(cause, `scrub the replica on ${node}`);
      },
    );
    return run;
  }

  async #work(
    request: ScrubRequest,
    run: Run,
    means: ScrubMeans,
    extents: ReplicaExtents,
  ): Promise<ReplicaScrubReport> {
    const slab = await means.slots.take();
    this.#hasMended = false;
    try {
      const report = await this.#passes(request, run, { means, extents, slab });
      if (this.#isStopped(run)) throw stopped(this.#options.node);
      return report;
    } finally {
      await this.#closePoint();
      // Also where it ended early: what was put right is to stay so.
      if (this.#hasMended) await extents.mending.record().catch(() => undefined); // the next checkpoint does it
      means.slots.give(slab);
    }
  }

  async #passes(
    { first, count, isRepair, bytesPerSecond }: ScrubRequest,
    run: Run,
    { means, extents, slab }: { means: ScrubMeans; extents: ReplicaExtents; slab: Slab },
  ): Promise<ReplicaScrubReport> {
    const { clock } = this.#options;
    const subject = this.#subject(extents, slabPart(slab, 2));
    const damaged: DamagedExtent[] = [];
    let sum: ReplicaScrubReport | null = null;
    let wanted = count === 0 ? undefined : Array.from({ length: count }, (_, at) => first + at);
    for (let pass = 0; pass < passesMax && !this.#isStopped(run); pass += 1) {
      let slabs = 0;
      const { report, busy } = await means.run(
        {
          clock,
          // Two, which it takes when it is made.
          allocateSlab: () => slabPart(slab, slabs++ % 2),
          onProgress: (done) => {
            run.doneBytes = Math.min(run.totalBytes, Math.max(run.doneBytes, pass === 0 ? done : 0));
          },
          isStopped: () => this.#isStopped(run),
          damagedMax: limits.scrub.damagedMax - damaged.length,
          ...(wanted === undefined ? {} : { extents: wanted }),
        },
        subject,
        { repair: isRepair, bytesPerSecond },
      );
      damaged.push(...report.damaged.map((one) => this.#told(one)));
      sum = added(sum, report, wanted?.length ?? 0);
      wanted = [...busy];
      if (wanted.length === 0 || damaged.length >= limits.scrub.damagedMax) break;
      this.#isPointOld = true;
    }
    if (sum === null) throw stopped(this.#options.node);
    const rightSum =
      count === 1 && damaged.length === 1 ? await this.#rightSum(first, slabPart(slab, 2)) : {};
    return { ...sum, damaged, busyExtents: wanted ?? [], ...rightSum };
  }

  /** Whoever has other bytes there learns from it who is right. */
  async #rightSum(extent: number, memory: Slab): Promise<{ rightSum?: string }> {
    const source = this.#point?.source;
    const offset = extent * extentBytes;
    const length = Math.min(extentBytes, (source?.sizeBytes ?? 0) - offset);
    if (source === undefined || length <= 0) return {};
    await source.read(memory, 0, length, offset);
    return { rightSum: sumText(extentSumOf(memory.bytes.subarray(0, length))) };
  }

  #told({ extent, firstOffset, repaired }: DamagedExtent): DamagedExtent {
    const why = repaired ? undefined : this.#why.get(extent);
    return { extent, firstOffset, repaired, ...(why === undefined ? {} : { why }) };
  }

  #isStopped(run: Run): boolean {
    return this.#closed || this.#options.clock.monotonicMs() - run.askedMs > limits.scrub.forgottenMs;
  }

  #subject(extents: ReplicaExtents, scratch: Slab): ScrubSubject {
    const { image, node } = this.#options;
    const { mending } = extents;
    return {
      name: node,
      image: {
        state: () => image.state(),
        read: (slab, start, length, offset) => this.#read(mending, slab, start, length, offset),
        allocation: (offset, length, runsMax) => image.allocation(offset, length, runsMax),
        isLocal: (extent) => extents.isLocal(extent),
      },
      history: {
        open: async (lsn) => this.#open(lsn),
        changes: async (fromLsn, toLsn) => this.#changes(mending, fromLsn, toLsn),
      },
      repair: async (extent, memory) => this.#repair(mending, extent, memory, scratch),
    };
  }

  async #read(
    mending: ExtentMending,
    slab: Slab,
    start: number,
    length: number,
    offset: number,
  ): Promise<void> {
    if (this.#closed) throw stopped(this.#options.node);
    // A volume that shrank meanwhile ends before the point does.
    const { sizeBytes } = this.#options.image.state();
    const there = Math.max(0, Math.min(length, sizeBytes - offset));
    slab.bytes.fill(0, start + there, start + length);
    if (there === 0) return;
    const reading = mending.read(slab, start, there, offset);
    this.#reading = reading;
    await reading;
  }

  /** One point serves many extents; whoever reads it closes nothing. */
  async #open(lsn: number): Promise<PointSource> {
    const { clock, keep, archived, volumeId } = this.#options;
    const present = this.#point;
    const isOld =
      this.#isPointOld || present === null || clock.monotonicMs() - present.openedMs >= pointMsMin;
    this.#isPointOld = false;
    if (present !== null && !isOld) return lasting(present.source);
    await this.#closePoint();
    if (archived === null) throw noBucket(this.#options.node);
    const release = await keep(lsn);
    try {
      const source = await archived.point(volumeId, lsn);
      this.#point = { source, release, openedMs: clock.monotonicMs() };
      return lasting(source);
    } catch (cause) {
      release();
      throw cause;
    }
  }

  async #closePoint(): Promise<void> {
    const point = this.#point;
    this.#point = null;
    point?.release();
    await point?.source.close().catch(() => undefined); // nothing is read from it any more
  }

  /** Extents that an entry touched, once all are applied whose bytes may be in the file. */
  async #changes(mending: ExtentMending, fromLsn: number, toLsn: number): Promise<readonly ByteRange[]> {
    const { image, follower } = this.#options;
    const { sizeBytes } = image.state();
    if (!(await follower.reached(toLsn, reachedMs))) return [{ offset: 0, length: sizeBytes }];
    const ranges: ByteRange[] = [];
    for (let extent = 0; extent * extentBytes < sizeBytes; extent += 1) {
      if (mending.touchedLsn(extent) <= fromLsn) continue;
      ranges.push({ offset: extent * extentBytes, length: extentBytes });
    }
    return ranges;
  }

  async #repair(mending: ExtentMending, extent: number, memory: Slab, scratch: Slab): Promise<boolean> {
    const { image, admission } = this.#options;
    const source = this.#point?.source;
    const offset = extent * extentBytes;
    const length = Math.min(extentBytes, image.state().sizeBytes - offset);
    if (source === undefined || length <= 0) return false;
    await source.read(memory, 0, length, offset);
    await this.#read(mending, scratch, 0, length, offset);
    const other = await this.#whoAgrees(offset, sumText(extentSumOf(scratch.bytes.subarray(0, length))));
    if (other !== null) {
      this.#why.set(extent, `${other} has the same bytes: what the bucket has may be wrong`);
      return false;
    }
    try {
      const isMended = await withRoom(admission, () => mending.mend(extent, source.lsn, memory, scratch));
      this.#hasMended ||= isMended;
      if (!isMended) this.#why.set(extent, "it is written to");
      return isMended;
    } catch (cause) {
      const { kind, message } = toVarveError(cause, "mend");
      if (kind !== "Full") throw cause;
      this.#why.set(extent, message);
      return false;
    }
  }

  /** Two replicas do not go bad in the same way: one that has what this one has speaks against the bucket. */
  async #whoAgrees(offset: number, sum: string): Promise<string | null> {
    const { bus, volumeId, peers } = this.#options;
    for (const peer of peers()) {
      const request = { type: "hash", offset, extents: 1 } as const;
      const answer = await askPeer(bus, { volumeId, peer }, request).catch(() => null); // away: it says nothing
      if (answer?.message.type !== "hashes" || answer.payload.length !== 8) continue;
      if (sumText(answer.payload.readBigUInt64LE(0)) === sum) return peer;
    }
    return null;
  }
}

/** Of a first pass, or that and one more over some of what was busy. */
function added(
  sum: ReplicaScrubReport | null,
  next: Omit<ReplicaScrubReport, "busyExtents">,
  looked: number,
): ReplicaScrubReport {
  const { lsn, extents, compared, bytes, remote, busy } = next;
  const counts = { lsn, extents, compared, bytes, remote, busy, damaged: [], busyExtents: [] };
  if (sum === null) return counts;
  return {
    ...counts,
    compared: sum.compared + compared,
    bytes: sum.bytes + bytes,
    remote: sum.remote + remote,
    busy: sum.busy - looked + busy,
  };
}

/** Its owner closes it. */
function lasting(source: PointSource): PointSource {
  return {
    volumeId: source.volumeId,
    lsn: source.lsn,
    sizeBytes: source.sizeBytes,
    read: (slab, start, length, offset) => source.read(slab, start, length, offset),
    allocation: (offset, length, runsMax) => source.allocation(offset, length, runsMax),
    extents: () => source.extents(),
    close: async () => undefined,
  };
}

export function noBucket(node: string): VarveError {
  return new VarveError("ScrubNoBucket", "Invalid", `${node} was given no bucket to compare with`, {
    hint: "Start it with the archivers' bucket: --bucket URL. Its replica is compared with the others.",
    fields: { node },
  });
}

function notCaughtUp(node: string): VarveError {
  return new VarveError("ReplicaFilling", "Retry", `${node} has not caught up yet`, {
    hint: "Wait until varve replica list says following.",
    fields: { node },
  });
}

function underWay(): VarveError {
  return new VarveError("AlreadyRunningError", "Retry", "another scrub of this replica is under way", {
    hint: "Wait for it to end: varve job list.",
  });
}

function stopped(node: string): VarveError {
  return new VarveError("ScrubStopped", "Retry", `the scrub on ${node} was stopped`, {
    hint: "Its replica was closed, or nobody asked about it for a minute. What was repaired stays so: scrub again.",
    fields: { node },
  });
}
