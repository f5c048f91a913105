// What every ArchiveWorker must do: the thread of a running Varve and its twin without a thread give the same objects, refuse the same
// bytes and share memory in the same way.

import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { giveWayMs } from "#shared/adapters/archive-worker/give-way.ts";
import { InlineArchiveWorker } from "#shared/adapters/archive-worker/inline.ts";
import { ArchiveThread } from "#shared/adapters/archive-worker/thread.ts";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { indexPageKey } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { openChunk } from "#shared/formats/chunk-object.ts";
import { decodeIndexPage } from "#shared/formats/index-page.ts";
import { isBadObject, sha256Hex } from "#shared/formats/sealed-object.ts";
import { openSegment, SegmentBuilder, type SegmentStream } from "#shared/formats/segment-object.ts";
import { ForegroundLoad, foregroundCell } from "#shared/memory/foreground-load.ts";
import type { ArchiveWorker, SealedSegment } from "#shared/ports/archive-worker.ts";
import type { Timer } from "#shared/ports/clock.ts";
import { MadeLog } from "../tools/made-log.ts";

const owner = { volumeId: "00000000000000a1", line: "0f1e2d3c4b5a6978", archiverEpoch: 3 };

/** Segments of one log, `batches` each of `batchBytes`. */
function streams(count: number, batches: number, batchBytes = 9000): SegmentStream[] {
  const log = new MadeLog(owner.line);
  return Array.from({ length: count }, (_, index) => {
    const builder = new SegmentBuilder(owner);
    for (let batch = 0; batch < batches; batch += 1) {
      const bytes = Buffer.alloc(batchBytes, index + batch);
      builder.add(
        log.batch([{ kind: "write", offset: (index * 3 + batch) * limits.extentBytes, bytes }], 1000 + index),
      );
    }
    return builder.take();
  });
}

function contract(name: string, make: () => ArchiveWorker): void {
  describe(`archive worker: ${name}`, () => {
    let worker: ArchiveWorker;
    beforeEach(() => {
      worker = make();
    });
    afterEach(async () => {
      await worker.close();
    });

    test("seals what its twin seals, and gives the memory back", async () => {
      const [stream] = streams(1, 5);
      const [same] = streams(1, 5);
      const { memory, ...sealed } = await worker.seal(stream as SegmentStream, 3);
      const twin = await new InlineArchiveWorker().seal(same as SegmentStream, 3);
      expect(memory.byteLength).toBeGreaterThan(limits.segmentRecordBytes);
      expect(Buffer.compare(sealed.object, twin.object)).toBe(0);
      const { memory: _memory, object: _object, ...facts } = twin;
      expect(sealed).toMatchObject(facts);
      expect(sealed.summary.extents).toEqual([{ first: 0, count: 5 }]);
      expect(isBadObject(openSegment(Buffer.from(sealed.object)))).toBe(false);
    });

    test("refuses records that are none, and goes on", async () => {
      const [bad, good] = streams(2, 2);
      new Uint8Array((bad as SegmentStream).records)[5000] = 99;
      await expect(worker.seal(bad as SegmentStream, 3)).rejects.toMatchObject({ kind: "Corrupt" });
      expect((await worker.seal(good as SegmentStream, 3)).ref.firstLsn).toBe(3);
    });

    test("makes index pages of footers, and knows which extents a stretch touches", async () => {
      const sealed = await Promise.all(streams(4, 2).map((stream) => worker.seal(stream, 1)));
      const tails = sealed.map(({ ref, object }) => ({ ref, tail: object.slice(ref.footerStart) }));
      const key = indexPageKey(owner, 1, 8);
      const page = await worker.page(owner.volumeId, key, tails);
      const decoded = decodeIndexPage(Buffer.from(page.object));
      if (isBadObject(decoded)) throw new Error(decoded.detail);
      expect(decoded.segments).toEqual(sealed.map(({ summary }) => summary));
      expect(page.ref).toMatchObject({ key, firstLsn: 1, lastLsn: 8, segments: 4 });
      expect(await worker.touched(tails.slice(2), [], 0)).toEqual([
        { first: 6, count: 2 },
        { first: 9, count: 2 },
      ]);
      expect(await worker.touched([], [page.object], 4)).toEqual([
        { first: 6, count: 2 },
        { first: 9, count: 2 },
      ]);
      const wrong = {
        ref: (sealed[0] as SealedSegment).ref,
        tail: Buffer.alloc(100, 7),
      };
      await expect(worker.touched([wrong], [], 0)).rejects.toMatchObject({ kind: "Corrupt" });
    });

    test.each([
      ["compresses", 0, true],
      ["does not compress, with room for it", 4096, true],
      ["does not compress, without room", 0, false],
    ])(
      "an extent that %s: hashed, and built in its own memory where that is large enough",
      async (what, room, isIn) => {
        const memory = new SharedArrayBuffer(limits.extentBytes + room);
        const content = Buffer.from(memory, 0, limits.extentBytes);
        if (what === "compresses") content.fill(5, 100, 70_000);
        else randomBytes(content.length).copy(content);
        const expected = Buffer.from(content);
        const hash = (await worker.hash(memory)) ?? "";
        expect(hash).toBe(sha256Hex(expected));
        expect(content.equals(expected)).toBe(true);
        const { object, sha256 } = await worker.chunk(memory, hash, 3);
        expect(object.buffer instanceof SharedArrayBuffer).toBe(isIn);
        expect(sha256).toBe(sha256Hex(object));
        if (isIn) expect(Buffer.from(memory, 0, object.byteLength).equals(object)).toBe(true);
        const chunk = openChunk(Buffer.from(object));
        if (isBadObject(chunk)) throw new Error(chunk.detail);
        expect(chunk.hash).toBe(hash);
        expect(chunk.content.equals(expected)).toBe(true);
      },
    );

    test("an extent of zeroes has no hash, whatever stands behind it", async () => {
      const memory = new SharedArrayBuffer(limits.extentBytes + 4096);
      new Uint8Array(memory).fill(9, limits.extentBytes);
      expect(await worker.hash(memory)).toBeNull();
    });
  });
}

