/*
 * How a volume of a data directory comes into a cluster (docs/specs/move-into-cluster.md): the port between the HTTP API and
 * services/api/engine/arrivals.ts that implements it. All failures are VarveErrors.
 */
import type { ReadPolicy } from "#shared/domain/volume.ts";

export interface ArrivingVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly reads: ReadPolicy;
  readonly replicas: number;
  /** Id of the volume in its data directory: who comes again with it goes on. */
  readonly from: string;
  /** Where that is, for people. */
  readonly place: string;
}

export interface ArrivalView {
  readonly volumeId: string;
  /** Nothing was ever written to it. */
  readonly fresh: boolean;
}

export interface ArrivalAdministration {
  /**
   * Makes the volume, served as `arriving:NAME` only, or finds the one that was made for the same `from`. Rejects Invalid where the
   * name is taken (VolumeExistsError) or the other one's size differs (ArrivalDiffersError), Full where no node has room.
   */
  arrive(volume: ArrivingVolume): Promise<ArrivalView>;
  /** It is whole: from now on it is a volume as any other. Told again, it changes nothing. Rejects Invalid (UnknownVolumeError). */
  arrived(name: string, volumeId: string): Promise<ArrivalView>;
}
