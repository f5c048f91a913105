/*
 * Scrub against real history: a clean image, changed bytes in it, extents that are remote, writes that come in the middle of a
 * look, repair, and its pace.
 */
import { beforeEach, describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BaseImage } from "#shared/ports/archive.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { Scrubber, type ScrubSubject } from "../../../services/archiver/engine/scrubber.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { HandClock } from "./small-bucket.ts";

const sizeBytes = 2 * limits.extentBytes + 8192;
const options = { repair: false, bytesPerSecond: Number.POSITIVE_INFINITY };
const allocateSlab = (bytes: number): Slab => ({ bytes: Buffer.alloc(bytes), address: 0 });

/** An image that is the oracle's disk, with whatever a test does to it. */
class ImageOfOracle implements BaseImage {
  readonly volume: MadeVolume;
  readonly damage = new Map<number, number>();
  readonly remote = new Set<number>();
  readonly holes = new Set<number>();
  onRead: (() => void) | null = null;

  constructor(volume: MadeVolume) {
    this.volume = volume;
  }
  state() {
    const { lastLsn } = this.volume;
    return { sizeBytes: this.volume.disk.sizeBytes, appliedLsn: lastLsn, begunLsn: lastLsn };
  }
  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.onRead?.();
    slab.bytes.set(this.volume.disk.read(offset, length), start);
    for (const [at, byte] of this.damage) {
      if (at >= offset && at < offset + length) slab.bytes[start + at - offset] = byte;
    }
  }
  allocation(offset: number, length: number) {
    return [{ offset, length, allocated: !this.holes.has(offset / limits.extentBytes) }];
  }
  isLocal(extent: number): boolean {
    return !this.remote.has(extent);
  }
}

let volume: MadeVolume;
let image: ImageOfOracle;
let clock: HandClock;
let subject: ScrubSubject;

beforeEach(async () => {
  clock = new HandClock();
  const store = new MemoryObjectStore(clock);
  volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes });
  for (let at = 0; at < 20; at += 1) volume.write(at * 400_000, Buffer.alloc(5000, at + 1));
  await volume.seal(4);
  await volume.takeBase(8, 9, new SeededRandom(1));
  await volume.publish();
  volume.write(77, Buffer.from("only in the hot log"));
  const histories = new Histories({ store, clock });
  histories.serve(volume.subject());
  image = new ImageOfOracle(volume);
  subject = {
    name: "disk0",
    image,
    history: await histories.find(volume.volumeId),
    repair: async () => false,
  };
});

const scrub = async (more = options) => await new Scrubber({ clock, allocateSlab }, subject).scrub(more);

describe("scrub", () => {
  it("finds nothing in an image that is its history, hot log included", async () => {
    expect(await scrub()).toEqual({
      volume: "disk0",
      lsn: volume.lastLsn,
      extents: 3,
      compared: 3,
      bytes: 3 * limits.extentBytes,
      remote: 0,
      busy: 0,
      damaged: [],
    });
  });

  it("finds each changed byte's extent, the last and partial one too", async () => {
    image.damage
      .set(5, 200)
      .set(limits.extentBytes + 12_345, 201)
      .set(sizeBytes - 1, 202);
    const { damaged } = await scrub();
    expect(damaged).toEqual([
      { extent: 0, firstOffset: 5, repaired: false },
      { extent: 1, firstOffset: limits.extentBytes + 12_345, repaired: false },
      { extent: 2, firstOffset: sizeBytes - 1, repaired: false },
    ]);
  });

  it("compares no extent that is remote", async () => {
    image.remote.add(1);
    image.damage.set(limits.extentBytes + 1, 99);
    expect(await scrub()).toMatchObject({ compared: 2, remote: 1, damaged: [] });
  });

  it("writes that come while it looks are no damage; an extent that never stands still is busy", async () => {
    let writes = 0;
    image.onRead = () => {
      writes += 1;
      volume.write(limits.extentBytes + 4096, Buffer.alloc(512, writes));
    };
    const report = await scrub();
    expect(report.damaged).toEqual([]);
    expect(report.busy).toBe(1);
    expect(report.compared).toBe(2);
    // Damage beside such writes, in an extent that nobody writes to, is found all the same.
    image.damage.set(100, 7);
    expect((await scrub()).damaged.map((one) => one.extent)).toEqual([0]);
  });

  it("what a rollback took back while it looked is no damage", async () => {
    // The image is read between an entry and the rollback that takes it back: before and after, the disk is the same.
    let reads = 0;
    image.onRead = () => {
      reads += 1;
      if (reads === 1) image.damage.set(4242, 77);
      else image.damage.clear();
    };
    expect((await scrub()).damaged).toEqual([]);
  });

  it("says repaired only where the extent was taken again and is the same now", async () => {
    image.damage.set(5, 200).set(limits.extentBytes + 9, 201);
    subject = {
      ...subject,
      repair: async (extent) => {
        if (extent === 0) image.damage.delete(5);
        return true;
      },
    };
    const { damaged } = await scrub({ ...options, repair: true });
    expect(damaged.map(({ extent, repaired }) => [extent, repaired])).toEqual([
      [0, true],
      [1, false],
    ]);
  });

  it("keeps its pace", async () => {
    const waits: number[] = [];
    // Its own clock: the readers of the past have timers, too.
    const paced = new HandClock();
    paced.after = (ms = 0, task = () => undefined) => {
      waits.push(ms);
      paced.pass(ms);
      queueMicrotask(task);
      return { cancel: () => undefined };
    };
    await new Scrubber({ clock: paced, allocateSlab }, subject).scrub({
      repair: false,
      bytesPerSecond: limits.extentBytes,
    });
    expect(waits.reduce((sum, ms) => sum + ms, 0)).toBeCloseTo(3000, -1);
    // Of a thin disk only what it stores takes time; holes are compared all the same.
    waits.length = 0;
    image.holes.add(1);
    const report = await new Scrubber({ clock: paced, allocateSlab }, subject).scrub({
      repair: false,
      bytesPerSecond: limits.extentBytes,
    });
    expect(waits.reduce((sum, ms) => sum + ms, 0)).toBeCloseTo(2000, -1);
    expect(report.compared).toBe(3);
  });
});
