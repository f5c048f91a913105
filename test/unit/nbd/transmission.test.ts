// Every command in every reply style, good and wrong, through a real socket against a memory export. The oracle is the
// export's own buffer; errno values are those of docs/formats/nbd.md. What is refused must not reach the export, and the
// session must go on. Late answers and failures of the volume are switched on in the export.

import { afterEach, describe, expect, test } from "vitest";
import { errnoOf } from "../../../services/gateway/engine/nbd-request-rules.ts";
import { FileStoreError, VarveError } from "../../../shared/domain/errors.ts";
import { MemoryExport } from "../../tools/memory-export.ts";
import { chunkType, command, commandFlag } from "../../tools/nbd-wire.ts";
import { type Gateway, heapSlabs, pattern, RawClient, type Style, startGateway, until } from "./gateway.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const EPERM = 1;
const EIO = 5;
const EINVAL = 22;
const ENOSPC = 28;
const EOVERFLOW = 75;

let gateway: Gateway;
let client: RawClient;
let disk: MemoryExport;

afterEach(() => {
  client.destroy();
  gateway.close();
});

async function start(
  style: Style,
  options: { sizeBytes?: number; readOnly?: boolean; contexts?: string[]; heap?: boolean } = {},
): Promise<void> {
  disk = new MemoryExport("disk0", {
    sizeBytes: options.sizeBytes ?? MiB,
    readOnly: options.readOnly ?? false,
  });
  gateway = await startGateway([disk], options.heap === true ? { slabs: heapSlabs } : {});
  client = await RawClient.transmitting(gateway.address, style, options.contexts ?? []);
}

const payloadFlag = (): number => (client.style === "extended" ? commandFlag.payloadLength : 0);

async function write(offset: number, data: Buffer, flags = 0): Promise<number> {
  return await client.errnoOf(command.write, offset, data.length, flags | payloadFlag(), data);
}

/** Reads by whatever chunks come, checks that they cover the range once and end with the last. */
async function read(offset: number, length: number, flags = 0): Promise<Buffer> {
  client.send(client.frame(command.read, offset, length, flags));
  if (client.style === "simple") return (await client.simpleReply(length)).data;
  const data = Buffer.alloc(length, 0xaa);
  let covered = 0;
  for (const chunk of await client.reply()) {
    if (chunk.offset !== null) expect(chunk.offset).toBe(BigInt(offset));
    if (chunk.type === chunkType.none) continue;
    const at = Number(chunk.payload.readBigUInt64BE(0)) - offset;
    if (chunk.type === chunkType.offsetHole) {
      const hole = chunk.payload.readUInt32BE(8);
      data.fill(0, at, at + hole);
      covered += hole;
    } else {
      expect(chunk.type).toBe(chunkType.offsetData);
      chunk.payload.copy(data, at, 8);
      covered += chunk.payload.length - 8;
    }
  }
  expect(covered).toBe(length);
  return data;
}

