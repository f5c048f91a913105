// The note of a grant as docs/formats/read-grant.md has it, byte for byte in both directions; whatever is wrong with it is found.
import { describe, expect, test } from "vitest";
import {
  decodeReadGrant,
  encodeReadGrant,
  isBadReadGrant,
  type ReadGrantNote,
  readGrantBytes,
} from "#shared/formats/read-grant.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

describe("read grant", () => {
  const bytes = hexExample("read-grant.md");
  const note = { token: "00112233445566778899aabbccddeeff", appliedLsn: 4711 };
  const accepts = (changed: Buffer): boolean => !isBadReadGrant(decodeReadGrant(changed));
  const written = (one: ReadGrantNote): Buffer => {
    const target = Buffer.alloc(readGrantBytes, 0xff);
    encodeReadGrant(target, one);
    return target;
  };

  test("the page's bytes are written and read", () => {
    expect(written(note).toString("hex")).toBe(bytes.toString("hex"));
    expect(decodeReadGrant(bytes)).toEqual(note);
  });

  test("a note without a token comes back as one that grants nothing", () => {
    const none = { token: null, appliedLsn: 0 };
    expect(decodeReadGrant(written(none))).toEqual(none);
  });

  test("every flipped bit, cut and surplus byte is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });
});
