/*
 * Where a process reads the past of volumes: those it serves, with their hot log, and all others by the bucket alone. One for
 * all, so that caches and requests have one limit. Port: shared/ports/history-home.ts; the volume host, rescue, scrub and
 * the API's past hold it. Next: volume-past.ts.
 */
import type { SnapshotRecord, VolumeManifest } from "#shared/domain/archive.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { openFrameLater } from "#shared/formats/object-frame.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { HistorySubject, PointSource, VolumeHistory } from "#shared/ports/history.ts";
import type { HistoryHome } from "#shared/ports/history-home.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { BoundedCache } from "./bounded-cache.ts";
import { BucketReader } from "./bucket-reader.ts";
import { type FrameOpener, FrameReader } from "./frame-reader.ts";
import { volumeNotInBucket } from "./history-errors.ts";
import { type HistoryLimits, historyLimits } from "./history-limits.ts";
import { latestManifest } from "./latest-manifest.ts";
import { openFold } from "./open-fold.ts";
import { PointHandle, SharedPoint } from "./point-source.ts";
import { VolumePast } from "./volume-past.ts";

export interface HistoriesOptions {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly limits?: Partial<HistoryLimits>;
  /** For simulations, which have no thread pool. */
  readonly openFrame?: FrameOpener;
}

/** A volume by its manifest in the bucket. */
export class BucketSubject implements HistorySubject {
  readonly volumeId: string;
  readonly begin: HistorySubject["begin"];
  private readonly load: () => Promise<VolumeManifest>;
  private latest: VolumeManifest;

  constructor(manifest: VolumeManifest, load: () => Promise<VolumeManifest>) {
    this.volumeId = manifest.volumeId;
    this.begin = { sizeBytes: manifest.beginBytes, origin: manifest.origin };
    this.latest = manifest;
    this.load = load;
  }

  async manifest(): Promise<VolumeManifest> {
    this.latest = await this.load();
    return this.latest;
  }

  hotLog(): null {
    return null;
  }

  snapshots(): readonly SnapshotRecord[] {
    return this.latest.snapshots;
  }
}

interface OpenPoint {
  readonly point: Promise<SharedPoint>;
  handles: number;
}

interface KnownManifest {
  readonly manifest: VolumeManifest;
  readonly atMs: number;
}

/** Manifests of volumes that are not served here, each at most some MiB: 16 MiB of them as they stand in the bucket. */
const manifestCacheBytes = 16 * 1024 * 1024;

export class Histories implements HistoryHome {
  private readonly store: ObjectStore;
  private readonly clock: Clock;
  private readonly reader: BucketReader;
  private readonly frames: FrameReader;
  private readonly served = new Map<string, HistorySubject>();
  private readonly manifests = new BoundedCache<KnownManifest>(manifestCacheBytes);
  private readonly points = new Map<string, OpenPoint>();
  /** Served once and no more: points that were opened then go on by the bucket. */
  private readonly unserved = new WeakSet<HistorySubject>();

  constructor({ store, clock, limits, openFrame = openFrameLater }: HistoriesOptions) {
    this.store = store;
    this.clock = clock;
    this.reader = new BucketReader(store, { ...historyLimits, ...limits });
    this.frames = new FrameReader(this.reader, openFrame);
  }

  serve(subject: HistorySubject): () => void {
    const { volumeId } = subject;
    invariant(!this.served.has(volumeId), "a volume is served once");
    this.served.set(volumeId, subject);
    return () => {
      if (this.served.get(volumeId) === subject) this.served.delete(volumeId);
      this.unserved.add(subject);
    };
  }

  of(subject: HistorySubject): VolumeHistory {
    const openPoint = (of: HistorySubject, lsn: number): Promise<PointSource> => this.openPoint(of, lsn);
    return new VolumePast(subject, { reader: this.reader, clock: this.clock, openPoint });
  }

  async find(volumeId: string): Promise<VolumeHistory> {
    return this.of(await this.subjectOf(volumeId));
  }

  /** By its manifest in the bucket, whoever serves it. Rejects Invalid where there is none. */
  async fromBucket(volumeId: string): Promise<VolumeHistory> {
    return this.of(await this.bucketSubject(volumeId));
  }

  statistics() {
    return {
      ...this.reader.statistics(),
      ...this.frames.statistics(),
      points: this.points.size,
      served: this.served.size,
    };
  }

  /** Closes all points that are still open. */
  async close(): Promise<void> {
    const open = [...this.points.values()];
    this.points.clear();
    this.served.clear();
    for (const { point } of open) {
      const shared = await point.catch(() => null);
      shared?.close();
    }
    this.reader.clear();
    this.frames.clear();
    this.manifests.clear();
  }

  private readonly subjectOf = async (volumeId: string): Promise<HistorySubject> =>
    this.served.get(volumeId) ?? (await this.bucketSubject(volumeId));

  /** The volume may have been closed, or opened again, since the subject was given. */
  private readonly presentOf = async (subject: HistorySubject): Promise<HistorySubject> => {
    const { volumeId } = subject;
    return this.served.get(volumeId) ?? (this.unserved.has(subject) ? this.bucketSubject(volumeId) : subject);
  };

  private async bucketSubject(volumeId: string): Promise<BucketSubject> {
    return new BucketSubject(await this.manifestOf(volumeId), () => this.manifestOf(volumeId));
  }

  private async manifestOf(volumeId: string): Promise<VolumeManifest> {
    const known = this.manifests.get(volumeId);
    const nowMs = this.clock.monotonicMs();
    if (known !== undefined && nowMs - known.atMs < this.reader.limits.manifestMs) return known.manifest;
    const pending = this.manifests.pending(volumeId);
    if (pending !== undefined) return (await pending).manifest;
    const loaded = await this.manifests.follow(
      volumeId,
      latestManifest(this.store, volumeId).then((found) => {
        if (found === null) throw volumeNotInBucket(this.store.place, volumeId);
        const { manifest } = found;
        const refs = manifest.segments.length + manifest.pages.length + manifest.bases.length;
        return {
          value: { manifest, atMs: nowMs },
          bytes: 4096 + refs * 400 + manifest.snapshots.length * 200,
        };
      }),
      true,
    );
    return loaded.manifest;
  }

  private async openPoint(subject: HistorySubject, lsn: number): Promise<PointSource> {
    const key = `${subject.volumeId}@${lsn}`;
    let open = this.points.get(key);
    if (open === undefined) {
      open = { point: this.makePoint(subject, lsn), handles: 0 };
      this.points.set(key, open);
    }
    const held = open;
    held.handles += 1;
    const leave = (): void => {
      held.handles -= 1;
      if (held.handles > 0) return;
      if (this.points.get(key) === held) this.points.delete(key);
      held.point.then(
        (point) => point.close(),
        () => undefined,
      );
    };
    try {
      return new PointHandle(await held.point, leave);
    } catch (error) {
      leave();
      throw error;
    }
  }

  private async makePoint(subject: HistorySubject, lsn: number): Promise<SharedPoint> {
    const { reader, frames, clock, subjectOf, presentOf } = this;
    const reopen = async () => openFold({ reader, clock, subjectOf }, await presentOf(subject), lsn);
    return new SharedPoint(subject.volumeId, lsn, await reopen(), {
      reader,
      frames,
      clock,
      reopen,
      presentOf,
    });
  }
}
