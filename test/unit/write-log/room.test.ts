// Room in the embedded log: what is promised as room holds on a full disk, refusals come before anything is lost, a full log
// can be opened, read and released, history gives way to writes, and zeroes never meet an append.
// The disk is the simulated one, with a quota.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import type { EmbeddedLogOptions } from "#shared/adapters/write-log/log-options.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { appendWhenRoom, RecordingListener, readAll, writeDraft } from "../../contract/write-log-drafts.ts";
import { Scheduler, SeededRandom } from "../../simulation/scheduler.ts";
import { intercept } from "./file-interception.ts";
import { LogWorld, smallLog, worldDirectory, worldVolume } from "./log-world.ts";

/** Appends until the log refuses; gives the kind of the refusal. */
async function fill(world: LogWorld, length = 3000): Promise<string> {
  for (let count = 0; count < 2000; count += 1) {
    if (!world.append(length, false)) {
      const { refusal } = world.writer.state();
      if (refusal !== null) return refusal.kind;
    }
    await world.scheduler.run(6);
  }
  return "never";
}

test("on a full disk all room that was promised is taken, then appends are refused, and a release ends that", async () => {
  for (let seed = 1; seed <= 8; seed += 1) {
    const world = new LogWorld(seed);
    await world.open("write");
    for (let count = 0; count < 20; count += 1) if (!world.append(3000)) await world.scheduler.run(20);
    await world.sync();
    await world.scheduler.pass(200);
    // From now on the disk has not one byte more than it gave already.
    world.disk.quotaBytes = world.disk.usedBytes;
    const room = world.writer.state().roomBytes;
    expect(room).toBeGreaterThan(40_000);
    let taken = 0;
    for (; taken + 8192 <= room; taken += 8192) expect(world.append(3000)).toBe(true);
    expect(await fill(world)).toBe("Full");
    const last = world.writer.state().lastLsn;
    await world.sync();
    expect(world.listener.durableLsn).toBe(last);
    expect(world.listener.error).toBeNull();
    world.crash();
    await world.open("flush");
    expect(world.writer.state().lastLsn).toBe(last + 1);
    await world.release(last);
    expect(world.append(3000)).toBe(true);
    await world.sync();
    await world.check();
  }
});

test("a log that is full can be opened again and again, and still be released", async () => {
  const world = new LogWorld(4, { ...smallLog, logBytesMax: 4 * 64 * 1024 });
  await world.open("write");
  expect(await fill(world)).toBe("Full");
  await world.sync();
  for (let round = 0; round < 4; round += 1) {
    world.crash();
    await world.open("write");
    expect(world.append(3000)).toBe(false);
  }
  await world.release(world.writer.state().lastLsn);
  expect(world.writer.state().refusal).toBeNull();
  expect(world.append(3000)).toBe(true);
  await world.sync();
});

test("a disk that was full is asked again, at most once a second", async () => {
  const world = new LogWorld(6);
  await world.open("write");
  world.disk.quotaBytes = world.disk.usedBytes;
  expect(await fill(world)).toBe("Full");
  world.disk.quotaBytes = 2 ** 40;
  expect(world.append(3000)).toBe(false);
  await world.scheduler.pass(1100);
  expect(world.append(3000)).toBe(false);
  await world.scheduler.pass(50);
  expect(world.writer.state().refusal).toBeNull();
  expect(world.append(3000)).toBe(true);
});

test("released log is kept as history, until writes need its room", async () => {
  const options = { ...smallLog, retainedBytes: 4 * 64 * 1024, logBytesMax: 8 * 64 * 1024 };
  const world = new LogWorld(9, options);
  await world.open("write");
  const write = async (count: number): Promise<void> => {
    for (let done = 0; done < count; ) {
      if (world.append(3000)) done += 1;
      await world.scheduler.run(10);
    }
    await world.sync();
  };
  await write(30);
  await world.release(world.writer.state().lastLsn);
  expect(world.writer.state().oldestLsn).toBe(1);
  await write(20);
  await world.release(world.writer.state().lastLsn);
  const kept = world.writer.state().oldestLsn;
  expect(kept).toBeGreaterThan(1);
  expect(world.writer.state().lastLsn - kept).toBeGreaterThanOrEqual(4 * 7);
  await world.check();
  // Nothing more is released, and still more is written than room was left: history goes first, oldest first.
  await write(25);
  expect(world.writer.state().oldestLsn).toBeGreaterThan(kept);
  expect(world.writer.state().diskBytes).toBeLessThanOrEqual(options.logBytesMax);
  await world.check();
});

