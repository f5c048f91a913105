/*
 * Where replicas are and where they go: added, moved, removed, nodes drained, all as changes of placements that nodes and gateways go by,
 * each judged on the very record that it replaces. The HTTP routes call it through its port; tend() is called now and then. Rules:
 * docs/specs/replica-fill.md, "Adding, moving, removing".
 */
import type { PlacementRecord, ReplicaPlace } from "#shared/domain/cluster.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { type PlacementGround, placeReplicas } from "#shared/domain/placement.ts";
import type { FillOrigin } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type {
  ReplicaAdministration,
  ReplicaComparison,
  ReplicaView,
} from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import { requireNode } from "./node-rules.ts";
import { compareReplicas } from "./replica-comparison.ts";

export interface ReplicaPlacingOptions {
  readonly map: Pick<ClusterMap, "nodes" | "placements" | "placementOf" | "changePlacement" | "setDrained">;
  readonly bus: MessageBus;
  readonly clock: Clock;
  /** Throws UnknownVolumeError. */
  require(name: string): VolumeRecord;
  replicas(name: string): readonly ReplicaView[];
  ground(): PlacementGround;
  volumes(): readonly VolumeRecord[];
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
}

/** Replicas that one drained node gives away at once: each is a copy of a whole disk. */
const movesMax = 2;
const answerMs = 2000;
/** A node that is given a replica has heard of it by then. */
const heardMs = 5000;
const againMs = 100;

export class ReplicaPlacing implements ReplicaAdministration {
  readonly #options: ReplicaPlacingOptions;
  /** Why volumes stay on drained nodes, as it was told. */
  readonly #told = new Map<string, string>();

  constructor(options: ReplicaPlacingOptions) {
    this.#options = options;
  }

