// The chunk of docs/formats/chunk.md, byte for byte in both directions; every flipped bit of its head and digest, a sample of
// the flipped bits of its frame and every cut of its ends are found. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import {
  buildChunk,
  chunkHashOf,
  chunkHeadBytes,
  openChunk,
  readChunkHead,
} from "#shared/formats/chunk-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { hexExample, undetectedFlips } from "./worked-example.ts";

describe("chunk", () => {
  const bytes = hexExample("chunk.md");
  const content = Buffer.alloc(262_144, "The varve layer.");
  const hash = "b2ce2685fb66e4e78468802eb41854d41c5d1a2f2060c8f83f5ca492644024e6";
  const accepts = (changed: Buffer): boolean => !isBadObject(openChunk(changed));

  test("the page's bytes are written", () => {
    expect(chunkHashOf(content)).toBe(hash);
    expect(buildChunk(content, hash, 0).object.equals(bytes)).toBe(true);
  });

  test("the page's bytes are read", () => {
    const chunk = openChunk(bytes);
    if (isBadObject(chunk)) throw new Error(chunk.detail);
    expect(chunk.hash).toBe(hash);
    expect(chunk.content.equals(Buffer.concat([content], 4_194_304))).toBe(true);
    const head = readChunkHead(bytes.subarray(0, chunkHeadBytes));
    if (isBadObject(head)) throw new Error(head.detail);
    expect(head.objectBytes).toBe(bytes.length);
    expect(head.frames.map((frame) => frame.coding)).toEqual([1, ...Array<number>(15).fill(0)]);
    expect(head.frames[0]).toMatchObject({ objectOffset: 512, storedBytes: 262_144, place: 0 });
  });

  test("every flipped bit of the head is found in the head alone", () => {
    const head = bytes.subarray(0, chunkHeadBytes);
    expect(undetectedFlips(head, (changed) => !isBadObject(readChunkHead(changed)))).toEqual([]);
  });

  test("flipped bits of frame and digest are found", () => {
    const missed: number[] = [];
    for (let at = chunkHeadBytes; at < bytes.length; at += at < bytes.length - 32 ? 1021 : 1) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ (1 << (at & 7));
      if (accepts(changed)) missed.push(at);
    }
    expect(missed).toEqual([]);
  });

  test("cuts are found", () => {
    expect(accepts(bytes)).toBe(true);
    const lengths = [
      0,
      1,
      4,
      63,
      64,
      511,
      512,
      513,
      4096,
      bytes.length - 33,
      bytes.length - 32,
      bytes.length - 1,
    ];
    expect(lengths.filter((length) => accepts(bytes.subarray(0, length)))).toEqual([]);
  });
});
