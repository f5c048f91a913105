// The space reserve on a simulated disk with a quota: what is admitted always fits, what another program takes costs the
// reserve and nothing else, and an idle reserve has no timer.
import { describe, expect, it } from "vitest";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import { SpaceReserve } from "../../../services/storage/engine/space-reserve.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

const MiB = 1024 * 1024;

class Bench {
  readonly clock: SteppedClock;
  readonly disk: SimulatedDisk;
  readonly store: FileStore;
  readonly notes: string[] = [];
  reserve!: SpaceReserve;
  image!: BlockFile;
  foreign!: BlockFile;

  constructor(seed: number, quotaBytes: number) {
    this.clock = new SteppedClock(seed);
    this.disk = new SimulatedDisk({ random: this.clock.random, schedule: this.clock.schedule, quotaBytes });
    this.store = this.disk.store();
  }

  async start(): Promise<this> {
    await this.until(this.store.makeDirectory("/data"));
    this.image = await this.until(this.store.open("/data/image", { create: true, access: "buffered" }));
    this.foreign = await this.until(this.store.open("/data/foreign", { create: true, access: "buffered" }));
    await this.restart();
    return this;
  }

  async restart(): Promise<void> {
    const onNote = (text: string): void => {
      this.notes.push(text);
    };
    this.reserve = new SpaceReserve({ store: this.store, clock: this.clock, path: "/data", onNote });
    await this.until(this.reserve.start());
  }

  until<T>(promise: Promise<T>): Promise<T> {
    return this.clock.until(promise);
  }

  async reserveFileBytes(): Promise<number | undefined> {
    return (await this.until(this.store.facts("/data/varve.reserve")))?.allocatedBytes;
  }

  /** Lets this much time pass. */
  async pass(ms: number): Promise<void> {
    await this.until(new Promise<void>((resolve) => void this.clock.after(ms, resolve)));
  }

  async foreignTakes(bytes: number): Promise<void> {
    const held = (await this.until(this.foreign.facts())).allocatedBytes;
    if (bytes > held) await this.until(this.foreign.allocate(held, bytes - held));
    else await this.until(this.foreign.applyAll([{ kind: "punch", offset: bytes, length: held - bytes }]));
  }

  /** All that is left. */
  async foreignFills(): Promise<void> {
    const { disk } = this;
    const held = (await this.until(this.foreign.facts())).allocatedBytes;
    await this.foreignTakes(held + disk.quotaBytes - disk.usedBytes);
  }
}

