// The handshake: every option in its good form, every wrong one, in the order of docs/specs/nbd-gateway.md.
// Real sockets against an NbdServer with memory exports; a wrong input must be answered (or hung up on) and leave the
// session, the server and other clients as they were.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type ErrorKind, VarveError } from "../../../shared/domain/errors.ts";
import { MemoryExport } from "../../tools/memory-export.ts";
import {
  command,
  encodeGo,
  encodeMetaQuery,
  encodeOption,
  info,
  option,
  optionReply,
  transmissionFlag,
} from "../../tools/nbd-wire.ts";
import { type Gateway, RawClient, startGateway } from "./gateway.ts";

let gateway: Gateway;
let client: RawClient;
const disk = new MemoryExport("disk0", { sizeBytes: 1024 * 1024, description: "the first" });
const frozen = new MemoryExport("frozen", { readOnly: true });

beforeEach(async () => {
  gateway = await startGateway([disk, frozen]);
  client = await RawClient.haggling(gateway.address);
});

afterEach(() => {
  client.destroy();
  gateway.close();
});

const types = (answers: readonly { readonly type: number }[]): number[] => answers.map(({ type }) => type);

/** The session still works: GO and a read. */
async function stillServes(): Promise<void> {
  expect(types(await client.ask(option.go, encodeGo("disk0"))).at(-1)).toBe(optionReply.ack);
  expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
}

describe("flags", () => {
  test("an unknown client flag closes", async () => {
    const other = await RawClient.connect(gateway.address);
    other.sendFlags(0x83);
    await other.hungUp();
    await stillServes();
  });

  test("a client without fixed newstyle is closed", async () => {
    const other = await RawClient.connect(gateway.address);
    other.sendFlags(0);
    await other.hungUp();
    await stillServes();
  });

  test("a wrong option magic closes", async () => {
    client.send(Buffer.alloc(16, 0x20));
    await client.hungUp();
  });
});

describe("EXPORT_NAME", () => {
  test("answers 10 bytes to a client that wants no zeroes", async () => {
    client.sendOption(option.exportName, Buffer.from("disk0"));
    const answer = await client.wire.receive(10);
    expect(answer.readBigUInt64BE(0)).toBe(BigInt(disk.sizeBytes));
    expect(answer.readUInt16BE(8) & transmissionFlag.hasFlags).toBe(1);
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
  });

  test("answers 124 zeroes more to one that said nothing of them", async () => {
    const old = await RawClient.connect(gateway.address);
    old.sendFlags(1);
    old.sendOption(option.exportName, Buffer.from("disk0"));
    const answer = await old.wire.receive(134);
    expect(answer.subarray(10).every((byte) => byte === 0)).toBe(true);
    expect(await old.errnoOf(command.read, 0, 512)).toBe(0);
    old.destroy();
  });

  test("an unknown name closes", async () => {
    client.sendOption(option.exportName, Buffer.from("nowhere"));
    await client.hungUp();
  });

  test("is refused after extended headers", async () => {
    await client.ask(option.extendedHeaders);
    client.sendOption(option.exportName, Buffer.from("disk0"));
    await client.hungUp();
  });

  test("a name that is no UTF-8 closes", async () => {
    client.sendOption(option.exportName, Buffer.from([0xff, 0xfe]));
    await client.hungUp();
  });
});

describe("ABORT", () => {
  test("is acknowledged, then the server closes; its data does not matter", async () => {
    client.sendOption(option.abort, Buffer.from("bye"));
    expect((await client.answer(option.abort)).type).toBe(optionReply.ack);
    await client.hungUp();
  });
});

describe("LIST", () => {
  test("names every export with its description", async () => {
    const answers = await client.ask(option.list);
    expect(types(answers)).toEqual([optionReply.server, optionReply.server, optionReply.ack]);
    const first = answers[0]?.data ?? Buffer.alloc(0);
    expect(first.readUInt32BE(0)).toBe(5);
    expect(first.toString("utf8", 4)).toBe("disk0the first");
    await stillServes();
  });

  test("with data is invalid", async () => {
    expect(types(await client.ask(option.list, Buffer.from("x")))).toEqual([optionReply.invalid]);
    await stillServes();
  });
});

