// The client's side of docs/formats/nbd.md, as far as a relaying gateway speaks it: the bytes that it sends, and that it reads what the
// server's own codecs write, and nothing else.
import { describe, expect, test } from "vitest";
import {
  decodeOptionReplyHead,
  decodeReplyHead,
  encodeGo,
  encodeRequest,
  isGreeting,
  isRefusal,
  sizeOfInfo,
} from "#shared/formats/nbd-client.ts";
import { nbdOption, nbdOptionReply } from "#shared/formats/nbd-numbers.ts";
import { encodeExportInfo, encodeGreeting, encodeOptionReply } from "#shared/formats/nbd-option.ts";
import { decodeRequest, encodeSimpleReply, RequestHeader } from "#shared/formats/nbd-transmission.ts";

describe("a relaying gateway as an NBD client", () => {
  test("asks for an export by flags and GO", () => {
    expect(encodeGo("relay:disk0").toString("hex")).toBe(
      "00000003" +
        "49484156454f5054" +
        "00000007" +
        "00000011" +
        "0000000b" +
        "72656c61793a6469736b30" +
        "0000",
    );
  });

  test("knows the server's greeting, and no other", () => {
    const greeting = Buffer.from(encodeGreeting());
    expect(isGreeting(greeting)).toBe(true);
    for (let at = 0; at < 16; at += 1) {
      const changed = Buffer.from(greeting);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(isGreeting(changed)).toBe(false);
    }
  });

  test("reads sizes and refusals as the server writes them", () => {
    const info = Buffer.from(
      encodeOptionReply(nbdOption.go, nbdOptionReply.info, encodeExportInfo(2 ** 40, 0x6d)),
    );
    const head = decodeOptionReplyHead(info);
    expect(head).toEqual({ type: nbdOptionReply.info, length: info.length - 20 });
    expect(head === null ? 0 : sizeOfInfo(head, info.subarray(20))).toBe(2 ** 40);
    const refusal = decodeOptionReplyHead(
      Buffer.from(encodeOptionReply(nbdOption.go, nbdOptionReply.unknown)),
    );
    expect(refusal === null ? false : isRefusal(refusal)).toBe(true);
    const other = Buffer.from(encodeOptionReply(nbdOption.list, nbdOptionReply.ack));
    expect(decodeOptionReplyHead(other)).toBeNull();
  });

  test("sends requests that the server reads, and reads its simple replies", () => {
    const bytes = encodeRequest(1, 1, 77, 2 ** 40 + 512, 4096);
    const header = new RequestHeader();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    expect(decodeRequest(view, 0, false, header)).toBe(true);
    expect(header).toMatchObject({ flags: 1, type: 1, cookieLow: 77, offset: 2 ** 40 + 512, length: 4096 });
    const reply = Buffer.alloc(16);
    encodeSimpleReply(new DataView(reply.buffer, reply.byteOffset, 16), 0, 28, 0, 77);
    expect(decodeReplyHead(reply, 0)).toEqual({ errno: 28, cookie: 77 });
    reply[0] = 0;
    expect(decodeReplyHead(reply, 0)).toBeNull();
  });
});
