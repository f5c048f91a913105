// What every WriteLog must do, whatever it stores in. write-log.test.ts runs it on the memory twin and on the embedded log
// over the memory, simulated and native file stores, test/nats/write-log.test.ts on the JetStream log. Crash points and faults are in test/unit/write-log.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { isBadRecord, readRecord, recordBytesOf, recordPayloadStart } from "#shared/formats/log-record.ts";
import type { Durability, LogWriter, WriteLog } from "#shared/ports/write-log.ts";
import {
  type Allocate,
  appendNow,
  appendWhenRoom,
  expectWrite,
  patternByte,
  RecordingListener,
  readAll,
  writeDraft,
} from "./write-log-drafts.ts";

/** Small numbers, so that a test crosses segments and limits quickly. */
export interface ContractSizes {
  readonly segmentBytes: number;
  readonly logBytesMax: number;
  readonly retainedBytes: number;
}

export interface LogHouse {
  readonly allocate: Allocate;
  /** Of a home where stored is durable: its `flush` volumes are `write` volumes. */
  readonly storedIsDurable?: boolean;
  /** A log over the same stored state as the ones before. */
  build(): WriteLog;
  dispose(): Promise<void>;
}

export const contractSizes: ContractSizes = {
  segmentBytes: 256 * 1024,
  logBytesMax: 2 * 1024 * 1024,
  retainedBytes: 0,
};

