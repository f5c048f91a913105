/*
 * What the bucket says of a volume: manifest, bases, index pages, segments, and how their keys are made. Pure types and
 * key arithmetic; the bytes are in docs/formats/{bucket,manifest,segment,index-page,base,chunk}.md. Written by the archiver,
 * read by point sources, rescue, the collector and checks.
 */
import type { VolumeDurability } from "./volume.ts";

/** One sealed run of batches. Its footer says what is where inside (docs/formats/segment.md). */
export interface SegmentRef {
  readonly key: string;
  readonly firstLsn: number;
  readonly lastLsn: number;
  /** Size of the object. */
  readonly bytes: number;
  /** Where its footer starts: one ranged GET up to the end brings it. */
  readonly footerStart: number;
  /** Bytes of log records inside, uncompressed: what a replay has to go through. */
  readonly recordBytes: number;
  /** Least and greatest wall time of its batches, milliseconds since 1970. */
  readonly wallMinMs: number;
  readonly wallMaxMs: number;
}

/** An index page: merged summaries of a run of segments that left the manifest's tail. Immutable. */
export interface IndexPageRef {
  readonly key: string;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly segments: number;
  readonly recordBytes: number;
  readonly wallMinMs: number;
  readonly wallMaxMs: number;
}

/** What an index page holds of one segment, and what a segment's own footer says in short. */
export interface SegmentSummary extends SegmentRef {
  readonly writes: number;
  readonly writeBytes: number;
  /** zero and trim entries */
  readonly zeroes: number;
  readonly zeroBytes: number;
  /** Numbers of all extents (limits.extentBytes) that any entry touches, ascending; a resize touches from its end on. */
  readonly extents: readonly ExtentRun[];
  readonly events: readonly LogEvent[];
}

/** Extents [first, first + count). */
export interface ExtentRun {
  readonly first: number;
  readonly count: number;
}

/** Entries that change more than bytes. */
export type LogEvent =
  | {
      readonly kind: "epoch";
      readonly lsn: number;
      readonly wallTimeMs: number;
      readonly writer: string;
      readonly epoch: number;
    }
  | { readonly kind: "mark"; readonly lsn: number; readonly wallTimeMs: number; readonly name: string }
  | { readonly kind: "resize"; readonly lsn: number; readonly wallTimeMs: number; readonly sizeBytes: number }
  | { readonly kind: "rebase"; readonly lsn: number; readonly wallTimeMs: number; readonly toLsn: number };

/**
 * A fuzzy base (design: bases): base + log from `s` (exclusive) gives every point at or after `e` exactly. `sizeBytes` is
 * the volume's size at `s`.
 */
export interface BaseRef {
  readonly key: string;
  readonly s: number;
  readonly e: number;
  readonly sizeBytes: number;
  /** Bytes of the chunk objects that this base was the first to name. */
  readonly newChunkBytes: number;
}

/** A base's content: one page reference for each 1024 extents, null where all are zero. */
export interface BaseContent {
  readonly volumeId: string;
  readonly s: number;
  readonly e: number;
  readonly sizeBytes: number;
  readonly pages: readonly (string | null)[];
}

/** A page of a base: the chunk's name (`<sha256 hex>.<generation>`) of each extent, null where it is all zero. */
export interface BasePage {
  readonly volumeId: string;
  /** As in its key (basePageKey): with the volume's id it tells this page from any other. */
  readonly serial: number;
  readonly firstExtent: number;
  readonly chunks: readonly (string | null)[];
}

export const extentsPerBasePage = 1024;

export interface SnapshotRecord {
  readonly name: string;
  readonly lsn: number;
  readonly wallTimeMs: number;
}

/** Where a clone or restore began: it is fold(parent at lsn) and then its own log from LSN 1. */
export interface VolumeOrigin {
  readonly volumeId: string;
  readonly name: string;
  readonly lsn: number;
}

/** Somebody else needs this point: a clone that still reads from here. The collector keeps it. */
export interface PointPin {
  readonly lsn: number;
  /**
   * Volume id of the clone, `rebase` for a rollback whose replica still reads from the point, or `reader` while an export
   * of it is open.
   */
  readonly holder: string;
}

/** Part of the history that was given up while the bucket was away (`drop history`): no point in [fromLsn, toLsn) opens. */
export interface HistoryGap {
  readonly fromLsn: number;
  readonly toLsn: number;
}

export interface ManifestPolicy {
  readonly residency: ResidencyPolicy;
  readonly coldAfterMs: number;
  readonly bucketAway: BucketAwayPolicy;
}

/** full: every extent is on this machine. tiered: what was not touched for a while may be in the bucket only. */
export const residencies = ["full", "tiered"] as const;
export type ResidencyPolicy = (typeof residencies)[number];