  async add(volume: string, node: string | null, from: FillOrigin | null = null): Promise<ReplicaPlace> {
    const record = this.#options.require(volume);
    const added = await this.#change(record, (placement) => {
      const staying = placement.replicas.filter(({ leaving }) => leaving !== true);
      if (staying.length >= limits.replicasMax) throw enough(volume);
      const place = this.#placeFor(record, placement, node);
      return { placement: { ...placement, replicas: [...placement.replicas, place] }, result: place };
    });
    if (from !== null) await this.#orderFillSoon(record, added.node, from);
    return added;
  }

  async remove(volume: string, node: string): Promise<void> {
    const record = this.#options.require(volume);
    const following = await this.#following(record.id);
    await this.#change(record, (placement) => {
      requireThere(volume, placement, node);
      const replicas = placement.replicas.filter((one) => one.node !== node);
      if (!replicas.some((one) => following.has(one.node))) throw last(volume, node);
      return { placement: { ...placement, replicas }, result: null };
    });
  }

  async move(volume: string, from: string, to: string | null): Promise<ReplicaPlace> {
    const record = this.#options.require(volume);
    return await this.#change(record, (placement) => this.#moved(record, placement, from, to));
  }

  async drain(node: string): Promise<void> {
    this.#requireNode(node);
    await this.#options.map.setDrained(node, true);
    await this.tend();
  }

  async undrain(node: string): Promise<void> {
    this.#requireNode(node);
    await this.#options.map.setDrained(node, false);
    for (const record of this.#options.volumes()) await this.#cancelMove(record, node);
  }

  async repair(volume: string, node: string, from: FillOrigin | null = null): Promise<void> {
    const record = this.#options.require(volume);
    const placement = this.#options.map.placementOf(record.id);
    if (placement === null) throw noPlacement(volume);
    requireThere(volume, placement, node);
    const following = await this.#following(record.id);
    const isOneOfThem = following.delete(node);
    if (following.size > 0) {
      await this.#orderFill(record, node, from);
      return;
    }
    // Nobody could answer reads meanwhile: only who names the bucket wants that.
    if (from === "peers" || (isOneOfThem && from === null)) throw last(volume, node);
    await this.#orderFill(record, node, "bucket");
  }

  async #orderFill({ id }: VolumeRecord, node: string, from: FillOrigin | null): Promise<void> {
    const subject = replicaCopySubject(id, node);
    const answer = decodeMessage(
      await this.#options.bus.request(subject, encodeMessage({ type: "repair", from }), answerMs),
    );
    if (isBadMessage(answer) || answer.message.type !== "refused") return;
    const { tag, kind, message } = answer.message;
    throw new VarveError(tag, kind, `${node}: ${message}`, {
      hint: "See what the replicas do: varve replica list.",
    });
  }

  /** The node hears of its new replica in a moment; until then nobody answers. */
  async #orderFillSoon(record: VolumeRecord, node: string, from: FillOrigin): Promise<void> {
    const { clock } = this.#options;
    const endMs = clock.monotonicMs() + heardMs;
    for (;;) {
      try {
        await this.#orderFill(record, node, from);
        return;
      } catch (cause) {
        if (toVarveError(cause, "order a fill").kind !== "Retry" || clock.monotonicMs() > endMs) throw cause;
      }
      await new Promise<void>((resolve) => {
        clock.after(againMs, resolve);
      });
    }
  }

  async verify(volume: string, offset: number, bytesPerSecond: number | null): Promise<ReplicaComparison> {
    const record = this.#options.require(volume);
    const replicas = this.#options.replicas(volume).filter(({ report }) => report?.condition === "following");
    if (replicas.length < 2) throw nothingToCompare(volume, replicas.length);
    const sizeBytes = Math.max(...replicas.map(({ report }) => report?.sizeBytes ?? 0));
    const nodes = replicas.map(({ node }) => node);
    const { bus, clock } = this.#options;
    return await compareReplicas(
      { bus, clock, volumeId: record.id, nodes, sizeBytes, bytesPerSecond },
      offset,
    );
  }

  /** Goes on with what was begun: replicas that leave, nodes that are drained. Never rejects. */
  async tend(): Promise<void> {
    for (const record of this.#options.volumes()) {
      try {
        await this.#endMove(record);
        await this.#moveFromDrained(record);
        this.#told.delete(record.id);
      } catch (cause) {
        const { message } = cause as Error;
        if (this.#told.get(record.id) === message) continue;
        this.#told.set(record.id, message);
        this.#options.onNote(`warning: ${record.name}: ${message}`);
      }
    }
  }

  /** The one that leaves goes when all that stay follow. */
  async #endMove(record: VolumeRecord): Promise<void> {
    const { map } = this.#options;
    const leaves = map.placementOf(record.id)?.replicas.some(({ leaving }) => leaving === true) ?? false;
    if (!leaves) return;
    const following = await this.#following(record.id);
    const stayIn = ({ replicas }: PlacementRecord) => replicas.filter(({ leaving }) => leaving !== true);
    const ready = (placement: PlacementRecord): boolean =>
      stayIn(placement).length > 0 && stayIn(placement).every(({ node }) => following.has(node));
    const present = map.placementOf(record.id);
    if (present === null || !ready(present)) return;
    await this.#change(record, (placement) => ({
      placement: ready(placement) ? { ...placement, replicas: stayIn(placement) } : placement,
      result: null,
    }));
  }

  async #moveFromDrained(record: VolumeRecord): Promise<void> {
    const { map } = this.#options;
    const placement = map.placementOf(record.id);
    if (placement === null || placement.replicas.some(({ leaving }) => leaving === true)) return;
    const drained = new Set(map.nodes().flatMap((node) => (node.drained ? [node.record.name] : [])));
    const place = placement.replicas.find(({ node }) => drained.has(node));
    if (place === undefined || this.#leaving(place.node) >= movesMax) return;
    await this.#change(record, (present) => this.#moved(record, present, place.node, null));
  }

  /** The replica on `node` stays, and the one that was to follow it goes, unless that one follows already: then the move ends by itself. */
  async #cancelMove(record: VolumeRecord, node: string): Promise<void> {
    const present = this.#options.map.placementOf(record.id);
    if (present === null || moveFrom(present, node) === null) return;
    const following = await this.#following(record.id);
    await this.#change(record, (placement) => {
      const move = moveFrom(placement, node);
      if (move === null || following.has(move.to)) return { placement, result: null };
      const replicas = placement.replicas
        .filter((one) => one.node !== move.to)
        .map((one) => (one.node === node ? { node, pool: one.pool } : one));
      return { placement: { ...placement, replicas }, result: null };
    });
  }

  #leaving(node: string): number {
    return this.#options.map
      .placements()
      .filter(({ replicas }) => replicas.some((one) => one.node === node && one.leaving === true)).length;
  }

  #moved(
    record: VolumeRecord,
    placement: PlacementRecord,
    from: string,
    to: string | null,
  ): { readonly placement: PlacementRecord; readonly result: ReplicaPlace } {
    requireThere(record.name, placement, from);
    const other = placement.replicas.find(({ leaving }) => leaving === true);
    if (other !== undefined) throw movesAlready(record.name, other.node);
    const place = this.#placeFor(record, placement, to);
    const replicas = placement.replicas.flatMap((one) =>
      one.node === from ? [{ ...one, leaving: true } as const, place] : [one],
    );
    return { placement: { ...placement, replicas }, result: place };
  }

  #placeFor(record: VolumeRecord, placement: PlacementRecord, node: string | null): ReplicaPlace {
    const besides = placement.replicas.map((one) => one.node);
    if (node !== null) {
      if (besides.includes(node)) throw thereAlready(record.name, node);
      if (this.#requireNode(node).drained) throw isDrained(node);
    }
    const wish = { sizeBytes: record.sizeBytes, replicas: 1, tags: record.orders?.tags ?? [], besides };
    const found = placeReplicas(node === null ? wish : { ...wish, node }, this.#options.ground());
    return found[0] as ReplicaPlace;
  }

  /** Nodes of the placement that say now that they follow: what they said a moment ago is no ground to take one away. */
  async #following(volumeId: string): Promise<Set<string>> {
    const { map, bus } = this.#options;
    const nodes = (map.placementOf(volumeId)?.replicas ?? []).map(({ node }) => node);
    const found = await Promise.all(
      nodes.map(async (node) => {
        const asked = bus.request(
          replicaReadSubject(volumeId, node),
          encodeMessage({ type: "ask" }),
          answerMs,
        );
        const answer = await asked.then(decodeMessage).catch(() => null); // away: it does not follow
        if (answer === null || isBadMessage(answer) || answer.message.type !== "state") return [];
        return answer.message.report.condition === "following" ? [node] : [];
      }),
    );
    return new Set(found.flat());
  }

  #requireNode(name: string): { readonly drained: boolean } {
    const nodes = this.#options.map.nodes();
    const found = nodes.find(({ record }) => record.name === name);
    return requireNode(
      found,
      name,
      nodes.map(({ record }) => record),
    );
  }

  async #change<T>(
    { id, name }: VolumeRecord,
    change: (present: PlacementRecord) => { readonly placement: PlacementRecord; readonly result: T },
  ): Promise<T> {
    const results: T[] = [];
    await this.#options.map.changePlacement(id, (present) => {
      if (present === null) throw noPlacement(name);
      const { placement, result } = change(present);
      results.push(result);
      return placement;
    });
    return results.at(-1) as T;
  }
}

