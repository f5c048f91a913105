// The bytes of generic netlink as varve attach sends and reads them, against golden bytes written by hand from the kernel's headers
// (linux/netlink.h, linux/genetlink.h, linux/nbd-netlink.h), and answers that are cut or lie about their length.
import { describe, expect, test } from "vitest";
import {
  attribute,
  attributeList,
  decodeAttributes,
  decodeDeviceIndex,
  decodeFamily,
  decodeNetlinkMessages,
  encodeNetlinkRequest,
  socketsAttribute,
  textAttribute,
  uint32Attribute,
  uint64Attribute,
} from "../../services/cli/attach/netlink-message.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ""), "hex");

describe("requests", () => {
  test("GETFAMILY nbd", () => {
    const request = encodeNetlinkRequest(16, 3, 1, [textAttribute(2, "nbd")]);
    expect(request).toEqual(hex("1c000000 1000 0500 01000000 00000000 03 01 0000 0800 0200 6e626400"));
  });

  test("CONNECT with size, flags and two sockets", () => {
    const attributes = [
      uint32Attribute(1, 3),
      uint64Attribute(2, 268_435_456),
      uint64Attribute(5, 0x10d),
      socketsAttribute([20, 21]),
    ];
    expect(encodeNetlinkRequest(28, 1, 7, attributes)).toEqual(
      hex(`50000000 1c00 0500 07000000 00000000 01 01 0000
        0800 0100 03000000
        0c00 0200 0000001000000000
        0c00 0500 0d01000000000000
        1c00 0780 0c00 0180 0800 0100 14000000 0c00 0180 0800 0100 15000000`),
    );
  });

  test("an attribute is padded to four bytes, its length is not", () => {
    expect(attribute(9, Buffer.from("abcde"))).toEqual(hex("0900 0900 6162636465 000000"));
  });
});

describe("answers", () => {
  const linkDead = "1c000000 1c00 0000 00000000 00000000 04 00 0000 0800 0100 02000000";

  test("an event of a dead link, with another message behind it", () => {
    const found = decodeNetlinkMessages(hex(`${linkDead}${linkDead.replace("02000000", "05000000")}`));
    expect(found.map((one) => [one.type, one.command, decodeDeviceIndex(one.attributes)])).toEqual([
      [28, 4, 2],
      [28, 4, 5],
    ]);
  });

  test("an acknowledgement, and a refusal with its errno", () => {
    const ack = hex("24000000 0200 0001 01000000 00000000 00000000 1c000000100005000100000000000000");
    const busy = hex("24000000 0200 0000 01000000 00000000 f0ffffff 1c000000100005000100000000000000");
    expect(decodeNetlinkMessages(ack)).toMatchObject([{ type: 2, errno: 0 }]);
    expect(decodeNetlinkMessages(busy)).toMatchObject([{ type: 2, errno: -16 }]);
  });

  test("the family's number and its group", () => {
    const group = hex("2400 0700 2000 0100 1200 0100 6e62645f6d635f67726f757000 000000 0800 0200 09000000");
    const family = Buffer.concat([hex("0600 0100 1c00 0000"), group]);
    expect(decodeFamily(family)).toEqual({ family: 28, group: 9 });
    expect(decodeFamily(group)).toBeNull();
    expect(decodeFamily(hex("0600 0100 1c00 0000"))).toBeNull();
  });

  test("what is cut short or lies about its length is left out, at every length", () => {
    const whole = hex(linkDead);
    for (let length = 0; length < whole.length; length += 1) {
      expect(decodeNetlinkMessages(whole.subarray(0, length))).toEqual([]);
    }
    expect(attributeList(hex("0300 0100 00000000"))).toEqual([]);
    expect(attributeList(hex("0c00 0100 00000000"))).toEqual([]);
    expect(decodeDeviceIndex(hex("0600 0100 0100 0000"))).toBeNull();
    expect(decodeAttributes(hex("0800 0180 07000000")).get(1)).toEqual(hex("07000000"));
  });
});