for (const style of ["simple", "structured", "extended"] as const) {
  describe(`${style} replies`, () => {
    for (const heap of [false, true]) {
      test(`data goes in and comes out, ${heap ? "heap" : "native"} memory`, async () => {
        await start(style, { sizeBytes: 40 * MiB, heap });
        for (const bytes of [1, 511, 4096, 40_000, 200_000, 300_000, 5 * MiB, 32 * MiB]) {
          const data = pattern(bytes, bytes);
          const offset = 3 + (bytes % 4096);
          expect(await write(offset, data)).toBe(0);
          expect(disk.data.compare(data, 0, bytes, offset, offset + bytes)).toBe(0);
          expect((await read(offset, bytes)).equals(data)).toBe(true);
        }
      });
    }

    test("reads that are answered later come with their own cookie and data", async () => {
      await start(style);
      pattern(MiB).copy(disk.data);
      disk.allocated.fill(1);
      disk.lateReads = true;
      disk.holdAll = true;
      client.send(client.frame(command.read, 0, 4096, 0, 1n), client.frame(command.read, 8192, 512, 0, 2n));
      await until(() => disk.heldCount === 2);
      disk.release();
      if (style === "simple") {
        expect(await client.simpleReply(4096)).toMatchObject({ errno: 0, cookie: 1n });
        const second = await client.simpleReply(512);
        expect(second.cookie).toBe(2n);
        expect(second.data.equals(disk.data.subarray(8192, 8704))).toBe(true);
      } else {
        expect((await client.chunk()).cookie).toBe(1n);
        const second = await client.chunk();
        expect(second.cookie).toBe(2n);
        expect(second.payload.subarray(8).equals(disk.data.subarray(8192, 8704))).toBe(true);
      }
      expect((await read(100_000, 500_000)).equals(disk.data.subarray(100_000, 600_000))).toBe(true);
    });

    test("FUA goes down with writes, zeroes and trims, and is accepted on every command", async () => {
      await start(style, { contexts: style === "simple" ? [] : ["base:allocation"] });
      const fua = commandFlag.fua;
      expect(await write(0, pattern(512), fua)).toBe(0);
      expect(await write(4096, pattern(100_000), fua)).toBe(0);
      expect(await client.errnoOf(command.writeZeroes, 0, 512, fua)).toBe(0);
      expect(await client.errnoOf(command.trim, 0, 512, fua)).toBe(0);
      expect(await client.errnoOf(command.read, 0, 512, fua)).toBe(0);
      expect(await client.errnoOf(command.flush, 0, 0, fua)).toBe(0);
      expect(await client.errnoOf(command.cache, 0, 512, fua)).toBe(0);
      if (style !== "simple") expect(await client.errnoOf(command.blockStatus, 0, 512, fua)).toBe(0);
      expect(disk.calls.filter((call) => call.endsWith("fua"))).toHaveLength(4);
    });

    test("zeroes, trims, NO_HOLE and FAST_ZERO", async () => {
      await start(style);
      await write(0, pattern(MiB / 2));
      expect(await client.errnoOf(command.writeZeroes, 4096, 8192, commandFlag.noHole)).toBe(0);
      expect(await client.errnoOf(command.writeZeroes, 16384, 4096, commandFlag.fastZero)).toBe(0);
      expect(await client.errnoOf(command.trim, 32768, 5000)).toBe(0);
      expect(disk.calls.slice(-3)).toEqual(["zero 4096+8192 allocate", "zero 16384+4096", "trim 32768+5000"]);
      expect((await read(4096, 8192)).every((byte) => byte === 0)).toBe(true);
    });

    test("zero lengths succeed, but for a status of nothing", async () => {
      await start(style, { contexts: style === "simple" ? [] : ["base:allocation"] });
      expect(await write(0, Buffer.alloc(0))).toBe(0);
      for (const type of [command.read, command.trim, command.writeZeroes, command.cache, command.flush]) {
        expect(await client.errnoOf(type, 0, 0)).toBe(0);
      }
      expect(await client.errnoOf(command.read, MiB, 0)).toBe(0);
      expect(await client.errnoOf(command.blockStatus, 0, 0)).toBe(EINVAL);
      expect(disk.calls.filter((call) => call !== "flush")).toEqual([]);
    });

    test("ranges beyond the end are refused without overflow", async () => {
      await start(style, { contexts: style === "simple" ? [] : ["base:allocation"] });
      const beyond: [number | bigint, number][] = [
        [MiB - 511, 512],
        [MiB, 1],
        [MiB + 1, 1],
        [2n ** 63n, 512],
        [2n ** 64n - 1n, 512],
        [2n ** 64n - 512n, 512],
      ];
      for (const [offset, length] of beyond) {
        expect(await client.errnoOf(command.read, offset, length)).toBe(EINVAL);
        expect(await client.errnoOf(command.trim, offset, length)).toBe(EINVAL);
        expect(await client.errnoOf(command.cache, offset, length)).toBe(EINVAL);
        expect(await client.errnoOf(command.writeZeroes, offset, length)).toBe(ENOSPC);
        const data = Buffer.alloc(length, 1);
        expect(await client.errnoOf(command.write, offset, length, payloadFlag(), data)).toBe(ENOSPC);
        if (style !== "simple")
          expect(await client.errnoOf(command.blockStatus, offset, length)).toBe(EINVAL);
      }
      expect(disk.calls).toEqual([]);
      expect(disk.data.every((byte) => byte === 0)).toBe(true);
    });

    test("unknown commands and misplaced flags are EINVAL and the session goes on", async () => {
      await start(style, { contexts: style === "simple" ? [] : ["base:allocation"] });
      const flag = commandFlag;
      const wrong: [number, number][] = [
        [8, 0],
        [0xffff, 0],
        [command.read, flag.noHole],
        [command.read, flag.reqOne],
        [command.read, 0x8000],
        [command.trim, flag.noHole],
        [command.trim, flag.fastZero],
        [command.flush, flag.noHole],
        [command.cache, flag.dontFragment],
        [command.writeZeroes, flag.dontFragment],
        [command.blockStatus, flag.noHole],
      ];
      if (style === "simple") wrong.push([command.read, flag.dontFragment]);
      if (style !== "extended") wrong.push([command.read, flag.payloadLength]);
      for (const [type, flags] of wrong) {
        expect(await client.errnoOf(type, 0, type === command.flush ? 0 : 512, flags)).toBe(EINVAL);
      }
      expect(await client.errnoOf(command.flush, 0, 512)).toBe(EINVAL);
      expect(await client.errnoOf(command.flush, 512, 0)).toBe(EINVAL);
      expect(disk.calls).toEqual([]);
      expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
    });

    test("a refused write's payload is consumed, up to far more than 32 MiB", async () => {
      await start(style, { sizeBytes: 100 * MiB });
      const wrong = commandFlag.noHole | payloadFlag();
      expect(await client.errnoOf(command.write, 0, 512, wrong, Buffer.alloc(512, 0x25))).toBe(EINVAL);
      const long = Buffer.alloc(33 * MiB, 0x25);
      expect(await client.errnoOf(command.write, 0, long.length, payloadFlag(), long)).toBe(EINVAL);
      expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
      expect(disk.calls).toEqual(["read 0+512"]);
      client.send(client.frame(command.write, 0, 65 * MiB, payloadFlag()));
      await client.hungUp();
    });

    test("a read longer than the largest payload is EINVAL", async () => {
      await start(style, { sizeBytes: 100 * MiB });
      expect(await client.errnoOf(command.read, 0, 32 * MiB + 1)).toBe(EINVAL);
      expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
    });

    test("effects without payload may be as long as the export", async () => {
      await start(style, { sizeBytes: 64 * MiB });
      expect(await client.errnoOf(command.trim, 0, 64 * MiB)).toBe(0);
      expect(await client.errnoOf(command.writeZeroes, 0, 64 * MiB)).toBe(0);
      expect(await client.errnoOf(command.cache, 0, 64 * MiB)).toBe(0);
    });

    test("a read-only export refuses effects with EPERM and reads on", async () => {
      await start(style, { readOnly: true });
      expect(await write(0, pattern(512))).toBe(EPERM);
      expect(await client.errnoOf(command.trim, 0, 512)).toBe(EPERM);
      expect(await client.errnoOf(command.writeZeroes, 0, 512)).toBe(EPERM);
      expect(await client.errnoOf(command.flush, 0, 0)).toBe(0);
      expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
    });

    test("failures of the volume become their errno, and the session goes on", async () => {
      await start(style);
      const failures: [VarveError, number][] = [
        [new FileStoreError("write", "log", "ENOSPC"), ENOSPC],
        [new FileStoreError("write", "log", "EDQUOT"), ENOSPC],
        [new FileStoreError("write", "log", "EFBIG"), ENOSPC],
        [new FileStoreError("write", "log", "EIO"), EIO],
        [new VarveError("Fenced", "Fenced", "somebody newer writes"), EIO],
        [new VarveError("Quorum", "Retry", "no quorum"), EIO],
        [new VarveError("Bad", "Corrupt", "damaged"), EIO],
      ];
      disk.allocated.fill(1);
      for (const [failure, errno] of failures) {
        disk.failWrites = failure;
        expect(await write(0, pattern(512))).toBe(errno);
        expect(await write(0, pattern(200_000))).toBe(errno);
        expect(await client.errnoOf(command.writeZeroes, 0, 512)).toBe(errno);
        expect(await client.errnoOf(command.trim, 0, 512)).toBe(errno);
        expect(await client.errnoOf(command.flush, 0, 0)).toBe(errno);
        disk.failWrites = null;
        disk.failReads = failure;
        for (const length of [512, 100_000, 900_000]) {
          expect(await client.errnoOf(command.read, 0, length)).toBe(errno);
        }
        disk.failReads = null;
      }
      expect(disk.slotsLent).toBe(0);
      expect(await write(0, pattern(512))).toBe(0);
      expect((await read(0, 512)).equals(pattern(512))).toBe(true);
    });

    test("DISC finishes what is in flight, then closes without a reply", async () => {
      await start(style);
      disk.holdAll = true;
      const data = pattern(4096);
      client.send(
        client.frame(command.write, 0, 4096, payloadFlag(), 1n, data),
        client.frame(command.disconnect, 0, 0, 0, 2n),
        client.frame(command.write, 8192, 4096, payloadFlag(), 3n, data),
      );
      await until(() => disk.heldCount === 1);
      disk.release();
      const cookie = style === "simple" ? (await client.simpleReply()).cookie : (await client.chunk()).cookie;
      expect(cookie).toBe(1n);
      await client.hungUp();
      expect(disk.calls).toEqual(["write 0+4096"]);
      client.destroy();
      await until(() => disk.sessions === 0);
    });
  });
}

