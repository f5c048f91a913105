// Mending under everything at once: bytes that change behind the image, applies, checkpoints, evictions and fills in random order, mends with
// bytes that grew old on the way, power cuts and kills at any moment. Nothing but what was damaged is ever otherwise than the fold, and in the
// end all of it is right again.
import { expect, test } from "vitest";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import type { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { isVarveError } from "#shared/domain/errors.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import { extentBytes, PartialWorld, volumeId, wholeDisk, wholePath } from "./partial-world.ts";

const sizeBytes = 2 * extentBytes + 300_032;
const extents = 3;

class MendWorld {
  readonly clock: SteppedClock;
  readonly disk: SimulatedDisk;
  readonly world: PartialWorld;
  store: FileStore;
  /** Bytes that changed behind the image at some time. */
  readonly damaged = new Uint8Array(sizeBytes);
  readonly counts = { damages: 0, mended: 0, refused: 0, crashes: 0 };

  constructor(seed: number) {
    this.clock = new SteppedClock(seed);
    this.disk = new SimulatedDisk({ random: new SteppedRandom(seed + 9), schedule: this.clock.schedule });
    this.store = this.disk.store();
    this.world = new PartialWorld(this.store, new SteppedRandom(seed + 5), new FoldedDisk(sizeBytes));
  }

  until<T>(promise: Promise<T>): Promise<T> {
    return this.clock.until(promise);
  }

  async replay(image: RawFileImage): Promise<void> {
    const rest = this.world.made.filter(({ draft }) => draft.lastLsn > image.state().appliedLsn);
    if (rest.length > 0) await this.until(image.apply(rest.map(({ batch }) => batch)));
  }

  /** Somebody else writes to the file; where it has left it there is nothing to damage. */
  async damage(image: RawFileImage): Promise<void> {
    const { random } = this.clock;
    const offset = random.integer(0, sizeBytes - 2000);
    const length = random.integer(1, 2000);
    if (!image.extents.isRangeLocal(offset, length)) return;
    const { path } = image.extents.residency();
    const file = await this.until(this.store.open(path, { access: "buffered" })).catch(expected);
    // It has another name by now.
    if (file === undefined) return;
    const slab = this.store.allocateSlab(4096);
    slab.bytes.fill(random.integer(1, 256));
    this.damaged.fill(1, offset, offset + length);
    await this.until(file.write([{ slab, start: 0, length }], offset));
    await this.until(file.close());
    this.counts.damages += 1;
  }

  /** Right as of now; entries may come before it gets its turn. */
  async mend(image: RawFileImage, extent: number, isLate = false): Promise<void> {
    const lsn = image.state().appliedLsn;
    const right = this.store.allocateSlab(extentBytes);
    const disk = this.world.history.get(lsn);
    if (disk === undefined) return;
    const length = Math.min(extentBytes, sizeBytes - extent * extentBytes);
    right.bytes.set(disk.read(extent * extentBytes, length));
    if (isLate) await this.wait();
    const isMended = await image.extents.mending.mend(
      extent,
      lsn,
      right,
      this.store.allocateSlab(extentBytes),
    );
    this.counts[isMended ? "mended" : "refused"] += 1;
    if (isMended && this.clock.random.chance(0.4)) await image.extents.mending.record();
  }

  async wait(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.clock.after(this.clock.random.next() * 4, resolve);
    });
  }

  /** What differs from the fold was damaged, never something that was written. */
  async judge(image: RawFileImage): Promise<void> {
    const bytes = await this.until(wholeDisk(image, this.store));
    const right = Buffer.from(this.world.disk.read(0, sizeBytes));
    let wrong = -1;
    for (let at = 0; at < sizeBytes && wrong < 0; at += 4096) {
      const end = Math.min(sizeBytes, at + 4096);
      if (bytes.compare(right, at, end, at, end) === 0) continue;
      for (let byte = at; byte < end && wrong < 0; byte += 1)
        if (bytes[byte] !== right[byte] && this.damaged[byte] === 0) wrong = byte;
    }
    expect(wrong).toBe(-1);
  }
}

function expected(error: unknown): void {
  if (isVarveError(error) && (error.kind === "Retry" || error._tag === "FileStoreError")) return;
  throw error;
}

