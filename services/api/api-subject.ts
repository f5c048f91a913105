/*
 * What the HTTP API shows and changes: the ports behind its routes, given by the process that serves them (`varve up`).
 * routes.ts calls them; the JSON forms of what they say are those of shared/api/http-api.ts.
 */
import type { ApiStatus } from "#shared/api/http-api.ts";
import type { ArrivalAdministration } from "#shared/ports/arrival-administration.ts";
import type { BucketAdministration } from "#shared/ports/bucket-administration.ts";
import type { ClusterAdministration, ReplicaAdministration } from "#shared/ports/cluster-administration.ts";
import type { ConnectionRegister } from "#shared/ports/connection-register.ts";
import type { PastAdministration } from "#shared/ports/past-administration.ts";
import type { VolumeAdministration } from "#shared/ports/volume-administration.ts";

export interface ApiSubject {
  readonly volumes: VolumeAdministration;
  readonly past: PastAdministration;
  /** Not there on one machine. */
  readonly cluster?: ClusterAdministration;
  readonly replicas?: ReplicaAdministration;
  readonly arrivals?: ArrivalAdministration;
  /** Null with `--bucket none`. */
  readonly bucket: () => BucketAdministration | null;
  readonly connections: ConnectionRegister;
  /** NBD URIs of a volume, one per listening address. */
  readonly urisOf: (name: string) => readonly string[];
  /** What routes.ts does not count itself. */
  readonly process: () => Promise<Omit<ApiStatus, "volumes" | "volumesFailed" | "connections">>;
}
