/*
 * The overlay against a plain model: whatever was added and not yet dropped covers the image, newest on top.
 */
import { describe, expect, it } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import { Overlay } from "../../../services/gateway/engine/overlay.ts";
import { PendingBatch } from "../../../services/gateway/engine/pending-batch.ts";
import { SeededRandom } from "../../simulation/scheduler.ts";

const sizeBytes = 4096;

function draft(): PendingBatch {
  return new PendingBatch({ bytes: Buffer.alloc(limits.batchHeaderBytesMax + 16 * 1024), address: 0 });
}

/** What a read of everything gives over `image`. */
function readAll(overlay: Overlay, image: Uint8Array): Uint8Array {
  const result = Uint8Array.from(image);
  overlay.visit(0, sizeBytes, (start, end, value, position) => {
    if (value.holdsBytes)
      result.set(value.draft.slab.bytes.subarray(position, position + (end - start)), start);
    else result.fill(0, start, end);
  });
  return result;
}

function addRandomEntry(random: SeededRandom, batch: PendingBatch, state: Uint8Array): void {
  const offset = random.integer(0, sizeBytes - 1);
  const length = random.integer(1, Math.min(600, sizeBytes - offset) + 1);
  if (random.chance(0.7)) {
    const position = batch.addWrite(offset, length);
    const fill = random.integer(1, 256);
    batch.slab.bytes.fill(fill, position, position + length);
    state.fill(fill, offset, offset + length);
  } else {
    batch.addRange(random.chance(0.5) ? 3 : 2, offset, length);
    state.fill(0, offset, offset + length);
  }
}

function applyToImage(image: Uint8Array, batch: PendingBatch): void {
  for (let index = 0; index < batch.entryCount; index++) {
    const offset = batch.offsets[index] as number;
    const end = offset + (batch.lengths[index] as number);
    if (batch.kinds[index] === 0) {
      const position = limits.batchHeaderBytesMax + (batch.payloadStarts[index] as number);
      image.set(batch.slab.bytes.subarray(position, position + (end - offset)), offset);
    } else image.fill(0, offset, end);
  }
}

describe("overlay", () => {
  it.each(Array.from({ length: 30 }, (_, seed) => seed))("equals the model for seed %i", (seed) => {
    const random = new SeededRandom(seed);
    const overlay = new Overlay();
    const image = new Uint8Array(sizeBytes);
    const state = new Uint8Array(sizeBytes);
    const waiting: PendingBatch[] = [];
    for (let round = 0; round < 200; round++) {
      if (waiting.length === 0 || random.chance(0.6)) {
        const batch = draft();
        for (let entries = random.integer(1, 8); entries > 0; entries--) addRandomEntry(random, batch, state);
        overlay.add(batch);
        waiting.push(batch);
      } else {
        const batch = waiting.shift() as PendingBatch;
        applyToImage(image, batch);
        overlay.drop(batch);
      }
      expect(Buffer.compare(readAll(overlay, image), state)).toBe(0);
    }
    for (const batch of waiting) {
      applyToImage(image, batch);
      overlay.drop(batch);
    }
    expect(overlay.empty).toBe(true);
    expect(Buffer.compare(image, state)).toBe(0);
  });

  it("reports a trimmed range as unallocated and a NO_HOLE zero as allocated", () => {
    const overlay = new Overlay();
    const batch = draft();
    batch.addRange(3, 0, 1024);
    batch.addRange(2, 2048, 1024);
    overlay.add(batch);
    const seen: [number, number, boolean][] = [];
    overlay.visit(0, sizeBytes, (start, end, value) => seen.push([start, end, value.allocated]));
    expect(seen).toEqual([
      [0, 1024, false],
      [2048, 3072, true],
    ]);
  });
});