describe("structured and extended reads", () => {
  test("holes come as hole chunks, data around them as data, exactly once", async () => {
    await start("structured", { sizeBytes: 8 * MiB });
    await write(MiB, pattern(MiB));
    await write(3 * MiB + 4096, pattern(4096));
    client.send(client.frame(command.read, 0, 8 * MiB));
    const chunks = await client.reply();
    const holes = chunks.filter(({ type }) => type === chunkType.offsetHole);
    expect(holes.map(({ payload }) => [Number(payload.readBigUInt64BE(0)), payload.readUInt32BE(8)])).toEqual(
      [
        [0, MiB],
        [2 * MiB, MiB + 4096],
        [3 * MiB + 8192, 5 * MiB - 8192],
      ],
    );
    expect((await read(0, 8 * MiB)).equals(disk.data)).toBe(true);
    expect((await read(MiB - 5, MiB + 77)).equals(disk.data.subarray(MiB - 5, 2 * MiB + 72))).toBe(true);
  });

  test("holes too short for a chunk are sent as data", async () => {
    await start("structured", { sizeBytes: 8 * MiB });
    for (let at = 0; at < MiB; at += 16 * KiB) await write(at, pattern(4096, at));
    client.send(client.frame(command.read, 0, MiB));
    const chunks = await client.reply();
    expect(chunks.every(({ type }) => type === chunkType.offsetData)).toBe(true);
    expect((await read(0, MiB)).equals(disk.data.subarray(0, MiB))).toBe(true);
  });

  test("DF answers by one chunk up to the largest payload", async () => {
    await start("structured", { sizeBytes: 40 * MiB });
    pattern(40 * MiB).copy(disk.data);
    for (const length of [64 * KiB, 300_000, 32 * MiB]) {
      client.send(client.frame(command.read, 4096, length, commandFlag.dontFragment));
      const chunks = await client.reply();
      expect(chunks).toHaveLength(1);
      const data = chunks[0]?.payload.subarray(8) ?? Buffer.alloc(0);
      expect(data.equals(disk.data.subarray(4096, 4096 + length))).toBe(true);
    }
    expect(await client.errnoOf(command.read, 0, 33 * MiB, commandFlag.dontFragment)).toBe(EOVERFLOW);
  });

  test("late pieces of a large read come in any order, the last chunk last", async () => {
    await start("structured", { sizeBytes: 4 * MiB });
    pattern(4 * MiB).copy(disk.data);
    disk.allocated.fill(1);
    disk.lateReads = true;
    expect((await read(0, 4 * MiB)).equals(disk.data)).toBe(true);
  });

  test("a piece that fails says where, and the reply still ends", async () => {
    await start("structured", { sizeBytes: 4 * MiB });
    disk.allocated.fill(1);
    disk.failReads = new VarveError("Damaged", "Corrupt", "extent 3 is damaged");
    client.send(client.frame(command.read, 0, MiB));
    const chunks = await client.reply();
    const failed = chunks.filter(({ type }) => type === chunkType.errorOffset);
    expect(failed.length).toBeGreaterThan(0);
    expect(failed[0]?.payload.readUInt32BE(0)).toBe(EIO);
    expect(failed[0]?.payload.toString("utf8", 6, 6 + 19)).toBe("extent 3 is damaged");
    expect(failed[0]?.payload.readBigUInt64BE(6 + 19)).toBe(0n);
    disk.failReads = null;
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
  });

  test("an error's message is cut to what a chunk may hold", async () => {
    await start("structured");
    disk.failWrites = new VarveError("Long", "Internal", "ü".repeat(10_000));
    client.send(client.frame(command.flush, 0, 0));
    const chunk = await client.chunk();
    expect(chunk.type).toBe(chunkType.error);
    expect(chunk.payload.readUInt16BE(4)).toBeLessThanOrEqual(4096);
    expect(chunk.payload.toString("utf8", 6)).toMatch(/^ü+$/);
  });
});

