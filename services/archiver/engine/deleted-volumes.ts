/*
 * The deleted volumes of a bucket for a cluster's api process: which can come back and until when, and the line that one comes back on.
 * Made by services/archiver/keeper-layer.ts; services/api/engine/cluster-undelete.ts has the order. Below: rescuer.ts.
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import type { TakenLine } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import type { DeletedVolumes, RescuePlan } from "#shared/ports/rescue.ts";
import { BucketReader } from "./bucket-reader.ts";
import { CollectorLease, type LeaseParts } from "./collector-lease.ts";
import { CollectorStateFile } from "./collector-state-file.ts";
import { Rescuer } from "./rescuer.ts";
import { burialsLeft } from "./volume-burial.ts";

export class BucketDeletedVolumes implements DeletedVolumes {
  private readonly rescuer: Rescuer;
  private readonly state: CollectorStateFile;
  private readonly lease: CollectorLease;

  constructor(parts: Omit<LeaseParts, "startedMs">) {
    this.rescuer = new Rescuer({ ...parts, reader: new BucketReader(parts.store) });
    this.state = new CollectorStateFile(parts.store);
    this.lease = new CollectorLease({ ...parts, startedMs: parts.clock.monotonicMs() });
  }

  async find(): Promise<readonly VolumeManifest[]> {
    const { deleted } = await this.rescuer.find();
    return deleted.map(({ manifest }) => manifest);
  }

  async left(): Promise<ReadonlyMap<string, number>> {
    return await burialsLeft(this.state, this.lease, limits.deletedVolumeMs);
  }

  async plan(volumeId: string): Promise<RescuePlan> {
    return await this.rescuer.plan(volumeId);
  }

  async takeLine(volumeId: string, line: TakenLine): Promise<RescuePlan> {
    return await this.rescuer.takeLine(volumeId, line);
  }
}
