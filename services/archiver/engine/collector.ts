/*
 * The collector of a bucket: one run takes the lease, moves retention time on, trims, marks what is named, lists what is there,
 * and deletes what was unnamed for its grace time. Called by bucket-keeper.ts by the clock and on demand. Whatever goes wrong
 * ends the run before the next delete. See docs/specs/retention.md, "Collection".
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { capCutoff } from "#shared/domain/bucket-cap.ts";
import { bucketKeyOf, deleteRank } from "#shared/domain/bucket-keys.ts";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { limits } from "#shared/domain/limits.ts";
import { isPaused, pauseRule, type RetentionTime } from "#shared/domain/retention-clock.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { Candidate } from "#shared/formats/collector-object.ts";
import type { BucketFinding, CollectOptions, CollectReport } from "#shared/ports/bucket-administration.ts";
import type { ObjectFacts } from "#shared/ports/object-store.ts";
import { BucketMarker } from "./bucket-marker.ts";
import type { BucketReader, PresentManifest, SeenVolume } from "./bucket-reader.ts";
import { bucketTimes, type CollectorLease } from "./collector-lease.ts";
import { CollectorStateFile } from "./collector-state-file.ts";
import type { HistoryTrimmer } from "./history-trimmer.ts";
import { burialsLeft, isBuried, VolumeBurial } from "./volume-burial.ts";

export interface CollectorParts {
  readonly reader: BucketReader;
  readonly lease: CollectorLease;
  readonly trimmer: HistoryTrimmer;
  /** Full keys that archivers of this process upload or have uploaded and not named yet. */
  uploadsInFlight(): Iterable<string>;
  /** Points of volumes that are read from here, whether they are served or deleted. */
  pointsInUse(volumeId: string): readonly number[];
  /** It is being undeleted here, or was: it is not buried. */
  isComingBack?(volumeId: string): boolean | Promise<boolean>;
  /** A line for the operator. */
  onNote(text: string): void;
  /** Crash tests end the process here. */
  failpoint?(): void;
  /** True: the process ends, delete nothing more. */
  isStopped?(): boolean;
  readonly grace?: Partial<CollectorGrace>;
  /** Bytes of named objects beyond which the oldest history goes before its time; null: no cap. */
  readonly bucketBytesMax: number | null;
}

export interface CollectorGrace {
  readonly supersededManifestMs: number;
  readonly unnamedObjectMs: number;
  readonly deletedVolumeMs: number;
}

export interface RunOptions extends CollectOptions {
  /** False: only trim. Listing the whole bucket is not done each hour. */
  readonly sweep: boolean;
}

export class Collector {
  private readonly parts: CollectorParts;
  private readonly grace: CollectorGrace;
  private readonly state: CollectorStateFile;
  private readonly burial: VolumeBurial;
  /** Present manifests of the last look: most did not change. */
  private manifests: ReadonlyMap<string, PresentManifest> = new Map();

  constructor(parts: CollectorParts) {
    this.parts = parts;
    this.grace = {
      supersededManifestMs: limits.supersededManifestMs,
      unnamedObjectMs: limits.unnamedObjectMs,
      deletedVolumeMs: limits.deletedVolumeMs,
      ...parts.grace,
    };
    this.state = new CollectorStateFile(parts.reader.store);
    this.burial = new VolumeBurial(parts.reader, this.grace.deletedVolumeMs);
  }

  async run(options: RunOptions): Promise<CollectReport> {
    const { lease } = this.parts;
    const volumes = await this.volumes();
    const seen = bucketTimes(manifestsOf(volumes));
    const { time, alarm } = options.dryRun
      ? await lease.look(seen)
      : await lease.take(seen, options.acceptClock);
    if (alarm !== null) this.parts.onNote(`warning: ${alarm}`);
    const pausedBy = isPaused(time) ? (alarm ?? `a wall clock that jumped; ${pauseRule}`) : null;
    const run = new CollectorRun(this.parts, this.grace, time, options.dryRun || pausedBy !== null);
    const report = await this.inRun(run, volumes, options, pausedBy);
    if (!options.dryRun) await lease.release(time);
    return report;
  }

