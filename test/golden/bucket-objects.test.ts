// Manifest, index page and base page of their pages in docs/formats: the bytes there are read to the content that stands beside
// them; what is written differs from them in nothing but zstd's own output. Every flipped bit, cut and surplus byte is found.
import { zstdDecompressSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { decodeBasePage, encodeBasePage } from "#shared/formats/base-object.ts";
import { decodeIndexPage, encodeIndexPage } from "#shared/formats/index-page.ts";
import { decodeManifest, encodeManifest } from "#shared/formats/manifest-object.ts";
import { type BadObject, isBadObject } from "#shared/formats/sealed-object.ts";
import { hexExample, textExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

interface Kind {
  readonly page: string;
  readonly magic: string;
  readonly decode: (object: Buffer) => object | BadObject;
  readonly encode: (content: never) => Buffer;
}

const basePage = "volumes/5ca1ab1e00c0ffee/pages/0000081985529216-00000000.0f1e2d3c4b5a6978.00000003.page";

const kinds: readonly Kind[] = [
  { page: "manifest.md", magic: "VMAN", decode: decodeManifest, encode: encodeManifest },
  { page: "index-page.md", magic: "VIDX", decode: decodeIndexPage, encode: encodeIndexPage },
  {
    page: "base.md",
    magic: "VBPG",
    decode: (page) => decodeBasePage(page, basePage),
    encode: encodeBasePage,
  },
];

describe.each(kinds)("$page", ({ page, magic, decode, encode }) => {
  const bytes = hexExample(page);
  const content: unknown = JSON.parse(textExample(page).toString());
  const accepts = (changed: Buffer): boolean => !isBadObject(decode(changed));

  test("the page's bytes are read", () => {
    expect(decode(bytes)).toEqual(content);
  });

  test("the same content is written, in the same envelope", () => {
    const written = encode(content as never);
    expect(written.toString("latin1", 0, 4)).toBe(magic);
    expect(written.subarray(4, 8).toString("hex")).toBe("01000000");
    expect(written.readUInt32LE(8)).toBe(written.length - 48);
    const json = zstdDecompressSync(written.subarray(16, -32));
    expect(json.length).toBe(written.readUInt32LE(12));
    expect(json.equals(zstdDecompressSync(bytes.subarray(16, -32)))).toBe(true);
    expect(decode(written)).toEqual(content);
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every cut and a surplus byte are found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });
});