/** The move that empties `node`, if there is one: the new replica stands directly behind the one that leaves. */
function moveFrom({ replicas }: PlacementRecord, node: string): { readonly to: string } | null {
  const index = replicas.findIndex((one) => one.node === node && one.leaving === true);
  const to = index === -1 ? undefined : replicas[index + 1];
  return to === undefined ? null : { to: to.node };
}

function requireThere(volume: string, { replicas }: PlacementRecord, node: string): void {
  if (replicas.some((one) => one.node === node)) return;
  const nodes = replicas.map((one) => one.node).join(", ");
  throw new VarveError("ReplicaMissing", "Invalid", `${volume} has no replica on ${node}`, {
    hint: `It has replicas on ${nodes}. Nothing was changed.`,
    fields: { volume, node },
  });
}

function last(volume: string, node: string): VarveError {
  return new VarveError(
    "ReplicaLast",
    "Retry",
    `no other replica of ${volume} than that on ${node} follows its log`,
    {
      hint: "Add one and wait until it follows: varve replica add, varve replica list. To fill this one all the same: varve replica repair --from-bucket. Nothing was changed.",
      fields: { volume, node },
    },
  );
}

function enough(volume: string): VarveError {
  return new VarveError(
    "ReplicaCountError",
    "Invalid",
    `${volume} has ${limits.replicasMax} replicas already`,
    {
      hint: "Move one instead: varve replica move. Nothing was changed.",
      fields: { volume },
    },
  );
}

function thereAlready(volume: string, node: string): VarveError {
  return new VarveError("ReplicaThere", "Invalid", `${volume} has a replica on ${node} already`, {
    hint: "One node keeps one replica of a volume. Nothing was changed.",
    fields: { volume, node },
  });
}

function isDrained(node: string): VarveError {
  return new VarveError("NodeDrained", "Invalid", `${node} is drained: it gets no replicas`, {
    hint: `End that with: varve node undrain ${node}. Nothing was changed.`,
    fields: { node },
  });
}

function movesAlready(volume: string, node: string): VarveError {
  return new VarveError("ReplicaMoving", "Retry", `${volume} is moving away from ${node} just now`, {
    hint: "Wait until that has ended: varve replica list. Nothing was changed.",
    fields: { volume, node },
  });
}

function nothingToCompare(volume: string, found: number): VarveError {
  return new VarveError(
    "NothingToCompare",
    "Retry",
    `${found} replicas of ${volume} follow its log; two are compared`,
    {
      hint: "See what the others do: varve replica list.",
      fields: { volume, found },
    },
  );
}

function noPlacement(volume: string): VarveError {
  return new VarveError("VolumeNotPlaced", "Invalid", `volume ${volume} has no replica on any storage node`, {
    hint: "Create it again: varve volume create.",
    fields: { volume },
  });
}
