// Writeback before a checkpoint: slice by slice, one at a time with pauses, every dirty byte in some slice, and no more
// passes than worth it. Also: runs of writes that continue each other become one operation, and nothing else does.
import { describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { ApplyPlan } from "#shared/adapters/replica-image/apply-plan.ts";
import { PacedWriteback } from "#shared/adapters/replica-image/paced-writeback.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { FileOperation } from "#shared/ports/file-store.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { line } from "./batch-maker.ts";

const MiB = 1024 * 1024;
const sliceBytes = 2 * MiB;

function bench(imageBytes: number) {
  const clock = new SteppedClock(1);
  const slices: { from: number; end: number; atMs: number }[] = [];
  let underWay = 0;
  let failNext = false;
  const slab = new MemoryFileStore().allocateSlab(MiB);
  const file = {
    writeBack: (offset: number, length: number): Promise<void> => {
      underWay += 1;
      expect(underWay).toBe(1);
      slices.push({ from: offset, end: offset + length, atMs: clock.monotonicMs() });
      return new Promise((resolve, reject) => {
        clock.after(10, () => {
          underWay -= 1;
          if (failNext) reject(new Error("EIO"));
          else resolve();
        });
      });
    },
  };
  const writeback = new PacedWriteback({ file, clock, sliceBytes });
  const write = (offset: number): void => {
    const operation: FileOperation = { kind: "write", piece: { slab, start: 0, length: MiB }, offset };
    writeback.wrote([operation, { kind: "punch", offset: 0, length: 4096 }], imageBytes);
  };
  const fail = (): void => {
    failNext = true;
  };
  return { clock, slices, writeback, write, fail };
}

describe("writeback", () => {
  test("takes every dirty byte in slices, each after the one before and a pause as long", async () => {
    for (const imageBytes of [1024 * MiB, 2 ** 44]) {
      const { clock, slices, writeback, write } = bench(imageBytes);
      const offsets = Array.from({ length: 64 }, (_, index) =>
        Math.min(imageBytes - MiB, Math.floor(((index * index) / 4096) * imageBytes)),
      );
      for (const offset of offsets) write(offset);
      await clock.until(writeback.run());
      for (const offset of offsets) {
        expect(slices.filter(({ from, end }) => from <= offset && offset < end).length).toBe(1);
      }
      expect(slices.length).toBeGreaterThanOrEqual(32);
      expect(writeback.slices).toBe(slices.length);
      for (let index = 1; index < slices.length; index += 1) {
        const [before, after] = [slices[index - 1], slices[index]];
        expect(after?.from).toBeGreaterThanOrEqual(before?.end ?? 0);
        expect((after?.atMs ?? 0) - (before?.atMs ?? 0)).toBeGreaterThanOrEqual(20);
      }
    }
  });

  test("splits a region that holds more than a slice", async () => {
    const { clock, slices, writeback, write } = bench(1024 * MiB);
    for (let index = 0; index < 16; index += 1) write(32 * MiB + index * MiB);
    await clock.until(writeback.run());
    expect(slices.map(({ from, end }) => end - from)).toEqual(Array.from({ length: 8 }, () => 2 * MiB));
    expect(slices[0]?.from).toBe(32 * MiB);
    expect(slices.at(-1)?.end).toBe(48 * MiB);
  });

  test("leaves a little to the sync, goes again for much that came meanwhile, and ends", async () => {
    const { clock, slices, writeback, write } = bench(1024 * MiB);
    write(0);
    await clock.until(writeback.run());
    expect(slices).toEqual([]);
    for (let index = 0; index < 32; index += 1) write(index * MiB);
    const run = writeback.run();
    // A writer that never stops: two more passes, then the sync takes the rest.
    for (let step = 0; step < 400; step += 1) {
      if (!(await clock.step())) break;
      for (let index = 0; index < 4; index += 1) write(((step * 4 + index) % 512) * MiB);
    }
    await clock.until(run);
    expect(slices.length).toBeGreaterThan(16);
    expect(clock.pendingTasks).toBe(0);
  });

  test("a slice that failed fails the run, as a failed sync does", async () => {
    const { clock, writeback, write, fail } = bench(1024 * MiB);
    for (let index = 0; index < 32; index += 1) write(index * MiB);
    fail();
    await expect(clock.until(writeback.run())).rejects.toThrow("EIO");
  });
});

test("writes that continue each other on the disk and in memory become one operation", () => {
  const slab = new MemoryFileStore().allocateSlab(64 * 1024);
  const draft = new BatchDraft(slab);
  draft.addWrite(0, 100);
  draft.addWrite(100, 50);
  draft.addWrite(151, 10);
  draft.addRange(3, 161, 10);
  draft.addWrite(171, 5);
  draft.addWrite(176, 4096);
  draft.firstLsn = 1;
  draft.epoch = 1;
  const plan = new ApplyPlan({
    line,
    epoch: 1,
    appliedLsn: 0,
    batchChecksum: 0n,
    position: null,
    sizeBytes: 8192,
  });
  plan.addDraft(draft);
  expect(plan.writtenBytes).toBe(100 + 50 + 10 + 5 + 4096);
  expect(
    plan.operations.map((operation) =>
      operation.kind === "write"
        ? [operation.offset, operation.piece.start - 4096, operation.piece.length]
        : operation.kind,
    ),
  ).toEqual([[0, 0, 150], [151, 150, 10], "punch", [171, 160, 4101]]);
  expect(plan.position.appliedLsn).toBe(6);
});
