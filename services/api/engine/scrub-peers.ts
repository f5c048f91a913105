/*
 * The part of a cluster's scrub that needs no bucket: replicas are compared with each other at one LSN, as by `varve replica verify`, and what
 * is proven right there mends the others. Proven is what most of three have, or what the bucket says of a replica whose node can ask it.
 * Called by cluster-scrub.ts behind the nodes' own scrubs; comparisons are replica-comparison.ts. Rules: docs/specs/cluster.md#scrub.
 */
import { toVarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { DamagedExtent, ScrubOptions } from "#shared/ports/bucket-administration.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type {
  DifferingExtent,
  ReplicaComparison,
  ReplicaView,
} from "#shared/ports/cluster-administration.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import { type ComparisonSetting, compareExtents, compareReplicas } from "./replica-comparison.ts";
import { ask, notReady, type OnProgress, pause, type ScrubbedNode } from "./scrubbed-node.ts";

export interface ReplicaPeersOptions {
  readonly record: VolumeRecord;
  readonly replicasOf: (record: VolumeRecord) => readonly Pick<ReplicaView, "node" | "report">[];
  readonly bus: Pick<MessageBus, "request">;
  readonly clock: Clock;
  /** The checksum of the extent by the bucket of a node, which has `sum` itself; null: that can't be said. */
  readonly provenBy: (node: string, extent: number, sum: string) => Promise<string | null>;
}

const { extentBytes } = limits;
/** A mend copies an extent from another node. */
const mendMs = 15_000;
const triesMax = 5;
const againMs = 1000;

type Sums = DifferingExtent["sums"];

export class ReplicaPeers {
  readonly #options: ReplicaPeersOptions;
  readonly #scrub: ScrubOptions;
  /** Whose bucket can't be asked: not tried for each extent. */
  readonly #withoutBucket = new Set<string>();

  constructor(options: ReplicaPeersOptions, scrub: ScrubOptions) {
    this.#options = options;
    this.#scrub = scrub;
  }

  /** What the bucket could not say of `nodes`; findings go to `damaged`. Resolves with the LSN of the last look, 0 without any. */
  async compare(
    nodes: readonly ScrubbedNode[],
    damaged: DamagedExtent[],
    onProgress: OnProgress,
    total: number,
  ): Promise<number> {
    const views = this.#options.replicasOf(this.#options.record);
    const ready = views.filter((view) => notReady(view) === "").map(({ node }) => node);
    // What was passed over for its state stays so.
    const left = nodes.filter((one) => one.against === null && ready.includes(one.node));
    for (const { node } of left) this.#withoutBucket.add(node);
    const setting = this.#setting(ready);
    if (left.length > 0 && ready.length < 2) {
      for (const one of left) one.reason = `${one.reason}; no other replica follows to compare with`;
      return 0;
    }
    if (left.length > 0) return await this.#compareAll(setting, left, damaged, onProgress, total);
    return ready.length < 2 ? 0 : await this.#compareBusy(setting, nodes, damaged);
  }

