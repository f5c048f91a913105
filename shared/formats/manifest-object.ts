/*
 * A volume's manifest in the bucket (docs/formats/manifest.md): the root that names its bases, index pages and latest
 * segments. The archiver publishes it after everything it names; point sources, rescue, the collector and checks start here.
 */
import {
  bucketAwayPolicies,
  type HistoryGap,
  type ManifestPolicy,
  type PointPin,
  residencies,
  type SnapshotRecord,
  type VolumeManifest,
  type VolumeOrigin,
} from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { durabilities } from "#shared/domain/volume.ts";
import {
  baseRef,
  id,
  indexPageRef,
  isBaseKey,
  isIndexPageKey,
  isSegmentKey,
  lsn,
  milliseconds,
  rangeMistake,
  segmentRef,
  volumeName,
  volumeSize,
} from "./archive-shape.ts";
import { fields, integer, list, nullable, oneOf, type Shape, text } from "./json-shape.ts";
import { type BadObject, type ObjectKind, openObject, sealObject } from "./sealed-object.ts";

export const manifestVersion = 2;

const noChecksum = "0000000000000000";

type PlainManifest = Omit<VolumeManifest, "policy">;

const plainFields: Readonly<Record<keyof PlainManifest, Shape>> = {
  volumeId: id,
  name: volumeName,
  sizeBytes: volumeSize,
  durability: oneOf(durabilities),
  createdAtMs: milliseconds,
  lineNumber: integer(1),
  line: id,
  archiverEpoch: integer(1),
  number: integer(1),
  writtenAtMs: milliseconds,
  ancestors: list(
    fields<VolumeManifest["ancestors"][number]>({ line: id, lastLsn: integer() }),
    limits.manifestListMax,
  ),
  origin: nullable(fields<VolumeOrigin>({ volumeId: id, name: volumeName, lsn: integer() })),
  beginBytes: volumeSize,
  archivedLsn: integer(),
  archivedEpoch: integer(),
  archivedChecksum: id,
  retainedFromLsn: integer(),
  historyMs: milliseconds,
  deletedAtMs: nullable(milliseconds),
  snapshots: list(
    fields<SnapshotRecord>({ name: volumeName, lsn: integer(), wallTimeMs: milliseconds }),
    limits.manifestListMax,
  ),
  rebases: list(fields<VolumeManifest["rebases"][number]>({ lsn, toLsn: lsn }), limits.manifestListMax),
  resizes: list(
    fields<VolumeManifest["resizes"][number]>({ lsn, sizeBytes: volumeSize }),
    limits.manifestListMax,
  ),
  gaps: list(fields<HistoryGap>({ fromLsn: integer(), toLsn: lsn }), limits.manifestListMax),
  pins: list(
    fields<PointPin>({ lsn: integer(), holder: text(/^[\x21-\x7e]{1,128}$/) }),
    limits.manifestListMax,
  ),
  bases: list(baseRef, limits.manifestListMax),
  pages: list(indexPageRef, limits.manifestListMax),
  segments: list(segmentRef, limits.manifestSegmentsMax),
};

/** Version 1, of before manifests had a policy. */
const plainKind: ObjectKind<VolumeManifest> = {
  magic: "VMAN",
  version: 1,
  name: "manifest",
  shape: fields<PlainManifest>(plainFields),
  mistake: manifestMistake,
};

const manifestKind: ObjectKind<VolumeManifest> = {
  ...plainKind,
  version: manifestVersion,
  shape: fields<Required<VolumeManifest>>({
    ...plainFields,
    policy: fields<ManifestPolicy>({
      residency: oneOf(residencies),
      coldAfterMs: milliseconds,
      bucketAway: oneOf(bucketAwayPolicies),
    }),
  }),
};

/** The whole object's bytes. The manifest holds the rules below, or it is our own mistake. */
export function encodeManifest(manifest: VolumeManifest): Buffer {
  return sealObject(manifest.policy === undefined ? plainKind : manifestKind, manifest);
}

/** Reads a whole object of either version. Never throws. */
export function decodeManifest(object: Buffer): VolumeManifest | BadObject {
  const isPlain = object.length >= 6 && object.readUInt16LE(4) === plainKind.version;
  return openObject(isPlain ? plainKind : manifestKind, object);
}