  /** For the volumes of this process, where another one collects the bucket: by the time that it stored, and nothing is deleted. */
  async trimOnly(): Promise<readonly BucketFinding[]> {
    const { lease, trimmer } = this.parts;
    const time = await lease.stored();
    if (time === null || isPaused(time)) return [];
    await trimmer.trim({ nowMs: time.timeMs, dryRun: false, manifests: manifestsOf(await this.volumes()) });
    return [...trimmer.findings];
  }

  /** Deleted volumes that a run has seen, with the retention time left. */
  async deletedSince(): Promise<ReadonlyMap<string, number>> {
    return await burialsLeft(this.state, this.parts.lease, this.grace.deletedVolumeMs);
  }

  private async inRun(
    run: CollectorRun,
    volumes: readonly SeenVolume[],
    options: RunOptions,
    pausedBy: string | null,
  ): Promise<CollectReport> {
    const { lease, trimmer } = this.parts;
    const trimmed = pausedBy === null ? [...(await this.trim(run, volumes, options))] : [];
    if (options.sweep || options.dryRun) {
      const before = await this.state.read();
      const { deletedVolumes, buried } = await this.burial.bury(volumes, before.deletedVolumes, {
        nowMs: run.time.timeMs,
        isDry: run.isDry,
        held: (all) => trimmer.held(all),
        pointsInUse: (volumeId) => this.parts.pointsInUse(volumeId),
        isComingBack: async (volumeId) => (await this.parts.isComingBack?.(volumeId)) ?? false,
        conditionalPut: async () => lease.conditionalPut(),
      });
      run.findings.push(...buried);
      // Trimming and burying published manifests: the mark begins with what is present now.
      await run.mark(await this.volumes());
      const candidates = await run.sweep(before.candidates);
      if (!options.dryRun) {
        await lease.renew(run.time);
        const state = { number: lease.number, sweptMs: run.time.timeMs, candidates, deletedVolumes };
        await this.state.write(state);
      }
      await run.delete(candidates, async () => this.volumes());
      if (pausedBy === null) trimmed.push(...(await this.keepWithinCap(run, options)));
    }
    return {
      ...run.report(options.dryRun),
      behindMs: Math.max(0, run.time.wallMs - run.time.timeMs),
      paused: pausedBy,
      trimmed,
    };
  }

  private async trim(
    run: CollectorRun,
    volumes: readonly SeenVolume[],
    options: RunOptions,
    notBeforeMs?: number,
  ): Promise<CollectReport["trimmed"]> {
    const { trimmer } = this.parts;
    const trimmed = await trimmer.trim({
      nowMs: run.time.timeMs,
      dryRun: options.dryRun,
      manifests: manifestsOf(volumes),
      ...(notBeforeMs === undefined ? {} : { notBeforeMs }),
    });
    run.findings.push(...trimmer.findings);
    return trimmed;
  }

  /** More than the cap is named: the oldest history goes before its time. Its objects are candidates of the next run. */
  private async keepWithinCap(run: CollectorRun, options: RunOptions): Promise<CollectReport["trimmed"]> {
    const { bucketBytesMax: cap } = this.parts;
    const { namedBytes } = run;
    if (cap === null || namedBytes <= cap) return [];
    const volumes = await this.volumes();
    const cutoffMs = capCutoff(manifestsOf(volumes), namedBytes - cap, run.time.timeMs);
    const trimmed = await this.trim(run, volumes, options, cutoffMs);
    const held = `the bucket holds ${readableByteSize(namedBytes)}, and may hold ${readableByteSize(cap)} (--bucket-max)`;
    if (trimmed.length === 0) {
      run.findings.push({
        key: "bucket",
        problem: `${held}; what is left of it is needed by present disks, snapshots, clones and open points: delete snapshots, or raise the cap`,
      });
    } else if (!options.dryRun) {
      const since = timeText(cutoffMs);
      const names = trimmed.map(({ volume }) => volume).join(", ");
      this.parts.onNote(
        `warning: ${held}: the history of ${names} from before ${since} goes before its time`,
      );
    }
    return trimmed;
  }

  private async volumes(): Promise<readonly SeenVolume[]> {
    const volumes = await this.parts.reader.seenVolumes(this.manifests);
    this.manifests = new Map(
      volumes.flatMap(({ listed, present }) => (present === null ? [] : [[listed.volumeId, present]])),
    );
    return volumes;
  }
}

