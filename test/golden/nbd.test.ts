// The messages of docs/formats/nbd.md, byte for byte: what the server sends is encoded as the page shows it, what a client
// sends is decoded from the page's bytes. The example is read from the page itself; every cut and bad length of an option is
// refused. The numbers are checked against the tests' own table, which was written apart.
import { describe, expect, test } from "vitest";
import {
  nbdChunk,
  nbdCommand,
  nbdErrno,
  nbdInfo,
  nbdOption,
  nbdOptionReply,
} from "#shared/formats/nbd-numbers.ts";
import {
  decodeInfoRequest,
  decodeMetaContextQuery,
  decodeOptionHeader,
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeExportNameReply,
  encodeGreeting,
  encodeListedExport,
  encodeMetaContext,
  encodeOptionReply,
  encodeTextInfo,
} from "#shared/formats/nbd-option.ts";
import {
  decodeRequest,
  encodeExtendedReply,
  encodeSimpleReply,
  encodeStructuredReply,
  encodeUint64,
  RequestHeader,
  transmissionFlags,
} from "#shared/formats/nbd-transmission.ts";
import { chunkType, command, errnoName, info, option, optionReply } from "../tools/nbd-wire.ts";
import { hexExample, undetectedCuts } from "./worked-example.ts";

const example = hexExample("nbd.md");
const cookie = { high: 0x11223344, low: 0x55667788 };

/** Where each message of the example starts, as the page's table says. */
const at = {
  greeting: 0,
  info: 18,
  ack: 50,
  simple: 70,
  structured: 86,
  extended: 106,
  go: 138,
  request: 167,
  extendedRequest: 195,
  end: 227,
};
const part = (from: number, to: number): Buffer => example.subarray(from, to);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

describe("what the server sends", () => {
  test("greeting, information and acknowledgement", () => {
    expect(hex(encodeGreeting())).toBe(hex(part(at.greeting, at.info)));
    const flags = transmissionFlags(false, "structured");
    const data = encodeExportInfo(10_737_418_240, flags);
    expect(hex(encodeOptionReply(nbdOption.go, nbdOptionReply.info, data))).toBe(hex(part(at.info, at.ack)));
    expect(hex(encodeOptionReply(nbdOption.go, nbdOptionReply.ack))).toBe(hex(part(at.ack, at.simple)));
  });

  test("reply headers in the three styles", () => {
    const simple = Buffer.alloc(16);
    encodeSimpleReply(viewOf(simple), 0, nbdErrno.ENOSPC, cookie.high, cookie.low);
    expect(hex(simple)).toBe(hex(part(at.simple, at.structured)));
    const structured = Buffer.alloc(20);
    encodeStructuredReply(viewOf(structured), 0, 1, nbdChunk.offsetData, cookie.high, cookie.low, 4104);
    expect(hex(structured)).toBe(hex(part(at.structured, at.extended)));
    const request = new RequestHeader();
    decodeRequest(viewOf(part(at.extendedRequest, at.end)), 0, true, request);
    const extended = Buffer.alloc(32);
    encodeExtendedReply(viewOf(extended), 0, 1, nbdChunk.none, request, 0);
    expect(hex(extended)).toBe(hex(part(at.extended, at.go)));
  });

  test("the rest of the handshake's data", () => {
    expect(hex(encodeTextInfo(nbdInfo.name, "disk0"))).toBe("00016469736b30");
    expect(hex(encodeBlockSizeInfo(4096))).toBe("0003000000010000100002000000");
    expect(hex(encodeListedExport("a", "b"))).toBe("000000016162");
    expect(hex(encodeMetaContext(1, "base:"))).toBe("00000001626173653a");
    expect(hex(encodeExportNameReply(512, 1, true))).toBe("00000000000002000001");
    expect(encodeExportNameReply(512, 1, false)).toHaveLength(134);
    const bytes = Buffer.alloc(8);
    encodeUint64(viewOf(bytes), 0, 2 ** 53 - 1);
    expect(hex(bytes)).toBe("001fffffffffffff");
  });
});

describe("what a client sends", () => {
  test("GO for disk0 with its block size", () => {
    const bytes = part(at.go, at.request);
    expect(decodeOptionHeader(viewOf(bytes), 0)).toEqual({ option: nbdOption.go, length: 13 });
    const data = bytes.subarray(16);
    expect(decodeInfoRequest(data)).toEqual({ exportName: "disk0", infoTypes: [nbdInfo.blockSize] });
    expect(undetectedCuts(data, (cut) => decodeInfoRequest(cut) !== null)).toEqual([]);
  });

  test("a compact and an extended request", () => {
    const header = new RequestHeader();
    expect(decodeRequest(viewOf(part(at.request, at.extendedRequest)), 0, false, header)).toBe(true);
    expect(header).toMatchObject({ type: nbdCommand.read, flags: 0, offset: 8192, length: 4096 });
    expect([header.cookieHigh, header.cookieLow]).toEqual([cookie.high, cookie.low]);
    expect(decodeRequest(viewOf(part(at.extendedRequest, at.end)), 0, true, header)).toBe(true);
    expect(header).toMatchObject({ type: nbdCommand.trim, flags: 1, offset: 2 ** 32, length: 2 ** 33 });
    expect(decodeRequest(viewOf(part(at.extendedRequest, at.end)), 0, false, header)).toBe(false);
    expect(decodeRequest(viewOf(part(at.request, at.end)), 0, true, header)).toBe(false);
  });

  test("offsets beyond 2^53 are rounded, but stay beyond every volume", () => {
    const bytes = Buffer.from(part(at.request, at.extendedRequest));
    bytes.writeBigUInt64BE(2n ** 64n - 1n, 16);
    const header = new RequestHeader();
    decodeRequest(viewOf(bytes), 0, false, header);
    expect(header.offset).toBeGreaterThan(2 ** 63);
    expect([header.offsetHigh, header.offsetLow]).toEqual([0xffffffff, 0xffffffff]);
  });

  test("metadata queries: a good one, and every cut of it", () => {
    const query = Buffer.from("00000001610000000200000003623a6300000001 64".replaceAll(" ", ""), "hex");
    expect(decodeMetaContextQuery(query)).toEqual({ exportName: "a", queries: ["b:c", "d"] });
    expect(undetectedCuts(query, (cut) => decodeMetaContextQuery(cut) !== null)).toEqual([]);
    expect(decodeMetaContextQuery(Buffer.concat([query, Buffer.alloc(1)]))).toBeNull();
  });
});

test("the product's numbers are those of the tests' own table", () => {
  expect(nbdOption).toEqual(option);
  expect(nbdCommand).toEqual(command);
  expect(nbdInfo).toEqual(info);
  expect(nbdChunk).toEqual(chunkType);
  for (const [name, number] of Object.entries(nbdErrno)) {
    if (name !== "none") expect(errnoName[number]).toBe(name);
  }
  for (const [name, number] of Object.entries(nbdOptionReply)) {
    if (name !== "shutdown") expect(optionReply).toHaveProperty(name, number);
  }
});
