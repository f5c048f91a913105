/*
 * A collector over a small bucket, with everything that tests turn: clock, faults, volumes served, uploads in flight. Used by
 * collector.deep.test.ts and retention-property.deep.test.ts.
 */
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { chunkKey, type VolumeManifest } from "#shared/domain/archive.ts";
import type { CollectReport } from "#shared/ports/bucket-administration.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { BucketReader } from "../../../services/archiver/engine/bucket-reader.ts";
import { Collector } from "../../../services/archiver/engine/collector.ts";
import { CollectorLease } from "../../../services/archiver/engine/collector-lease.ts";
import {
  type ExactBaseBuilder,
  HistoryTrimmer,
  type ServedVolume,
} from "../../../services/archiver/engine/history-trimmer.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { HandClock, hour, SmallVolume, WatchedStore } from "./small-bucket.ts";

export class CollectorWorld {
  readonly clock = new HandClock();
  readonly memory = new MemoryObjectStore(this.clock);
  readonly store: WatchedStore;
  readonly volumes: SmallVolume[] = [];
  /** Served volumes only are trimmed. */
  served: () => readonly ServedVolume[] = () => this.volumes.map((volume) => this.servedOf(volume));
  readonly notes: string[] = [];
  pointsInUse: (volumeId: string) => readonly number[] = () => [];
  readonly comingBack = new Set<string>();
  exactBase: ExactBaseBuilder = async () => {
    throw new Error("no point source here");
  };
  private seed: number;

  constructor(seed = 1, over?: (memory: MemoryObjectStore) => ObjectStore) {
    this.seed = seed;
    this.store = new WatchedStore(over?.(this.memory) ?? this.memory);
  }

  /** Volumes write without being watched: only the collector's requests count. */
  volume(number: number, change: Partial<VolumeManifest> = {}): SmallVolume {
    const volume = new SmallVolume(this.memory, this.clock, number, change);
    this.volumes.push(volume);
    return volume;
  }

  servedOf(archive: SmallVolume): ServedVolume {
    const { volumeId, name } = archive.present;
    return { volumeId, name, archive, pointsInUse: () => this.pointsInUse(volumeId) };
  }

  /** From now on only these are served here. */
  serveOnly(...volumes: readonly SmallVolume[]): void {
    this.served = () => volumes.map((volume) => this.servedOf(volume));
  }

  /** A process's collector; another call is another process. */
  bucketBytesMax: number | null = null;
  /** Its processes have lived as long as the bucket, where a test says nothing else. */
  startedMs = 0;

  collector(): Collector {
    const { clock } = this;
    this.seed += 1;
    return new Collector({
      reader: new BucketReader(this.store),
      lease: new CollectorLease({
        store: this.store,
        clock,
        random: new SteppedRandom(this.seed),
        who: `test ${this.seed}`,
        conditionalPut: async () => true,
        startedMs: this.startedMs,
      }),
      trimmer: new HistoryTrimmer({
        served: () => this.served(),
        exactBase: async (volume, lsn) => this.exactBase(volume, lsn),
      }),
      bucketBytesMax: this.bucketBytesMax,
      uploadsInFlight: () => this.volumes.flatMap((volume) => [...volume.inFlight]),
      pointsInUse: (volumeId) => this.pointsInUse(volumeId),
      isComingBack: (volumeId) => this.comingBack.has(volumeId),
      onNote: (text) => this.notes.push(text),
    });
  }

  async keys(prefix = ""): Promise<string[]> {
    const keys: string[] = [];
    for await (const { key } of this.memory.list(prefix)) if (!key.startsWith("collector/")) keys.push(key);
    return keys.sort();
  }

  /** Every key that the present manifests lead to and that is not there. */
  async dangling(): Promise<string[]> {
    const there = new Set(await this.keys());
    const reader = new BucketReader(this.memory);
    const missing: string[] = [];
    const ask = (key: string): boolean => {
      if (!there.has(key)) missing.push(key);
      return there.has(key);
    };
    for (const { present } of await reader.seenVolumes()) {
      if (present === null) continue;
      const { manifest } = present;
      for (const one of [...manifest.segments, ...manifest.pages]) ask(one.key);
      for (const base of manifest.bases) {
        if (!ask(base.key)) continue;
        for (const page of (await reader.base(base.key)).pages) {
          if (page === null || !ask(page)) continue;
          for (const name of (await reader.basePage(page)).chunks) if (name !== null) ask(chunkKey(name));
        }
      }
    }
    return missing;
  }
}

export const sweep = { dryRun: false, acceptClock: false, sweep: true } as const;

/** A run every six hours. */
export async function runFor(
  world: CollectorWorld,
  hours: number,
  collector = world.collector(),
): Promise<CollectReport> {
  let report = await collector.run(sweep);
  for (let passed = 0; passed < hours; passed += 6) {
    world.clock.pass(6 * hour);
    report = await collector.run(sweep);
  }
  return report;
}

/** Three days of a volume: a segment and a base each six hours, two extents of four changing. */
export async function threeDays(world: CollectorWorld, volume: SmallVolume): Promise<void> {
  for (let step = 0; step < 12; step += 1) {
    await volume.segment();
    await volume.publish();
    await volume.base([`a${step}`, `b${Math.floor(step / 3)}`, "same", null]);
    await volume.publish();
    world.clock.pass(6 * hour);
  }
}
