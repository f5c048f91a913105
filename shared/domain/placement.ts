/*
 * Which nodes get the replicas of a new volume: the first fit on the nodes with the fewest active volumes, one replica per node.
 * Pure; the api calls it with what the catalogue says. Rules: docs/specs/cluster.md#placement.
 */
import { readableByteSize } from "./byte-size.ts";
import type { NodeRecord, PlacementRecord, PoolRecord, ReplicaPlace } from "./cluster.ts";
import { VarveError } from "./errors.ts";
import { limits } from "./limits.ts";

export interface PlacementWish {
  readonly sizeBytes: number;
  readonly replicas: number;
  /** Pools without all of these are passed over. */
  readonly tags: readonly string[];
  /** Nodes that have one already. */
  readonly besides?: readonly string[];
  /** On this node or not at all. */
  readonly node?: string;
}

export interface PlacementGround {
  /** Nodes that may take one: alive, not drained. */
  readonly nodes: readonly NodeRecord[];
  /** The others, by name, and why not: "is not heard for 12 s". */
  readonly unfit?: ReadonlyMap<string, string>;
  readonly placements: readonly PlacementRecord[];
  sizeOf(volumeId: string): number;
}

/** Throws PlacementError (Full) where there are too few nodes, with why each was passed over. Nothing is promised by it. */
export function placeReplicas(wish: PlacementWish, ground: PlacementGround): readonly ReplicaPlace[] {
  const places: ReplicaPlace[] = [];
  const passedOver: string[] = [];
  const inOrder = ground.nodes
    .filter(({ name }) => !wish.besides?.includes(name) && (wish.node ?? name) === name)
    .sort((a, b) => volumesOn(a, ground) - volumesOn(b, ground) || (a.name < b.name ? -1 : 1));
  for (const node of inOrder) {
    if (places.length === wish.replicas) break;
    const reasons = node.pools.map((pool) => [pool, reasonAgainst(node, pool, wish, ground)] as const);
    const fit = reasons.find(([, reason]) => reason === null);
    if (fit === undefined)
      passedOver.push(...reasons.map(([pool, why]) => `${node.name}/${pool.name} ${why}`));
    else places.push({ node: node.name, pool: fit[0].name });
  }
  if (places.length === wish.replicas) return places;
  for (const [name, reason] of ground.unfit ?? []) {
    if (!wish.besides?.includes(name) && (wish.node ?? name) === name) passedOver.push(`${name} ${reason}`);
  }
  const why = passedOver.length === 0 ? "" : `: ${passedOver.slice(0, 8).join("; ")}`;
  throw new VarveError(
    "PlacementError",
    "Full",
    `${wish.replicas} replicas want as many storage nodes with room, and ${places.length} can take one${why}`,
    {
      hint: "Start another storage node, give a pool a larger quota, or ask for fewer replicas. See: varve node list.",
      fields: { replicas: wish.replicas, found: places.length, nodes: ground.nodes.length },
    },
  );
}

function volumesOn(node: NodeRecord, { placements }: PlacementGround): number {
  return placements.filter(({ replicas }) => replicas.some((place) => place.node === node.name)).length;
}

function reasonAgainst(
  node: NodeRecord,
  pool: PoolRecord,
  wish: PlacementWish,
  ground: PlacementGround,
): string | null {
  const missing = wish.tags.filter((tag) => !pool.tags.includes(tag));
  if (missing.length > 0) return `lacks the tag ${missing.join(", ")}`;
  const greatest = pool.fileBytesMax ?? limits.volumeBytesMax;
  if (wish.sizeBytes > greatest) return smallFiles(greatest);
  if (pool.freeBytes <= limits.reserveBytes) return "has no free space above its reserve";
  if (pool.quotaBytes === null) return null;
  const placed = ground.placements
    .filter(({ replicas }) => replicas.some((one) => one.node === node.name && one.pool === pool.name))
    .reduce((sum, { volumeId }) => sum + ground.sizeOf(volumeId), 0);
  return placed + wish.sizeBytes <= pool.quotaBytes ? null : "has its quota used up";
}

/** The very number beside: 16 TiB and a block less read alike. */
function smallFiles(greatest: number): string {
  return `holds no file larger than ${readableByteSize(greatest)} (${greatest} bytes)`;
}

/** Replicas of a volume that can't become so large, each with why; [] where all can, or have not said. */
export function placesTooSmall(
  sizeBytes: number,
  places: readonly ReplicaPlace[],
  nodes: readonly NodeRecord[],
): readonly string[] {
  return places.flatMap((place) => {
    const pools = nodes.find(({ name }) => name === place.node)?.pools ?? [];
    const greatest = pools.find(({ name }) => name === place.pool)?.fileBytesMax;
    if (greatest === undefined || sizeBytes <= greatest) return [];
    return [`${place.node}/${place.pool} ${smallFiles(greatest)}`];
  });
}
