/*
 * Which storage nodes there are and which of them keep replicas of which volume (docs/specs/cluster.md). Nodes write their own
 * record, the api writes placements, gateways and nodes read both. Adapter: adapters/cluster-map/key-table.ts over any key table.
 */
import type { FileLimits, NodeRecord, PlacementRecord, PoolOrder } from "#shared/domain/cluster.ts";
import type { VarveError } from "#shared/domain/errors.ts";

export interface SeenNode {
  /** Its pools as placements see them: what was ordered goes before what the node says. */
  readonly record: NodeRecord;
  /** Milliseconds since its last renewal was seen, by this process's own monotonic clock. */
  readonly ageMs: number;
  /** It gets no replicas, and those that it has are moved away. */
  readonly drained: boolean;
}

export interface ClusterMap {
  /** Resolves when what is stored is known. */
  ready(): Promise<void>;
  nodes(): readonly SeenNode[];
  placements(): readonly PlacementRecord[];
  placementOf(volumeId: string): PlacementRecord | null;
  /** Tells of every change of a node or a placement from now on. */
  onChange(listener: () => void): void;
  /** A record that can't be read; it counts as not there. */
  onError(listener: (error: VarveError) => void): void;
  /** Durable when it resolves. Rejects Retry while the table is away, or when others change it all the time. */
  putNode(record: NodeRecord): Promise<void>;
  /** Says how large files in a node's pools may be; nodes() has it with each pool. Durable when it resolves; rejects as putNode(). */
  putFileLimits(record: FileLimits): Promise<void>;
  /** Drains a node or ends that. Durable when it resolves; rejects as putNode(). */
  setDrained(node: string, drained: boolean): Promise<void>;
  /** Orders for pools of a node; those of other pools, and what is null here, stay. Durable when it resolves; rejects as putNode(). */
  setPools(node: string, orders: readonly PoolOrder[]): Promise<void>;
  /**
   * Replaces a placement by what `change` makes of it (null: there is none, or it goes); made again where somebody else changed it
   * meanwhile.
   */
  changePlacement(
    volumeId: string,
    change: (present: PlacementRecord | null) => PlacementRecord | null,
  ): Promise<void>;
  close(): void;
}
