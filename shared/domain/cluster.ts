/*
 * What the machines of one lab know of each other: nodes with their pools, placements of replicas, leases. Stored in key tables
 * by shared/formats/cluster-records.ts; rules in docs/specs/cluster.md. Pure.
 */
import { limits } from "./limits.ts";

/** One data directory of a storage node. */
export interface PoolRecord {
  readonly name: string;
  /** Size of its file system, and what is free there, as of the last renewal. */
  readonly capacityBytes: number;
  readonly freeBytes: number;
  /** Sum of the sizes of volumes that may be placed there; null: no limit but the free bytes. */
  readonly quotaBytes: number | null;
  readonly tags: readonly string[];
  /** The greatest file of its file system, where its node said that: in a record of its own, so that every Varve reads the node's. */
  readonly fileBytesMax?: number;
}

/** Said by each node once after its start. */
export interface FileLimits {
  readonly node: string;
  readonly pools: readonly { readonly name: string; readonly fileBytesMax: number }[];
}

export interface NodeRecord {
  readonly name: string;
  /** Host name: a gateway on the same host reads from this node first. */
  readonly host: string;
  readonly version: string;
  readonly pools: readonly PoolRecord[];
  /** Counts the renewals of this record: a node is alive while it grows. */
  readonly renewal: number;
}

export interface ReplicaPlace {
  readonly node: string;
  readonly pool: string;
  /** It goes as soon as every other replica of the volume follows (docs/specs/replica-fill.md). */
  readonly leaving?: true;
}

export interface PlacementRecord {
  readonly volumeId: string;
  /** Size of the disk before entry 1: what an image begins with. */
  readonly beginBytes: number;
  readonly replicas: readonly ReplicaPlace[];
  /** Of a clone: the disk before entry 1 is this point of its parent, with zeroes behind it up to beginBytes. */
  readonly origin?: PlacementOrigin;
}

export interface PlacementOrigin {
  readonly volumeId: string;
  readonly lsn: number;
}

/** There is one: the node gets no replicas, and those that it has are moved away. */
export interface DrainRecord {
  readonly node: string;
}

/** What a lab file says of a pool: it goes before what the node says; null: the node's own. */
export interface PoolOrder {
  readonly name: string;
  /** 0: no limit. */
  readonly quotaBytes: number | null;
  readonly tags: readonly string[] | null;
}

export interface PoolOrders {
  readonly node: string;
  readonly pools: readonly PoolOrder[];
}

/** The pool as placements see it. */
export function orderedPool(pool: PoolRecord, order: PoolOrder | undefined): PoolRecord {
  if (order === undefined) return pool;
  const { quotaBytes, tags } = order;
  return {
    ...pool,
    ...(quotaBytes === null ? {} : { quotaBytes: quotaBytes === 0 ? null : quotaBytes }),
    ...(tags === null ? {} : { tags }),
  };
}

/** held: the holder renews it. released: free. revoked: an operator took it away; free when its time has passed. */
export const leaseStates = ["held", "released", "revoked"] as const;
export type LeaseState = (typeof leaseStates)[number];

export interface LeaseRecord {
  /** Name of the gateway. */
  readonly holder: string;
  /** Where its clients connect, for messages and for those who relay. */
  readonly address: string;
  /** Random, new with each taking. */
  readonly tenure: string;
  /** Grows with each taking, and when the log knows a greater one: what the holder opens the log with. */
  readonly epoch: number;
  readonly renewal: number;
  readonly leaseMs: number;
  readonly state: LeaseState;
}

/** What the archiver of a volume says: how far it is, and under which epoch it may say so. */
export interface ArchiveRecord {
  /** Name of the archiver process. */
  readonly archiver: string;
  /** Of its tenure: a record of a later one is never replaced by one of an earlier. */
  readonly archiverEpoch: number;
  /** Of the log that it archives. */
  readonly line: string;
  readonly archivedLsn: number;
  /** The log up to here may be released. */
  readonly heldLsn: number;
  /** `s` of the newest base; 0: none. */
  readonly lastBaseLsn: number;
  readonly state: ArchiveState;
  /** What keeps it from archiving; empty: nothing. */
  readonly error: string;
  /** Of a tiered volume: the newest base that the bucket holds; replicas evict behind it. Absent: none. */
  readonly heldBase?: HeldBase;
}

/** `s` and `e` of a base whose objects, and the log up to `e`, are held. */
export interface HeldBase {
  readonly s: number;
  readonly e: number;
}

export const archiveStates = ["running", "waiting for the bucket", "stopped"] as const;
export type ArchiveState = (typeof archiveStates)[number];

const machineNamePattern = /^[a-z0-9][a-z0-9-]*$/;

/** Names of nodes, pools, gateways and tags stand in subjects and keys: no dots. A sentence to stand behind the name, or null. */
export function machineNameMistake(name: string): string | null {
  if (name === "") return "is empty";
  if (name.length > limits.nameLengthMax) return `is longer than ${limits.nameLengthMax} characters`;
  if (!machineNamePattern.test(name)) {
    return "must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case)";
  }
  return null;
}
