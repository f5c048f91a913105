/*
 * A pool as the engines of a storage node use it. Implemented by node-layer.ts; replica-set.ts places replicas in it, kept-replica.ts
 * opens them.
 */
import type { ReplicaHome } from "#shared/ports/replica-home.ts";

/** Locked, its room watched. */
export interface OpenPool {
  readonly name: string;
  readonly dataDirectory: string;
  readonly replicas: ReplicaHome;
  roomBytes(): number;
}
