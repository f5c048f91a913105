// Recovery of the embedded log, rule by rule: what is a torn tail and what is damage, what is cut, rewritten and synced before
// use, and that damage changes nothing. Whole lives with random crashes are in crash.test.ts.
import { expect, test } from "vitest";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import { type InspectedItem, inspectLog } from "#shared/adapters/write-log/inspect.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { expectWrite } from "../../contract/write-log-drafts.ts";
import { intercept } from "./file-interception.ts";
import { LogWorld, smallLog, worldDirectory, worldVolume } from "./log-world.ts";

const block = 4096;

/** A world whose log holds LSNs 1 (epoch) to `last`, one write of `length` bytes each, all durable. */
async function worldWith(last: number, length = 3000): Promise<LogWorld> {
  const world = new LogWorld(5);
  await world.open("write");
  for (let lsn = 2; lsn <= last; lsn += 1) {
    while (!world.append(length)) await world.scheduler.run(10);
    await world.sync();
  }
  return world;
}

async function closed(world: LogWorld): Promise<LogWorld> {
  await world.scheduler.until(world.writer.close(), "close");
  return world;
}

/** Everything in the folder, to see that nothing was changed. */
async function snapshot(world: LogWorld): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const name of await world.scheduler.until(world.store.list(worldDirectory), "list")) {
    const content = await world.scheduler.until(world.store.readWhole(`${worldDirectory}/${name}`), "read");
    files.set(name, content ?? Buffer.alloc(0));
  }
  return files;
}

async function refusal(
  world: LogWorld,
  knownLsn = 0,
): Promise<{ kind: string; fields: Record<string, unknown> }> {
  const before = await snapshot(world);
  const opening = world.startOpen("write", knownLsn);
  const error = await world.scheduler.until(
    opening.then(
      () => null,
      (cause: unknown) => cause,
    ),
    "refused open",
  );
  expect(await snapshot(world)).toEqual(before);
  return error as { kind: string; fields: Record<string, unknown> };
}

const segment = (sequence: number): string => `${worldDirectory}/${String(sequence).padStart(8, "0")}.log`;

/** Offset of a record in the first segment of worldWith(): LSN 1 is one block behind the header, each write two blocks. */
const offsetOf = (lsn: number): number => (lsn === 1 ? block : 2 * block + (lsn - 2) * 2 * block);

async function edit(
  world: LogWorld,
  path: string,
  offset: number,
  change: (bytes: Buffer) => void,
): Promise<void> {
  const { store, scheduler } = world;
  const slab = store.allocateSlab(block);
  const file = await scheduler.until(store.open(path, { access: "buffered" }), "open");
  await scheduler.until(file.read(slab, 0, block, offset), "read");
  change(slab.bytes);
  await scheduler.until(file.writeDurable([{ slab, start: 0, length: block }], offset), "write");
}

test("a flipped bit in the middle is damage, with file, offset and LSN, and nothing is changed", async () => {
  for (const inRecord of [20, 4096 + 17]) {
    const world = await closed(await worldWith(6));
    world.disk.flipBit(segment(1), offsetOf(3) + inRecord, 3);
    const error = await refusal(world);
    expect(error).toMatchObject({ _tag: "LogDamaged", kind: "Corrupt" });
    expect(error.fields).toEqual({ file: segment(1), offset: offsetOf(3), lsn: 3 });
  }
});

test("a flipped bit in the last record is a torn tail, and the log goes on in front of it", async () => {
  const world = await closed(await worldWith(6));
  world.disk.flipBit(segment(1), offsetOf(6) + 4096 + 17, 3);
  world.writer = await world.scheduler.until(world.startOpen("write"), "open");
  expect(world.writer.state()).toMatchObject({ lastLsn: 6, epoch: 2 });
  const batches = await world.read(5);
  expectWrite(batches[0], 4, 3000);
  expect(batches[1]?.entries).toEqual([{ kind: "epoch", writer: "test" }]);
});

