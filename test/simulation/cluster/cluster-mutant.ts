/*
 * The seams at which a deliberate bug can be put between the parts of a cluster: each port that a process wires passes through here.
 * `faithful` changes nothing; cluster-mutants.ts holds the bugs.
 */
import type { VolumeStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Leases } from "#shared/ports/lease.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import type { DirectFiles } from "../../../services/gateway/engine/direct-reads.ts";
import type { RemoteReplica } from "../../../services/gateway/engine/remote-replica.ts";
import type { VolumeSession } from "../../../services/gateway/engine/volume-session.ts";

export interface ClusterMutant {
  readonly name: string;
  stream(stream: VolumeStream, gateway: string): VolumeStream;
  log(log: WriteLog): WriteLog;
  replica(replica: RemoteReplica): RemoteReplica;
  session(session: VolumeSession): VolumeSession;
  opened(opened: BlockExport): BlockExport;
  leases(leases: Leases): Leases;
  follower(follower: LogFollower): LogFollower;
  store(store: FileStore): FileStore;
  beside(parts: Beside): Beside;
}

export type HostStore = DirectFiles["store"];

/** How a gateway hears of replicas, and what it sees of the node's files on its own host; null: no node is there. */
export interface Beside {
  readonly files: HostStore | null;
  readonly bus: MessageBus;
  readonly clock: Clock;
}

export const faithfulCluster: ClusterMutant = {
  name: "faithful",
  stream: (stream) => stream,
  log: (log) => log,
  replica: (replica) => replica,
  session: (session) => session,
  opened: (opened) => opened,
  leases: (leases) => leases,
  follower: (follower) => follower,
  store: (store) => store,
  beside: (parts) => parts,
};

export function clusterMutant(name: string, bug: Partial<Omit<ClusterMutant, "name">>): ClusterMutant {
  return { ...faithfulCluster, ...bug, name };
}
