// Chunks from random extents: content, hash and single frames come back; zeroes are free; damage of every kind is refused.
import { createHash, randomFillSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import {
  buildChunk,
  type ChunkHead,
  chunkHashOf,
  chunkHeadBytes,
  chunkName,
  openChunk,
  readChunkHead,
} from "#shared/formats/chunk-object.ts";
import { frameCoding, openFrame } from "#shared/formats/object-frame.ts";
import { ObjectRoom } from "#shared/formats/object-room.ts";
import { type BadObject, isBadObject, writeDigest } from "#shared/formats/sealed-object.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

function good<T extends object>(value: T | BadObject): T {
  if (isBadObject(value)) throw new Error(`${value.fault}: ${value.detail}`);
  return value;
}

/** Some frames zero, some noise, some text. */
function randomExtent(random: SeededRandom): Buffer {
  const raw = Buffer.alloc(limits.extentBytes);
  for (let place = 0; place < raw.length; place += limits.archiveFrameBytes) {
    const choice = random.between(0, 3);
    if (choice === 1) raw.fill("varve ", place, place + random.between(1, limits.archiveFrameBytes));
    if (choice === 2) {
      for (let at = place; at < place + limits.archiveFrameBytes; at += 4)
        raw.writeUInt32LE(random.uint32(), at);
    }
  }
  raw[random.between(0, raw.length)] = 1;
  return raw;
}

const chunkOf = (raw: Buffer, hash: string, level: number): Buffer => buildChunk(raw, hash, level).object;
const headOf = (object: Buffer): ChunkHead => good(readChunkHead(object.subarray(0, chunkHeadBytes)));

describe("a chunk", () => {
  test.each([1, 2, 3, 4])("of random extent %i gives back its content, whole and by frames", (seed) => {
    const raw = randomExtent(new SeededRandom(seed));
    const hash = chunkHashOf(raw) ?? "";
    expect(hash).toBe(createHash("sha256").update(raw).digest("hex"));
    const object = chunkOf(raw, hash, seed % 2 === 0 ? 0 : 3);
    const whole = good(openChunk(object));
    expect(whole.hash).toBe(hash);
    expect(whole.content.equals(raw)).toBe(true);
    const head = headOf(object);
    expect([head.hash, head.objectBytes, head.frames.length]).toEqual([hash, object.length, 16]);
    for (const frame of head.frames) {
      const stored = object.subarray(frame.objectOffset, frame.objectOffset + frame.storedBytes);
      const piece = raw.subarray(frame.place, frame.place + frame.rawBytes);
      expect(good(openFrame(stored, frame)).equals(piece)).toBe(true);
      expect(frame.coding === frameCoding.zero).toBe(piece.every((byte) => byte === 0));
    }
  });

  test("in a room that was used before takes no memory, and leaves none for a collection of the heap", () => {
    const raw = Buffer.alloc(limits.extentBytes, "varve ");
    for (let place = 0; place < raw.length; place += 2 * limits.archiveFrameBytes)
      randomFillSync(raw, place, limits.archiveFrameBytes);
    const room = new ObjectRoom();
    const first = Buffer.from(buildChunk(raw, "0".repeat(64), 3, room).object);
    const before = process.memoryUsage().arrayBuffers;
    const { object } = buildChunk(raw, "0".repeat(64), 3, room);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(limits.archiveFrameBytes);
    expect(object.equals(first)).toBe(true);
  });

  test("is none where all is zero", () => {
    expect(chunkHashOf(Buffer.alloc(limits.extentBytes))).toBeNull();
    expect(chunkHashOf(Buffer.alloc(512))).toBeNull();
    expect(chunkHashOf(Buffer.alloc(0))).toBeNull();
  });

  test("at the end of a volume is padded with zeroes", () => {
    const raw = Buffer.alloc(700_000, 5);
    const hash = chunkHashOf(raw) ?? "";
    const padded = Buffer.concat([raw], limits.extentBytes);
    expect(hash).toBe(chunkHashOf(padded));
    expect(chunkOf(raw, hash, 3).equals(chunkOf(padded, hash, 3))).toBe(true);
    expect(good(openChunk(chunkOf(raw, hash, 3))).content.equals(padded)).toBe(true);
  });

  test("is named by hash and generation", () => {
    expect(chunkName("ab".repeat(32), 7)).toBe(`${"ab".repeat(32)}.7`);
  });
});

describe("bytes that are no chunk", () => {
  const raw = randomExtent(new SeededRandom(8));
  const hash = chunkHashOf(raw) ?? "";
  const object = chunkOf(raw, hash, 3);

  test("cut or grown", () => {
    expect(readChunkHead(object.subarray(0, 511))).toMatchObject({ fault: "truncated" });
    expect(openChunk(object.subarray(0, -1))).toMatchObject({ fault: "truncated" });
    expect(openChunk(Buffer.concat([object, Buffer.alloc(1)]))).toMatchObject({ fault: "surplus" });
  });

  test("damaged in head, frame and digest", () => {
    const random = new SeededRandom(2);
    for (let round = 0; round < 200; round += 1) {
      const changed = Buffer.from(object);
      const at = round < 100 ? random.between(0, 520) : random.between(0, object.length);
      changed[at] = (changed[at] ?? 0) ^ (1 << random.between(0, 8));
      expect(isBadObject(openChunk(changed))).toBe(true);
      if (at < chunkHeadBytes) expect(isBadObject(readChunkHead(changed))).toBe(true);
    }
  });

  test("a content that is not what the name says", () => {
    expect(openChunk(chunkOf(raw, "ab".repeat(32), 3))).toMatchObject({ fault: "checksum" });
  });

  test("damage behind repaired checksums", () => {
    const random = new SeededRandom(31);
    const small = chunkOf(Buffer.alloc(100, 1), chunkHashOf(Buffer.alloc(100, 1)) ?? "", 3);
    for (let round = 0; round < 1500; round += 1) {
      const changed = Buffer.from(small);
      const at = random.between(0, 504);
      changed[at] = (changed[at] ?? 0) ^ random.between(1, 256);
      changed.writeBigUInt64LE(checksumOf(changed.subarray(0, 504)), 504);
      writeDigest(changed);
      expect(isBadObject(openChunk(changed)), `byte ${at}`).toBe(true);
    }
    const flagged = (flags: number): Buffer => {
      const changed = Buffer.from(small);
      changed.writeUInt16LE(flags, 6);
      changed.writeBigUInt64LE(checksumOf(changed.subarray(0, 504)), 504);
      return changed;
    };
    expect(readChunkHead(flagged(1))).toMatchObject({
      fault: "flags",
      detail: expect.stringContaining("encrypted"),
    });
    expect(readChunkHead(flagged(4))).toMatchObject({ fault: "flags" });
  });

  test("another kind, random bytes", () => {
    const random = new SeededRandom(12);
    for (let round = 0; round < 300; round += 1) {
      const bytes = Buffer.alloc(random.logUniform(1, 3000));
      for (let at = 0; at < bytes.length; at += 1) bytes[at] = random.between(0, 256);
      expect(isBadObject(openChunk(bytes))).toBe(true);
    }
    expect(openChunk(Buffer.alloc(600))).toMatchObject({ fault: "notThisKind" });
  });
});