test("the checkpoint's LSN makes a damaged tail damage", async () => {
  const world = await closed(await worldWith(6));
  world.disk.flipBit(segment(1), offsetOf(6) + 4096 + 17, 3);
  expect(await refusal(world, 6)).toMatchObject({
    _tag: "LogEndsEarly",
    kind: "Corrupt",
    fields: { lsn: 6 },
  });
});

test("a segment missing in the middle, or a damaged header of one, is damage", async () => {
  for (const remove of [true, false]) {
    const world = await closed(await worldWith(30));
    const before = await snapshot(world);
    expect(before.size).toBeGreaterThan(3);
    if (remove) {
      await world.scheduler.until(world.store.remove(segment(2)), "remove");
      await world.scheduler.until(world.store.syncDirectory(worldDirectory), "sync");
    } else world.disk.flipBit(segment(2), 50, 1);
    expect(await refusal(world)).toMatchObject({ _tag: "LogDamaged", fields: { lsn: 9 } });
  }
});

test("what the image has applied is not read at open; damage there is told by whoever reads it", async () => {
  const world = await closed(await worldWith(30));
  world.disk.flipBit(segment(1), offsetOf(3) + 4096 + 17, 3);
  expect(await refusal(world)).toMatchObject({ _tag: "LogDamaged", fields: { lsn: 3 } });
  world.writer = await world.scheduler.until(world.startOpen("write", 20), "open");
  expect((await world.read(20)).map((batch) => batch.firstLsn)).toEqual(
    Array.from({ length: 12 }, (_, index) => index + 20),
  );
  const reading = world.read(2).then(
    () => null,
    (cause: unknown) => cause,
  );
  expect(await reading).toMatchObject({ _tag: "LogDamaged", kind: "Corrupt", fields: { lsn: 3 } });
});

test("segments of another size, made under another setting, are read, counted and released", async () => {
  const world = await closed(await worldWith(40));
  const other = new EmbeddedFileLog({
    store: world.store,
    clock: world.scheduler.clock,
    random: world.random,
    directory: worldDirectory,
    volumeId: worldVolume,
    options: { ...smallLog, segmentBytes: 128 * 1024 },
  });
  const { listener } = world;
  world.writer = await world.scheduler.until(
    other.open({ writer: "larger", durability: "write", listener, knownLsn: 0 }),
    "open",
  );
  for (let count = 0; count < 40; ) {
    if (world.append(3000)) count += 1;
    await world.scheduler.run(5);
  }
  await world.sync();
  expect((await world.read(1)).length).toBe(81);
  await world.release(80);
  const names = await world.scheduler.until(world.store.list(worldDirectory), "list");
  expect(world.writer.state().diskBytes).toBe(names.length * 128 * 1024);
  expect((await world.read(80)).length).toBe(2);
});

test("a missing front is told as such", async () => {
  const world = await closed(await worldWith(30));
  await world.scheduler.until(world.store.remove(segment(1)), "remove");
  expect(await refusal(world)).toMatchObject({ _tag: "LogStartsLate", kind: "Corrupt" });
  world.writer = await world.scheduler.until(world.startOpen("write", 8), "open");
  expect(world.writer.state()).toMatchObject({ oldestLsn: 9, lastLsn: 31 });
});

test("the damaged header of a segment whose records were known durable is damage, of one that held no such record a tail", async () => {
  const damaged = await closed(await worldWith(4));
  damaged.disk.flipBit(segment(1), 50, 1);
  expect(await refusal(damaged)).toMatchObject({ _tag: "LogDamaged", fields: { file: segment(1) } });

  // LSN 9 is the first of segment 2, and no later record says that it was durable.
  const torn = await closed(await worldWith(9));
  torn.disk.flipBit(segment(2), 50, 1);
  torn.writer = await torn.scheduler.until(torn.startOpen("write"), "open");
  expect(torn.writer.state()).toMatchObject({ lastLsn: 9, epoch: 2 });
  expect((await torn.read(9))[0]?.entries).toEqual([{ kind: "epoch", writer: "test" }]);
});

