/*
 * Where the bytes of one kept replica are, by the volume's policy: what of a clone is in the bucket only is fetched, cold extents of a
 * tiered one are given back and read from there when somebody wants them. Made by kept-replica.ts for each image it opens; below it
 * extent-tending.ts, the same as on one machine, and replica-pins.ts. Rules: docs/specs/cluster.md#tiering, #clones.
 */
import type { PlacementOrigin } from "#shared/domain/cluster.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { EvictColdRequest, EvictedAnswer } from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type {
  RemoteBeginning,
  ReplicaHome,
  ReplicaTending,
  TendingLimits,
  TendingPolicy,
} from "#shared/ports/replica-home.ts";
import type { LocalReplica } from "#shared/ports/replica-image.ts";
import type { RemotePoint, RemoteSources } from "#shared/ports/replica-residency.ts";
import { ReplicaPins } from "./replica-pins.ts";
import { noBucket } from "./replica-reach.ts";
import { ReplicaScrub, type ReplicaScrubOptions } from "./replica-scrub.ts";

export type SharedPast = Pick<PastRecords, "historyOf" | "archiveOf" | "changeHistory">;

export interface KeptExtentsOptions {
  readonly node: string;
  readonly volumeId: string;
  readonly replicas: Pick<ReplicaHome, "tend" | "admission">;
  readonly image: LocalReplica;
  readonly clock: Clock;
  readonly limits: TendingLimits;
  /** Null: this node was given no bucket, and keeps whole replicas. */
  readonly archived: ArchivedImages | null;
  readonly past: SharedPast;
  readonly scrub: Pick<ReplicaScrubOptions, "means" | "bus" | "peers" | "follower">;
  /** The image holds nothing that it has not begun to apply. */
  readonly isExact: () => boolean;
  /** Gateways read the image directly no more. Throws where that can't be said. */
  readonly revokeReads: () => void;
  /** What it reads from is gone from the bucket: it is to be filled again. */
  readonly onLost: () => void;
  readonly onChange: () => void;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

const hourMs = 3_600_000;
const { extentBytes } = limits;

/**
 * A clone's own log begins with entry 1. A volume that was undeleted begins as its own point, behind which its log goes on: it is read for
 * its line.
 */
export async function beginningOf(
  ownId: string,
  { volumeId, lsn }: PlacementOrigin,
  log: Pick<LogFollower, "end">,
): Promise<RemoteBeginning> {
  const point = { volumeId, lsn };
  if (volumeId !== ownId) return { point, appliedLsn: 0, line: null, epoch: 0 };
  const end = await log.end();
  if (end === null) throw missingLog(ownId);
  // Whoever made the log took an epoch above all that are archived: the least one is below it.
  return { point, appliedLsn: lsn, line: end.line, epoch: 1 };
}

/** Without a bucket an image follows its extents all the same: a scrub wants to know what was written to (extents.mending). */
export function remoteSources(node: string, archived: ArchivedImages | null): RemoteSources {
  if (archived === null) return { open: async () => Promise.reject(noBucket(node)) };
  return { open: async ({ volumeId, lsn }) => archived.point(volumeId, lsn) };
}

interface EvictRun {
  readonly name: string;
  answer: EvictedAnswer | null;
  failure: VarveError | null;
}

export class KeptExtents {
  readonly scrub: ReplicaScrub;
  readonly #options: KeptExtentsOptions;
  readonly #tending: ReplicaTending;
  readonly #pins: ReplicaPins | null;
  #policy: TendingPolicy;
  /** Evictions under way. */
  #leaving = 0;
  #isFilling = false;
  #run: EvictRun | null = null;
  #timer: Timer | null = null;
  #upkeep: Promise<void> | null = null;
  #closed = false;

