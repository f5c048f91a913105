/*
 * Volumes that come into the cluster from a data directory (docs/specs/move-into-cluster.md). `varve volume move` begins and ends them
 * through the HTTP API, and fills them through a gateway in between.
 *
 *   (none) ─arrive─► creating ─placed─► arriving ─arrived─► active        creating, arriving ─delete─► deleting
 */
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { type PlacementGround, placeReplicas } from "#shared/domain/placement.ts";
import { checkVolumeName, checkVolumeSize, type VolumeRecord } from "#shared/domain/volume.ts";
import { newVolumeRecord } from "#shared/domain/volume-orders.ts";
import type {
  ArrivalAdministration,
  ArrivalView,
  ArrivingVolume,
} from "#shared/ports/arrival-administration.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { refuseSettling } from "./cluster-errors.ts";

export interface ArrivalsOptions {
  readonly catalog: VolumeCatalog;
  readonly map: ClusterMap;
  readonly past: PastRecords;
  readonly clock: Clock;
  readonly random: Random;
  /** As in ClusterVolumesOptions. */
  readonly archived: boolean;
  readonly ground: () => PlacementGround;
}

export class Arrivals implements ArrivalAdministration {
  readonly #options: ArrivalsOptions;

  constructor(options: ArrivalsOptions) {
    this.#options = options;
  }

  /** Every step is one that may have been done before: whoever comes again after a crash ends it. */
  async arrive(volume: ArrivingVolume): Promise<ArrivalView> {
    const { catalog, map, past, archived } = this.#options;
    const { name, sizeBytes, replicas } = volume;
    checkVolumeName(name);
    refuseSettling(catalog, name);
    checkVolumeSize(sizeBytes);
    const found = catalog.find(name);
    if (found !== null) requireSame(found, volume);
    const record = found ?? this.#recordOf(volume);
    if (record.state === "arriving") return { volumeId: record.id, fresh: false };
    if (map.placementOf(record.id) === null) {
      const places = placeReplicas({ sizeBytes, replicas, tags: [] }, this.#options.ground());
      if (found === null) await catalog.put(record);
      const placement = { volumeId: record.id, beginBytes: sizeBytes, replicas: places };
      await map.changePlacement(record.id, (present) => present ?? placement);
    }
    if (archived) {
      await past.changeHistory(record.id, (present) => present ?? newHistoryRecord(record.id, sizeBytes));
    }
    await catalog
      .change(record.id, (present) => madeOf(present, "arriving"))
      .catch(async (cause: unknown) => {
        // Deleted meanwhile: nothing of it stays.
        if (catalog.get(record.id) === null) {
          await past.forget(record.id);
          await map.changePlacement(record.id, () => null);
        }
        throw cause;
      });
    return { volumeId: record.id, fresh: found === null };
  }

  async arrived(name: string, volumeId: string): Promise<ArrivalView> {
    const { catalog } = this.#options;
    const record = catalog.get(volumeId);
    if (
      record === null ||
      record.name !== name ||
      (record.state !== "arriving" && record.state !== "active")
    ) {
      throw notArriving(name, volumeId);
    }
    await catalog.change(volumeId, (present) => {
      // Deleted meanwhile: it stays so.
      if (present.state !== "arriving") return present;
      const { move: _move, ...whole } = present;
      return { ...whole, state: "active" };
    });
    return { volumeId, fresh: false };
  }

  #recordOf({ name, sizeBytes, reads, from, place, replicas }: ArrivingVolume): VolumeRecord {
    if (!(replicas >= 1 && replicas <= limits.replicasMax)) throw replicaCount(replicas);
    const { clock, random } = this.#options;
    return {
      ...newVolumeRecord({ name, sizeBytes, durability: "write" }, random.hex(8), clock.wallTimeMs()),
      ...(reads === "strict" ? { reads } : {}),
      move: { volumeId: from, place },
    };
  }
}

function requireSame(found: VolumeRecord, { name, from, sizeBytes }: ArrivingVolume): void {
  const begun = found.state === "creating" || found.state === "arriving";
  if (!begun || found.move?.volumeId !== from) {
    throw new VarveError(
      "VolumeExistsError",
      "Invalid",
      `a volume named ${name} exists already in the cluster`,
      {
        hint: "Delete it there if it is not wanted: varve volume delete NAME. Nothing was changed.",
        fields: { name },
      },
    );
  }
  if (found.sizeBytes === sizeBytes) return;
  throw new VarveError(
    "ArrivalDiffersError",
    "Invalid",
    `volume ${name} was resized since its move was begun: it has ${sizeBytes} bytes, in the cluster ${found.sizeBytes}`,
    {
      hint: `Delete what is half there in the cluster, then move it again: varve volume delete ${name} --api URL. Nothing was changed.`,
      fields: { name, sizeBytes, thereBytes: found.sizeBytes },
    },
  );
}

function notArriving(name: string, volumeId: string): VarveError {
  return new VarveError(
    "UnknownVolumeError",
    "Invalid",
    `no volume ${name} with id ${volumeId} is arriving in this cluster`,
    {
      hint: "Is --api the cluster that its move was begun to? Nothing was changed.",
      fields: { name, volumeId },
    },
  );
}

export function replicaCount(replicas: number): VarveError {
  return new VarveError(
    "ReplicaCountError",
    "Invalid",
    `${replicas} replicas; a volume has 1 to ${limits.replicasMax}`,
    { hint: "For example: --replicas 2. Nothing was changed.", fields: { replicas } },
  );
}

/** The record of a volume that was placed: whoever deleted it meanwhile was told so, and it stays deleted. */
export function madeOf(present: VolumeRecord, state: "active" | "arriving"): VolumeRecord {
  if (present.state === "creating" || present.state === state) return { ...present, state };
  throw new VarveError("UnknownVolumeError", "Invalid", `volume ${present.name} was deleted meanwhile`, {
    hint: "Nothing of it is left. Make it again, if it is wanted.",
    fields: { name: present.name },
  });
}

/** For who wants to use it. */
export function stillUnfinished({ name, move }: VolumeRecord): VarveError {
  const fields = { name };
  if (move === undefined) {
    return new VarveError("VolumeUnfinishedError", "Retry", `volume ${name} is being created`, {
      hint: `Where nobody creates it any more: varve volume delete ${name}, then create it, or undelete it, again.`,
      fields,
    });
  }
  return new VarveError("VolumeArrivingError", "Retry", `volume ${name} is being moved into the cluster`, {
    hint: "Where nobody moves it any more: run varve volume move again, it goes on; or varve volume delete, it stays where it was.",
    fields,
  });
}
