/*
 * `varve scrub` in a cluster: one replica after the other is compared by its own node with the bucket; where that can't be, and for extents
 * that are written to all the time, with the other replicas at one LSN. Called by cluster-bucket.ts as a job; answered by
 * services/storage/engine/replica-scrub.ts and replica-mend.ts. Rules: docs/specs/cluster.md#scrub.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ScrubRequest } from "#shared/formats/replica-message.ts";
import type {
  DamagedExtent,
  ReplicaScrubReport,
  ScrubOptions,
  ScrubReport,
} from "#shared/ports/bucket-administration.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import { ReplicaPeers } from "./scrub-peers.ts";
import { ask, notReady, type OnProgress, pause, type ScrubbedNode } from "./scrubbed-node.ts";

export interface ClusterScrubOptions {
  /** Throws UnknownVolumeError. */
  readonly require: (name: string) => VolumeRecord;
  readonly replicasOf: (record: VolumeRecord) => readonly Pick<ReplicaView, "node" | "report">[];
  readonly bus: Pick<MessageBus, "request">;
  readonly clock: Clock;
  readonly random: Random;
}

const { extentBytes } = limits;
const askMs = 5000;
const againMs = 1000;
const firstLookMs = 200;
/** So long a node may be away, or not that far: it may have been started again, or end the run of an api that is gone first. */
const awayMsMax = 90_000;
/** What a node says for a while only. */
const passing: readonly string[] = ["ReplicaFilling", "AlreadyRunningError"];

export class ClusterScrub {
  readonly #options: ClusterScrubOptions;

  constructor(options: ClusterScrubOptions) {
    this.#options = options;
  }

  /** Throws where there is nothing to scrub now; what it returns does it. */
  prepare(name: string, options: ScrubOptions): (onProgress: OnProgress) => Promise<ScrubReport> {
    const { require, replicasOf } = this.#options;
    const record = require(name);
    const wanted = options.node ?? null;
    const views = replicasOf(record).filter(({ node }) => wanted === null || node === wanted);
    if (views.length === 0) throw noReplica(name, wanted);
    const [first] = views;
    const isReady = views.some((view) => notReady(view) === "");
    if (!isReady && first !== undefined) throw noneReady(name, first.node, notReady(first));
    return async (onProgress) => this.#scrub(record, options, onProgress);
  }

