// The collector's state and lease of docs/formats/collector.md: the bytes there are read to the content that stands beside them;
// what is written differs in nothing but zstd's own output. Every flipped bit, cut and surplus byte is found.
import { zstdDecompressSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  collectorNumber,
  decodeCollectorState,
  decodeLease,
  encodeCollectorState,
  encodeLease,
  leaseKey,
  leasePrefix,
  stateKey,
} from "#shared/formats/collector-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { hexExample, textExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const page = "collector.md";
const lease = {
  number: 7,
  holder: "0f1e2d3c4b5a6978",
  who: "home pid 4711",
  state: "held",
  time: { timeMs: 1_763_688_000_000, wallMs: 1_763_688_060_000, pausedUntilMs: 0 },
} as const;

const kinds = [
  {
    name: "state",
    magic: "VCOL",
    bytes: hexExample(page),
    content: JSON.parse(textExample(page).toString()) as object,
    decode: decodeCollectorState,
    encode: (content: object) => encodeCollectorState(content as never),
  },
  {
    name: "lease",
    magic: "VLEA",
    bytes: hexExample(page, "hex-lease"),
    content: lease,
    decode: decodeLease,
    encode: (content: object) => encodeLease(content as never),
  },
];

describe.each(kinds)("the collector's $name", ({ magic, bytes, content, decode, encode }) => {
  const accepts = (changed: Buffer): boolean => !isBadObject(decode(changed));

  test("the page's bytes are read, and written in the same envelope", () => {
    expect(decode(bytes)).toEqual(content);
    const written = encode(content);
    expect(written.toString("latin1", 0, 4)).toBe(magic);
    const json = zstdDecompressSync(written.subarray(16, -32));
    expect(json.equals(zstdDecompressSync(bytes.subarray(16, -32)))).toBe(true);
    expect(decode(written)).toEqual(content);
  });

  test("every flipped bit, cut and surplus byte is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });
});

describe("keys and order", () => {
  test("keys carry the number, and only such keys have one", () => {
    expect(leaseKey(7)).toBe("collector/lease/0000000007");
    expect(stateKey(8)).toBe("collector/state/0000000008");
    expect(collectorNumber(leaseKey(7), leasePrefix)).toBe(7);
    expect(collectorNumber("collector/lease/7", leasePrefix)).toBeNull();
    expect(collectorNumber(stateKey(8), leasePrefix)).toBeNull();
  });

  test("candidates out of order, or twice, are not written", () => {
    const one = { key: "chunks/a", bytes: 1, sinceMs: 1 };
    const state = { number: 1, sweptMs: 0, candidates: [one, one], deletedVolumes: [] };
    expect(() => encodeCollectorState(state)).toThrow("out of order");
  });
});