  constructor(options: KeptExtentsOptions) {
    this.#options = options;
    const { node, volumeId, past, archived, clock, image } = options;
    const used = (): readonly number[] =>
      this.#points().flatMap((one) => (one.volumeId === volumeId ? [one.lsn] : []));
    this.#pins = archived === null ? null : new ReplicaPins({ node, volumeId, past, archived, clock, used });
    const keep = async (lsn: number): Promise<() => void> =>
      (await this.#pins?.keep(lsn)) ?? (() => undefined);
    const { admission } = options.replicas;
    this.scrub = new ReplicaScrub({ ...options, ...options.scrub, admission, keep });
    this.#policy = this.#presentPolicy();
    this.#tending = options.replicas.tend(image, {
      policy: this.#policy,
      heldBase: () => this.#heldBase(),
      keep: async ({ lsn }) => this.#keep(lsn),
      onWhole: () => {
        this.policyChanged();
        options.onChange();
      },
      onNote: (text) => options.onNote(text),
    });
    this.#tendPins(0);
  }

  get isTiered(): boolean {
    return this.#policy.residency === "tiered";
  }

  /** What is in the file may leave it: nobody else may read the file. Also of an eviction that a new policy came too late for. */
  get mayLeave(): boolean {
    return this.isTiered || this.#leaving > 0;
  }

  /** The history record may say something else now. */
  policyChanged(): void {
    const policy = this.#presentPolicy();
    const { residency, coldAfterMs } = this.#policy;
    if (this.#closed || (policy.residency === residency && policy.coldAfterMs === coldAfterMs)) return;
    this.#policy = policy;
    this.#tending.setPolicy(policy);
  }

  /** What the replica's report says beside its place in the log, while something is missing. */
  report(): Pick<ReplicaReport, "reason"> | null {
    const { remainingExtents, extents, error } = this.#tending.status();
    if (remainingExtents === 0) return null;
    const here = `${extents - remainingExtents} of ${extents} extents are here, the others are read from the bucket`;
    return { reason: error === null ? here : `${here}: ${error.message}` };
  }

  /** Fetches everything in the background; once, however often it is asked for. */
  fill(): void {
    if (this.#isFilling) return;
    this.#isFilling = true;
    this.#tending
      .fill()
      .catch(() => undefined) // closed: whoever follows the fill asks again
      .finally(() => {
        this.#isFilling = false;
      });
  }

  /** Begins it, or says how far the run of that name is. Throws what ended it. */
  evict({ run, coldAfterMs }: Pick<EvictColdRequest, "run" | "coldAfterMs">): EvictedAnswer {
    const present = this.#run;
    if (present?.name === run) {
      if (present.failure !== null) throw present.failure;
      return present.answer ?? { type: "evicted", extents: 0, isDone: false };
    }
    if (present !== null && present.answer === null && present.failure === null) throw underWay();
    if (!this.isTiered) throw notTiered(this.#options.node, this.#options.archived === null);
    if (this.#heldBase() === null) throw noHeldBase();
    const begun: EvictRun = { name: run, answer: null, failure: null };
    this.#run = begun;
    const nowMs = this.#options.clock.wallTimeMs();
    // Last use is counted in hours: less than one means everything, also what was used in the present one.
    this.#tending.evictCold(coldAfterMs < hourMs ? nowMs + hourMs : nowMs - coldAfterMs).then(
      (extents) => {
        begun.answer = { type: "evicted", extents, isDone: true };
        this.#options.onChange();
      },
      (cause: unknown) => {
        begun.failure = toVarveError(cause, "evict");
      },
    );
    return { type: "evicted", extents: 0, isDone: false };
  }

  /** For a base, which is read from the file: what somebody wrote a part of is fetched. Only of a tiered replica: a clone has its turn. */
  async bring(offset: number, length: number): Promise<void> {
    const { extents } = this.#options.image;
    if (extents === undefined || !this.isTiered) return;
    const { admission } = this.#options.replicas;
    for (let at = offset; at < offset + length; at = (Math.floor(at / extentBytes) + 1) * extentBytes) {
      const extent = Math.floor(at / extentBytes);
      if (extents.isLocal(extent)) continue;
      const refusal = admission.refuse(extentBytes);
      if (refusal !== null) throw refusal;
      admission.admit(extentBytes);
      try {
        await extents.fill(extent);
        admission.settle(extentBytes);
      } catch (cause) {
        admission.withdraw(extentBytes);
        throw cause;
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#pins?.close();
    await this.scrub.close();
    await this.#tending.close();
    await this.#upkeep;
  }

  /** A clone is fetched before anything leaves: its parent may go then. Without a bucket everything is here, or nobody could read it. */
  #presentPolicy(): TendingPolicy {
    const { volumeId, past, archived, limits: shared } = this.#options;
    const history = past.historyOf(volumeId);
    const isOwn = this.#points().every((point) => point.volumeId === volumeId);
    const mayTier = archived !== null && isOwn && history?.residency === "tiered";
    return {
      ...shared,
      residency: mayTier ? "tiered" : "full",
      coldAfterMs: history?.coldAfterMs ?? Number.MAX_SAFE_INTEGER,
    };
  }

  /** Of the very log that this replica follows. */
  #heldBase(): { readonly baseLsn: number; readonly point: RemotePoint } | null {
    const { volumeId, past, image, isExact } = this.#options;
    const archive = past.archiveOf(volumeId);
    const base = archive?.heldBase;
    if (base === undefined || archive?.line !== image.logPosition().line || !this.isTiered || !isExact())
      return null;
    return { baseLsn: base.s, point: { volumeId, lsn: base.e } };
  }

  /** Before anything leaves; what it resolves with is called when it has left, or stays, but where nobody knows which. */
  async #keep(lsn: number): Promise<() => void> {
    const release = await this.#pins?.keep(lsn);
    this.#leaving += 1;
    // From here on nobody is granted reads any more; who was is told that they don't count.
    this.#options.revokeReads();
    return () => {
      this.#leaving -= 1;
      release?.();
    };
  }

  #points(): readonly RemotePoint[] {
    return this.#options.image.extents?.residency().points ?? [];
  }

  #tendPins(delayMs: number): void {
    const pins = this.#pins;
    if (pins === null || this.#closed) return;
    this.#timer = this.#options.clock.after(delayMs, () => {
      this.#upkeep = pins
        .tend()
        .catch((cause: unknown) => this.#pinsFailed(toVarveError(cause, "keep what evicted extents need")))
        .finally(() => {
          this.#upkeep = null;
          this.#tendPins(limits.pinUpkeepMs);
        });
    });
  }

