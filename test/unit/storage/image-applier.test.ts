// When the applier takes checkpoints by the number of batches: what a crash leaves to be applied again is bounded (docs/specs/cluster.md,
// "A storage node"). Bytes and age are in test/unit/storage/full-disk.deep.test.ts and the simulator.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { volumePaths } from "#shared/domain/data-layout.ts";
import { RawReplicas } from "../../../services/storage/layer.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker } from "../replica/batch-maker.ts";

const sizeBytes = 1024 * 1024;

async function applied(batches: number, checkpointBatches?: number) {
  const store = new MemoryFileStore();
  const paths = volumePaths("/pool", "a");
  await store.makeDirectory(paths.directory);
  const setup = { store, clock: new FastClock(), dataDirectory: "/pool" };
  const replicas = new RawReplicas(checkpointBatches === undefined ? setup : { ...setup, checkpointBatches });
  const volume = { id: "6100000000000000", name: "a", sizeBytes, createdAtMs: 0 } as const;
  const record = { ...volume, durability: "write", state: "active" } as const;
  await replicas.create(record, paths);
  const image = await replicas.attach(record, paths);
  const checkpoints: number[] = [];
  const feed = replicas.feed(image, {
    onApplied: () => undefined,
    onHalted: (error) => {
      throw error;
    },
    onCheckpoint: (lsn) => checkpoints.push(lsn),
  });
  const maker = new BatchMaker(store, new SteppedRandom(1), sizeBytes);
  for (let each = 1; each <= batches; each += 1) {
    const { batch } = each === 1 ? maker.epoch() : maker.write(each * 4096, Buffer.alloc(4096, each));
    feed.enqueue({ ...batch, payloadBytes: batch.payload.byteLength, sequence: each });
    await feed.drain();
  }
  const close = async (): Promise<void> => {
    await feed.close();
    await image.abandon();
    await replicas.close();
  };
  return { checkpoints, close };
}

test("so many batches bring a checkpoint, long before its age would", async () => {
  const { checkpoints, close } = await applied(21, 8);
  // Ones that come while a checkpoint is under way wait for the next.
  await expect.poll(() => checkpoints.at(-1) ?? 0, { timeout: 1000 }).toBeGreaterThanOrEqual(14);
  expect(checkpoints.length).toBeLessThanOrEqual(3);
  expect(checkpoints[0]).toBeGreaterThanOrEqual(8);
  await close();
});

test("on one machine, where nothing is said of their number, they bring none", async () => {
  const { checkpoints, close } = await applied(21);
  await new Promise((resolve) => {
    setTimeout(resolve, 300);
  });
  expect(checkpoints).toEqual([]);
  await close();
});