describe("INFO and GO", () => {
  test("answer the same, with name, description and block size on request; unknown types are ignored", async () => {
    const wanted = [info.name, info.description, info.blockSize, 999];
    const infoAnswers = await client.ask(option.info, encodeGo("disk0", wanted));
    const goAnswers = await client.ask(option.go, encodeGo("disk0", wanted));
    expect(goAnswers).toEqual(infoAnswers);
    const byType = new Map(infoAnswers.slice(0, -1).map(({ data }) => [data.readUInt16BE(0), data]));
    expect([...byType.keys()].sort((a, b) => a - b)).toEqual([
      info.export,
      info.name,
      info.description,
      info.blockSize,
    ]);
    expect(byType.get(info.name)?.toString("utf8", 2)).toBe("disk0");
    expect(byType.get(info.description)?.toString("utf8", 2)).toBe("the first");
    const sizes = byType.get(info.blockSize) ?? Buffer.alloc(14);
    expect([sizes.readUInt32BE(2), sizes.readUInt32BE(6), sizes.readUInt32BE(10)]).toEqual([
      1,
      4096,
      32 * 1024 * 1024,
    ]);
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
  });

  test("a client that asks for nothing is told the export and served", async () => {
    const answers = await client.ask(option.go, encodeGo("disk0"));
    expect(types(answers)).toEqual([optionReply.info, optionReply.ack]);
    expect(answers[0]?.data.readUInt16BE(0)).toBe(info.export);
  });

  test("flags say what the export can, and DF only with structured replies", async () => {
    const flagsOf = async (name: string): Promise<number> => {
      const answers = await client.ask(option.info, encodeGo(name));
      return answers[0]?.data.readUInt16BE(10) ?? 0;
    };
    const flag = transmissionFlag;
    const always = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.canMultiConn | flag.sendCache;
    const effects = flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
    expect(await flagsOf("disk0")).toBe(always | effects);
    expect(await flagsOf("frozen")).toBe(always | flag.readOnly);
    await client.ask(option.structuredReply);
    expect(await flagsOf("disk0")).toBe(always | effects | flag.sendDf);
  });

  test("an unknown name is said so and the session goes on", async () => {
    for (const number of [option.info, option.go]) {
      const answers = await client.ask(number, encodeGo("nowhere"));
      expect(types(answers)).toEqual([optionReply.unknown]);
      expect(answers[0]?.data.toString()).toContain("nowhere");
    }
    await stillServes();
  });

  const refusals: readonly [string, ErrorKind, number][] = [
    ["BucketAway", "Retry", optionReply.shutdown],
    ["NewerWriter", "Fenced", optionReply.shutdown],
    ["PointNotThere", "Invalid", optionReply.unknown],
    ["UnknownSnapshotError", "Invalid", optionReply.unknown],
    ["FlushVolumeRefused", "Invalid", optionReply.policy],
    ["VolumeMovedError", "Invalid", optionReply.policy],
    ["PointSyntaxError", "Invalid", optionReply.invalid],
    ["Damaged", "Corrupt", optionReply.platform],
    ["NoRoom", "Full", optionReply.platform],
    ["Broken", "Internal", optionReply.platform],
  ];
  test("an export that does not open is refused by what its client must do", async () => {
    await client.ask(option.structuredReply);
    for (const [tag, kind, type] of refusals) {
      const error = new VarveError(tag, kind, "the volume is halted", { hint: "Look at its status." });
      gateway.directory.refusals.set("disk0", error);
      for (const number of [option.info, option.go]) {
        const answers = await client.ask(number, encodeGo("disk0"));
        expect([tag, types(answers)]).toEqual([tag, [type]]);
        expect(answers[0]?.data.toString()).toBe("the volume is halted. Look at its status.");
      }
      const query = encodeMetaQuery("disk0", ["base:allocation"]);
      expect(types(await client.ask(option.setMetaContext, query))).toEqual([type]);
    }
    gateway.directory.refusals.clear();
    client.style = "structured";
    await stillServes();
  });

  test("malformed data is invalid and the session goes on", async () => {
    const good = encodeGo("disk0", [info.name]);
    const nameBeyond = Buffer.from(good);
    nameBeyond.writeUInt32BE(0xffffffff, 0);
    const oneTypeMore = Buffer.from(good);
    oneTypeMore.writeUInt16BE(2, 4 + 5);
    const wrong = [
      Buffer.alloc(0),
      Buffer.alloc(5),
      good.subarray(0, good.length - 1),
      Buffer.concat([good, Buffer.alloc(1)]),
      nameBeyond,
      oneTypeMore,
      encodeGo("a".repeat(4097)),
    ];
    for (const data of wrong) {
      expect(types(await client.ask(option.go, data))).toEqual([optionReply.invalid]);
    }
    const notUtf8 = Buffer.from(good);
    notUtf8[4] = 0xff;
    expect(types(await client.ask(option.info, notUtf8))).toEqual([optionReply.invalid]);
    await stillServes();
  });

  test("exports opened on the way are closed again", async () => {
    const before = disk.sessions + frozen.sessions;
    await client.ask(option.info, encodeGo("disk0"));
    await client.ask(option.info, encodeGo("frozen"));
    await client.ask(option.go, encodeGo("disk0"));
    expect(disk.sessions + frozen.sessions).toBe(before + 1);
  });
});