test("a torn header behind the end never comes back, though the disk reads it well later", async () => {
  const world = await worldWith(7);
  // Two blocks are left in segment 1; this record needs four.
  while (!world.append(9000)) await world.scheduler.run(10);
  await world.sync();
  await closed(world);
  world.disk.flipBit(segment(2), 50, 1);
  world.writer = await world.scheduler.until(world.startOpen("write"), "open");
  expect(world.writer.state()).toMatchObject({ lastLsn: 8, epoch: 2 });
  await closed(world);
  world.disk.flipBit(segment(2), 50, 1);
  world.writer = await world.scheduler.until(world.startOpen("write"), "open");
  expect(world.writer.state()).toMatchObject({ lastLsn: 9, epoch: 3 });
});

test("a log that was never durable begins anew with another line", async () => {
  const world = new LogWorld(8);
  const opening = world.startOpen("write");
  opening.catch(() => undefined);
  await world.scheduler.run(12);
  world.crash();
  await world.open("write");
  expect(world.writer.state()).toMatchObject({ epoch: 1, oldestLsn: 1, lastLsn: 1 });
});

test("files of another volume or another line are refused", async () => {
  const world = await closed(await worldWith(12));
  const other = new LogWorld(77);
  await other.open("write");
  await closed(other);
  const foreign = (await snapshot(other)).get("00000001.log") ?? Buffer.alloc(0);
  await world.scheduler.until(world.store.replaceWhole(segment(9), foreign), "copy");
  expect(await refusal(world)).toMatchObject({
    _tag: "LogForeign",
    kind: "Corrupt",
    fields: { file: segment(9) },
  });
  await world.scheduler.until(world.store.remove(segment(9)), "remove");
  await edit(world, segment(1), 0, (bytes) => {
    bytes.write("00000000deadbeef", 24, "hex");
    rechecksum(bytes);
  });
  expect(await refusal(world)).toMatchObject({ _tag: "LogForeign", fields: { expected: worldVolume } });
});

test("a record or segment of a newer version stops the open instead of being cut", async () => {
  const world = await closed(await worldWith(6));
  await edit(world, segment(1), offsetOf(6), (bytes) => {
    bytes.writeUInt16LE(2, 12);
    rechecksum(bytes);
  });
  expect(await refusal(world)).toMatchObject({
    _tag: "LogFormatNewer",
    kind: "Invalid",
    fields: { offset: offsetOf(6) },
  });
  await edit(world, segment(1), 0, (bytes) => {
    bytes.writeUInt16LE(2, 12);
    rechecksum(bytes);
  });
  expect(await refusal(world)).toMatchObject({ _tag: "LogFormatNewer", fields: { offset: 0 } });
});

test("what was left behind the cut is never chained to later records", async () => {
  const world = new LogWorld(5);
  await world.open("write");
  const trim = (offset: number): void => {
    const draft = new BatchDraft(world.store.allocateSlab(2 * block));
    draft.addRange(entryKind.trim, offset, 10);
    world.writer.append(draft);
  };
  // One block each, LSN 2 to 6, in one group: no record says that another of them was durable.
  for (let lsn = 2; lsn <= 6; lsn += 1) trim(lsn * 100);
  await world.sync();
  await closed(world);
  // LSN 3 is torn. What stands behind it is whole: LSN 4 to 6, and nothing but the chain tells that they are not the log's.
  await edit(world, segment(1), 3 * block, (bytes) => bytes.fill(0));
  for (let last = 3; last <= 6; last += 1) {
    // The epoch entry takes the place of the torn record, exactly, and ends where the next old one starts.
    world.writer = await world.scheduler.until(world.startOpen("write", last - 1), "open");
    expect(world.writer.state().lastLsn).toBe(last);
    const batches = await world.read(2);
    expect(batches.map((batch) => batch.entries[0]?.kind)).toEqual([
      "trim",
      ...Array.from({ length: last - 2 }, () => "epoch"),
    ]);
    world.crash();
  }
});