  async #scrub(record: VolumeRecord, options: ScrubOptions, onProgress: OnProgress): Promise<ScrubReport> {
    const { replicasOf } = this.#options;
    const { node: wanted = null } = options;
    const views = replicasOf(record).filter(({ node }) => wanted === null || node === wanted);
    const nodes: ScrubbedNode[] = [];
    const damaged: DamagedExtent[] = [];
    let lsn = 0;
    const total = record.sizeBytes * views.length;
    for (const [at, { node }] of views.entries()) {
      // As it is when its turn comes.
      const view = replicasOf(record).find((one) => one.node === node);
      const scrubbed = begun(node, view === undefined ? "it is not placed there any more" : notReady(view));
      nodes.push(scrubbed);
      if (scrubbed.reason !== "") continue;
      const report = await this.#byNode(record, scrubbed, options, (done) =>
        onProgress(at * record.sizeBytes + Math.min(done, record.sizeBytes), total),
      );
      if (report === null) continue;
      lsn = Math.max(lsn, report.lsn);
      damaged.push(...report.damaged.map((one) => ({ ...one, node })));
    }
    const peers = new ReplicaPeers(
      {
        ...this.#options,
        record,
        provenBy: async (node, extent, sum) => this.#provenBy(record, node, extent, sum, options),
      },
      options,
    );
    lsn = Math.max(lsn, await peers.compare(nodes, damaged, onProgress, total));
    onProgress(total, total);
    return reportOf(record.name, lsn, nodes, damaged);
  }

  /** Null: it could not be compared with the bucket; the reason is noted. */
  async #byNode(
    record: VolumeRecord,
    scrubbed: ScrubbedNode,
    { repair: isRepair, bytesPerSecond }: ScrubOptions,
    onProgress: (doneBytes: number) => void,
  ): Promise<ReplicaScrubReport | null> {
    const request = { type: "scrub", run: this.#options.random.hex(8), isRepair, bytesPerSecond } as const;
    try {
      const report = await this.#asked(record, scrubbed.node, { ...request, first: 0, count: 0 }, onProgress);
      const { extents, compared, bytes, remote, busy, busyExtents } = report;
      Object.assign(scrubbed, { against: "bucket", extents, compared, bytes, remote, busy, busyExtents });
      if (report.damaged.length >= limits.scrub.damagedMax) scrubbed.reason = tooMany;
      return report;
    } catch (cause) {
      scrubbed.reason = toVarveError(cause, "scrub").message;
      return null;
    }
  }

  /** The checksum that the bucket proves for this extent, as the node knows it, which has `sum`; null: it can't be said. */
  async #provenBy(
    record: VolumeRecord,
    node: string,
    extent: number,
    sum: string,
    { bytesPerSecond }: ScrubOptions,
  ): Promise<string | null> {
    const run = this.#options.random.hex(8);
    const request = { type: "scrub", run, isRepair: false, bytesPerSecond, first: extent, count: 1 } as const;
    try {
      const { compared, damaged, rightSum } = await this.#asked(record, node, request, () => undefined);
      if (compared !== 1) return null;
      return damaged.length === 0 ? sum : (rightSum ?? null);
    } catch {
      return null; // it has no bucket, or that is away
    }
  }

  /** Until it is done; a node that was started again meanwhile begins again. */
  async #asked(
    record: VolumeRecord,
    node: string,
    request: ScrubRequest,
    onProgress: (doneBytes: number) => void,
  ): Promise<ReplicaScrubReport> {
    const { clock } = this.#options;
    let waitMs = firstLookMs;
    for (let awayMs = Number.POSITIVE_INFINITY; ; ) {
      try {
        const { message, payload } = await ask(this.#options.bus, record.id, node, request, askMs);
        if (message.type === "scrubbed") {
          awayMs = Number.POSITIVE_INFINITY;
          onProgress(message.doneBytes);
          if (message.isDone) return JSON.parse(payload.toString("utf8")) as ReplicaScrubReport;
        }
      } catch (cause) {
        const error = toVarveError(cause, "ask");
        awayMs = Math.min(awayMs, clock.monotonicMs());
        const isSaid = error.fields["node"] !== undefined && !passing.includes(error._tag);
        if (isSaid || clock.monotonicMs() - awayMs > awayMsMax) throw error;
      }
      await pause(clock, waitMs);
      waitMs = againMs;
      this.#options.require(record.name);
    }
  }
}

function begun(node: string, reason: string): ScrubbedNode {
  const counts = { extents: 0, compared: 0, remote: 0, bytes: 0, busy: 0, busyExtents: [] };
  return { node, against: null, ...counts, reason };
}

function reportOf(
  volume: string,
  lsn: number,
  nodes: readonly ScrubbedNode[],
  damaged: readonly DamagedExtent[],
): ScrubReport {
  const sum = (of: (one: ScrubbedNode) => number): number => nodes.reduce((all, one) => all + of(one), 0);
  return {
    volume,
    lsn,
    extents: sum((one) => one.extents),
    compared: sum((one) => one.compared),
    bytes: sum((one) => one.bytes),
    remote: sum((one) => one.remote),
    busy: sum((one) => one.busy),
    damaged,
    replicas: nodes.map(({ node, against, compared, remote, busy, reason }) => ({
      node,
      against,
      compared,
      remote,
      busy,
      reason,
    })),
  };
}

const tooMany = `more than ${limits.scrub.damagedMax} extents (${(limits.scrub.damagedMax * extentBytes) / 2 ** 20} MiB) are damaged: fill it again: varve replica repair`;

function noReplica(volume: string, node: string | null): VarveError {
  const where = node === null ? "" : ` on ${node}`;
  return new VarveError("ReplicaMissing", "Invalid", `${volume} has no replica${where}`, {
    hint: "varve replica list shows where they are. Nothing was changed.",
    fields: { volume, ...(node === null ? {} : { node }) },
  });
}

function noneReady(volume: string, node: string, why: string): VarveError {
  return new VarveError("ScrubNotNow", "Retry", `${volume} can't be scrubbed on ${node}: ${why}`, {
    hint: "Scrub it when varve replica list says following.",
    fields: { volume, node },
  });
}