async function oneLife(it: MendWorld, image: RawFileImage, steps: number): Promise<void> {
  const { world, clock } = it;
  const { random } = clock;
  const defects: unknown[] = [];
  const background = (work: Promise<unknown>): void => {
    work.catch(expected).catch((error: unknown) => defects.push(error));
  };
  let applying: Promise<void> = Promise.resolve();
  for (let step = 0; step < steps; step += 1) {
    const kind = random.next();
    const extent = random.integer(0, extents);
    if (kind < 0.35) {
      const made = world.record(world.maker.random());
      applying = applying.then(() => image.apply([made.batch]));
      background(applying);
    } else if (kind < 0.5) await it.damage(image);
    else if (kind < 0.8) background(it.mend(image, extent, random.chance(0.7)));
    else if (kind < 0.87) background(image.checkpoint());
    else if (kind < 0.93) {
      const lsn = image.state().appliedLsn;
      const request = { point: { volumeId, lsn }, baseLsn: lsn, extents: [extent] };
      if (lsn > 0) background(image.extents.evict(request));
    } else background(image.extents.fill(extent));
    await clock.run(random.integer(0, 8));
    if (defects.length > 0) throw defects[0];
  }
  if (random.chance(0.3)) return;
  // Seen before a replay could put it right.
  await clock.run(1000);
  await it.until(applying.catch(expected));
  await it.judge(image);
}

test("in any order, with crashes at any moment, a mend overwrites nothing that was written and puts right what was damaged", async () => {
  const sum = { damages: 0, mended: 0, refused: 0, crashes: 0 };
  for (let seed = 0; seed < 6; seed += 1) {
    const it = new MendWorld(seed);
    const { clock, world } = it;
    try {
      await it.until(world.create(it.store, false));
      world.record(world.maker.epoch());
      for (let life = 0; life < 3; life += 1) {
        const image = await it.until(world.attach(it.store, clock));
        await it.replay(image);
        await it.judge(image);
        await oneLife(it, image, clock.random.integer(5, 40));
        it.counts.crashes += 1;
        clock.reset();
        if (clock.random.chance(0.6)) it.disk.crash();
        else it.disk.kill();
        it.store = it.disk.store();
      }
      const image = await it.until(world.attach(it.store, clock));
      await it.replay(image);
      for (let extent = 0; extent < extents; extent += 1) {
        await it.until(image.extents.fill(extent));
        await it.until(it.mend(image, extent));
      }
      it.damaged.fill(0);
      await it.judge(image);
      await it.until(image.detach());
      // And so it is found again.
      const bytes = (await it.until(it.store.readWhole(wholePath))) ?? Buffer.alloc(0);
      expect(bytes.equals(Buffer.from(world.disk.read(0, sizeBytes)))).toBe(true);
    } catch (cause) {
      throw new Error(`seed ${seed}`, { cause });
    }
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += it.counts[key];
  }
  expect(sum.damages).toBeGreaterThan(20);
  expect(sum.mended).toBeGreaterThan(20);
  expect(sum.refused).toBeGreaterThan(5);
}, 120_000);

test("what was mended is on the disk when it is recorded, and a hole stays a hole", async () => {
  const it = new MendWorld(77);
  const { world, clock } = it;
  await it.until(world.create(it.store, false));
  world.record(world.maker.epoch());
  world.record(world.maker.write(4096, Buffer.alloc(8192, 5)));
  const image = await it.until(world.attach(it.store, clock));
  await it.replay(image);
  await it.until(image.checkpoint());
  const slab = it.store.allocateSlab(4096);
  slab.bytes.fill(0xee);
  const file = await it.until(it.store.open(wholePath, { access: "buffered" }));
  await it.until(file.write([{ slab, start: 0, length: 100 }], 5000));
  await it.until(file.syncWithTimes());
  await it.until(file.close());
  const before = image.allocation(0, sizeBytes, 16);
  await it.until(it.mend(image, 0));
  expect(it.counts).toMatchObject({ mended: 1 });
  expect(image.allocation(0, sizeBytes, 16)).toEqual(before);
  await it.until(image.extents.mending.record());
  it.disk.crash();
  clock.reset();
  it.store = it.disk.store();
  const again = await it.until(world.attach(it.store, clock));
  await it.replay(again);
  await it.judge(again);
  // Past the end, and as of an LSN before the last entry there: nothing is written.
  const { mending } = again.extents;
  const memory = it.store.allocateSlab(extentBytes);
  expect(await it.until(mending.mend(extents, 2, memory, slab))).toBe(false);
  expect(await it.until(mending.mend(0, 1, memory, it.store.allocateSlab(extentBytes)))).toBe(false);
  await it.judge(again);
});