  #setting(nodes: readonly string[]): ComparisonSetting {
    const { record, bus, clock } = this.#options;
    const { bytesPerSecond } = this.#scrub;
    return {
      bus: bus as MessageBus,
      clock,
      volumeId: record.id,
      nodes,
      sizeBytes: record.sizeBytes,
      bytesPerSecond,
    };
  }

  async #compareAll(
    setting: ComparisonSetting,
    left: readonly ScrubbedNode[],
    damaged: DamagedExtent[],
    onProgress: OnProgress,
    total: number,
  ): Promise<number> {
    const { record } = this.#options;
    const extents = Math.ceil(record.sizeBytes / extentBytes);
    const before = total - left.length * record.sizeBytes;
    let lsn = 0;
    let notCompared = 0;
    try {
      for (let at: number | null = 0; at !== null; ) {
        const offset: number = at;
        const found: ReplicaComparison = await this.#tried(async () => compareReplicas(setting, offset));
        lsn = found.lsn;
        notCompared += found.notCompared;
        for (const one of found.differing) damaged.push(...(await this.#judge(one, lsn, left)));
        at = found.nextOffset;
        onProgress(before + left.length * (at ?? record.sizeBytes), total);
        if (damaged.length >= limits.scrub.damagedMax) break;
      }
    } catch (cause) {
      const { message } = toVarveError(cause, "compare");
      for (const one of left) one.reason = `${one.reason}; ${message}`;
      return lsn;
    }
    for (const one of left) {
      const compared = extents - notCompared;
      const bytes = compared * extentBytes;
      Object.assign(one, { against: "replicas", extents, compared, bytes, remote: notCompared });
    }
    return lsn;
  }

  /** What was written to at each look stands still for a moment while all are held. */
  async #compareBusy(
    setting: ComparisonSetting,
    nodes: readonly ScrubbedNode[],
    damaged: DamagedExtent[],
  ): Promise<number> {
    let lsn = 0;
    for (const extent of new Set(nodes.flatMap(({ busyExtents }) => busyExtents))) {
      const busy = nodes.filter(({ busyExtents }) => busyExtents.includes(extent));
      const found = await compareExtents(setting, extent * extentBytes, 1).catch(() => null); // it stays busy
      if (found === null || found.notCompared > 0) continue;
      lsn = found.lsn;
      for (const one of found.differing) damaged.push(...(await this.#judge(one, lsn, busy)));
      for (const one of busy) {
        one.busy -= 1;
        one.compared += 1;
      }
      await pause(setting.clock, (1000 * extentBytes) / this.#scrub.bytesPerSecond);
    }
    return lsn;
  }

  async #tried<T>(work: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await work();
      } catch (cause) {
        if (toVarveError(cause, "compare").kind !== "Retry" || tries >= triesMax) throw cause;
      }
      await pause(this.#options.clock, againMs);
    }
  }

  /** What of it concerns `nodes`, put right where that was asked for and can be. */
  async #judge(
    { offset, sums }: DifferingExtent,
    lsn: number,
    nodes: readonly ScrubbedNode[],
  ): Promise<readonly DamagedExtent[]> {
    const extent = offset / extentBytes;
    const right = mostHave(sums) ?? (await this.#provenByBucket(sums, extent));
    const found: DamagedExtent[] = [];
    for (const { node, sum } of sums) {
      if (sum === right || !nodes.some((one) => one.node === node)) continue;
      const damaged = { extent, firstOffset: offset, node };
      if (right === null) found.push({ ...damaged, repaired: false, why: notProven });
      else if (!this.#scrub.repair) found.push({ ...damaged, repaired: false });
      else {
        const peers = sums.filter((one) => one.sum === right).map((one) => one.node);
        found.push({ ...damaged, ...(await this.#mended(node, { extent, lsn, sum: right }, peers)) });
      }
    }
    return found;
  }

  async #provenByBucket(sums: Sums, extent: number): Promise<string | null> {
    for (const { node, sum } of sums) {
      if (this.#withoutBucket.has(node)) continue;
      const proven = await this.#options.provenBy(node, extent, sum);
      // Of an extent that was written to meanwhile it is nobody's.
      if (sums.some((one) => one.sum === proven)) return proven;
      if (proven === null) this.#withoutBucket.add(node);
    }
    return null;
  }

  async #mended(
    node: string,
    what: { readonly extent: number; readonly lsn: number; readonly sum: string },
    peers: readonly string[],
  ): Promise<Pick<DamagedExtent, "repaired" | "why">> {
    const { bus, record } = this.#options;
    let why = "it is written to";
    for (const peer of peers) {
      try {
        const { message } = await ask(bus, record.id, node, { type: "mend", ...what, peer }, mendMs);
        if (message.type === "mended" && message.isMended) return { repaired: true };
      } catch (cause) {
        why = toVarveError(cause, "mend").message;
      }
    }
    return { repaired: false, why };
  }
}

const notProven = "the replicas differ, and nothing proves which one is right";

/** What more than half of them have, and two at least; null: there is no such sum. */
function mostHave(sums: Sums): string | null {
  for (const { sum } of sums) {
    const count = sums.filter((one) => one.sum === sum).length;
    if (count >= 2 && 2 * count > sums.length) return sum;
  }
  return null;
}