export function writeLogContract(name: string, make: (sizes: ContractSizes) => Promise<LogHouse>): void {
  let house: LogHouse;
  let log: WriteLog;
  let listener: RecordingListener;
  let writer: LogWriter;

  const open = async (durability: Durability = "write", knownLsn = 0): Promise<void> => {
    listener = new RecordingListener();
    log = house.build();
    writer = await log.open({ writer: "test", durability, listener, knownLsn });
  };
  const reopen = async (durability: Durability = "write", knownLsn = 0): Promise<void> => {
    await writer.close();
    await open(durability, knownLsn);
  };
  const write = async (seed: number, length: number, mayBlock = false): Promise<void> => {
    await appendWhenRoom(writer, listener, writeDraft(house.allocate, seed, length), mayBlock);
  };

  describe(`write log on ${name}`, () => {
    beforeEach(async () => {
      house = await make(contractSizes);
      await open();
    });
    afterEach(async () => {
      await log.close();
      await house.dispose();
    });

    test("a new log starts with the epoch entry of its first writer", async () => {
      const state = writer.state();
      expect(state.line).toMatch(/^[0-9a-f]{16}$/);
      expect(state).toMatchObject({ epoch: 1, oldestLsn: 1, lastLsn: 1, storedLsn: 1, durableLsn: 1 });
      const [first] = await readAll(writer, 1);
      expect(first).toMatchObject({ firstLsn: 1, epoch: 1, line: state.line });
      expect(first?.entries).toEqual([{ kind: "epoch", writer: "test" }]);
      expect(listener.calls).toEqual([]);
    });

    test("a log that goes on from another line begins behind its last entry, chained to nothing", async () => {
      const other = await make(contractSizes);
      const begin = { line: "00c0ffee00c0ffee", lastLsn: 4711, epoch: 7 };
      const options = { writer: "rescue", durability: "write", knownLsn: 4711 } as const;
      const first = other.build();
      const begun = await first.open({ ...options, listener: new RecordingListener(), begin });
      expect(begun.state()).toMatchObject({ line: begin.line, epoch: 8, oldestLsn: 4712, lastLsn: 4712 });
      for await (const { firstLsn, line, epoch, previousChecksum } of begun.read(4712)) {
        expect({ firstLsn, line, epoch, previousChecksum }).toEqual({
          firstLsn: 4712,
          line: begin.line,
          epoch: 8,
          previousChecksum: 0n,
        });
      }
      await begun.close();
      await first.close();
      // From now on it is a log like any other: asked to begin again, it goes on.
      const again = other.build();
      const elsewhere = { line: "ffffffffffffffff", lastLsn: 1, epoch: 1 };
      const heard = new RecordingListener();
      const next = await again.open({ ...options, listener: heard, begin: elsewhere });
      expect(next.state()).toMatchObject({ line: begin.line, epoch: 9, oldestLsn: 4712, lastLsn: 4713 });
      appendNow(next, heard, writeDraft(other.allocate, 3, 5000));
      await heard.until("durable", 4714);
      await next.close();
      await again.close();
      await other.dispose();
    });

    test("a log that would begin before what the image has is refused", async () => {
      const other = await make(contractSizes);
      const unopened = other.build();
      const begin = { line: "00c0ffee00c0ffee", lastLsn: 10, epoch: 1 };
      await expect(
        unopened.open({
          writer: "rescue",
          durability: "write",
          knownLsn: 11,
          listener: new RecordingListener(),
          begin,
        }),
      ).rejects.toMatchObject({ kind: "Corrupt" });
      await other.dispose();
    });

    test("append numbers at once and the batch becomes durable", async () => {
      const draft = writeDraft(house.allocate, 1, 5000);
      writer.append(draft);
      expect(draft.firstLsn).toBe(2);
      expect(writer.state().lastLsn).toBe(2);
      writer.pump(false);
      await listener.until("durable", 2);
      expect(writer.state()).toMatchObject({ storedLsn: 2, durableLsn: 2 });
      const [batch] = await readAll(writer, 2);
      expectWrite(batch, 1, 5000);
    });

    test("every kind of entry comes back as it went in, several to a batch", async () => {
      const draft = new BatchDraft(house.allocate(16384));
      const first = draft.addWrite(3, 10);
      const second = draft.addWrite(2 ** 40, 700);
      draft.slab.bytes.fill(1, first, first + 10);
      draft.slab.bytes.fill(2, second, second + 700);
      draft.addRange(entryKind.zero, 0, 2 ** 33);
      draft.addRange(entryKind.zeroAllocated, 512, 1024);
      draft.addRange(entryKind.trim, 1, 1);
      draft.addValue(entryKind.mark, "before-upgrade");
      draft.addValue(entryKind.resize, 2 ** 41);
      appendNow(writer, listener, draft);
      await listener.until("durable", 8);
      const [batch] = await readAll(writer, 2);
      expect(batch?.entries).toEqual([
        { kind: "write", offset: 3, length: 10, payloadStart: 0 },
        { kind: "write", offset: 2 ** 40, length: 700, payloadStart: 10 },
        { kind: "zero", offset: 0, length: 2 ** 33 },
        { kind: "zeroAllocated", offset: 512, length: 1024 },
        { kind: "trim", offset: 1, length: 1 },
        { kind: "mark", name: "before-upgrade" },
        { kind: "resize", sizeBytes: 2 ** 41 },
      ]);
      expect(batch?.payload).toEqual(Buffer.concat([Buffer.alloc(10, 1), Buffer.alloc(700, 2)]));
    });

    test("many batches across segments, inline and on threads, keep their order and content", async () => {
      let lsn = 1;
      for (let round = 0; round < 20; round += 1) {
        for (let seed = 0; seed < 12; seed += 1) {
          lsn += 1;
          await write(lsn, 100 + ((lsn * 977) % 9000), seed % 3 === 0);
        }
        await listener.until("durable", lsn - 20);
        if (lsn > 60) await writer.release(lsn - 40);
      }
      await listener.until("durable", lsn);
      const from = writer.state().oldestLsn;
      expect(from).toBeLessThanOrEqual(lsn - 40);
      const batches = await readAll(writer, lsn - 30);
      expect(batches.map((batch) => batch.firstLsn)).toEqual(
        Array.from({ length: 31 }, (_, index) => lsn - 30 + index),
      );
      for (const batch of batches) expectWrite(batch, batch.firstLsn, 100 + ((batch.firstLsn * 977) % 9000));
    });

    test("a slab may be reused as soon as its batch is durable", async () => {
      const draft = writeDraft(house.allocate, 2, 4000);
      appendNow(writer, listener, draft, true);
      await listener.until("durable", 2);
      draft.reset();
      const start = draft.addWrite(3 * 4096, 4000);
      for (let index = 0; index < 4000; index += 1) draft.slab.bytes[start + index] = patternByte(3, index);
      appendNow(writer, listener, draft, true);
      await listener.until("durable", 3);
      const batches = await readAll(writer, 2);
      expectWrite(batches[0], 2, 4000);
      expectWrite(batches[1], 3, 4000);
    });

    test("flush: stored comes before durable, and sync covers all that was appended before it", async () => {
      await reopen("flush");
      const base = writer.state().lastLsn;
      await write(1, 3000);
      await listener.until("stored", base + 1);
      const durableLsn = house.storedIsDurable === true ? base + 1 : base;
      expect(writer.state()).toMatchObject({ storedLsn: base + 1, durableLsn });
      await write(2, 3000);
      await write(3, 3000);
      await Promise.all([writer.sync(), writer.sync()]);
      expect(listener.durableLsn).toBe(base + 3);
      const durableCalls = listener.calls.filter((call) => call.startsWith("durable"));
      expect(durableCalls.length).toBeLessThanOrEqual(house.storedIsDurable === true ? 3 : 2);
      await writer.sync();
      expect(listener.calls.filter((call) => call.startsWith("durable"))).toEqual(durableCalls);
    });

    test("flush: a sync with nothing appended since still syncs what was stored before", async () => {
      await reopen("flush");
      const base = writer.state().lastLsn;
      await write(1, 100);
      await listener.until("stored", base + 1);
      expect(listener.durableLsn).toBe(house.storedIsDurable === true ? base + 1 : 0);
      await writer.sync();
      expect(listener.durableLsn).toBe(base + 1);
    });

    test("sync of a log that is durable resolves at once, and sync sends out what nobody pumped", async () => {
      await writer.sync();
      writer.append(writeDraft(house.allocate, 1, 10));
      await writer.sync();
      expect(listener.durableLsn).toBe(2);
    });

    test("opened again it goes on: same line, next epoch, all entries", async () => {
      const { line } = writer.state();
      for (let seed = 2; seed <= 30; seed += 1) await write(seed, seed * 300);
      await reopen("flush");
      expect(writer.state()).toMatchObject({ line, epoch: 2, lastLsn: 31, durableLsn: 31, oldestLsn: 1 });
      await write(32, 777);
      await writer.sync();
      await reopen("write", 32);
      expect(writer.state()).toMatchObject({ line, epoch: 3, lastLsn: 33 });
      const batches = await readAll(writer, 1);
      expect(batches.map((batch) => batch.firstLsn)).toEqual(
        Array.from({ length: 33 }, (_, index) => index + 1),
      );
      for (const batch of batches.slice(1, 30)) expectWrite(batch, batch.firstLsn, batch.firstLsn * 300);
      expectWrite(batches[31], 32, 777);
      expect(batches[30]?.entries).toEqual([{ kind: "epoch", writer: "test" }]);
    });

    test("close syncs what was stored, can be called twice, and ends appends", async () => {
      await reopen("flush");
      await write(9, 999);
      await Promise.all([writer.close(), writer.close()]);
      expect(listener.durableLsn).toBe(3);
      expect(() => writer.append(writeDraft(house.allocate, 1, 1))).toThrow(/closed/);
      await expect(writer.sync()).rejects.toMatchObject({ kind: "Retry" });
      await open();
      expectWrite((await readAll(writer, 3))[0], 9, 999);
    });

    test("read starts with the batch that holds the LSN, ends with what is stored, and refuses what was released", async () => {
      const draft = new BatchDraft(house.allocate(8192));
      for (let index = 0; index < 5; index += 1) draft.addRange(entryKind.trim, index * 10, 10);
      appendNow(writer, listener, draft);
      await write(7, 50);
      await listener.until("durable", 7);
      expect((await readAll(writer, 4)).map((batch) => batch.firstLsn)).toEqual([2, 7]);
      expect((await readAll(writer, 7)).map((batch) => batch.firstLsn)).toEqual([7]);
      expect(await readAll(writer, 8)).toEqual([]);
      await expect(readAll(writer, 0)).rejects.toMatchObject({ kind: "Invalid" });
    });

    test("read gives the exact bytes of each record, whole blocks that decode to the batch", async () => {
      for (let seed = 2; seed <= 60; seed += 1) await write(seed, seed % 7 === 0 ? 70_000 : seed * 90);
      await writer.sync();
      let lsn = 1;
      for await (const { record, ...batch } of writer.read(1)) {
        expect(batch.firstLsn).toBe(lsn);
        expect(record.byteLength % limits.blockBytes).toBe(0);
        const own = readRecord(Buffer.from(record));
        if (isBadRecord(own)) throw new Error(own.detail);
        expect(own).toEqual({ ...batch, payload: Buffer.from(batch.payload) });
        expect(recordBytesOf(recordPayloadStart, batch.payload.byteLength)).toBe(record.byteLength);
        lsn = batch.firstLsn + batch.entries.length;
      }
      expect(lsn).toBe(61);
    });

    test("read goes on while batches are appended behind it", async () => {
      for (let seed = 2; seed <= 40; seed += 1) await write(seed, 6000);
      await listener.until("durable", 40);
      const seen: number[] = [];
      for await (const batch of writer.read(2)) {
        seen.push(batch.firstLsn);
        await write(writer.state().lastLsn + 1, 6000);
        if (seen.length % 8 === 0) await listener.until("durable", 40 + seen.length);
      }
      expect(seen).toEqual(Array.from({ length: 39 }, (_, index) => index + 2));
      await writer.sync();
      for (const batch of await readAll(writer, 2)) expectWrite(batch, batch.firstLsn, 6000);
    });

    test("release forgets nothing at or past its LSN, and gives room back", async () => {
      for (let seed = 2; seed <= 100; seed += 1) {
        await write(seed, 12000);
        await listener.until("durable", seed);
      }
      await writer.release(90);
      const after = writer.state();
      expect(after.oldestLsn).toBeGreaterThan(1);
      expect(after.oldestLsn).toBeLessThanOrEqual(90);
      await expect(readAll(writer, after.oldestLsn - 1)).rejects.toMatchObject({ kind: "Invalid" });
      for (const batch of await readAll(writer, 90)) expectWrite(batch, batch.firstLsn, 12000);
      await reopen("write", 89);
      expect(writer.state().oldestLsn).toBe(after.oldestLsn);
      expect((await readAll(writer, 90)).length).toBe(12);
    });

    test("a full log refuses with Full, changes nothing, and takes entries again after a release", async () => {
      let refused: unknown = null;
      let lsn = 1;
      while (refused === null && lsn < 1000) {
        try {
          await write(lsn + 1, 30000);
          lsn += 1;
        } catch (error) {
          refused = error;
        }
        expect(writer.state().lastLsn).toBe(lsn);
      }
      expect(refused).toMatchObject({ kind: "Full" });
      expect(writer.state().refusal).toMatchObject({ kind: "Full" });
      expect(writer.state().diskBytes).toBeLessThanOrEqual(contractSizes.logBytesMax);
      await writer.sync();
      expect(listener.durableLsn).toBe(lsn);
      await reopen("write", lsn);
      expect(writer.state().lastLsn).toBe(lsn + 1);
      await writer.release(lsn);
      expect(writer.state().refusal).toBeNull();
      await write(lsn + 2, 30000);
      await writer.sync();
      expectWrite((await readAll(writer, lsn + 2))[0], lsn + 2, 30000);
    });

    test("what state() calls room is taken by append with certainty", async () => {
      for (let round = 0; round < 30; round += 1) {
        const { roomBytes, lastLsn } = writer.state();
        for (let taken = 0, seed = lastLsn + 1; ; seed += 1) {
          const length = 1 + ((seed * 7919) % 60000);
          taken += limits.batchHeaderBytesMax + Math.ceil(length / 4096) * 4096;
          if (taken > roomBytes) break;
          appendNow(writer, listener, writeDraft(house.allocate, seed, length));
        }
        await writer.sync();
        await writer.release(writer.state().lastLsn);
      }
      expect(writer.state().lastLsn).toBeGreaterThan(50);
    });

    test("a log that ends before the image's checkpoint is refused", async () => {
      await write(2, 100);
      await writer.close();
      await expect(open("write", 3)).rejects.toMatchObject({ kind: "Corrupt" });
      await open("write", 2);
      expect(writer.state().lastLsn).toBe(3);
    });

    test("a newer writer fences the older one, which appends nothing more", async () => {
      await write(2, 500);
      const older = writer;
      const olderListener = listener;
      await open();
      expect(writer.state().epoch).toBe(2);
      // A writer elsewhere hears of it a moment later.
      await vi.waitFor(() => expect(olderListener.error).not.toBeNull(), 5000);
      expect(() => older.append(writeDraft(house.allocate, 1, 1))).toThrow(
        expect.objectContaining({ kind: "Fenced" }),
      );
      await expect(older.sync()).rejects.toMatchObject({ kind: "Fenced" });
      expect(olderListener.error).toMatchObject({ kind: "Fenced" });
      older.pump(true);
      await older.close();
      await write(writer.state().lastLsn + 1, 500);
      await writer.sync();
      const epochs = (await readAll(writer, 1)).map((batch) => batch.epoch);
      expect(epochs).toEqual([...epochs].sort((a, b) => a - b));
      expect(epochs.at(-1)).toBe(2);
    });

    test("the epoch of a lease is taken exactly, and refused where the log has it or a newer one", async () => {
      await writer.close();
      const options = { writer: "leased", durability: "write", knownLsn: 0 } as const;
      const leased = house.build();
      const seventh = await leased.open({ ...options, listener: new RecordingListener(), epoch: 7 });
      expect(seventh.state()).toMatchObject({ epoch: 7, lastLsn: 2 });
      for (const epoch of [7, 3]) {
        await expect(
          house.build().open({ ...options, listener: new RecordingListener(), epoch }),
        ).rejects.toMatchObject({ kind: "Fenced", fields: { epoch: 7 } });
      }
      appendNow(seventh, new RecordingListener(), writeDraft(house.allocate, 3, 100));
      await seventh.sync();
      expect(seventh.state()).toMatchObject({ epoch: 7, durableLsn: 3 });
      await leased.close();
      await open();
      expect(writer.state().epoch).toBe(8);
    });

    test("checksums chain from batch to batch", async () => {
      for (let seed = 2; seed <= 40; seed += 1) await write(seed, 9000);
      await reopen();
      let previous = 0n;
      for await (const batch of writer.read(1)) {
        expect(batch.previousChecksum).toBe(previous);
        expect(batch.durableLsn).toBeLessThan(batch.firstLsn);
        previous = batch.checksum;
      }
      expect(previous).not.toBe(0n);
    });
  });
}
