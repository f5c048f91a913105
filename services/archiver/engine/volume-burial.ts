/*
 * The end of a deleted volume: when its grace time is over, a last manifest that names nothing, or only what clones still
 * need, is published above everything that its archiver may have written. collector.ts calls it before it marks; the objects
 * go by the ordinary rules.
 */
import type { PointPin, VolumeManifest } from "#shared/domain/archive.ts";
import { manifestKey } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { planRetention } from "#shared/domain/retention-plan.ts";
import type { CollectorState } from "#shared/formats/collector-object.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import type { BucketFinding } from "#shared/ports/bucket-administration.ts";
import type { BucketReader, SeenVolume } from "./bucket-reader.ts";
import type { CollectorLease } from "./collector-lease.ts";
import type { CollectorStateFile } from "./collector-state-file.ts";
import { keptBy, originsIn } from "./history-trimmer.ts";

type DeletedVolumes = CollectorState["deletedVolumes"];

export interface BurialRequest {
  readonly nowMs: number;
  /** Count time, publish nothing. */
  readonly isDry: boolean;
  /** Manifests without bases that are not held. */
  held(manifests: readonly VolumeManifest[]): readonly VolumeManifest[];
  pointsInUse(volumeId: string): readonly number[];
  /** It is being undeleted here, or was: its manifest says deleted for a moment still. Where that can't be known it rejects. */
  isComingBack(volumeId: string): Promise<boolean>;
  /** Whether the store's probe passed. */
  conditionalPut(): Promise<boolean>;
}

/** A deleted volume whose manifest names nothing: it can't come back. */
export function isBuried(manifest: VolumeManifest): boolean {
  const { deletedAtMs, bases, pages, segments, snapshots } = manifest;
  return deletedAtMs !== null && bases.length + pages.length + segments.length + snapshots.length === 0;
}

/** Deleted volumes that a run has seen, with the retention time that is left to each. Changes nothing. */
export async function burialsLeft(
  state: Pick<CollectorStateFile, "read">,
  lease: Pick<CollectorLease, "look">,
  graceMs: number,
): Promise<ReadonlyMap<string, number>> {
  const { deletedVolumes } = await state.read();
  const { time } = await lease.look({ newestMs: null, oldestMs: null });
  return new Map(
    deletedVolumes.map(({ volumeId, sinceMs }) => [volumeId, Math.max(0, sinceMs + graceMs - time.timeMs)]),
  );
}

export class VolumeBurial {
  private readonly reader: BucketReader;
  private readonly graceMs: number;

  constructor(reader: BucketReader, graceMs: number) {
    this.reader = reader;
    this.graceMs = graceMs;
  }

  /** Publishes the last manifests that are due. Returns which volumes are deleted and since when a run knows it. */
  async bury(
    volumes: readonly SeenVolume[],
    before: DeletedVolumes,
    request: BurialRequest,
  ): Promise<{ readonly deletedVolumes: DeletedVolumes; readonly buried: readonly BucketFinding[] }> {
    const since = new Map(before.map((one) => [one.volumeId, one.sinceMs]));
    const deletedVolumes: { volumeId: string; sinceMs: number }[] = [];
    const buried: BucketFinding[] = [];
    const manifests = volumes.flatMap(({ present }) => (present === null ? [] : [present.manifest]));
    for (const { listed, present } of volumes) {
      if (present === null || present.manifest.deletedAtMs === null || isBuried(present.manifest)) continue;
      if (deletedVolumes.length === limits.collectorDeletedVolumesMax) break;
      const sinceMs = since.get(listed.volumeId) ?? request.nowMs;
      deletedVolumes.push({ volumeId: listed.volumeId, sinceMs });
      if (request.isDry || request.nowMs - sinceMs < this.graceMs) continue;
      if (await request.isComingBack(listed.volumeId)) continue;
      const points = pointsNeeded(present.manifest, manifests, request);
      const last = remains(present.manifest, manifests, points, request.nowMs);
      if (last === null) continue;
      if (!(await this.publish(present.key, last, request))) continue;
      const what =
        points.length === 0
          ? "its objects go now"
          : `what clones need of it stays (LSN ${points.join(", ")})`;
      buried.push({
        key: `volume ${present.manifest.name}`,
        problem: `was deleted, its time is over: ${what}`,
      });
    }
    return { deletedVolumes, buried };
  }

  /** Only above the manifest that was judged: an undelete meanwhile has a line of its own, and wins, as does an archiver of this line. */
  private async publish(judgedKey: string, last: VolumeManifest, request: BurialRequest): Promise<boolean> {
    if ((await this.reader.presentKey(last.volumeId)) !== judgedKey) return false;
    const options = (await request.conditionalPut()) ? { onlyNew: true } : {};
    return (await this.reader.store.put(manifestKey(last), encodeManifest(last), options)) === "stored";
  }
}

/** Points of a deleted volume that others are folded from. */
function pointsNeeded(
  manifest: VolumeManifest,
  manifests: readonly VolumeManifest[],
  request: BurialRequest,
): readonly number[] {
  const { volumeId } = manifest;
  const held = livePins(manifest, manifests).map((pin) => pin.lsn);
  const origins = originsIn(request.held(manifests), volumeId);
  const points = new Set([...held, ...origins, ...request.pointsInUse(volumeId)]);
  return [...points].sort((a, b) => a - b);
}

/** A pin counts while its holder is there and not buried. */
function livePins(manifest: VolumeManifest, manifests: readonly VolumeManifest[]): readonly PointPin[] {
  const isThere = (holder: string): boolean =>
    manifests.some((one) => one.volumeId === holder && !isBuried(one));
  return manifest.pins.filter((pin) => isThere(pin.holder));
}

/** The next manifest, or null where the present one names no more than that already. */
function remains(
  manifest: VolumeManifest,
  manifests: readonly VolumeManifest[],
  points: readonly number[],
  nowMs: number,
): VolumeManifest | null {
  const pins = livePins(manifest, manifests);
  const next = { ...manifest, archiverEpoch: manifest.archiverEpoch + 1, number: 1, snapshots: [], pins };
  if (points.length === 0) {
    return { ...next, retainedFromLsn: manifest.archivedLsn, bases: [], pages: [], segments: [] };
  }
  const plan = planRetention(next, { nowMs, historyMs: 0, pointsInUse: points });
  const kept = { ...next, ...keptBy(plan) };
  const names = (one: VolumeManifest): number => one.bases.length + one.pages.length + one.segments.length;
  return names(kept) < names(manifest) ? kept : null;
}
