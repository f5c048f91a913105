/*
 * The promise of retention on real bytes: volumes with random pasts live for weeks beside a collector that trims and sweeps; at any
 * time every retained point opens from the bucket alone with exactly the oracle's bytes, and in the end everything unnamed is gone.
 */
import { describe, expect, it } from "vitest";
import { InlineArchiveWorker } from "#shared/adapters/archive-worker/inline.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { exactBaseBuilder } from "../../../services/archiver/engine/exact-base.ts";
import type { ExactBaseBuilder } from "../../../services/archiver/engine/history-trimmer.ts";
import { Archiver } from "../../../services/archiver/layer.ts";
import { MadeVolume, type MadeVolumeOptions, randomEntry } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { CollectorWorld, sweep } from "./collector-world.ts";
import { hour, startMs } from "./small-bucket.ts";

const historyMs = 48 * hour;

/** A made volume whose archiver forgets what a plan dropped, as a real one does. */
class LivingVolume extends MadeVolume {
  private readonly dropped = new Set<string>();
  private readonly taken = new Set<string>();
  /** Exact bases, which a plan added. */
  private added: readonly BaseRef[] = [];

  constructor(store: ObjectStore, options: MadeVolumeOptions) {
    super(store, { wallTimeMs: startMs, ...options });
  }

  /** A name is never used again, not even of a base that went. */
  hasBase(s: number, e: number): boolean {
    return this.taken.has(`${s} ${e}`);
  }

  override async takeBase(s: number, e: number, random: SeededRandom): Promise<BaseRef> {
    this.taken.add(`${s} ${e}`);
    return await super.takeBase(s, e, random);
  }

  private readonly held = new Set<string>();

  /** What the archiver of this test took is held, an exact base as soon as it is published. */
  isBaseHeld(key: string): boolean {
    const base = this.manifest?.bases.find((one) => one.key === key);
    return this.held.has(key) || (base !== undefined && this.hasBase(base.s, base.e));
  }

  watchBase(base: BaseRef): void {
    this.held.add(base.key);
  }

  async amend(change: (manifest: VolumeManifest) => VolumeManifest): Promise<VolumeManifest> {
    return await this.publish((all) => {
      const kept = {
        ...all,
        historyMs,
        createdAtMs: startMs,
        retainedFromLsn: this.manifest?.retainedFromLsn ?? 0,
        bases: [...all.bases, ...this.added]
          .filter((one) => !this.dropped.has(one.key))
          .sort((a, b) => a.s - b.s || a.e - b.e),
        pages: all.pages.filter((one) => !this.dropped.has(one.key)),
        segments: all.segments.filter((one) => !this.dropped.has(one.key)),
      };
      const next = change(kept);
      this.added = next.bases.filter((one) => !all.bases.includes(one));
      const names = new Set([...next.bases, ...next.pages, ...next.segments].map((one) => one.key));
      for (const one of [...kept.bases, ...kept.pages, ...kept.segments]) {
        if (!names.has(one.key)) this.dropped.add(one.key);
      }
      return next;
    });
  }
}

/** Every retained point, or some of them, against the oracle, by the bucket alone. */
async function verify(
  world: CollectorWorld,
  volume: LivingVolume,
  random: SeededRandom,
  most: number,
): Promise<number> {
  const { manifest } = volume;
  if (manifest === null) return 0;
  const points = new Set(manifest.snapshots.map((one) => one.lsn));
  for (let lsn = Math.max(1, manifest.retainedFromLsn); lsn <= manifest.archivedLsn; lsn += 1)
    points.add(lsn);
  const all = [...points];
  const chosen =
    all.length <= most ? all : Array.from({ length: most }, () => all[random.between(0, all.length)] ?? 1);
  chosen.push(Math.max(1, manifest.retainedFromLsn), ...manifest.snapshots.map((one) => one.lsn));
  const histories = new Histories({ store: world.memory, clock: world.clock });
  const history = await histories.find(volume.volumeId);
  for (const lsn of chosen) {
    const source = await history.open(lsn);
    const oracle = volume.past[lsn]!;
    expect(source.sizeBytes, `size at ${lsn}`).toBe(oracle.sizeBytes);
    const slab = { bytes: Buffer.alloc(source.sizeBytes), address: 0 };
    await source.read(slab, 0, source.sizeBytes, 0);
    const same = slab.bytes.equals(Buffer.from(oracle.read(0, oracle.sizeBytes)));
    expect(same, `${volume.volumeId}: LSN ${lsn} has other bytes`).toBe(true);
    await source.close();
  }
  await histories.close();
  return chosen.length;
}

/** The real ones: read through point sources, stored by the archiver's parts. */
function exactBases(world: CollectorWorld): ExactBaseBuilder {
  const archiver = new Archiver({
    store: world.memory,
    clock: world.clock,
    random: new SteppedRandom(99),
    slabs: {
      allocateSlab: (bytes) => ({ bytes: Buffer.alloc(bytes), address: 0 }),
      shrinkSlab: () => undefined,
    },
    worker: new InlineArchiveWorker(),
  });
  return exactBaseBuilder({
    parts: archiver.parts,
    history: async (volumeId) => new Histories({ store: world.memory, clock: world.clock }).find(volumeId),
    isStopped: () => false,
  });
}

