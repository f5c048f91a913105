/*
 * What a storage node says of one of its replicas, and what the words mean (docs/specs/cluster.md#a-storage-node). Sent as a state
 * message, kept by the gateway that serves the volume, shown by the api. Pure.
 */
import { limits } from "./limits.ts";

/** filling: made now, or applying its log for the first time since it was opened. */
export const replicaConditions = ["filling", "following", "lagging", "halted"] as const;
export type ReplicaCondition = (typeof replicaConditions)[number];

/** What alone may fill a replica, where somebody chose. */
export const fillOrigins = ["bucket", "peers"] as const;
export type FillOrigin = (typeof fillOrigins)[number];

export interface ReplicaReport {
  readonly node: string;
  /** Host name of the node. */
  readonly host: string;
  readonly condition: ReplicaCondition;
  /** Why it halted; else empty. */
  readonly reason: string;
  readonly appliedLsn: number;
  readonly checkpointLsn: number;
  /** Epoch of the last applied batch; 0 before the first. */
  readonly epoch: number;
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  /** Bytes that entries may still take in its image. */
  readonly roomBytes: number;
  /** Of a clone: extents whose bytes are in the bucket still, in part or wholly. Absent: none. */
  readonly remoteExtents?: number;
}

/**
 * What entries may still take in the fullest of the images that go on. What one said that is silent by now stops nobody's writes, nor does
 * a copy on its way to a full disk: both are filled later. Only where there are no others do such ones count.
 */
export function roomOfReplicas(
  heard: readonly { readonly report: ReplicaReport; readonly silentMs: number }[],
): number {
  const going = heard.filter(({ report }) => report.condition !== "halted");
  const counting = going.filter(
    ({ report, silentMs }) => report.condition !== "filling" && silentMs <= limits.replicaLostMs,
  );
  const rooms = (counting.length > 0 ? counting : going).map(({ report }) => report.roomBytes);
  return rooms.length === 0 ? 0 : Math.min(...rooms);
}