test("spares are bounded: what is released beyond them leaves the disk", async () => {
  const world = new LogWorld(12, { ...smallLog, preparedAheadBytesMax: 0 });
  await world.open("write");
  for (let count = 0; count < 150; ) {
    if (world.append(3000)) count += 1;
    await world.scheduler.run(5);
  }
  await world.sync();
  const before = world.writer.state().diskBytes;
  await world.release(world.writer.state().lastLsn);
  const after = world.writer.state().diskBytes;
  expect(before).toBeGreaterThan(15 * 64 * 1024);
  expect(after).toBeLessThanOrEqual(6 * 64 * 1024);
  expect(world.disk.usedBytes).toBeLessThanOrEqual(after);
});

test("an idle log gives its spares back, a busy one keeps them, and room stays", async () => {
  const world = new LogWorld(13, { ...smallLog, sparesMax: 8, preparedAheadBytesMax: 0 });
  await world.open("write");
  const write = async (count: number): Promise<void> => {
    for (let done = 0; done < count; ) {
      if (world.append(3000)) done += 1;
      await world.scheduler.pass(5);
    }
    await world.sync();
    await world.release(world.writer.state().lastLsn);
  };
  await write(100);
  const segments = (): number => world.writer.state().diskBytes / (64 * 1024);
  const busy = segments();
  expect(busy).toBeGreaterThanOrEqual(8);
  await world.scheduler.pass(50_000);
  await write(20);
  await world.scheduler.pass(20_000);
  expect(segments()).toBe(busy);
  await world.scheduler.pass(120_000);
  expect(segments()).toBeLessThanOrEqual(4);
  expect(world.disk.usedBytes).toBeLessThanOrEqual(4 * 64 * 1024);
  const { roomBytes } = world.writer.state();
  expect(roomBytes).toBeGreaterThan(40_000);
  await write(60);
  world.crash();
  await world.open("flush", world.writer.state().lastLsn - 1);
});

/** A log of which is known which segments are in use, and where zeroes went. */
class WatchedLog extends LogWorld {
  readonly #started = new Set<string>();
  allocations = 0;
  /** Segments that got zeroes before they were in use, and while they were. */
  readonly zeroed = { before: new Set<string>(), inUse: new Set<string>() };

