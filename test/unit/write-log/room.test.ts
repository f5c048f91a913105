// Room in the embedded log: what is promised as room holds on a full disk, refusals come before anything is lost, a full log
// can be opened, read and released, history gives way to writes, and zeroes never meet an append.
// The disk is the simulated one, with a quota.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
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
  const world = new LogWorld(12);
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
  const world = new LogWorld(13, { ...smallLog, sparesMax: 8 });
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
