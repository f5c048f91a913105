/*
 * What the HTTP API and the command line see of a cluster beside its volumes (volume-administration.ts): nodes, replicas, who serves
 * what. Implemented by services/api/engine/cluster-volumes.ts; all failures are VarveErrors. See docs/specs/cluster.md.
 */
import type { NodeRecord } from "#shared/domain/cluster.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";

export interface NodeView extends NodeRecord {
  /** Seen within limits.nodeSilentMs. */
  readonly alive: boolean;
  readonly ageMs: number;
  /** Names of the volumes that are placed on it. */
  readonly volumes: readonly string[];
}

export interface ReplicaView {
  readonly volume: string;
  readonly node: string;
  readonly pool: string;
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
  /**
   * Takes the volume away from the gateway that serves it: its clients get errors and connect again, any gateway may serve it a
   * lease later. Rejects Invalid (NotServedError) where none does.
   */
  takeover(volume: string): Promise<AttachmentView>;
}