  constructor(seed: number, options: EmbeddedLogOptions) {
    super(seed, { ...smallLog, ...options });
    this.scheduler.hesitates = false;
    this.store = intercept(this.store, (call, proceed) => {
      if (call.method.startsWith("writeDurable")) this.#started.add(call.path);
      if (call.method === "allocate") this.allocations += 1;
      if (call.method === "write")
        this.zeroed[this.#started.has(call.path) ? "inUse" : "before"].add(call.path);
      return proceed();
    });
  }

  /** Writes records of so many bytes, one each `everyMs`; gives the segments that are ready beyond those in use, of a log without releases. */
  async writeSteadily(count: number, everyMs: number, bytes = 3000): Promise<number> {
    for (let done = 0; done < count; ) {
      if (this.append(bytes)) done += 1;
      await this.scheduler.pass(everyMs);
    }
    await this.sync();
    await this.scheduler.pass(100);
    return (await this.files()) - this.#started.size;
  }

  async files(): Promise<number> {
    return (await this.scheduler.until(this.store.list(worldDirectory), "list")).length;
  }
}

test("a fast log has more segments ahead than a slow one, and gives them back when it rests", async () => {
  const world = new WatchedLog(21, { preparedAheadBytesMax: 4 * 64 * 1024 });
  await world.open("write");
  expect(await world.writeSteadily(40, 400)).toBe(1);
  expect(await world.writeSteadily(40, 5)).toBe(4);
  expect(await world.writeSteadily(20, 400)).toBeLessThanOrEqual(2);
  expect(await world.writeSteadily(40, 5)).toBe(4);
  await world.scheduler.pass(130_000);
  expect(await world.writeSteadily(1, 400)).toBeLessThanOrEqual(2);
  await world.release(world.writer.state().lastLsn);
  await world.scheduler.pass(130_000);
  expect(await world.files()).toBeLessThanOrEqual(3);
  await world.check();
});

test("more than must be ahead is never a reason to refuse: at the limit, and on a full disk", async () => {
  const limited = new WatchedLog(22, { logBytesMax: 7 * 64 * 1024, preparedAheadBytesMax: 2 ** 30 });
  await limited.open("write");
  // A sixteenth of the limit is less than a segment.
  expect(await limited.writeSteadily(25, 2)).toBe(1);
  expect(limited.writer.state().refusal).toBeNull();
  const filled = new WatchedLog(25, {});
  await filled.open("write");
  await filled.writeSteadily(62 * 7, 2);
  expect(filled.writer.state()).toMatchObject({ refusal: null, diskBytes: 64 * 64 * 1024 });
  const full = new WatchedLog(23, { preparedAheadBytesMax: 4 * 64 * 1024 });
  await full.open("write");
  expect(await full.writeSteadily(30, 2)).toBe(4);
  full.disk.quotaBytes = full.disk.usedBytes;
  expect(await full.writeSteadily(14, 2)).toBe(2);
  await full.scheduler.pass(5000);
  expect(full.writer.state().refusal).toBeNull();
  full.disk.quotaBytes = 2 ** 40;
  expect(await full.writeSteadily(14, 2)).toBeGreaterThanOrEqual(3);
  await full.check();
});

test("no zeroes are written into a segment that is in use, but for the first", async () => {
  const world = new WatchedLog(24, {
    segmentBytes: 2 ** 23,
    preparedAheadBytes: 2 ** 20,
    preparedAheadBytesMax: 2 ** 20,
    groupBytesMax: 2 ** 18,
    logBytesMax: 2 ** 28,
  });
  await world.open("write");
  await world.writeSteadily(800, 20, 50_000);
  expect([...world.zeroed.inUse]).toEqual([`${worldDirectory}/00000001.log`]);
  expect(world.zeroed.before.size).toBeGreaterThan(4);
  // Nor where zeroing is slower than the writers.
  world.scheduler.latencyMsMax = 20;
  await world.writeSteadily(800, 1, 50_000);
  expect([...world.zeroed.inUse]).toEqual([`${worldDirectory}/00000001.log`]);
});

test("a fast log that is released makes no more files once it has its spares", async () => {
  const world = new WatchedLog(26, { preparedAheadBytesMax: 4 * 64 * 1024 });
  await world.open("write");
  const cycle = async (): Promise<number> => {
    await world.writeSteadily(3 * 7, 5);
    await world.release(world.writer.state().lastLsn);
    return world.allocations;
  };
  for (let round = 0; round < 4; round += 1) await cycle();
  const before = world.allocations;
  for (let round = 0; round < 6; round += 1) expect(await cycle()).toBe(before);
});

test("a group waits for the zeroes that are being written in its place, and for no others", async () => {
  const plain = new MemoryFileStore();
  const zeroes: { path: string; offset: number; go: () => void }[] = [];
  let holding = false;
  const store = intercept(plain, (call, proceed) => {
    if (!holding || call.method !== "write") return proceed();
    return new Promise((resolve) => {
      zeroes.push({ path: call.path, offset: call.offset, go: () => void proceed().then(resolve) });
    });
  });
  const listener = new RecordingListener();
  const log = new EmbeddedFileLog({
    store,
    clock: new Scheduler(new SeededRandom(1)).clock,
    random: new SeededRandom(1),
    directory: worldDirectory,
    volumeId: worldVolume,
    options: {
      ...smallLog,
      segmentBytes: 2 * 1024 * 1024,
      preparedAheadBytes: 2 * 1024 * 1024,
      groupBytesMax: 2 ** 20,
    },
  });
  holding = true;
  const opening = log.open({ writer: "test", durability: "write", listener, knownLsn: 0 });
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const letGo = async (index: number): Promise<void> => {
    while (zeroes.length <= index) await turn();
    zeroes[index]?.go();
  };
  for (let index = 0; index < 5; index += 1) await letGo(index);
  const writer = await opening;
  while (zeroes.length < 6) await turn();
  // What was to be prepared at open is; the slice behind it is under way.
  expect(zeroes[5]).toMatchObject({ offset: 5 * 256 * 1024 });
  const append = (seed: number): Promise<unknown> =>
    appendWhenRoom(
      writer,
      listener,
      writeDraft((bytes) => plain.allocateSlab(bytes), seed, 200 * 1024),
    );
  let lsn = 1;
  for (; lsn <= 6; lsn += 1) await append(lsn + 1);
  for (let step = 0; step < 10; step += 1) await turn();
  // Six records of 204 KiB stand before the slice.
  expect(listener.durableLsn).toBe(7);
  await append(8);
  for (let step = 0; step < 10; step += 1) await turn();
  expect(listener.durableLsn).toBe(7);
  await letGo(5);
  await listener.until("durable", 8);
  holding = false;
  await letGo(6);
  await writer.sync();
  for (const batch of await readAll(writer, 2)) expect(batch.payload.length).toBe(200 * 1024);
  await writer.close();
});

test("an append larger than any room says so by its kind", async () => {
  const world = new LogWorld(2);
  await world.open("write");
  world.disk.quotaBytes = world.disk.usedBytes;
  await fill(world);
  let error: VarveError | null = null;
  try {
    world.writer.append(writeDraft((bytes) => world.store.allocateSlab(bytes), 1, 30_000));
  } catch (cause) {
    error = cause as VarveError;
  }
  expect(error).toMatchObject({ kind: "Full" });
  expect(error?.hint).not.toBe("");
});