  #pinsFailed(error: VarveError): void {
    if (this.#closed || error.kind === "Retry") return;
    const { onNote, onLost } = this.#options;
    // What can't be read of the bucket now serves no fill either: the rest of the replica goes on.
    if (error.kind !== "Invalid") return onNote(`warning: ${error.message}`);
    onNote(`warning: what its evicted extents are read from is gone, it is filled again: ${error.message}`);
    onLost();
  }
}

function missingLog(volumeId: string): VarveError {
  return new VarveError("LogAway", "Retry", "the log that goes on behind its point is not there yet", {
    hint: "It is looked for again in a moment.",
    fields: { volumeId },
  });
}

function underWay(): VarveError {
  return new VarveError("AlreadyRunningError", "Retry", "cold extents are being given back already", {
    hint: "Wait for it to end: varve job list.",
  });
}

function notTiered(node: string, isWithoutBucket: boolean): VarveError {
  if (isWithoutBucket) {
    return new VarveError(
      "EvictNoBucket",
      "Invalid",
      `${node} was given no bucket: its replicas stay whole`,
      {
        hint: "Start it with the archivers' bucket: --bucket URL.",
        fields: { node },
      },
    );
  }
  return new VarveError(
    "ReplicaNotTiered",
    "Retry",
    `${node} gives nothing back now: its replica is to be whole`,
    {
      hint: "A clone is fetched from its parent first; varve replica list says how far it is.",
      fields: { node },
    },
  );
}

function noHeldBase(): VarveError {
  return new VarveError(
    "NoHeldBase",
    "Retry",
    "the bucket holds no base yet that extents could be read from",
    {
      hint: "One is taken when enough was written, and is held when the store has settled, five minutes later.",
    },
  );
}
