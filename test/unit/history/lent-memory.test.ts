// Memory of fetched objects goes back to the system when the last reader has had its frames, and never before: neither while another
// reader is to come that was promised one, nor while a thread still opens a frame.
import { randomFillSync } from "node:crypto";
import { expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { BucketReader } from "#shared/adapters/history/bucket-reader.ts";
import { FrameReader, type KeepFrame } from "#shared/adapters/history/frame-reader.ts";
import { historyLimits } from "#shared/adapters/history/history-limits.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { frameCoding, type ObjectFrame, openFrameLater } from "#shared/formats/object-frame.ts";

const frameBytes = 256 * 1024;
const key = "segments/made";
const kept: KeepFrame = () => true;
const notKept: KeepFrame = () => false;
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

class House {
  readonly fetched: Buffer[] = [];
  readonly frames: readonly ObjectFrame[];
  readonly content = randomFillSync(Buffer.alloc(4 * frameBytes));
  readonly reader: FrameReader;
  /** What readers were shown last, by number. */
  readonly shown = new Map<number, Buffer>();
  /** Called before a frame is opened. */
  opening: (number: number) => Promise<void> = async () => undefined;

  private constructor(store: MemoryObjectStore) {
    const get = store.get.bind(store);
    store.get = async (...asked) => {
      const bytes = await get(...asked);
      if (bytes !== null) this.fetched.push(bytes);
      return bytes;
    };
    this.frames = [0, 1, 2, 3].map((number) => ({
      number,
      place: number * frameBytes,
      rawBytes: frameBytes,
      coding: frameCoding.stored,
      objectOffset: number * frameBytes,
      storedBytes: frameBytes,
      checksum: checksumOf(this.raw(number)),
    }));
    this.reader = new FrameReader(
      new BucketReader(store, { ...historyLimits, frameCacheBytes: 2 * frameBytes }),
      async (stored, frame) => {
        await this.opening(frame.number);
        return await openFrameLater(stored, frame);
      },
    );
  }

  static async open(): Promise<House> {
    const store = new MemoryObjectStore(new SystemClock());
    const house = new House(store);
    await store.put(key, house.content);
    return house;
  }

  raw(number: number): Buffer {
    return this.content.subarray(number * frameBytes, (number + 1) * frameBytes);
  }

  /** Resolves with the numbers of the frames that were read as they are. */
  async read(numbers: readonly number[], keep: KeepFrame): Promise<number[]> {
    const right: number[] = [];
    await Promise.all(
      this.reader.segmentFrames({ key, frames: this.frames }, numbers, keep, (number, bytes) => {
        this.shown.set(number, bytes);
        if (bytes.equals(this.raw(number))) right.push(number);
      }),
    );
    return right.sort((a, b) => a - b);
  }

  get given(): readonly boolean[] {
    return this.fetched.map(isGone);
  }
}

function isGone({ buffer }: Buffer): boolean {
  return (buffer as ArrayBuffer).detached;
}

test("it goes back when all who shared the fetch have read, and is fetched again for the next", async () => {
  const house = await House.open();
  const readers = [house.read([0, 1, 2, 3], notKept), house.read([2, 3], notKept), house.read([0], kept)];
  expect(await Promise.all(readers)).toEqual([[0, 1, 2, 3], [2, 3], [0]]);
  await turn();
  expect(house.given).toEqual([true]);
  expect(await house.read([1, 2], notKept)).toEqual([1, 2]);
  await turn();
  expect(house.given).toEqual([true, true]);
});

test("frames that are kept stand in memory of their own", async () => {
  const house = await House.open();
  expect(await house.read([0, 1, 2, 3], (number) => number < 2)).toEqual([0, 1, 2, 3]);
  await turn();
  expect(house.given).toEqual([true]);
  expect(await house.read([0, 1], notKept)).toEqual([0, 1]);
  expect(house.fetched.length).toBe(1);
});

test("what leaves the cache goes back too, but not from under a reader who found it there", async () => {
  const house = await House.open();
  expect(await house.read([0, 1], kept)).toEqual([0, 1]);
  const [first, second] = [0, 1].map((number) => house.shown.get(number) as Buffer);
  const readers = [house.read([0, 1], kept), house.read([2, 3], kept)];
  house.reader.clear();
  expect([first, second].map((bytes) => isGone(bytes as Buffer))).toEqual([false, false]);
  expect(await Promise.all(readers)).toEqual([
    [0, 1],
    [2, 3],
  ]);
  await turn();
  expect([first, second].map((bytes) => isGone(bytes as Buffer))).toEqual([true, true]);
  expect(await house.read([0], kept)).toEqual([0]);
  await turn();
  expect([0, 2, 3].map((number) => isGone(house.shown.get(number) as Buffer))).toEqual([false, true, false]);
});

test("more frames at once than the cache holds are all read before the first of them goes", async () => {
  const house = await House.open();
  expect(await Promise.all([house.read([0, 1, 2, 3], kept), house.read([0], kept)])).toEqual([
    [0, 1, 2, 3],
    [0],
  ]);
  await turn();
  expect([0, 1, 2, 3].map((number) => isGone(house.shown.get(number) as Buffer))).toEqual([
    true,
    true,
    false,
    false,
  ]);
});

test("a reader who joins while the last frame is being opened gets it whole", async () => {
  const house = await House.open();
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  house.opening = (number) => (number === 3 ? gate : Promise.resolve());
  const first = house.read([0, 1, 2, 3], notKept);
  await turn();
  const second = house.read([1, 3], notKept);
  await turn();
  expect(house.given).toEqual([false]);
  open();
  expect(await Promise.all([first, second])).toEqual([
    [0, 1, 2, 3],
    [1, 3],
  ]);
  await turn();
  expect(house.given).toEqual([true]);
});

test("an opener that fails does not take the bytes from those that still run", async () => {
  const house = await House.open();
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  house.opening = async (number) => {
    if (number === 0) throw new Error("no thread");
    await gate;
  };
  const reading = house.read([0, 1, 2, 3], notKept).catch((error: unknown) => error);
  await turn();
  await turn();
  expect(house.given).toEqual([false]);
  open();
  expect(await reading).toEqual(new Error("no thread"));
  await turn();
  expect(house.given).toEqual([true]);
});

test("a damaged frame is the error of who reads it; the others are read, and the memory goes back", async () => {
  const house = await House.open();
  house.opening = async (number) => {
    if (number === 2) house.fetched[0]?.fill(0, 2 * frameBytes, 2 * frameBytes + 1);
    if (number === 2) house.fetched[0]?.fill(1, 2 * frameBytes + 1, 2 * frameBytes + 9);
  };
  const [bad, good] = await Promise.allSettled([
    house.read([0, 1, 2, 3], notKept),
    house.read([0, 1, 3], notKept),
  ]);
  expect(bad).toMatchObject({ status: "rejected", reason: { kind: "Corrupt" } });
  expect(good).toEqual({ status: "fulfilled", value: [0, 1, 3] });
  await turn();
  expect(house.given).toEqual([true]);
});
