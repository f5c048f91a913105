/*
 * What the HTTP API and the command line do with the past of volumes: snapshots, timeline, changed ranges, bytes at a point,
 * clones and restores, rollback, policy, and the jobs behind them. Implemented by the volume host, beside
 * volume-administration.ts. All failures are VarveErrors. See docs/specs/points.md.
 */
import type { SnapshotRecord } from "#shared/domain/archive.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { HistoryPolicy } from "#shared/domain/history-record.ts";
import type { VolumeDurability } from "#shared/domain/volume.ts";
import type { ByteRange, ResolvedPoint, TimelineInterval } from "./history.ts";
import type { VolumeView } from "./volume-administration.ts";

export const jobKinds = [
  "create from",
  "rollback",
  "fill",
  "tier",
  "rescue",
  "undelete",
  "scrub",
  "collect",
  "check",
] as const;
export type JobKind = (typeof jobKinds)[number];
export type JobState = "running" | "done" | "failed" | "stopped";

/** Long work that goes on while whoever asked for it may leave. */
/** A piece of background work, for whoever does it. */
export interface JobHandle {
  readonly id: string;
  progress(doneBytes: number, totalBytes: number): void;
  done(note: string): void;
  stopped(note: string): void;
  failed(cause: unknown): void;
  view(): JobView;
}

export interface JobView {
  readonly id: string;
  readonly kind: JobKind;
  /** Empty where it is about no single volume. */
  readonly volume: string;
  readonly state: JobState;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly doneBytes: number;
  /** 0 while it is not known. */
  readonly totalBytes: number;
  /** What it does now, or what came out of it; for people. */
  readonly note: string;
  readonly failure: VarveError | null;
}

export interface HistoryView {
  readonly volume: string;
  readonly range: {
    readonly fromLsn: number;
    readonly toLsn: number;
    readonly fromMs: number;
    readonly toMs: number;
  };
  readonly archivedLsn: number;
  readonly heldLsn: number;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly intervals: readonly TimelineInterval[];
  readonly snapshots: readonly SnapshotRecord[];
}

/** A part of a timeline: null means the range's own begin or end. */
export interface HistoryWindow {
  readonly sinceMs: number | null;
  readonly untilMs: number | null;
  readonly intervals: number;
}

export interface ChangesView {
  readonly volume: string;
  readonly from: ResolvedPoint;
  readonly to: ResolvedPoint;
  readonly sizeBytes: number;
  readonly changedBytes: number;
  readonly ranges: readonly ByteRange[];
}

export interface NewFromPoint {
  readonly name: string;
  readonly parent: string;
  readonly point: string;
  /** Null: the size that the parent had at the point. */
  readonly sizeBytes: number | null;
  /** Null: the parent's. */
  readonly durability: VolumeDurability | null;
  /** Of a cluster; absent: as many as the parent has. */
  readonly replicas?: number;
  readonly policy: Partial<HistoryPolicy>;
}

export interface StartedChange {
  readonly volume: VolumeView;
  readonly point: ResolvedPoint;
  readonly job: JobView;
  /** Clients whose connections were cut (`--force`). */
  readonly disconnected: number;
}

export interface BlocksAtPoint {
  readonly point: ResolvedPoint;
  readonly sizeBytes: number;
  readonly bytes: Uint8Array;
}

export interface PastAdministration {
  snapshots(volume: string): readonly SnapshotRecord[];
  /** One log entry; resolves when it and its name are durable on this machine. */
  createSnapshot(volume: string, name: string): Promise<SnapshotRecord>;
  deleteSnapshot(volume: string, name: string): Promise<void>;
  history(volume: string, window: HistoryWindow): Promise<HistoryView>;
  /** Where the disks of two points may differ; `to` may be the older one. */
  changes(volume: string, from: string, to: string): Promise<ChangesView>;
  readPoint(volume: string, point: string, offset: number, length: number): Promise<BlocksAtPoint>;
  /** Resolves when the new volume exists and is served; the job fills it. */
  createFrom(wanted: NewFromPoint): Promise<StartedChange>;
  /** Resolves when the volume is at the point and served; the job fills it. */
  rollback(volume: string, point: string, force: boolean): Promise<StartedChange>;
  /** Makes every extent local; the job of a fill that is under way already. */
  fill(volume: string): Promise<JobView>;
  /**
   * Takes a base and gives what was not touched for `coldAfterMs` (null: the volume's own policy) back to the bucket, when that
   * holds it. Refused for volumes whose residency is full.
   */
  tier(volume: string, coldAfterMs: number | null): Promise<JobView>;
  setPolicy(volume: string, change: Partial<HistoryPolicy>): Promise<VolumeView>;
  jobs(): readonly JobView[];
  /** Throws UnknownJobError (Invalid). */
  job(id: string): JobView;
}
