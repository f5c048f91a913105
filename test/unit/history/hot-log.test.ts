// Points whose log is still on this machine: the hot log is pinned while a point reads from it and let go when it is archived;
// points open while the bucket is away as far as the hot log reaches; a volume that is closed goes on by the bucket.
import { describe, expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import { FileStoreError, ObjectStoreError } from "#shared/domain/errors.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { HotLog, LoggedBatch } from "#shared/ports/history.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { expectDisk, readAt } from "./history-world.ts";

/** A store that can be away, and counts what was asked. */
class SwitchedStore extends MemoryObjectStore {
  away = false;

  override async get(
    key: string,
    range?: { readonly start: number; readonly length: number },
  ): Promise<Buffer | null> {
    if (!this.away) return range === undefined ? super.get(key) : super.get(key, range);
    const failure = { kind: "Retry", operation: "get", place: this.place, key } as const;
    throw new ObjectStoreError(failure, "no answer");
  }
}

function makeWorld() {
  const clock = new SteppedClock(1);
  const store = new SwitchedStore(clock);
  const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 256 * 1024 });
  const histories = new Histories({ store, clock });
  const subject = volume.subject();
  const unserve = histories.serve(subject);
  const random = new SeededRandom(7);
  for (let index = 0; index < 6; index += 1) volume.write(index * 5000, Buffer.alloc(9000, index + 1));
  return { clock, store, volume, histories, history: histories.of(subject), unserve, random };
}