describe("block status", () => {
  const descriptors = (payload: Buffer): [number, number][] => {
    const all: [number, number][] = [];
    for (let at = 4; at < payload.length; at += 8) {
      all.push([payload.readUInt32BE(at), payload.readUInt32BE(at + 4)]);
    }
    return all;
  };

  test("one chunk per chosen context, clipped to the range", async () => {
    await start("structured", { sizeBytes: MiB, contexts: ["base:allocation", "varve:residency"] });
    await write(64 * KiB, pattern(64 * KiB));
    client.send(client.frame(command.blockStatus, 4096, 200 * KiB));
    const chunks = await client.reply();
    expect(chunks.map(({ type }) => type)).toEqual([chunkType.blockStatus, chunkType.blockStatus]);
    expect(chunks.map(({ payload }) => payload.readUInt32BE(0))).toEqual([1, 2]);
    expect(descriptors(chunks[0]?.payload ?? Buffer.alloc(0))).toEqual([
      [60 * KiB, 3],
      [64 * KiB, 0],
      [76 * KiB, 3],
    ]);
    expect(descriptors(chunks[1]?.payload ?? Buffer.alloc(0))).toEqual([[200 * KiB, 0]]);
  });

  test("REQ_ONE gets one descriptor, not longer than asked", async () => {
    await start("structured", { sizeBytes: MiB, contexts: ["base:allocation"] });
    await write(64 * KiB, pattern(64 * KiB));
    for (const [offset, length, expected] of [
      [0, 512, 512],
      [0, MiB, 64 * KiB],
      [64 * KiB, MiB - 64 * KiB, 64 * KiB],
    ] as const) {
      client.send(client.frame(command.blockStatus, offset, length, commandFlag.reqOne));
      expect(descriptors((await client.chunk()).payload)).toEqual([[expected, offset === 0 ? 3 : 0]]);
    }
  });

  test("never more descriptors than fit, the rest by the next request", async () => {
    await start("structured", { sizeBytes: 64 * MiB, contexts: ["base:allocation"] });
    for (let block = 0; block < disk.allocated.length; block += 2) disk.allocated[block] = 1;
    client.send(client.frame(command.blockStatus, 0, 64 * MiB));
    const all = descriptors((await client.chunk()).payload);
    expect(all).toHaveLength(4096);
    expect(all.slice(0, -1).reduce((sum, [length]) => sum + length, 0)).toBeLessThan(64 * MiB);
  });

  test("extended headers have 64-bit descriptors and the request's offset", async () => {
    await start("extended", { sizeBytes: MiB, contexts: ["base:allocation"] });
    client.send(client.frame(command.blockStatus, 8192, 16384));
    const chunk = await client.chunk();
    expect(chunk.type).toBe(chunkType.blockStatusExtended);
    expect(chunk.offset).toBe(8192n);
    expect([chunk.payload.readUInt32BE(0), chunk.payload.readUInt32BE(4)]).toEqual([1, 1]);
    expect([chunk.payload.readBigUInt64BE(8), chunk.payload.readBigUInt64BE(16)]).toEqual([16384n, 3n]);
  });

  test("without a chosen context it is EINVAL", async () => {
    await start("structured");
    expect(await client.errnoOf(command.blockStatus, 0, 4096)).toBe(EINVAL);
  });
});