describe("styles", () => {
  test("structured replies and extended headers are acknowledged; data with them is invalid", async () => {
    expect(types(await client.ask(option.structuredReply, Buffer.alloc(1)))).toEqual([optionReply.invalid]);
    expect(types(await client.ask(option.structuredReply))).toEqual([optionReply.ack]);
    expect(types(await client.ask(option.extendedHeaders, Buffer.alloc(1)))).toEqual([optionReply.invalid]);
    expect(types(await client.ask(option.extendedHeaders))).toEqual([optionReply.ack]);
  });

  test("extended headers work alone, and structured replies after them are refused", async () => {
    expect(types(await client.ask(option.extendedHeaders))).toEqual([optionReply.ack]);
    expect(types(await client.ask(option.structuredReply))).toEqual([optionReply.extendedHeadersRequired]);
    await client.ask(option.go, encodeGo("disk0"));
    client.style = "extended";
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
  });
});

describe("metadata contexts", () => {
  const names = (answers: readonly { type: number; data: Buffer }[]): string[] =>
    answers
      .filter(({ type }) => type === optionReply.metaContext)
      .map(({ data }) => data.toString("utf8", 4));

  beforeEach(async () => {
    await client.ask(option.structuredReply);
  });

  test("LIST without a query names all, with a namespace those in it; unknown ones are left out", async () => {
    const list = async (queries: string[]): Promise<string[]> =>
      names(await client.ask(option.listMetaContext, encodeMetaQuery("disk0", queries)));
    expect(await list([])).toEqual(["base:allocation", "varve:residency"]);
    expect(await list(["base:"])).toEqual(["base:allocation"]);
    expect(await list(["base:allocation", "base:", "qemu:dirty-bitmap:x"])).toEqual(["base:allocation"]);
    expect(await list(["nothing"])).toEqual([]);
  });

  test("SET takes exact names, each once, and no wildcard", async () => {
    const set = async (queries: string[]): Promise<string[]> =>
      names(await client.ask(option.setMetaContext, encodeMetaQuery("disk0", queries)));
    expect(await set(["base:"])).toEqual([]);
    expect(await set([])).toEqual([]);
    expect(await set(["base:allocation", "base:allocation", "other:thing"])).toEqual(["base:allocation"]);
  });

  test("a failed SET forgets the choice before it", async () => {
    await client.ask(option.setMetaContext, encodeMetaQuery("disk0", ["base:allocation"]));
    expect(types(await client.ask(option.setMetaContext, Buffer.alloc(3)))).toEqual([optionReply.invalid]);
    await client.ask(option.go, encodeGo("disk0"));
    client.style = "structured";
    expect(await client.errnoOf(command.blockStatus, 0, 4096)).toBe(22);
  });

  test("a choice for another export does not count", async () => {
    await client.ask(option.setMetaContext, encodeMetaQuery("frozen", ["base:allocation"]));
    await client.ask(option.go, encodeGo("disk0"));
    client.style = "structured";
    expect(await client.errnoOf(command.blockStatus, 0, 4096)).toBe(22);
  });

  test("a choice for the export that is chosen counts", async () => {
    await client.ask(option.setMetaContext, encodeMetaQuery("disk0", ["base:allocation"]));
    await client.ask(option.go, encodeGo("disk0"));
    client.style = "structured";
    expect(await client.errnoOf(command.blockStatus, 0, 4096)).toBe(0);
  });

  test("an unknown export is said so", async () => {
    const answers = await client.ask(option.setMetaContext, encodeMetaQuery("nowhere", ["base:allocation"]));
    expect(types(answers)).toEqual([optionReply.unknown]);
  });

  test("wrong lengths are invalid and the session goes on", async () => {
    const good = encodeMetaQuery("disk0", ["base:allocation"]);
    const queryBeyond = Buffer.from(good);
    queryBeyond.writeUInt32BE(0xfffffff0, 4 + 5 + 4);
    const oneMore = Buffer.from(good);
    oneMore.writeUInt32BE(2, 4 + 5);
    const wrong = [good.subarray(0, 7), good.subarray(0, -1), Buffer.concat([good, Buffer.alloc(1)])];
    for (const data of [...wrong, queryBeyond, oneMore, encodeMetaQuery("disk0", ["x".repeat(4097)])]) {
      expect(types(await client.ask(option.listMetaContext, data))).toEqual([optionReply.invalid]);
    }
    await client.ask(option.go, encodeGo("disk0"));
  });
});

