// Images with remote extents under everything at once: applies, fills, evictions, checkpoints, reads and rollbacks in random
// order on a disk that tears, with a bucket that is slow and away now and then, killed or without power at any moment. After
// each replay, and by each read that no apply is concurrent with, the image is the reference fold.
import { expect, test } from "vitest";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import type { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { isVarveError } from "#shared/domain/errors.ts";
import { decodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { bucketAway } from "../../tools/memory-point-source.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import type { MadeBatch } from "./batch-maker.ts";
import {
  directory,
  extentBytes,
  firstDifference,
  PartialWorld,
  patternedDisk,
  wholeDisk,
  wholePath,
} from "./partial-world.ts";

const sizeBytes = 3 * extentBytes + 500_224;

class CrashWorld {
  readonly clock: SteppedClock;
  readonly disk: SimulatedDisk;
  readonly world: PartialWorld;
  store: FileStore;
  awayChance = 0;
  readonly counts = { fills: 0, evicted: 0, reads: 0, rebases: 0, crashes: 0 };

  constructor(seed: number) {
    this.clock = new SteppedClock(seed);
    const random = new SteppedRandom(seed + 500);
    this.disk = new SimulatedDisk({ random, schedule: this.clock.schedule });
    this.store = this.disk.store();
    this.world = new PartialWorld(this.store, random, patternedDisk(sizeBytes, random), {
      delay: () =>
        new Promise((resolve) => {
          this.clock.after(this.clock.random.next() * 4, resolve);
        }),
      fails: () => (this.clock.random.chance(this.awayChance) ? bucketAway() : null),
    });
  }

  until<T>(promise: Promise<T>): Promise<T> {
    return this.clock.until(promise);
  }

  crash(): void {
    this.counts.crashes += 1;
    // A dead process closes nothing.
    this.world.points.counters.open = 0;
    this.clock.reset();
    if (this.clock.random.chance(0.6)) this.disk.crash();
    else this.disk.kill();
    this.store = this.disk.store();
  }

  attach(): Promise<RawFileImage> {
    return this.until(this.world.attach(this.store, this.clock));
  }

  /** What a new life applies from its log. */
  async replay(image: RawFileImage): Promise<void> {
    const rest = this.world.made.filter(({ draft }) => draft.lastLsn > image.state().appliedLsn);
    if (rest.length > 0) await this.until(image.apply(rest.map(({ batch }) => batch)));
  }

  nextBatch(): MadeBatch {
    const { maker, disk, history } = this.world;
    const { random } = this.clock;
    if (random.chance(0.12) && disk.appliedLsn > 1) {
      const lsns = [...history.keys()].filter((lsn) => lsn > 0);
      const toLsn = lsns[random.integer(0, lsns.length)] ?? 1;
      this.counts.rebases += 1;
      return maker.rebase(toLsn, history.get(toLsn)?.sizeBytes ?? sizeBytes);
    }
    if (random.chance(0.15)) return maker.resize(512 * random.integer(2000, 31_000));
    if (random.chance(0.15)) {
      const first = random.integer(0, Math.max(1, Math.floor(disk.sizeBytes / extentBytes)));
      const length = Math.min(extentBytes, disk.sizeBytes - first * extentBytes);
      return maker.range(random.chance(0.5) ? 1 : 2, first * extentBytes, length);
    }
    return maker.random();
  }

  async checkName(): Promise<void> {
    const bytes = await this.until(this.store.readWhole(`${wholePath}.checkpoint`));
    const checkpoint = decodeCheckpoint(bytes ?? Buffer.alloc(0));
    if (isBadCheckpoint(checkpoint)) throw new Error(checkpoint.detail);
    const name = checkpoint.residency === "full" ? "disk.raw" : "disk.raw.partial";
    expect(await this.until(this.store.list(directory))).toEqual([name, "disk.raw.checkpoint"].sort());
  }
}

/** Refusals that a replica may give at any time; anything else is a defect. */
function expected(error: unknown): void {
  if (isVarveError(error) && (error.kind === "Retry" || error._tag === "FileStoreError")) return;
  throw error;
}

async function oneLife(crash: CrashWorld, image: RawFileImage, steps: number): Promise<void> {
  const { world, clock, counts } = crash;
  const { random } = clock;
  const defects: unknown[] = [];
  const background = (work: Promise<unknown>): void => {
    work.catch(expected).catch((error: unknown) => defects.push(error));
  };
  let applying: Promise<void> = Promise.resolve();
  let pending = 0;
  for (let step = 0; step < steps; step += 1) {
    const extent = random.integer(0, 5);
    const kind = random.next();
    if (kind < 0.35) {
      const made = world.record(crash.nextBatch());
      pending += 1;
      applying = applying.then(() => image.apply([made.batch])).finally(() => (pending -= 1));
      background(applying);
    } else if (kind < 0.55) {
      background(image.extents.fill(extent).then(() => (counts.fills += 1)));
    } else if (kind < 0.7) {
      const base = random.chance(0.7)
        ? image.state().appliedLsn
        : random.integer(0, image.state().appliedLsn + 1);
      const known = [...world.history.keys()].filter((lsn) => lsn <= base).at(-1) ?? 0;
      if (known > 0) {
        const request = { point: world.own(known), baseLsn: known, extents: [0, 1, 2, 3, 4] };
        background(image.extents.evict(request).then((count) => (counts.evicted += count)));
      }
    } else if (kind < 0.8) background(image.checkpoint());
    else if (kind < 0.9 && pending === 0) {
      const expectedDisk = world.disk.copy();
      const offset = random.integer(0, expectedDisk.sizeBytes);
      const length = Math.min(random.integer(1, 600_000), expectedDisk.sizeBytes - offset);
      const slab = crash.store.allocateSlab(600_064);
      counts.reads += 1;
      const got = image.readInline(slab, 0, length, offset);
      const verify = (): void => {
        expect(Buffer.compare(slab.bytes.subarray(0, length), expectedDisk.read(offset, length))).toBe(0);
      };
      if (got === length) verify();
      else await clock.until(image.read(slab, 0, length, offset).then(verify, expected));
    }
    await clock.run(random.integer(0, 8));
    if (defects.length > 0) throw defects[0];
  }
}

test("in any order, with crashes and a bucket that comes and goes, the image is the fold", async () => {
  const sum = { fills: 0, evicted: 0, reads: 0, rebases: 0, crashes: 0 };
  for (let seed = 0; seed < 40; seed += 1) {
    const crash = new CrashWorld(seed);
    const { world, clock } = crash;
    try {
      await crash.until(world.create(crash.store, clock.random.chance(0.7)));
      if (!(await crash.until(crash.store.list(directory))).includes("disk.raw.partial")) {
        // A volume of its own begins empty.
        world.disk.resize(512);
        world.disk.zero(0, 512);
        world.disk.resize(sizeBytes);
        world.history.set(0, world.disk.copy());
      }
      world.record(world.maker.epoch());
      for (let life = 0; life < 4; life += 1) {
        crash.awayChance = clock.random.chance(0.5) ? 0 : 0.3;
        const image = await crash.attach();
        await crash.checkName();
        await crash.replay(image);
        crash.awayChance = 0;
        expect(firstDifference(await crash.until(wholeDisk(image, crash.store)), world.disk)).toBe(-1);
        crash.awayChance = clock.random.chance(0.5) ? 0 : 0.3;
        await oneLife(crash, image, clock.random.integer(5, 40));
        if (clock.random.chance(0.3)) {
          await crash.replay(image).catch(() => undefined);
          await clock.run(1000);
          await crash.until(image.detach()).catch(expected);
        }
        crash.crash();
      }
      crash.awayChance = 0;
      const image = await crash.attach();
      await crash.replay(image);
      for (let extent = 0; extent < image.extents.residency().extents; extent += 1) {
        await crash.until(image.extents.fill(extent));
      }
      expect(firstDifference(await crash.until(wholeDisk(image, crash.store)), world.disk)).toBe(-1);
      await crash.until(image.detach());
      await crash.checkName();
      expect(world.points.counters.open).toBe(0);
    } catch (cause) {
      throw new Error(`seed ${seed}`, { cause });
    }
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += crash.counts[key];
  }
  // The orders that matter did come up.
  expect(sum.fills).toBeGreaterThan(100);
  expect(sum.evicted).toBeGreaterThan(50);
  expect(sum.reads).toBeGreaterThan(30);
  expect(sum.rebases).toBeGreaterThan(20);
}, 180_000);