/** What happens when the log is full and the bucket away. */
export const bucketAwayPolicies = ["stop", "drop history"] as const;
export type BucketAwayPolicy = (typeof bucketAwayPolicies)[number];

/** The root of a volume in the bucket. Numbered, immutable; the greatest key is the present one. */
export interface VolumeManifest {
  readonly volumeId: string;
  readonly name: string;
  readonly sizeBytes: number;
  readonly durability: VolumeDurability;
  readonly createdAtMs: number;
  /** 1 for the first line of the volume; a rescue adds one. */
  readonly lineNumber: number;
  readonly line: string;
  readonly archiverEpoch: number;
  readonly number: number;
  readonly writtenAtMs: number;
  /** Lines before this one, oldest first: each ends at lastLsn, the next begins after it. */
  readonly ancestors: readonly { readonly line: string; readonly lastLsn: number }[];
  readonly origin: VolumeOrigin | null;
  /** Size of the disk before entry 1: the fold begins with so many zeroes, or with the origin's point grown to it. */
  readonly beginBytes: number;
  /** Everything up to this entry is in segments or given up. 0 before the first. */
  readonly archivedLsn: number;
  /** Writer's epoch and record checksum (hex) at archivedLsn. */
  readonly archivedEpoch: number;
  readonly archivedChecksum: string;
  /** The oldest point that opens, but for snapshots and pins below it. */
  readonly retainedFromLsn: number;
  readonly historyMs: number;
  /** What else the user set, so that a rescue brings it back. Not there in manifests that Varve wrote before it had this. */
  readonly policy?: ManifestPolicy;
  readonly deletedAtMs: number | null;
  readonly snapshots: readonly SnapshotRecord[];
  readonly rebases: readonly { readonly lsn: number; readonly toLsn: number }[];
  readonly resizes: readonly { readonly lsn: number; readonly sizeBytes: number }[];
  readonly gaps: readonly HistoryGap[];
  readonly pins: readonly PointPin[];
  /** Ascending by s. */
  readonly bases: readonly BaseRef[];
  /** Ascending; then the tail of segments, ascending and without gap but for `gaps`. */
  readonly pages: readonly IndexPageRef[];
  readonly segments: readonly SegmentRef[];
}

const digits = (value: number, width: number): string => String(value).padStart(width, "0");

export const bucketMarkerKey = "varve-bucket.json";
export const manifestPrefix = (volumeId: string): string => `volumes/${volumeId}/manifests/`;

/** Sorts as text in the order of line number, archiver epoch and number. */
export function manifestKey(
  of: Pick<VolumeManifest, "volumeId" | "lineNumber" | "line" | "archiverEpoch" | "number">,
): string {
  const { volumeId, lineNumber, line, archiverEpoch, number } = of;
  return `${manifestPrefix(volumeId)}${digits(lineNumber, 6)}.${line}.${digits(archiverEpoch, 8)}.${digits(number, 10)}`;
}

/**
 * Stored (onlyNew) by a rescue before its first manifest; holds the new line's id. Its name can be known beforehand: the archiver
 * of the line before asks for it, and of two rescues one wins.
 */
export function lineMarkerKey(volumeId: string, lineNumber: number): string {
  return `volumes/${volumeId}/lines/${digits(lineNumber, 6)}`;
}

interface Writer {
  readonly volumeId: string;
  readonly line: string;
  readonly archiverEpoch: number;
}

export function segmentKey(of: Writer, firstLsn: number, lastLsn: number): string {
  return `volumes/${of.volumeId}/log/${digits(firstLsn, 16)}-${digits(lastLsn, 16)}.${of.line}.${digits(of.archiverEpoch, 8)}.seg`;
}

export function indexPageKey(of: Writer, firstLsn: number, lastLsn: number): string {
  return `volumes/${of.volumeId}/index/${digits(firstLsn, 16)}-${digits(lastLsn, 16)}.${of.line}.${digits(of.archiverEpoch, 8)}.idx`;
}

/** `serial` is drawn at random, so that the same points get another name when they are taken again; bases of old have none. */
export function baseKey(of: Writer, s: number, e: number, serial: number | null): string {
  const attempt = serial === null ? "" : `.${digits(serial, 16)}`;
  return `volumes/${of.volumeId}/bases/${digits(s, 16)}-${digits(e, 16)}.${of.line}.${digits(of.archiverEpoch, 8)}${attempt}.base`;
}

/** `serial` is drawn at random for each base that writes pages, so that a name is never used again. */
export function basePageKey(of: Writer, serial: number, page: number): string {
  return `volumes/${of.volumeId}/pages/${digits(serial, 16)}-${digits(page, 8)}.${of.line}.${digits(of.archiverEpoch, 8)}.page`;
}

/** `name` is `<sha256 hex>.<generation>`. */
export function chunkKey(name: string): string {
  return `chunks/${name.slice(0, 2)}/${name}`;
}