contract("inline", () => new InlineArchiveWorker());
contract("thread", () => new ArchiveThread(new SystemClock()));

/** Scheduling policies of this process's threads, by number: 0 is the usual one, 5 is SCHED_IDLE. */
function policies(): number[] {
  return readdirSync("/proc/self/task").map((task) => {
    const stat = readFileSync(`/proc/self/task/${task}/stat`, "latin1");
    // Behind the name, which may hold anything: state is field 3, the policy field 41.
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[38]);
  });
}

const calmThreads = (): number => policies().filter((policy) => policy === 5).length;

/** Time that only this test moves. */
class HandClock extends SystemClock {
  nowMs = 0;
  looks: (() => void)[] = [];
  override monotonicMs(): number {
    return this.nowMs;
  }
  override after(_delayMs: number, task: () => void): Timer {
    this.looks.push(task);
    return { cancel: () => undefined };
  }
  look(): void {
    for (const task of this.looks.splice(0)) task();
  }
}

describe("the archive thread", () => {
  const zeroes = async (thread: ArchiveThread): Promise<void> => {
    await thread.hash(new SharedArrayBuffer(limits.extentBytes));
  };

  test("gets only what others leave of the processor, and it alone", async () => {
    const before = calmThreads();
    const thread = new ArchiveThread(new SystemClock());
    await zeroes(thread);
    expect(calmThreads()).toBe(before + 1);
    await thread.close();
    expect(calmThreads()).toBe(before);
  });

  test("gives way to clients before each frame, for a bounded time in a task", async () => {
    const foreground = new ForegroundLoad();
    const thread = new ArchiveThread(new SystemClock(), foreground);
    await zeroes(thread);
    const timed = async (): Promise<number> => {
      const memory = new SharedArrayBuffer(limits.extentBytes + 4096);
      randomBytes(limits.extentBytes).copy(Buffer.from(memory));
      const startedMs = performance.now();
      await thread.chunk(memory, "0".repeat(64), 1);
      return performance.now() - startedMs;
    };
    // 16 frames would wait 48 ms, 40 are the limit.
    foreground.tell(1);
    expect(await timed()).toBeGreaterThan(giveWayMs.task - 1);
    expect(await timed()).toBeGreaterThan(giveWayMs.task - 1);
    expect(Atomics.load(foreground.cells, foregroundCell.waiting)).toBe(0);
    await thread.close();
  });

  test("a segment that finds two others in hand gives no way: they wait for a slow disk, and the log grows", async () => {
    const foreground = new ForegroundLoad();
    foreground.tell(1);
    const thread = new ArchiveThread(new SystemClock(), foreground);
    await zeroes(thread);
    const lessMs: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      const segments = streams(3, 28, 256 * 1024);
      const answered = [performance.now()];
      const sealing = segments.map(async (stream) => {
        await thread.seal(stream, 1);
        answered.push(performance.now());
      });
      await Promise.all(sealing);
      const [start = 0, first = 0, second = 0, third = 0] = answered;
      lessMs.push(first - start - (third - second));
    }
    expect(lessMs.toSorted((one, other) => one - other)[2]).toBeGreaterThan(giveWayMs.task / 2);
    await thread.close();
  });

  test("a task that waits too long: the next ones get a worker with a share, until it was idle for a while", async () => {
    const clock = new HandClock();
    const thread = new ArchiveThread(clock);
    const [first, second, third] = streams(3, 20);
    await zeroes(thread);
    const waits = thread.seal(first as SegmentStream, 3);
    clock.nowMs += limits.archiveCalmMs + 1;
    const next = thread.seal(second as SegmentStream, 3);
    expect(thread.steadyTasks).toBe(1);
    expect((await next).ref.firstLsn).toBe(second?.firstLsn);
    expect((await waits).ref.firstLsn).toBe(first?.firstLsn);
    clock.look();
    expect((await thread.seal(third as SegmentStream, 3)).ref.firstLsn).toBe(third?.firstLsn);
    expect(thread.steadyTasks).toBe(2);
    clock.look();
    clock.look();
    await zeroes(thread);
    expect(thread.steadyTasks).toBe(2);
    await thread.close();
  });

  test("a task that can't be handed over is refused, and counts as none in hand", async () => {
    const clock = new HandClock();
    const thread = new ArchiveThread(clock);
    await zeroes(thread);
    await expect(thread.hash((() => undefined) as never)).rejects.toThrow("could not be cloned");
    clock.nowMs += limits.archiveCalmMs + 1;
    await zeroes(thread);
    expect(thread.steadyTasks).toBe(0);
    await thread.close();
  });

  test("work after close, and work in hand at close, is refused and not lost in silence", async () => {
    const thread = new ArchiveThread(new SystemClock());
    const [stream] = streams(1, 20);
    const sealing = thread.seal(stream as SegmentStream, 3).catch((cause: unknown) => cause);
    await thread.close();
    expect(await sealing).toMatchObject({ kind: "Retry" });
    await expect(thread.hash(new SharedArrayBuffer(limits.extentBytes))).rejects.toMatchObject({
      kind: "Retry",
    });
  });
});
