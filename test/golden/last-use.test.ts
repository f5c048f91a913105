// The file of last use as docs/formats/last-use.md has it, byte for byte in both directions; whatever is wrong with it is
// found, because a wrong one counts as none.
import { describe, expect, test } from "vitest";
import { decodeLastUse, encodeLastUse, isBadLastUse } from "#shared/formats/last-use.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

describe("last use", () => {
  const bytes = hexExample("last-use.md");
  const use = {
    runs: [
      { extents: 3, hour: 490_000 },
      { extents: 1, hour: 490_001 },
    ],
  };
  const accepts = (changed: Buffer): boolean => !isBadLastUse(decodeLastUse(changed));

  test("the page's bytes are written and read", () => {
    expect(encodeLastUse(use).toString("hex")).toBe(bytes.toString("hex"));
    expect(decodeLastUse(bytes)).toEqual(use);
  });

  test("every flipped bit, cut and surplus byte is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });
});