describe("limits of the handshake", () => {
  test("contexts before structured replies are invalid", async () => {
    const query = encodeMetaQuery("disk0", ["base:allocation"]);
    expect(types(await client.ask(option.setMetaContext, query))).toEqual([optionReply.invalid]);
    await stillServes();
  });

  test("STARTTLS is unsupported and the session goes on", async () => {
    expect(types(await client.ask(option.startTls))).toEqual([optionReply.unsupported]);
    await stillServes();
  });

  test("an unknown option is unsupported, its data is consumed", async () => {
    expect(types(await client.ask(4711, Buffer.alloc(3000, 0x49)))).toEqual([optionReply.unsupported]);
    await stillServes();
  });

  test("an option longer than allowed is skipped without being kept", async () => {
    expect(types(await client.ask(option.go, Buffer.alloc(900_000)))).toEqual([optionReply.tooBig]);
    await stillServes();
  });

  test("an option that claims more than is ever skipped closes", async () => {
    const header = encodeOption(option.go);
    header.writeUInt32BE(0x7fffffff, 12);
    client.send(header);
    await client.hungUp();
  });

  test("more options than a session may have close", async () => {
    const list = encodeOption(option.abort + 90);
    client.send(...Array.from({ length: 257 }, () => list));
    for (let count = 0; count < 256; count += 1) await client.answer(option.abort + 90);
    await client.hungUp();
  });

  test("a client that says nothing is closed after the handshake's time, and one that haggles too", async () => {
    const silent = await RawClient.connect(gateway.address);
    await client.ask(option.list);
    gateway.clock.advance(29_000);
    await client.ask(option.list);
    gateway.clock.advance(2_000);
    await silent.hungUp();
    await client.hungUp();
  });

  test("a client that runs away in the middle of an option is forgotten", async () => {
    const header = encodeOption(option.go);
    header.writeUInt32BE(100, 12);
    client.send(header);
    client.destroy();
    const other = await RawClient.transmitting(gateway.address);
    expect(await other.errnoOf(command.read, 0, 512)).toBe(0);
    expect(gateway.server.connections()).toHaveLength(1);
    other.destroy();
  });

  test("options sent at once, and byte by byte, are answered in order", async () => {
    const script = Buffer.concat([
      encodeOption(option.structuredReply),
      encodeOption(option.list),
      encodeOption(option.setMetaContext, encodeMetaQuery("disk0", ["base:allocation"])),
      encodeOption(option.info, encodeGo("frozen")),
      encodeOption(option.go, encodeGo("disk0")),
    ]);
    const expected = [option.structuredReply, option.list, option.setMetaContext, option.info, option.go];
    client.send(script);
    for (const number of expected) expect((await client.answers(number)).at(-1)?.type).toBe(optionReply.ack);
    const slow = await RawClient.haggling(gateway.address);
    for (const byte of script) {
      slow.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (const number of expected) expect((await slow.answers(number)).at(-1)?.type).toBe(optionReply.ack);
    slow.destroy();
  });
});