describe("extended headers", () => {
  test("a write without PAYLOAD_LEN has no payload and is EINVAL", async () => {
    await start("extended");
    expect(await client.errnoOf(command.write, 0, 512)).toBe(EINVAL);
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
  });

  test("a payload on another command is consumed, then EINVAL", async () => {
    await start("extended", { contexts: ["base:allocation"] });
    const flag = commandFlag.payloadLength;
    for (const type of [
      command.read,
      command.trim,
      command.blockStatus,
      command.writeZeroes,
      command.cache,
    ]) {
      expect(await client.errnoOf(type, 0, 600, flag, Buffer.alloc(600, 0x21))).toBe(EINVAL);
    }
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
    expect(disk.calls).toEqual(["read 0+512"]);
  });

  test("64-bit lengths beyond the export are refused", async () => {
    await start("extended");
    expect(await client.errnoOf(command.trim, 0, 2n ** 63n)).toBe(EINVAL);
    expect(await client.errnoOf(command.writeZeroes, 4096, 2n ** 64n - 1n)).toBe(ENOSPC);
    expect(await client.errnoOf(command.read, 0, 2n ** 40n)).toBe(EINVAL);
    expect(await client.errnoOf(command.read, 0, 512)).toBe(0);
  });
});

test("a file of the server's that is gone is EIO for the client: its request was in order", () => {
  expect(errnoOf(new FileStoreError("replace", "/d/disk.raw.checkpoint", "ENOENT"))).toBe(5);
  expect(errnoOf(new FileStoreError("write", "/d/disk.raw", "ENOSPC"))).toBe(28);
});