/** What one run knows and counts. */
class CollectorRun {
  readonly time: RetentionTime;
  readonly isDry: boolean;
  readonly findings: BucketFinding[] = [];
  private readonly parts: CollectorParts;
  private readonly grace: CollectorGrace;
  private readonly marker: BucketMarker;
  /** Present manifests that are marked, by volume. */
  private readonly marked = new Map<string, string>();
  private volumes = new Map<string, SeenVolume>();
  private listed = 0;
  private named = 0;
  /** Known after the sweep. */
  namedBytes = 0;
  private deleted = 0;
  private deletedBytes = 0;
  private waiting: readonly Candidate[] = [];
  private due: readonly Candidate[] = [];

  constructor(parts: CollectorParts, grace: CollectorGrace, time: RetentionTime, isDry: boolean) {
    this.parts = parts;
    this.grace = grace;
    this.time = time;
    this.isDry = isDry;
    this.marker = new BucketMarker(parts.reader);
  }

  /** Marks what is present and was not marked yet. */
  async mark(volumes: readonly SeenVolume[]): Promise<void> {
    this.volumes = new Map(volumes.map((volume) => [volume.listed.volumeId, volume]));
    for (const { listed, present } of volumes) {
      if (present !== null) {
        if (this.marked.get(listed.volumeId) === present.key) continue;
        await this.marker.manifest(present.key, present.manifest);
        this.marked.set(listed.volumeId, present.key);
      } else if (listed.otherObjects > 0 && !this.marked.has(listed.volumeId)) {
        await this.markOrphan(listed.volumeId);
        this.marked.set(listed.volumeId, "");
      }
    }
  }

  /** Objects without a manifest: nobody knows what they are worth, so all of them stay, and what their bases name. */
  private async markOrphan(volumeId: string): Promise<void> {
    this.find(`volumes/${volumeId}/`, "holds objects, but no manifest; they are kept");
    for await (const { key } of this.parts.reader.store.list(`volumes/${volumeId}/bases/`)) {
      if (bucketKeyOf(key).kind === "base") await this.marker.base(key);
    }
  }

  /** Lists the bucket: everything that may go and is not marked, with the time since when. */
  async sweep(before: readonly Candidate[]): Promise<readonly Candidate[]> {
    const known = new Map(before.map((one) => [one.key, one.sinceMs]));
    const inFlight = new Set(this.parts.uploadsInFlight());
    const candidates: Candidate[] = [];
    let fresh = limits.collectorCandidatesMax - known.size;
    for (const prefix of ["volumes/", "chunks/"]) {
      for await (const facts of this.parts.reader.store.list(prefix)) {
        this.listed += 1;
        this.namedBytes += facts.bytes;
        if (!this.mayGo(facts) || this.isNamed(facts.key) || inFlight.has(facts.key)) continue;
        const since = known.get(facts.key);
        if (since === undefined && fresh <= 0) continue;
        if (since === undefined) fresh -= 1;
        candidates.push({ key: facts.key, bytes: facts.bytes, sinceMs: since ?? this.time.timeMs });
      }
    }
    candidates.sort((a, b) => (a.key < b.key ? -1 : 1));
    for (const { bytes } of candidates) this.namedBytes -= bytes;
    this.named = this.listed - candidates.length;
    this.waiting = candidates;
    return candidates;
  }

  /** False for what stays whether or not it is named. */
  private mayGo(facts: ObjectFacts): boolean {
    const { kind, volumeId } = bucketKeyOf(facts.key);
    if (kind === "unknown") this.find(facts.key, "has a name that no Varve writes; it is left alone");
    if (deleteRank(kind) < 0) return false;
    if (volumeId === null) return true;
    const volume = this.volumes.get(volumeId);
    // A volume that appeared after the mark is not judged by it.
    if (volume === undefined) return false;
    const { listed, present } = volume;
    if (present === null) return listed.otherObjects === 0;
    return kind !== "line";
  }

