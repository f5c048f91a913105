/*
 * What the HTTP API and the command line see of a cluster beside its volumes (volume-administration.ts): nodes, replicas, who serves
 * what. Implemented by services/api/engine/cluster-volumes.ts; all failures are VarveErrors. See docs/specs/cluster.md.
 */
import type { NodeRecord, PoolOrder, ReplicaPlace } from "#shared/domain/cluster.ts";
import type { FillOrigin, ReplicaReport } from "#shared/domain/replica-report.ts";

export interface NodeView extends NodeRecord {
  /** Seen within limits.nodeSilentMs. */
  readonly alive: boolean;
  /** It gets no replicas, and those that it has are moved away. */
  readonly drained: boolean;
  readonly ageMs: number;
  /** Names of the volumes that are placed on it. */
  readonly volumes: readonly string[];
}

export interface ReplicaView {
  readonly volume: string;
  readonly node: string;
  readonly pool: string;
  /** It goes when the others follow. */
  readonly leaving: boolean;
  /** What the node said last; null: nothing within limits.replicaSilentMs. */
  readonly report: ReplicaReport | null;
}

/** Which gateway serves a volume. */
export interface AttachmentView {
  readonly volume: string;
  readonly gateway: string;
  readonly address: string;
  readonly epoch: number;
}

export interface ClusterAdministration {
  /** Sorted by name. */
  nodes(): readonly NodeView[];
  /** Of one volume, or of all (null). Throws UnknownVolumeError. */
  replicas(volume: string | null): readonly ReplicaView[];
  attachments(): readonly AttachmentView[];
  /** Quotas and tags of pools, by which replicas are placed from now on. Rejects Invalid (UnknownNodeError, UnknownPoolError). */
  setPools(node: string, orders: readonly PoolOrder[]): Promise<NodeView>;
  /**
   * Takes the volume away from the gateway that serves it: its clients get errors and connect again, any gateway may serve it a
   * lease later. Rejects Invalid (NotServedError) where none does.
   */
  takeover(volume: string): Promise<AttachmentView>;
}

/** Extents that are not the same everywhere. */
export interface DifferingExtent {
  readonly offset: number;
  readonly sums: readonly { readonly node: string; readonly sum: string }[];
}

export interface ReplicaComparison {
  /** LSN of the last look. */
  readonly lsn: number;
  readonly sizeBytes: number;
  /** Where the next look begins; null: everything was compared. */
  readonly nextOffset: number | null;
  readonly differing: readonly DifferingExtent[];
  /** Extents of this look that not every node has in its file: compared between those that have. */
  readonly notCompared: number;
}

/** Changes of where replicas are (docs/specs/replica-fill.md). Implemented by services/api/engine/replica-placing.ts. */
export interface ReplicaAdministration {
  /**
   * Where it is placed; the node fills it by itself, `from` there alone where that is said. Rejects Full (PlacementError), Invalid
   * (ReplicaThere, ReplicaCountError, FillNoBucket).
   */
  add(volume: string, node: string | null, from?: FillOrigin | null): Promise<ReplicaPlace>;
  /** Its node removes the files when another one is as far. Rejects Retry (ReplicaLast) where no other one follows. */
  remove(volume: string, node: string): Promise<void>;
  /** The one on `from` goes when all others follow. */
  move(volume: string, from: string, to: string | null): Promise<ReplicaPlace>;
  /** Moves everything away from a node, little by little; may be told again at any time. */
  drain(node: string): Promise<void>;
  /** Undoes the moves that have not ended, too: the node's replica stays, unless the new one follows already. */
  undrain(node: string): Promise<void>;
  /**
   * Fills the node's replica again, `from` there alone where that is said. Where no other one follows, only from the bucket: rejects Retry
   * (ReplicaLast) where this one follows and the bucket is not named, Invalid (FillNoBucket) where its node was given none.
   */
  repair(volume: string, node: string, from?: FillOrigin | null): Promise<void>;
  /** Compares some extents from `offset` on, at one LSN. */
  verify(volume: string, offset: number, bytesPerSecond: number | null): Promise<ReplicaComparison>;
}
