/*
 * Lets history leave the manifests of the volumes that are served here: exact bases for snapshots that outlived the window, then
 * a manifest that names less. Called by each run of the collector, before it marks; the objects go much later, by collector.ts.
 * See docs/specs/retention.md, "How history leaves a manifest".
 */
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { dropsAnything, planRetention, type RetentionPlan } from "#shared/domain/retention-plan.ts";
import type { VolumeArchive } from "#shared/ports/archive.ts";
import type { BucketFinding, CollectReport } from "#shared/ports/bucket-administration.ts";

/** A volume that this process archives. */
export interface ServedVolume {
  readonly volumeId: string;
  readonly name: string;
  readonly archive: Pick<VolumeArchive, "manifest" | "amend">;
  /** Points that somebody reads from now: open exports, remote extents. Asked at the moment of publishing. */
  pointsInUse(): readonly number[];
}

/** Makes an exact base of a point (s = e = lsn): its objects are in the bucket when it resolves. */
export type ExactBaseBuilder = (volume: ServedVolume, lsn: number) => Promise<BaseRef>;

export interface TrimmerParts {
  served(): readonly ServedVolume[];
  readonly exactBase: ExactBaseBuilder;
}

export interface TrimRequest {
  readonly nowMs: number;
  readonly dryRun: boolean;
  /** Present manifests of all volumes that are known, for origins that point to ours. */
  readonly manifests: readonly VolumeManifest[];
}

type Trimmed = CollectReport["trimmed"][number];

export class HistoryTrimmer {
  private readonly parts: TrimmerParts;
  readonly findings: BucketFinding[] = [];

  constructor(parts: TrimmerParts) {
    this.parts = parts;
  }

  /** One volume after the other; one that can't be trimmed stays as it is, and is told. */
  async trim(request: TrimRequest): Promise<readonly Trimmed[]> {
    this.findings.length = 0;
    const trimmed: Trimmed[] = [];
    for (const volume of this.parts.served()) {
      try {
        const result = await this.volume(volume, request);
        if (result !== null) trimmed.push(result);
      } catch (cause) {
        this.tell(volume, toVarveError(cause, "trim").message);
      }
    }
    return trimmed;
  }

  private async volume(volume: ServedVolume, request: TrimRequest): Promise<Trimmed | null> {
    const manifest = volume.archive.manifest();
    if (manifest === null) return null;
    const first = plan(volume, manifest, request);
    if (first.unopenable.length > 0) {
      this.tell(volume, `nothing is trimmed: no way to open LSN ${first.unopenable.join(", ")}`);
      return null;
    }
    const exactBases = request.dryRun ? first.exactBasesDue : await this.exactBases(volume, first);
    if (request.dryRun)
      return dropsAnything(manifest, first) ? result(volume, manifest, first, exactBases) : null;
    const grown = volume.archive.manifest() ?? manifest;
    if (!dropsAnything(grown, plan(volume, grown, request))) {
      return exactBases.length === 0 ? null : result(volume, grown, plan(volume, grown, request), exactBases);
    }
    let before = grown;
    let published: RetentionPlan = first;
    await volume.archive.amend((present) => {
      // Snapshots and pins as they are at this very moment: the plan is made again.
      before = present;
      published = plan(volume, present, request);
      return { ...present, ...keptBy(published) };
    });
    return result(volume, before, published, exactBases);
  }

  /** Where one can't be built, what its snapshot needs stays, so it is only told. */
  private async exactBases(volume: ServedVolume, due: RetentionPlan): Promise<readonly number[]> {
    const built: number[] = [];
    for (const lsn of due.exactBasesDue) {
      try {
        const base = await this.parts.exactBase(volume, lsn);
        await volume.archive.amend((present) => ({
          ...present,
          bases: [...present.bases, base].sort(byRange),
        }));
        built.push(lsn);
      } catch (cause) {
        this.tell(volume, `no exact base of LSN ${lsn} yet: ${toVarveError(cause, "exact base").message}`);
      }
    }
    return built;
  }

  private tell(volume: ServedVolume, problem: string): void {
    this.findings.push({ key: `volume ${volume.name}`, problem });
  }
}

/** What a manifest keeps of its lists after a plan. */
export function keptBy(
  kept: RetentionPlan,
): Pick<VolumeManifest, "retainedFromLsn" | "bases" | "pages" | "segments"> {
  const { retainedFromLsn, bases, pages, segments } = kept;
  return { retainedFromLsn, bases, pages, segments };
}

/** LSNs of `volumeId` that points of other volumes are folded from, deleted ones that may come back included. */
export function originsIn(manifests: readonly VolumeManifest[], volumeId: string): readonly number[] {
  return manifests.flatMap((manifest) => {
    const { origin } = manifest;
    if (origin?.volumeId !== volumeId) return [];
    // All that the clone's manifest retains now, whatever its window is.
    const all = { nowMs: 0, historyMs: Number.MAX_SAFE_INTEGER, pointsInUse: [] };
    return planRetention(manifest, all).needsOrigin ? [origin.lsn] : [];
  });
}

function plan(volume: ServedVolume, manifest: VolumeManifest, request: TrimRequest): RetentionPlan {
  const pointsInUse = [...volume.pointsInUse(), ...originsIn(request.manifests, volume.volumeId)];
  return planRetention(manifest, { nowMs: request.nowMs, historyMs: manifest.historyMs, pointsInUse });
}

function result(
  volume: ServedVolume,
  before: VolumeManifest,
  after: RetentionPlan,
  exactBases: readonly number[],
): Trimmed {
  const segmentsOf = ({ pages, segments }: Pick<VolumeManifest, "pages" | "segments">): number =>
    pages.reduce((sum, page) => sum + page.segments, 0) + segments.length;
  return {
    volume: volume.name,
    retainedFromLsn: after.retainedFromLsn,
    segments: segmentsOf(before) - segmentsOf(after),
    bases: before.bases.length - after.bases.length,
    exactBases,
  };
}

function byRange(a: BaseRef, b: BaseRef): number {
  return a.s - b.s || a.e - b.e;
}