  /** Deletes what is due, batch by batch, each after another look at lease and manifests. */
  async delete(candidates: readonly Candidate[], look: () => Promise<readonly SeenVolume[]>): Promise<void> {
    const due = candidates.filter((one) => this.time.timeMs - one.sinceMs >= this.graceOf(one.key));
    due.sort((a, b) => rankOf(a.key) - rankOf(b.key));
    this.due = due;
    if (this.isDry) return;
    const gone = new Set<string>();
    for (const batch of batchesOf(due)) {
      await this.parts.lease.require(this.time);
      await this.mark(await look());
      const inFlight = new Set(this.parts.uploadsInFlight());
      await this.deleteAll(
        batch.filter((one) => !this.isNamed(one.key) && !inFlight.has(one.key)),
        gone,
      );
    }
    this.waiting = candidates.filter((one) => !gone.has(one.key));
  }

  /** A few side by side; the first failure stops all before their next one. */
  private async deleteAll(batch: readonly Candidate[], gone: Set<string>): Promise<void> {
    const waiting = [...batch];
    let failed = false;
    const lane = async (): Promise<void> => {
      for (let one = waiting.shift(); one !== undefined && !failed; one = waiting.shift()) {
        if (this.parts.isStopped?.() === true) return;
        this.parts.failpoint?.();
        try {
          await this.parts.reader.store.remove(one.key);
        } catch (cause) {
          failed = true;
          throw cause;
        }
        gone.add(one.key);
        this.deleted += 1;
        this.deletedBytes += one.bytes;
      }
    };
    const lanes = await Promise.allSettled(Array.from({ length: limits.collectorDeletesMax }, lane));
    for (const result of lanes) if (result.status === "rejected") throw result.reason;
  }

  report(dryRun: boolean): Omit<CollectReport, "behindMs" | "paused" | "trimmed"> {
    return {
      dryRun,
      timeMs: this.time.timeMs,
      listed: this.listed,
      named: this.named,
      waiting: this.waiting.length,
      waitingBytes: this.waiting.reduce((sum, one) => sum + one.bytes, 0),
      deleted: dryRun ? this.due.length : this.deleted,
      deletedBytes: dryRun ? this.due.reduce((sum, one) => sum + one.bytes, 0) : this.deletedBytes,
      keys: dryRun ? this.due.slice(0, limits.bucketFindingsMax).map((one) => one.key) : [],
      findings: this.findings,
    };
  }

  /** The present manifest of a buried volume is marked, and goes all the same when it is the last. */
  private isNamed(key: string): boolean {
    const { kind, volumeId } = bucketKeyOf(key);
    if (volumeId !== null) {
      const volume = this.volumes.get(volumeId);
      if (volume === undefined) return true;
      if (kind === "line") return volume.present !== null;
      if (kind === "manifest" && volume.present?.key === key) return !isLastOf(volume);
    }
    return this.marker.keys.has(key);
  }

  private graceOf(key: string): number {
    return bucketKeyOf(key).kind === "manifest"
      ? this.grace.supersededManifestMs
      : this.grace.unnamedObjectMs;
  }

  private find(key: string, problem: string): void {
    if (this.findings.length < limits.bucketFindingsMax) this.findings.push({ key, problem });
  }
}

/** Nothing but its last manifest, which names nothing, and line markers is left of it. */
function isLastOf({ listed, present }: SeenVolume): boolean {
  return (
    present !== null &&
    isBuried(present.manifest) &&
    listed.otherObjects === 0 &&
    listed.manifests.length === 1
  );
}

/** Runs of one rank, so that what names others is gone before what it names is touched. */
function* batchesOf(due: readonly Candidate[]): Generator<readonly Candidate[]> {
  let batch: Candidate[] = [];
  for (const one of due) {
    const first = batch[0];
    const isFull = batch.length === limits.collectorBatchMax;
    if (first !== undefined && (isFull || rankOf(first.key) !== rankOf(one.key))) {
      yield batch;
      batch = [];
    }
    batch.push(one);
  }
  if (batch.length > 0) yield batch;
}

function rankOf(key: string): number {
  return deleteRank(bucketKeyOf(key).kind);
}

function manifestsOf(volumes: readonly SeenVolume[]): readonly VolumeManifest[] {
  return volumes.flatMap(({ present }) => (present === null ? [] : [present.manifest]));
}
