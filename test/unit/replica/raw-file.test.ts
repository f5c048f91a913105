// The raw file's life, step by step on the memory store: what attach refuses and says, what detach records. Crashes and failed syncs are
// raw-file-crashes.deep.test.ts.
import { describe, expect, test } from "vitest";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { isVarveError } from "#shared/domain/errors.ts";
import { decodeCheckpoint, encodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { checkpointPath, imagePath, newVolume, sizeBytes } from "./raw-volume.ts";

async function checkpointOf(store: FileStore) {
  const checkpoint = decodeCheckpoint((await store.readWhole(checkpointPath)) ?? Buffer.alloc(0));
  if (isBadCheckpoint(checkpoint)) throw new Error(checkpoint.detail);
  return checkpoint;
}

async function refusal(promise: Promise<unknown>): Promise<{ tag: string; kind: string; hint: string }> {
  try {
    await promise;
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return { tag: error._tag, kind: error.kind, hint: error.hint };
  }
  throw new Error("was not refused");
}

describe("attach and detach", () => {
  test("a new image is thin, detached, and says attached while it is held", async () => {
    const { store, options } = await newVolume();
    expect(await checkpointOf(store)).toMatchObject({ appliedLsn: 0, line: null, sizeBytes });
    expect((await checkpointOf(store)).detached).not.toBeNull();
    const image = await RawFileImage.attach(options);
    expect((await checkpointOf(store)).detached).toBeNull();
    expect(image.state()).toMatchObject({ sizeBytes, appliedLsn: 0, allocatedBytes: 0 });
    expect(await refusal(RawFileImage.attach(options))).toMatchObject({
      tag: "FileStoreError",
      kind: "Retry",
    });
    await image.detach();
    await image.detach();
    expect((await checkpointOf(store)).detached).not.toBeNull();
  });

  test("detach records what the next attach goes on from", async () => {
    const { store, options, maker } = await newVolume();
    const image = await RawFileImage.attach(options);
    const made = [maker.epoch(), maker.write(100, Buffer.alloc(10_000, 4))];
    await image.apply(made.map(({ batch }) => batch));
    expect(image.state().dirtyBytes).toBe(10_000);
    await image.detach();
    const checkpoint = await checkpointOf(store);
    expect(checkpoint).toMatchObject({
      appliedLsn: 2,
      epoch: 1,
      batchChecksum: made[1]?.batch.checksum,
      line: made[0]?.batch.line,
    });
    const again = await RawFileImage.attach(options);
    expect(again.state()).toMatchObject({ appliedLsn: 2, checkpointLsn: 2, dirtyBytes: 0 });
    await again.apply([maker.write(0, Buffer.alloc(5, 1)).draft]);
    expect(await again.checkpoint()).toBe(3);
    expect((await checkpointOf(store)).detached).toBeNull();
    await again.abandon();
    expect((await RawFileImage.attach(options).then((image) => image.state())).appliedLsn).toBe(3);
  });

  test("an image that was attached in vain is as cleanly detached as before", async () => {
    const { store, options, maker } = await newVolume();
    const image = await RawFileImage.attach(options);
    await image.apply([maker.epoch().batch, maker.write(0, Buffer.alloc(100, 7)).batch]);
    await image.detach();
    const before = await checkpointOf(store);
    const inVain = await RawFileImage.attach(options);
    expect((await checkpointOf(store)).detached).toBeNull();
    await inVain.abandon();
    expect(await checkpointOf(store)).toEqual(before);
    const used = await RawFileImage.attach(options);
    await used.apply([maker.write(0, Buffer.alloc(100, 8)).draft]);
    await used.abandon();
    expect((await checkpointOf(store)).detached).toBeNull();
  });

  test("a file that was changed, replaced or resized meanwhile is refused with both ways out, and stays as it is", async () => {
    const changes: ((store: FileStore) => Promise<void>)[] = [
      async (store) => {
        const file = await store.open(imagePath, { access: "buffered" });
        const slab = store.allocateSlab(4096);
        file.writeInline([{ slab, start: 0, length: 1 }], 0);
        await file.close();
      },
      async (store) => {
        const file = await store.open(imagePath, { access: "buffered" });
        await file.truncate(sizeBytes + 512);
        await file.close();
      },
      async (store) => store.replaceWhole(imagePath, Buffer.alloc(sizeBytes)),
    ];
    for (const change of changes) {
      const { store, options } = await newVolume();
      await change(store);
      const before = await store.facts(imagePath);
      const error = await refusal(RawFileImage.attach(options));
      expect(error).toMatchObject({ tag: "ImageChanged", kind: "Invalid" });
      expect(error.hint).toContain("varve image adopt");
      expect(error.hint).toContain("varve image discard");
      expect(await store.facts(imagePath)).toEqual(before);
      expect((await checkpointOf(store)).detached).not.toBeNull();
      // The refusal gave the lock back.
      expect(await refusal(RawFileImage.attach(options))).toMatchObject({ tag: "ImageChanged" });
    }
  });

  test("a missing or damaged checkpoint, a foreign one and a missing image are told apart", async () => {
    const damage: [string, string, (store: FileStore) => Promise<void>][] = [
      ["CheckpointMissing", "Corrupt", async (store) => store.remove(checkpointPath)],
      [
        "CheckpointDamaged",
        "Corrupt",
        async (store) => {
          const bytes = (await store.readWhole(checkpointPath)) ?? Buffer.alloc(0);
          bytes.writeUInt8(bytes.readUInt8(30) ^ 1, 30);
          await store.replaceWhole(checkpointPath, bytes);
        },
      ],
      [
        "CheckpointOfOtherVolume",
        "Invalid",
        async (store) => {
          const checkpoint = { ...(await checkpointOf(store)), volumeId: "00000000000000aa" };
          await store.replaceWhole(checkpointPath, encodeCheckpoint(checkpoint));
        },
      ],
      ["ImageMissing", "Invalid", async (store) => store.remove(imagePath)],
    ];
    for (const [tag, kind, change] of damage) {
      const { store, options } = await newVolume();
      await change(store);
      expect(await refusal(RawFileImage.attach(options))).toMatchObject({ tag, kind });
    }
  });

  test("the first batch must come from the log: a draft tells no line", async () => {
    const { options, maker } = await newVolume();
    const image = await RawFileImage.attach(options);
    await expect(image.apply([maker.epoch().draft])).rejects.toThrow("invariant");
    expect(image.state().appliedLsn).toBe(0);
  });
});