describe("the space reserve", () => {
  it("refuses everything while the data directory is gone, from a second after a write on", async () => {
    const bench = await new Bench(1, 256 * MiB).start();
    const { reserve, store } = bench;
    const freeSpace = store.freeSpace.bind(store);
    store.freeSpace = async (path) => {
      throw new FileStoreError("free space", path, "ENOENT");
    };
    expect(reserve.refuse(4096)).toBeNull();
    reserve.admit(4096);
    await bench.pass(1100);
    expect(reserve.refuse(4096)).toMatchObject({ _tag: "DataDirectoryGone", kind: "Internal" });
    expect(reserve.takesOverwrites).toBe(false);
    const told = (): readonly string[] => bench.notes.filter((note) => note.includes("data directory"));
    expect(told()).toEqual([expect.stringContaining("the data directory /data is gone: writes are refused")]);
    await bench.pass(3000);
    expect(told()).toHaveLength(1);
    store.freeSpace = freeSpace;
    await bench.pass(1100);
    expect(reserve.refuse(4096)).toBeNull();
    expect(told()[1]).toContain("is there again");
  });

  it("refuses everything before it has looked, and admits afterwards", async () => {
    const bench = await new Bench(1, 64 * MiB).start();
    const early = new SpaceReserve({ store: bench.store, clock: bench.clock, path: "/data" });
    expect(early.refuse(4096)?.kind).toBe("Full");
    expect(early.refuse(0)).toBeNull();
    expect(bench.reserve.refuse(4096)).toBeNull();
    // 64 MiB: a sixteenth in the file, a sixty-fourth unpromised.
    expect(await bench.reserveFileBytes()).toBe(4 * MiB);
    expect(bench.reserve.status()).toEqual({ state: "holding", roomBytes: 59 * MiB, promisedBytes: 0 });
    expect(bench.notes).toHaveLength(1);
    expect(bench.notes[0]).toContain("is small");
  });

  it("promises no byte twice", async () => {
    const { reserve } = await new Bench(2, 64 * MiB).start();
    reserve.admit(58 * MiB);
    expect(reserve.refuse(MiB)).toBeNull();
    reserve.admit(MiB);
    expect(reserve.refuse(4096)).toMatchObject({ _tag: "OutOfSpaceError", kind: "Full" });
    expect(reserve.refuse(0)).toBeNull();
    reserve.withdraw(2 * MiB);
    expect(reserve.refuse(2 * MiB)).toBeNull();
    // In the image now, and not yet seen there by a look at the disk: still not free.
    reserve.settle(57 * MiB);
    expect(reserve.refuse(3 * MiB)?.kind).toBe("Full");
  });

  it("never lets an apply run out of room, whatever the order of writes, applies and looks", async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const bench = await new Bench(seed, 16 * MiB).start();
      const { reserve, clock } = bench;
      const queue: { readonly offset: number; readonly length: number }[] = [];
      let refused = 0;
      for (let step = 0; step < 600; step += 1) {
        const length = 4096 * clock.random.integer(1, 40);
        if (clock.random.chance(0.6)) {
          if (reserve.refuse(length) === null) {
            reserve.admit(length);
            queue.push({ offset: 4096 * clock.random.integer(0, 4000), length });
          } else refused += 1;
        } else if (queue.length > 0 && clock.random.chance(0.1)) {
          reserve.withdraw(queue.pop()?.length ?? 0);
        } else if (queue.length > 0) {
          const { offset, length: bytes } = queue.shift() ?? { offset: 0, length: 0 };
          // Rejects with ENOSPC where a promise was worth nothing.
          await bench.until(bench.image.allocate(offset, bytes));
          reserve.settle(bytes);
        } else {
          await clock.run(5);
        }
      }
      expect(refused, `seed ${seed} fills the disk`).toBeGreaterThan(20);
      await bench.until(reserve.close());
    }
  });

  it("gives its file up when another program filled the disk, and takes it back when there is room", async () => {
    const bench = await new Bench(3, 64 * MiB).start();
    const { reserve, image } = bench;
    await bench.until(image.allocate(0, 8 * MiB));
    await bench.foreignFills();
    await expect(bench.until(image.allocate(8 * MiB, MiB))).rejects.toBeInstanceOf(FileStoreError);
    expect(await bench.until(reserve.makeRoom(() => true))).toBe(true);
    await bench.until(image.allocate(8 * MiB, MiB));
    expect(reserve.status().state).toBe("released");
    expect(reserve.takesOverwrites).toBe(false);
    expect(reserve.refuse(4096)).toMatchObject({ kind: "Full", fields: { reserve: "released" } });
    expect(reserve.refuse(0)).toBeNull();
    expect(bench.notes.at(-1)).toContain("was given up");
    // Less than reserve and margin: not yet.
    await bench.foreignTakes(51 * MiB);
    await bench.pass(5000);
    expect(reserve.status().state).toBe("released");
    await bench.foreignTakes(10 * MiB);
    await bench.pass(2500);
    expect(reserve.status().state).toBe("holding");
    expect(reserve.refuse(4096)).toBeNull();
    expect(bench.notes.at(-1)).toContain("room again");
    expect(await bench.reserveFileBytes()).toBe(4 * MiB);
  });

  it("with the reserve gone waits for room as long as somebody wants it", async () => {
    const bench = await new Bench(4, 64 * MiB).start();
    const { reserve } = bench;
    await bench.foreignFills();
    expect(await bench.until(reserve.makeRoom(() => true))).toBe(true);
    await bench.foreignFills();
    expect(await bench.until(reserve.makeRoom(() => false))).toBe(false);
    let waiting = true;
    const first = reserve.makeRoom(() => waiting);
    await bench.pass(20_000);
    waiting = false;
    expect(await bench.until(first)).toBe(false);
    const second = reserve.makeRoom(() => true);
    await bench.pass(20_000);
    await bench.foreignTakes(MiB);
    expect(await bench.until(second)).toBe(true);
  });

  it("has no timer while nothing is promised and the reserve is held", async () => {
    const bench = await new Bench(5, 64 * MiB).start();
    const { reserve, clock } = bench;
    expect(clock.pendingTasks).toBe(0);
    reserve.admit(8192);
    await bench.pass(10_000);
    expect(clock.pendingTasks).toBeGreaterThan(0);
    const { samples } = reserve.counters;
    expect(samples).toBeGreaterThan(5);
    reserve.settle(8192);
    await bench.pass(3000);
    expect(clock.pendingTasks).toBe(0);
    await bench.until(reserve.close());
  });

  it("looks again after a share of the room was admitted, long before a second is over", async () => {
    const bench = await new Bench(6, 64 * MiB).start();
    const { reserve } = bench;
    const { samples } = reserve.counters;
    reserve.admit(15 * MiB);
    await bench.pass(20);
    expect(reserve.counters.samples).toBe(samples + 1);
  });

  it("starts on a full disk with what a former process kept, and refuses until there is room", async () => {
    const bench = await new Bench(7, 64 * MiB).start();
    await bench.until(bench.reserve.close());
    await bench.foreignFills();
    bench.notes.length = 0;
    await bench.restart();
    expect(bench.reserve.status()).toMatchObject({ state: "holding", roomBytes: 0 });
    expect(bench.reserve.refuse(4096)?.kind).toBe("Full");
    // Without the old file the reserve can't be held: said once, at the start.
    await bench.until(bench.reserve.close());
    await bench.until(bench.store.remove("/data/varve.reserve"));
    await bench.foreignFills();
    await bench.restart();
    expect(bench.reserve.status().state).toBe("released");
    expect(bench.notes.join("\n")).toContain("writes are refused until");
    await bench.foreignTakes(MiB);
    await bench.pass(2500);
    expect(bench.reserve.refuse(4096)).toBeNull();
  });

  it("leaves the reserve unpromised where the file system can't allocate ahead", async () => {
    const bench = await new Bench(8, 64 * MiB).start();
    await bench.until(bench.reserve.close());
    await bench.until(bench.store.remove("/data/varve.reserve"));
    const { store } = bench;
    const others = bench.disk.store();
    store.open = async (path, options) => {
      const file = await others.open(path, options);
      file.allocate = async () => {
        throw new FileStoreError("allocate", path, "EOPNOTSUPP");
      };
      return file;
    };
    await bench.restart();
    expect(bench.reserve.status()).toEqual({ state: "unsupported", roomBytes: 59 * MiB, promisedBytes: 0 });
  });

  it("who comes long after room was made is not refused by an old look", async () => {
    const bench = await new Bench(5, 96 * MiB).start();
    await bench.foreignTakes(95 * MiB - ((await bench.reserveFileBytes()) ?? 0));
    bench.reserve.admit(4096);
    await bench.pass(3_000);
    bench.reserve.settle(4096);
    await bench.pass(3_000);
    expect(bench.reserve.refuse(8 * MiB)?.kind).toBe("Full");
    await bench.pass(10_000);
    await bench.foreignTakes(0);
    await bench.pass(60_000);
    expect(bench.reserve.refuse(8 * MiB)).toBeNull();
    expect(bench.clock.pendingTasks).toBe(0);
  });
});