describe("points in the hot log", () => {
  it("pins it, changes over to segments once they are published, and lets it go", async () => {
    const { clock, volume, history, random } = makeWorld();
    const source = await history.open(5);
    expect([...volume.hotLog.pins.values()]).toEqual([1]);
    await expectDisk(source, volume.past[5] as FoldedDisk, random, "hot");

    // Not yet archived: looked at again later, the pin stays.
    await clock.step();
    expect(volume.hotLog.pins.size).toBe(1);
    volume.hotLog.release(7);
    expect(volume.hotLog.oldestLsn).toBe(1);

    await volume.seal(2);
    await volume.publish();
    await clock.until(
      (async () => {
        while (volume.hotLog.pins.size > 0)
          await new Promise((resolve) => clock.after(1, () => resolve(null)));
      })(),
    );
    volume.hotLog.release(7);
    expect(volume.hotLog.oldestLsn).toBe(7);
    const reads = volume.hotLog.reads;
    await expectDisk(source, volume.past[5] as FoldedDisk, random, "archived");
    expect(volume.hotLog.reads).toBe(reads);
    await source.close();
    expect(clock.pendingTasks).toBe(0);
  });

  it("is let go only after the last read of it has ended", async () => {
    const { clock, volume, history } = makeWorld();
    const source = await history.open(5);
    let answer: () => void = () => undefined;
    volume.hotLog.hold = new Promise((resolve) => {
      answer = resolve;
    });
    const reading = readAt(source, 0, 100);
    await volume.seal();
    await volume.publish();
    const reads = volume.hotLog.reads;
    await clock.step();
    // Changed over: a read of something else needs the hot log no more, yet the pin stays for the one under way.
    while (clock.pendingTasks > 0) await clock.step();
    expect((await readAt(source, 100_000, 50)).length).toBe(50);
    expect((await readAt(source, 20_000, 50)).every((byte) => byte === 4)).toBe(true);
    expect(volume.hotLog.reads).toBe(reads);
    expect(volume.hotLog.pins.size).toBe(1);
    answer();
    expect((await reading).every((byte) => byte === 1)).toBe(true);
    expect(volume.hotLog.pins.size).toBe(0);
    await source.close();
    expect(volume.hotLog.pins.size).toBe(0);
  });

  it("another batch in the place of the one that was indexed is not taken for it", async () => {
    const { volume, history } = makeWorld();
    const source = await history.open(5);
    const index = volume.hotLog.batches.findIndex(({ firstLsn }) => firstLsn === 3);
    const batch = volume.hotLog.batches[index] as (typeof volume.hotLog.batches)[number];
    volume.hotLog.batches[index] = { ...batch, checksum: batch.checksum + 1n };
    await expect(readAt(source, 5000, 4000)).rejects.toMatchObject({
      _tag: "HistoryIncomplete",
      kind: "Corrupt",
    });
    await source.close();
  });

  it("neighbours that many batches wrote, some of them without bytes, are one range and read right", async () => {
    const { volume, history, random } = makeWorld();
    for (let index = 0; index < 30; index += 1) {
      volume.write(60_000 + index * 700, Buffer.alloc(700, index + 1));
      if (index % 4 === 0) volume.append([{ mark: `m${index}` }]);
      if (index % 9 === 0) volume.append([{ zero: 100, length: 50 }]);
    }
    const source = await history.open(volume.lastLsn);
    await expectDisk(source, volume.past[volume.lastLsn] as FoldedDisk, random, "neighbours");
    expect((await readAt(source, 60_000 + 699, 702)).toString("hex")).toBe(`01${"02".repeat(700)}03`);
    await source.close();
  });

  it("a long tail is applied in steps, between which the loop turns", async () => {
    const clock = new SteppedClock(1);
    const random = new SeededRandom(5);
    const disk = new FoldedDisk(64 * 1024);
    const batches = Array.from({ length: 20_000 }, (_, index): LoggedBatch => {
      const payload = Buffer.alloc(random.between(1, 40), index % 251);
      const entry = {
        kind: "write",
        offset: random.between(0, 60_000),
        length: payload.length,
        payloadStart: 0,
      } as const;
      disk.write(entry.offset, payload);
      const checksums = { previousChecksum: BigInt(index), checksum: BigInt(index + 1) };
      const place = { line: "1", epoch: 1, firstLsn: index + 1, wallTimeMs: 1, durableLsn: index };
      return { ...place, ...checksums, entries: [entry], payload, record: payload };
    });
    const hotLog: HotLog = {
      line: "1",
      state: () => ({ oldestLsn: 1, durableLsn: batches.length }),
      pin: () => () => undefined,
      async *read(fromLsn) {
        yield* batches.slice(fromLsn - 1);
      },
    };
    const history = new Histories({ store: new MemoryObjectStore(clock), clock }).of({
      volumeId: "00000000000000a1",
      begin: { sizeBytes: disk.sizeBytes, origin: null },
      manifest: async () => null,
      hotLog: () => hotLog,
      snapshots: () => [],
    });
    const source = await clock.until(history.open(batches.length));
    await expectDisk(source, disk, random, "long tail");
    await source.close();
    const small = await history.open(8000);
    await small.close();
    // More than one step needs the clock: without it the opening waits.
    const waits = await Promise.race([
      history.open(20_000).then(() => "open"),
      new Promise((resolve) => setTimeout(() => resolve("waits"), 500)),
    ]);
    expect(waits).toBe("waits");
  });

  it("a tail with too many entries is refused, and lets the log go", async () => {
    const { store, clock, volume } = makeWorld();
    const histories = new Histories({ store, clock, limits: { mapRangesMax: 4 } });
    await expect(histories.of(volume.subject()).open(6)).rejects.toMatchObject({ _tag: "HistoryTooLong" });
    expect(volume.hotLog.pins.size).toBe(0);
  });

  it("a point that is archived needs no hot log and pins nothing", async () => {
    const { volume, history, random } = makeWorld();
    await volume.seal(2);
    await volume.publish();
    volume.write(0, Buffer.from("later"));
    const source = await history.open(6);
    expect(volume.hotLog.pins.size).toBe(0);
    expect(volume.hotLog.reads).toBe(0);
    await expectDisk(source, volume.past[6] as FoldedDisk, random, "archived");
  });

  it("opens with the bucket away, as far as the hot log reaches", async () => {
    const { store, volume, histories, history, random } = makeWorld();
    await volume.seal(2);
    await volume.publish();
    volume.write(100, Buffer.from("later"));
    store.away = true;
    const last = volume.lastLsn;
    const source = await history.open(last);
    await expectDisk(source, volume.past[last] as FoldedDisk, random, "away");
    await source.close();
    expect(volume.hotLog.pins.size).toBe(0);

    volume.hotLog.release(4);
    await expect(history.open(last)).rejects.toMatchObject({ kind: "Retry" });
    expect(volume.hotLog.pins.size).toBe(0);
    store.away = false;
    await expectDisk(await history.open(last), volume.past[last] as FoldedDisk, random, "back");
    await histories.close();
    expect(volume.hotLog.pins.size).toBe(0);
  });

  it("reads what the hot log covers while base and segments are away, and Retry for the rest", async () => {
    const { store, volume, history, random } = makeWorld();
    await volume.seal(2);
    await volume.takeBase(volume.lastLsn, volume.lastLsn, random);
    await volume.publish();
    volume.hotLog.release(volume.lastLsn + 1);
    volume.write(20_000, Buffer.alloc(30_000, 99));
    store.away = true;
    const source = await history.open(volume.lastLsn);
    expect((await readAt(source, 20_000, 30_000)).every((byte) => byte === 99)).toBe(true);
    await expect(readAt(source, 19_999, 2)).rejects.toMatchObject({ kind: "Retry" });
    expect(source.allocation(20_000, 30_000, 4)).toEqual([
      { offset: 20_000, length: 30_000, allocated: true },
    ]);
    store.away = false;
    await expectDisk(source, volume.past[volume.lastLsn] as FoldedDisk, random, "back");
    await source.close();
  });

  it("with no manifest known, a log from its first entry is enough; a later one waits for the bucket", async () => {
    const { volume, histories, random } = makeWorld();
    const waiting = histories.of({
      ...volume.subject(),
      manifest: async () => {
        throw new ObjectStoreError({ kind: "Retry", operation: "list", place: "b", key: "" }, "no answer");
      },
    });
    await expectDisk(await waiting.open(4), volume.past[4] as FoldedDisk, random, "no manifest");
    const unknown = histories.of({
      ...volume.subject(),
      volumeId: "00000000000000aa",
      manifest: async () => null,
    });
    volume.hotLog.oldestLsn = 3;
    await expect(unknown.open(4)).rejects.toMatchObject({ _tag: "HistoryNotKnown", kind: "Retry" });
    await expect(unknown.range()).rejects.toMatchObject({ kind: "Retry" });
    const full = new FileStoreError("write", "/data/volumes/disk0/history", "ENOSPC");
    const noRoom = histories.of({
      ...volume.subject(),
      volumeId: "00000000000000ab",
      manifest: async () => null,
      trouble: () => full,
    });
    await expect(noRoom.open(4)).rejects.toMatchObject({
      _tag: "HistoryNotKnown",
      message: expect.stringContaining("is not known yet: write /data/volumes/disk0/history: ENOSPC"),
      hint: full.hint,
    });
  });

  it("an open point goes on by the bucket when its volume is closed here", async () => {
    const { clock, store, volume, random } = makeWorld();
    let isClosed = false;
    const subject = {
      ...volume.subject(),
      manifest: async () => {
        if (isClosed) throw new Error("asked after the volume was closed");
        return volume.manifest;
      },
    };
    const histories = new Histories({ store, clock });
    const unserve = histories.serve(subject);
    const source = await histories.of(subject).open(6);
    await volume.seal(3);
    await volume.publish();
    unserve();
    isClosed = true;
    volume.hotLog.failure = new ObjectStoreError(
      { kind: "Retry", operation: "get", place: "", key: "" },
      "closed",
    );
    await expectDisk(source, volume.past[6] as FoldedDisk, random, "closed volume");
    await source.close();
    expect(volume.hotLog.pins.size).toBe(0);
  });

  it("a clone reads its parent's hot log while the parent is served here", async () => {
    const { store, clock, volume, histories, random } = makeWorld();
    const origin = { volume, lsn: 5 };
    const clone = new MadeVolume(store, {
      volumeId: "00000000000000b2",
      sizeBytes: 300 * 1024,
      parent: origin,
    });
    clone.write(3000, Buffer.from("own"));
    const source = await histories.of(clone.subject()).open(2);
    await expectDisk(source, clone.past[2] as FoldedDisk, random, "clone");
    expect([volume.hotLog.pins.size, clone.hotLog.pins.size]).toEqual([1, 1]);
    await source.close();
    expect([volume.hotLog.pins.size, clone.hotLog.pins.size]).toEqual([0, 0]);
    expect(clock.pendingTasks).toBe(0);
  });

  it("entries past the last durable one are not there yet", async () => {
    const { volume, history } = makeWorld();
    volume.hotLog.durableLsn = 3;
    await expect(history.open(5)).rejects.toMatchObject({ _tag: "PointNotThere" });
    await expect(history.sizeAt(5)).rejects.toMatchObject({ _tag: "PointNotThere" });
    expect(await history.sizeAt(3)).toBe(256 * 1024);
    expect(await history.range()).toMatchObject({ fromLsn: 1, toLsn: 3 });
  });

  it("all who open one point share it, and each closes for himself", async () => {
    const { volume, histories, history, random } = makeWorld();
    const [one, other] = await Promise.all([history.open(5), history.open(5)]);
    expect(histories.statistics().points).toBe(1);
    expect(volume.hotLog.pins.size).toBe(1);
    await one.close();
    await one.close();
    await expect(readAt(one, 0, 10)).rejects.toMatchObject({ _tag: "PointClosed", kind: "Retry" });
    await expectDisk(other, volume.past[5] as FoldedDisk, random, "still open");
    await other.close();
    expect(histories.statistics().points).toBe(0);
    expect(volume.hotLog.pins.size).toBe(0);
  });
});
