/*
 * Lets history leave the manifests of the volumes that are served here: exact bases for snapshots that outlived the window, then
 * a manifest that names less. Called by each run of the collector, before it marks; the objects go much later, by collector.ts.
 * See docs/specs/retention.md, "How history leaves a manifest".
 */
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { dropsAnything, planRetention, type RetentionPlan } from "#shared/domain/retention-plan.ts";
import type { BaseObjects, VolumeArchive } from "#shared/ports/archive.ts";
import type { BucketFinding, CollectReport } from "#shared/ports/bucket-administration.ts";

/** A volume that this process archives. */
export interface ServedVolume {
  readonly volumeId: string;
  readonly name: string;
  readonly archive: Pick<VolumeArchive, "manifest" | "amend" | "isBaseHeld" | "watchBase">;
  /** Points that somebody reads from now: open exports, remote extents. Asked at the moment of publishing. */
  pointsInUse(): readonly number[];
}

/** A base whose objects are in the bucket, not named yet. */
export interface ExactBase {
  readonly ref: BaseRef;
  /** What must be there when the settle time is over. */
  readonly objects: BaseObjects;
  /** Whether all that it borrowed from other bases is still named: asked at the moment of publishing. */
  isSound(): boolean;
  /** It is published, or given up. */
  end(): void;
}

/** Makes an exact base of a point (s = e = lsn). */
export type ExactBaseBuilder = (volume: ServedVolume, lsn: number) => Promise<ExactBase>;

export interface TrimmerParts {
  served(): readonly ServedVolume[];
  readonly exactBase: ExactBaseBuilder;
}

export interface TrimRequest {
  readonly nowMs: number;
  readonly dryRun: boolean;
  /** Present manifests of all volumes that are known, for origins that point to ours. */
  readonly manifests: readonly VolumeManifest[];
  /** History from before this time goes although its window is longer: the bucket is above its cap. */
  readonly notBeforeMs?: number;
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
        const result = await this.volume(volume, { ...request, manifests: this.held(request.manifests) });
        if (result !== null) trimmed.push(result);
      } catch (cause) {
        this.tell(volume, toVarveError(cause, "trim").message);
      }
    }
    return trimmed;
  }

  /** Manifests without the bases that are not held yet, as far as that is known here: a clone may still need its origin. */
  held(manifests: readonly VolumeManifest[]): readonly VolumeManifest[] {
    const archives = new Map(this.parts.served().map(({ volumeId, archive }) => [volumeId, archive]));
    return manifests.map((manifest) => {
      const archive = archives.get(manifest.volumeId);
      if (archive === undefined) return manifest;
      return { ...manifest, bases: manifest.bases.filter((base) => archive.isBaseHeld(base.key)) };
    });
  }

  private async volume(volume: ServedVolume, request: TrimRequest): Promise<Trimmed | null> {
    const manifest = volume.archive.manifest();
    if (manifest === null) return null;
    const first = this.plan(volume, manifest, request);
    if (first.unopenable.length > 0) {
      // After a start bases are looked at again; until they are found whole nothing goes.
      if (this.planWith(manifest.bases, volume, manifest, request).unopenable.length === 0) return null;
      this.tell(volume, `nothing is trimmed: no way to open LSN ${first.unopenable.join(", ")}`);
      return null;
    }
    const exactBases = request.dryRun ? first.exactBasesDue : await this.exactBases(volume, first);
    const grown = volume.archive.manifest() ?? manifest;
    const second = this.plan(volume, grown, request);
    const drops = dropsAnything(grown, second);
    if (request.dryRun || !drops) {
      return drops || exactBases.length > 0 ? result(volume, grown, second, exactBases) : null;
    }
    let before = grown;
    let published = second;
    await volume.archive.amend((present) => {
      // Snapshots and pins as they are at this very moment: the plan is made again.
      before = present;
      published = this.plan(volume, present, request);
      return { ...present, ...keptBy(published) };
    });
    return result(volume, before, published, exactBases);
  }

  /** What may go, without counting on bases that are not held. */
  private plan(volume: ServedVolume, manifest: VolumeManifest, request: TrimRequest): RetentionPlan {
    const isHeld = (base: BaseRef): boolean => volume.archive.isBaseHeld(base.key);
    const plan = this.planWith(manifest.bases.filter(isHeld), volume, manifest, request);
    const kept = new Set(plan.bases.map((base) => base.key));
    return { ...plan, bases: manifest.bases.filter((base) => kept.has(base.key) || !isHeld(base)) };
  }

  private planWith(
    bases: readonly BaseRef[],
    volume: ServedVolume,
    manifest: VolumeManifest,
    { nowMs, manifests, notBeforeMs = Number.NEGATIVE_INFINITY }: TrimRequest,
  ): RetentionPlan {
    const pointsInUse = [...volume.pointsInUse(), ...originsIn(manifests, volume.volumeId)];
    const historyMs = Math.min(manifest.historyMs, Math.max(0, nowMs - notBeforeMs));
    return planRetention({ ...manifest, bases }, { nowMs, historyMs, pointsInUse });
  }

  /** Where one can't be built, what its snapshot needs stays, so it is only told. */
  private async exactBases(volume: ServedVolume, due: RetentionPlan): Promise<readonly number[]> {
    const built: number[] = [];
    const there = (volume.archive.manifest()?.bases ?? []).filter(({ s, e }) => s === e);
    const waiting = new Set(there.map(({ e }) => e));
    for (const lsn of due.exactBasesDue) {
      if (waiting.has(lsn)) continue;
      try {
        const base = await this.parts.exactBase(volume, lsn);
        try {
          await volume.archive.amend((present) => withBase(present, base));
        } finally {
          base.end();
        }
        volume.archive.watchBase(base.ref, base.objects);
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

function withBase(manifest: VolumeManifest, base: ExactBase): VolumeManifest {
  if (!base.isSound()) {
    throw new VarveError("BaseGivenUp", "Retry", "a chunk that the base shares is not named any more", {
      hint: "The next run builds it again.",
    });
  }
  return { ...manifest, bases: [...manifest.bases, base.ref].sort(byRange) };
}

function byRange(a: BaseRef, b: BaseRef): number {
  return a.s - b.s || a.e - b.e;
}
