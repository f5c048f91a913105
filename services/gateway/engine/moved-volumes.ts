/*
 * Volumes of a data directory that were moved into a cluster: their records stay, so that they are never served here again, and their
 * files, until they are deleted. volume-host.ts asks it, and moves a volume through it. Rules: docs/specs/move-into-cluster.md.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { HostedVolume } from "./hosted-volume.ts";

/** The volume at the end of its log. */
export interface MoveSource {
  readonly record: VolumeRecord;
  readonly disk: BlockExport;
  readonly allocatedBytes: number;
}

/** Copies it, and says which volume it is at the other place. */
export type MoveCopy = (source: MoveSource) => Promise<string>;

export class MovedVolumes {
  readonly #catalog: Pick<VolumeCatalog, "put">;
  readonly #here: Map<string, HostedVolume>;
  readonly #records = new Map<string, VolumeRecord>();

  /** `here`: those that are not moved. */
  constructor(catalog: Pick<VolumeCatalog, "put">, here: Map<string, HostedVolume>) {
    this.#catalog = catalog;
    this.#here = here;
  }

  list(): readonly VolumeRecord[] {
    return [...this.#records.values()];
  }

  find(name: string): VolumeRecord | null {
    return this.#records.get(name) ?? null;
  }

  add(record: VolumeRecord): void {
    this.#records.set(record.name, record);
  }

  names(): readonly string[] {
    return [...this.#records.keys()];
  }

  /** Deletes what is left of it: the cluster has its bytes, and the bucket its past of before. */
  async drop({ name }: VolumeRecord, forget: () => Promise<void>): Promise<void> {
    await forget();
    this.#records.delete(name);
  }

  /** For whoever wants the volume of that name; null where it is none of these. */
  refusal(name: string): VarveError | null {
    const record = this.find(name);
    return record === null ? null : volumeMoved(record);
  }

  refuse(name: string): void {
    const refusal = this.refusal(name);
    if (refusal !== null) throw refusal;
  }

  /** Nothing can write to the source from before the copy begins until after it is marked: the session is open, or the host is. */
  async move(volume: HostedVolume, place: string, copy: MoveCopy): Promise<void> {
    const volumeId = await volume.withSession(async (session) => {
      requireWholeImage(volume);
      const disk = volume.openExport();
      try {
        const allocatedBytes = session.status().image.allocatedBytes;
        return await copy({ record: volume.record, disk, allocatedBytes });
      } finally {
        disk.close();
      }
    });
    // The session is closed: the image is the end of the log, and stays as it is.
    const record: VolumeRecord = { ...volume.record, state: "moved", move: { volumeId, place } };
    await this.#catalog.put(record);
    this.#here.delete(record.name);
    this.add(record);
  }
}

function volumeMoved({ name, move }: VolumeRecord): VarveError {
  const place = move?.place ?? "";
  return new VarveError("VolumeMovedError", "Invalid", `volume ${name} was moved to ${place}`, {
    hint: `It is served there. Once it is looked at there, varve volume delete ${name} frees what is left of it here.`,
    fields: { name, place },
  });
}

function requireWholeImage(volume: HostedVolume): void {
  const residency = volume.residency();
  if (residency === null || residency.localExtents === residency.extents) return;
  const remote = residency.extents - residency.localExtents;
  throw new VarveError(
    "MoveNeedsFillError",
    "Invalid",
    `volume ${volume.name}: ${remote} of ${residency.extents} extents are in its bucket only`,
    {
      hint: `Start varve up with its bucket, fetch them with varve volume fill ${volume.name}, stop it, then move. Nothing was changed.`,
      fields: { name: volume.name, remote },
    },
  );
}