test("recovery writes everything past the durable mark again, in place, before it reads it out", async () => {
  const world = await worldWith(5);
  await closed(world);
  world.startOpen("flush").catch(() => undefined);
  await world.scheduler.while(() => world.listener.calls.length > 0, "nothing");
  world.crash();
  const writes: { path: string; offset: number; bytes: number }[] = [];
  const directorySyncs: string[] = [];
  const spied = intercept(world.store, (call, proceed) => {
    if (call.method === "syncDirectory") directorySyncs.push(`${call.path} after ${writes.length}`);
    const zeroes = call.content?.every((byte) => byte === 0) ?? true;
    // Zeroes that prepare blocks ahead are no part of the story.
    if (!zeroes) writes.push({ path: call.path, offset: call.offset, bytes: call.bytes });
    return proceed();
  });
  const log: EmbeddedFileLog = world.build(spied);
  const { listener } = world;
  await world.scheduler.until(
    log.open({ writer: "spy", durability: "flush", listener, knownLsn: 0 }),
    "open",
  );
  // Marks cover LSN 4; LSN 5 (two blocks) is written again, then the folder is synced, then the epoch entry follows.
  expect(writes[0]).toEqual({ path: segment(1), offset: offsetOf(5), bytes: 2 * block });
  expect(directorySyncs[0]).toBe(`${worldDirectory} after 1`);
  expect(writes.slice(1).every(({ offset }) => offset >= offsetOf(6))).toBe(true);
});

test("a crash after recovery has read unsynced records takes none of what was served", async () => {
  let servedOfUnsynced = 0;
  for (let seed = 1; seed <= 15; seed += 1) {
    const world = new LogWorld(seed);
    await world.open("flush");
    for (let count = 0; count < 8; count += 1) world.append(2000);
    await world.scheduler.while(() => world.listener.storedLsn < 9, "stored");
    const { durableLsn } = world.listener;
    world.kill();
    // The page cache has all of it, the platter perhaps nothing: it is served, then the power fails.
    await world.open("flush");
    const served = world.writer.state().lastLsn;
    expect(served).toBe(10);
    if (durableLsn < 9) servedOfUnsynced += 1;
    world.durableLsn = served;
    world.crash();
    await world.open("write");
    expect(world.writer.state().lastLsn).toBe(served + 1);
  }
  expect(servedOfUnsynced).toBeGreaterThan(0);
});

test("inspect tells segments, records, the end and the refusal, and changes nothing", async () => {
  const world = await closed(await worldWith(12));
  const before = await snapshot(world);
  const inspect = async (): Promise<InspectedItem[]> => {
    const items: InspectedItem[] = [];
    const run = async (): Promise<void> => {
      for await (const item of inspectLog({
        store: world.store,
        directory: worldDirectory,
        volumeId: worldVolume,
      })) {
        items.push(
          item.kind === "record" ? { ...item, batch: { ...item.batch, payload: Buffer.alloc(0) } } : item,
        );
      }
    };
    await world.scheduler.until(run(), "inspect");
    return items;
  };
  const items = await inspect();
  expect(items.filter((item) => item.kind === "record").map((item) => item.lastLsn)).toEqual(
    Array.from({ length: 12 }, (_, index) => index + 1),
  );
  expect(items.filter((item) => item.kind === "stop")).toHaveLength(1);
  expect(items.at(-1)).toMatchObject({
    kind: "summary",
    lastLsn: 12,
    records: 12,
    entries: 12,
    refusal: null,
  });
  expect(await snapshot(world)).toEqual(before);

  world.disk.flipBit(segment(1), offsetOf(3) + 9, 0);
  const damaged = await inspect();
  expect(damaged).toContainEqual(expect.objectContaining({ kind: "stop", lsn: 3, offset: offsetOf(3) }));
  expect(damaged).toContainEqual(expect.objectContaining({ kind: "record", lastLsn: 12 }));
  expect(damaged.at(-1)).toMatchObject({ kind: "summary", refusal: { _tag: "LogDamaged" } });
});

function rechecksum(bytes: Buffer): void {
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8, block)), 0);
}
