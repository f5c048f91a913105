// Writeback goes out slice by slice, one at a time, and a failed hint stops nothing. Also: runs of writes that continue each
// other become one operation, and nothing else does.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { ApplyPlan } from "#shared/adapters/replica-image/apply-plan.ts";
import { WritebackPacer } from "#shared/adapters/replica-image/writeback-pacer.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { line } from "./batch-maker.ts";

test("one slice is under way at a time, the next starts when it ended", async () => {
  const started: (() => void)[] = [];
  const file = {
    startWriteback: (): Promise<void> =>
      new Promise((resolve, reject) => {
        started.push(started.length === 1 ? () => reject(new Error("a hint failed")) : resolve);
      }),
  };
  const pacer = new WritebackPacer(file, 100);
  pacer.wrote(60, 1000);
  expect(started.length).toBe(0);
  pacer.wrote(60, 1000);
  expect(started.length).toBe(1);
  pacer.wrote(500, 1000);
  pacer.wrote(500, 1000);
  expect(started.length).toBe(1);
  started[0]?.();
  await Promise.resolve();
  await Promise.resolve();
  expect(started.length).toBe(2);
  started[1]?.();
  await Promise.resolve();
  await Promise.resolve();
  pacer.wrote(99, 1000);
  expect(started.length).toBe(2);
  pacer.synced();
  pacer.wrote(99, 1000);
  expect(started.length).toBe(2);
  pacer.wrote(1, 1000);
  expect(started.length).toBe(3);
  expect(pacer.slices).toBe(3);
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
  const plan = new ApplyPlan({ line, epoch: 1, appliedLsn: 0, batchChecksum: 0n, sizeBytes: 8192 });
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
