/*
 * What people ask of the bucket as a whole: is all there, what does it cost, what may go, which deleted volumes can come
 * back. The archiver's bucket keeper implements it (services/archiver); HTTP API and CLI call it. See docs/specs/retention.md.
 */
import type { DeletedVolume } from "#shared/domain/deleted-volume.ts";
import type { JobView } from "./past-administration.ts";

export type { DeletedVolume } from "#shared/domain/deleted-volume.ts";

/** One thing that is wrong, or worth telling. */
export interface BucketFinding {
  readonly key: string;
  /** A sentence without a full stop, to stand behind the key. */
  readonly problem: string;
}

export interface BucketCheckReport {
  readonly place: string;
  readonly volumes: number;
  readonly objects: number;
  readonly bytes: number;
  /** Objects that no present manifest leads to: leftovers in their grace time, not errors. */
  readonly unnamedObjects: number;
  /** At most limits.bucketFindingsMax; `problems` counts all. */
  readonly findings: readonly BucketFinding[];
  readonly problems: number;
}

export interface BucketUsageRow {
  /** Volume name; `(shared)` for chunks, which volumes share; `(collector)` for the collector's own. */
  readonly volume: string;
  readonly volumeId: string | null;
  readonly kind: string;
  readonly objects: number;
  readonly bytes: number;
  readonly monthlyCost: number;
}

export interface BucketUsageReport {
  readonly place: string;
  readonly rows: readonly BucketUsageRow[];
  readonly objects: number;
  readonly bytes: number;
  readonly monthlyCost: number;
  readonly prices: string;
  /** Requests of this process since its start, by kind, and what they cost. */
  readonly requests: Readonly<Record<string, number>>;
  readonly requestCost: number;
  /** What bounds it; null where no server was asked. */
  readonly limits: BucketLimits | null;
  /** Volumes with a manifest: what their past is kept for. */
  readonly volumes: readonly BucketVolumeRow[];
  readonly notes: readonly string[];
}

/** Null: no limit. */
export interface BucketLimits {
  /** Above it the oldest history goes before its time. */
  readonly bytesMax: number | null;
  readonly uploadBytesPerSecond: number | null;
  readonly downloadBytesPerSecond: number | null;
  readonly fillBytesPerSecond: number | null;
}

export interface BucketVolumeRow {
  readonly volume: string;
  readonly volumeId: string;
  readonly historyMs: number;
  readonly archivedLsn: number;
  /** Every moment from this entry on opens, and older snapshots. */
  readonly retainedFromLsn: number;
  readonly snapshots: number;
}

export interface CollectOptions {
  readonly dryRun: boolean;
  /** Sets retention time to the wall clock and ends a pause. */
  readonly acceptClock: boolean;
}

export interface CollectReport {
  readonly dryRun: boolean;
  /** Retention time, milliseconds since 1970, and how far it is behind the wall clock. */
  readonly timeMs: number;
  readonly behindMs: number;
  /** Why nothing was trimmed or deleted, or null. */
  readonly paused: string | null;
  /** By volume name: oldest point now, what left its manifest. */
  readonly trimmed: readonly {
    readonly volume: string;
    readonly retainedFromLsn: number;
    readonly segments: number;
    readonly bases: number;
    readonly exactBases: readonly number[];
  }[];
  readonly listed: number;
  readonly named: number;
  readonly waiting: number;
  readonly waitingBytes: number;
  readonly deleted: number;
  readonly deletedBytes: number;
  /** Keys that would go, with dryRun: at most limits.bucketFindingsMax. */
  readonly keys: readonly string[];
  readonly findings: readonly BucketFinding[];
}

export interface ScrubOptions {
  readonly repair: boolean;
  readonly bytesPerSecond: number;
  /** In a cluster: the replica on this node only; null or none: all. */
  readonly node?: string | null;
}

export interface DamagedExtent {
  readonly extent: number;
  readonly firstOffset: number;
  readonly repaired: boolean;
  /** In a cluster: whose replica. */
  readonly node?: string;
  /** Why it was not repaired, where that is known. */
  readonly why?: string;
}

export interface ScrubReport {
  readonly volume: string;
  readonly lsn: number;
  readonly extents: number;
  readonly compared: number;
  readonly bytes: number;
  /** Not local, so there is nothing to compare. */
  readonly remote: number;
  /** Written to at each try. */
  readonly busy: number;
  readonly damaged: readonly DamagedExtent[];
  /** In a cluster; the counts above are sums over these. */
  readonly replicas?: readonly ScrubbedReplica[];
}

/** What a storage node says of its replica. */
export interface ReplicaScrubReport extends Omit<ScrubReport, "volume" | "replicas"> {
  /** Of those that were busy at each look, at most limits.scrub.busyMax. */
  readonly busyExtents: readonly number[];
  /** Where one extent alone was scrubbed and is damaged: the checksum that the bucket has for it, 16 hex digits. */
  readonly rightSum?: string;
}

/** One replica of a scrubbed volume. */
export interface ScrubbedReplica {
  readonly node: string;
  /** What it was compared with; null: with nothing, it was passed over. */
  readonly against: "bucket" | "replicas" | null;
  readonly compared: number;
  readonly remote: number;
  readonly busy: number;
  /** Why it was passed over, or not compared with the bucket; empty: nothing to say. */
  readonly reason: string;
}

/** What rescue or undelete reached for one volume. */
export interface RescuedVolume {
  readonly name: string;
  readonly volumeId: string;
  readonly sizeBytes: number;
  readonly lsn: number;
  /** Wall time of the last entry, milliseconds since 1970; null for a volume without entries. */
  readonly reachedMs: number | null;
  readonly line: string;
  readonly lineNumber: number;
}

export type BucketReport =
  | { readonly kind: "check"; readonly report: BucketCheckReport }
  | { readonly kind: "collect"; readonly report: CollectReport }
  | { readonly kind: "scrub"; readonly report: ScrubReport };

/** Long work begins at once and goes on as a job; its report is asked for when the job is done. */
export interface BucketAdministration {
  /** Requests to the store since the start, by kind, retries and bytes; asks it nothing. */
  requests(): Readonly<Record<string, number>>;
  check(options: { readonly quick: boolean }): JobView;
  collect(options: CollectOptions): JobView;
  /** Throws Invalid for a volume that is not served. */
  scrub(volume: string, options: ScrubOptions): JobView;
  /** Of a job that is done; throws Invalid for others. The last few are kept. */
  report(jobId: string): BucketReport;
  usage(): Promise<BucketUsageReport>;
  deletedVolumes(): Promise<readonly DeletedVolume[]>;
  /** `name` may also be the volume's id; it comes back as `as`, or as what it was called. Throws Invalid where there is none, or that name is taken. */
  undelete(name: string, as?: string): Promise<RescuedVolume>;
}