/** What fields must be to each other. */
function manifestMistake(manifest: VolumeManifest): string | null {
  const { archivedLsn, archivedEpoch, archivedChecksum, ancestors, origin } = manifest;
  if (archivedLsn === 0 && (archivedEpoch !== 0 || archivedChecksum !== noChecksum)) {
    return "nothing archived, but an epoch or a checksum";
  }
  if (archivedLsn > 0 && archivedEpoch === 0) return `archived LSN ${archivedLsn} without an epoch`;
  if (manifest.retainedFromLsn > archivedLsn) return "retained from a point that is not archived";
  if (ancestors.length >= manifest.lineNumber) return "more ancestors than lines before this one";
  if (!ascends(ancestors, (ancestor) => ancestor.lastLsn, false)) return "ancestors out of order";
  if (origin?.volumeId === manifest.volumeId) return "its origin is itself";
  if (new Set(manifest.snapshots.map((snapshot) => snapshot.name)).size < manifest.snapshots.length) {
    return "two snapshots of one name";
  }
  if (!ascends(manifest.rebases, (rebase) => rebase.lsn, true)) return "rebases out of order";
  if (manifest.rebases.some((rebase) => rebase.toLsn >= rebase.lsn)) return "a rebase to a later LSN";
  if (!ascends(manifest.resizes, (resize) => resize.lsn, true)) return "resizes out of order";
  if (manifest.gaps.some((gap) => gap.fromLsn >= gap.toLsn)) return "an empty gap";
  if (manifest.gaps.some((gap, index) => gap.fromLsn < (manifest.gaps[index - 1]?.toLsn ?? 0))) {
    return "gaps overlap or are out of order";
  }
  return basesMistake(manifest) ?? logMistake(manifest);
}

function basesMistake({ volumeId, bases, rebases, archivedLsn }: VolumeManifest): string | null {
  for (const [index, base] of bases.entries()) {
    const before = bases[index - 1];
    if (before !== undefined && (before.s > base.s || (before.s === base.s && before.e >= base.e))) {
      return `${base.key}: bases out of order`;
    }
    if (base.s > base.e) return `${base.key}: s ${base.s} after e ${base.e}`;
    if (base.e > archivedLsn) return `${base.key}: e ${base.e} is not archived`;
    if (!isBaseKey(volumeId, base)) return `${base.key} is not this base's key`;
    const spanned = rebases.find((rebase) => base.s < rebase.lsn && rebase.lsn <= base.e);
    if (spanned !== undefined) return `${base.key} spans the rebase at LSN ${spanned.lsn}`;
  }
  return null;
}

/** Pages, then segments: each in order, without a hole that nothing explains, up to the archived LSN. */
function logMistake(manifest: VolumeManifest): string | null {
  const { volumeId, pages, segments, archivedLsn } = manifest;
  let next: number | null = null;
  for (const part of [...pages, ...segments]) {
    const isKey = "segments" in part ? isIndexPageKey(volumeId, part) : isSegmentKey(volumeId, part);
    if (!isKey) return `${part.key} is not the key of LSN ${part.firstLsn} to ${part.lastLsn}`;
    const mistake = rangeMistake(part);
    if (mistake !== null) return mistake;
    if (next !== null && (part.firstLsn < next || !isExplained(manifest, next, part.firstLsn))) {
      return `${part.key}: the log before it ends at LSN ${next - 1}`;
    }
    next = part.lastLsn + 1;
  }
  if (next === null) return null;
  const whole = next <= archivedLsn + 1 && isExplained(manifest, next, archivedLsn + 1);
  return whole ? null : `the log ends at LSN ${next - 1}, not at ${archivedLsn}`;
}

/** Whether the missing entries [from, to) were given up, or lie before what is retained (but for snapshots and pins). */
function isExplained(manifest: VolumeManifest, from: number, to: number): boolean {
  const { gaps, retainedFromLsn } = manifest;
  return (
    from === to || to <= retainedFromLsn + 1 || gaps.some((gap) => gap.fromLsn <= from && gap.toLsn >= to)
  );
}

function ascends<T>(items: readonly T[], of: (item: T) => number, strictly: boolean): boolean {
  return items.every((item, index) => {
    const before = items[index - 1];
    if (before === undefined) return true;
    return strictly ? of(before) < of(item) : of(before) <= of(item);
  });
}