async function live(volume: LivingVolume, random: SeededRandom): Promise<void> {
  for (let count = random.between(1, 5); count > 0; count -= 1) {
    if (random.chance(0.08) && volume.archivedLsn > 3) {
      const oldest = Math.max(1, volume.manifest?.retainedFromLsn ?? 1);
      const kept = volume.snapshots.map((one) => one.lsn).filter((lsn) => lsn <= volume.archivedLsn);
      const toLsn =
        random.chance(0.4) && kept.length > 0 ? kept[0]! : random.between(oldest, volume.archivedLsn + 1);
      volume.rollback(toLsn);
      continue;
    }
    const entries = Array.from({ length: random.between(1, 4) }, () =>
      randomEntry(random, volume.disk.sizeBytes),
    );
    // One resize a batch at most: the next entry of it would not know the new size.
    volume.append(entries.filter((one, index) => !("resize" in one) || index === entries.length - 1));
  }
  // Few snapshots live long.
  if (volume.snapshots.length > 2) volume.snapshots.splice(random.between(0, volume.snapshots.length), 1);
  await volume.seal(random.between(1, 4));
  if (random.chance(0.15)) await volume.makePage(random.between(1, 4));
  if (random.chance(0.3)) {
    const last = volume.archivedLsn;
    const e = Math.min(last, last - random.between(0, 3));
    const s = Math.max(1, e - random.between(0, 4));
    const isFree = volume.rebaseAfter(s) > e && !volume.hasBase(s, e);
    if (isFree) await volume.takeBase(s, e, random);
  }
  await volume.amend((same) => same);
}

/** Room that is too small for two days of these volumes; what present disks and snapshots need is above it now and then. */
const capBytes = 40_000;

describe("retention on real bytes", () => {
  let exact = 0;
  let capped = 0;

  const lives = [1, 2, 3].flatMap((seed) => [
    { seed, cap: null },
    { seed, cap: capBytes },
  ]);
  for (const { seed, cap } of lives) {
    const title = `keeps every promise for a fortnight (seed ${seed}, ${cap === null ? "no cap" : "a cap"})`;
    it(title, { timeout: 120_000 }, async () => {
      const random = new SeededRandom(seed);
      const world = new CollectorWorld(seed);
      const sizeBytes = limits.extentBytes + 512 * random.between(1, 2000);
      const parent = new LivingVolume(world.memory, { volumeId: "00000000000000a1", sizeBytes });
      const volumes = [parent];
      const servedBy = (volume: LivingVolume) => ({
        volumeId: volume.volumeId,
        name: volume.volumeId,
        archive: {
          manifest: () => volume.manifest,
          amend: async (change: (m: VolumeManifest) => VolumeManifest) => volume.amend(change),
          isBaseHeld: (key: string) => volume.isBaseHeld(key),
          watchBase: (base: BaseRef) => volume.watchBase(base),
        },
        pointsInUse: () => [],
      });
      world.served = () => volumes.map(servedBy);
      const build = exactBases(world);
      world.exactBase = async (served, lsn) => {
        exact += 1;
        return await build(served, lsn);
      };
      world.bucketBytesMax = cap;
      const collector = world.collector();
      let checked = 0;
      let deleted = 0;
      for (let step = 0; step < 30; step += 1) {
        for (const volume of volumes) {
          volume.wallTimeMs = world.clock.wallMs;
          if (random.chance(0.7)) await live(volume, random);
        }
        if (step === 8) {
          const lsn = random.between(Math.max(1, parent.manifest!.retainedFromLsn), parent.archivedLsn + 1);
          const clone = new LivingVolume(world.memory, {
            volumeId: "00000000000000b2",
            sizeBytes: parent.past[lsn]!.sizeBytes,
            parent: { volume: parent, lsn },
          });
          clone.wallTimeMs = world.clock.wallMs;
          await clone.seal();
          await clone.amend((same) => same);
          volumes.push(clone);
        }
        world.clock.pass(random.between(2, 16) * hour);
        const report = await collector.run(sweep);
        deleted += report.deleted;
        capped +=
          report.trimmed.length > 0 && world.notes.some((note) => note.includes("--bucket-max")) ? 1 : 0;
        if (step % 3 === 0) for (const volume of volumes) checked += await verify(world, volume, random, 6);
      }
      expect(await world.dangling()).toEqual([]);
      expect(deleted).toBeGreaterThan(50);
      expect(checked).toBeGreaterThan(60);
      // Nothing more is written: in the end only what the present manifests name is there.
      for (const volume of volumes) {
        volume.snapshots.length = 0;
        await volume.amend((same) => same);
      }
      for (let run = 0; run < 12; run += 1) {
        world.clock.pass(12 * hour);
        await collector.run(sweep);
      }
      for (const volume of volumes) await verify(world, volume, random, 6);
      const report = await collector.run({ ...sweep, dryRun: true });
      expect(report.waiting).toBe(0);
    });
  }

  it("snapshots that outlived the window were among them, and caps that were reached", () => {
    expect(exact).toBeGreaterThan(2);
    expect(capped).toBeGreaterThan(2);
  });
});
