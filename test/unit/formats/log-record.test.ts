// Records against themselves and against garbage: random drafts come back as they went in, the largest draft fits its block,
// each rule of docs/formats/log-record.md has a record that breaks only it, and random damage behind repaired checksums is
// either refused or is exactly a record that Varve would have written.
import { describe, expect, test } from "vitest";
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import {
  frameRecord,
  isBadRecord,
  type RecordFrame,
  readRecord,
  readRecordHeader,
  readRecordPayload,
} from "#shared/formats/log-record.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const line = "0123456789abcdef";
const frame: RecordFrame = { line, epoch: 1, wallTimeMs: 1000, durableLsn: 0, previousChecksum: 0n };
const draftOf = (blocks: number): BatchDraft<{ bytes: Buffer; address: number }> =>
  new BatchDraft({ bytes: Buffer.alloc(blocks * 4096, 0xee), address: 0 });

/** A small framed record: write of five bytes at 4096, then a trim. */
function small(): Buffer {
  const draft = draftOf(2);
  draft.slab.bytes.write("varve", draft.addWrite(4096, 5), "latin1");
  draft.addRange(entryKind.trim, 8192, 4096);
  draft.firstLsn = 1;
  frameRecord(draft, frame);
  return draft.slab.bytes;
}

/** Makes both checksums true again after a change. */
function seal(bytes: Buffer): Buffer {
  const payloadStart = bytes.readUInt32LE(20);
  const recordBytes = bytes.readUInt32LE(16);
  if (payloadStart <= recordBytes && recordBytes <= bytes.length) {
    bytes.writeBigUInt64LE(checksumOf(bytes.subarray(payloadStart, recordBytes)), 64);
  }
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8, Math.min(payloadStart, bytes.length))), 0);
  return bytes;
}

const faultOf = (bytes: Buffer, home: "blocks" | "packed" = "blocks"): string => {
  const result = readRecord(bytes, 0, home);
  return isBadRecord(result) ? result.fault : "none";
};

/** What a batch read back would make of a draft. */
function redraft(batch: Batch): BatchDraft<{ bytes: Buffer; address: number }> {
  const draft = draftOf(1 + Math.max(1, Math.ceil(batch.payload.length / 4096)));
  for (const entry of batch.entries) {
    if (entry.kind === "write") {
      const at = draft.addWrite(entry.offset, entry.length);
      draft.slab.bytes.set(batch.payload.subarray(entry.payloadStart, entry.payloadStart + entry.length), at);
    } else if (entry.kind === "epoch") draft.addValue(entryKind.epoch, entry.writer);
    else if (entry.kind === "mark") draft.addValue(entryKind.mark, entry.name);
    else if (entry.kind === "resize") draft.addValue(entryKind.resize, entry.sizeBytes);
    else if (entry.kind === "rebase") draft.addValue(entryKind.rebase, entry.lsn);
    else draft.addRange(entryKind[entry.kind], entry.offset, entry.length);
  }
  draft.firstLsn = batch.firstLsn;
  frameRecord(draft, batch);
  return draft;
}

describe("round trip", () => {
  test("random drafts come back entry by entry and byte by byte", () => {
    const random = new SeededRandom(11);
    for (let round = 0; round < 300; round += 1) {
      const draft = draftOf(1 + random.between(1, 40));
      const count = random.logUniform(1, limits.batchEntriesMax + 1);
      while (draft.entryCount < count && draft.fits(0)) addRandomEntry(draft, random);
      draft.firstLsn = random.logUniform(1000, 2 ** 53 - 1000);
      const own: RecordFrame = {
        line,
        epoch: random.logUniform(1, 2 ** 40),
        wallTimeMs: random.logUniform(1, 2 ** 44),
        durableLsn: random.between(0, 1000),
        previousChecksum: BigInt(random.uint32()) << 32n,
      };
      const kinds = draft.kinds.slice();
      const offsets = draft.offsets.slice();
      frameRecord(draft, own);
      const bytes = Buffer.concat([Buffer.alloc(4096, 1), draft.slab.bytes, Buffer.alloc(4096, 2)]);
      const batch = readRecord(bytes, 4096) as Batch;
      expect(batch).toMatchObject({ ...own, firstLsn: draft.firstLsn, checksum: draft.checksum });
      expect(batch.entries.map((entry) => entryKind[entry.kind])).toEqual(kinds);
      expect(batch.entries.map((entry) => ("offset" in entry ? entry.offset : 0))).toEqual(offsets);
      expect(draft.slab.bytes.subarray(4096, 4096 + draft.payloadBytes).equals(batch.payload)).toBe(true);
      const again = redraft(batch);
      expect(
        again.slab.bytes
          .subarray(0, draft.recordBytes)
          .equals(draft.slab.bytes.subarray(0, draft.recordBytes)),
      ).toBe(true);
    }
  });

  test("a reused draft carries nothing over", () => {
    const draft = draftOf(3);
    draft.slab.bytes.fill(0x77, draft.addWrite(0, 8192));
    draft.addValue(entryKind.mark, "before");
    draft.firstLsn = 1;
    frameRecord(draft, frame);
    draft.reset();
    draft.slab.bytes.write("varve", draft.addWrite(4096, 5), "latin1");
    draft.addRange(entryKind.trim, 8192, 4096);
    draft.firstLsn = 1;
    frameRecord(draft, frame);
    expect(draft.slab.bytes.subarray(0, 8192).equals(small())).toBe(true);
    expect(draft.recordBytes).toBe(8192);
  });
});

function addRandomEntry(draft: BatchDraft, random: SeededRandom): void {
  const kind = random.between(0, 8);
  const room = draft.payloadCapacityBytes - draft.payloadBytes;
  if (kind === entryKind.write && room > 0) {
    const length = random.logUniform(1, room + 1);
    const at = draft.addWrite(random.logUniform(1, 2 ** 49), length);
    for (let index = 0; index < length; index += 1) draft.slab.bytes[at + index] = random.uint32();
  } else if (kind === entryKind.zero || kind === entryKind.zeroAllocated || kind === entryKind.trim) {
    draft.addRange(kind, random.logUniform(1, 2 ** 49), random.logUniform(1, 2 ** 49));
  } else if (kind === entryKind.epoch && draft.fitsValue("a b".repeat(40)))
    draft.addValue(kind, "a b".repeat(random.between(1, 41)));
  else if (kind === entryKind.mark && draft.fitsValue("m".repeat(63)))
    draft.addValue(kind, "m".repeat(random.between(1, 64)));
  else if (kind === entryKind.rebase && draft.fitsValue(0)) draft.addValue(kind, random.between(1, 1000));
  else draft.addValue(entryKind.resize, random.logUniform(512, 2 ** 50));
}

describe("header room", () => {
  const largest: RecordFrame = {
    line,
    epoch: Number.MAX_SAFE_INTEGER,
    wallTimeMs: Number.MAX_SAFE_INTEGER,
    durableLsn: 0,
    previousChecksum: 2n ** 64n - 1n,
  };

  test("200 of the largest ranges fit, and one more is refused before anything is written", () => {
    const draft = draftOf(2);
    while (draft.fits(0)) draft.addRange(entryKind.zeroAllocated, 2 ** 49 + 1, 2 ** 49 - 1);
    expect(draft.entryCount).toBe(limits.batchEntriesMax);
    expect(() => draft.addRange(entryKind.trim, 0, 1)).toThrow("invariant");
    draft.firstLsn = 2 ** 53 - 300;
    frameRecord(draft, largest);
    expect(draft.slab.bytes.readUInt32LE(24)).toBe(3839);
    expect(readRecord(draft.slab.bytes.subarray(0, draft.recordBytes))).toMatchObject({
      epoch: largest.epoch,
    });
  });

  test("the longest writers and names: fitsValue says when it is enough, and the bound was kept", () => {
    const draft = draftOf(2);
    const writer = "w".repeat(limits.writerLengthMax);
    while (draft.fitsValue(writer)) draft.addValue(entryKind.epoch, writer);
    const name = "n".repeat(limits.nameLengthMax);
    while (draft.fitsValue(name)) draft.addValue(entryKind.mark, name);
    while (draft.fits(0)) draft.addRange(entryKind.trim, 2 ** 49, 2 ** 49);
    expect(draft.entryCount).toBeLessThan(limits.batchEntriesMax);
    expect(() => draft.addValue(entryKind.mark, name)).toThrow("invariant");
    draft.firstLsn = 1;
    frameRecord(draft, largest);
    expect(draft.slab.bytes.readUInt32LE(24)).toBeLessThanOrEqual(draft.headerBytesBound);
    const batch = readRecord(draft.slab.bytes.subarray(0, draft.recordBytes)) as Batch;
    expect(batch.entries[0]).toEqual({ kind: "epoch", writer });
    expect(batch.entries).toHaveLength(draft.entryCount);
  });

  test("the largest payload", () => {
    const draft = draftOf(1 + limits.batchPayloadBytesMax / 4096);
    draft.slab.bytes.fill(
      0xab,
      draft.addWrite(2 ** 50 - limits.batchPayloadBytesMax, limits.batchPayloadBytesMax),
    );
    expect(draft.fits(1)).toBe(false);
    draft.firstLsn = 1;
    frameRecord(draft, frame);
    expect(draft.recordBytes).toBe(4096 + limits.batchPayloadBytesMax);
    expect((readRecord(draft.slab.bytes) as Batch).payload.length).toBe(limits.batchPayloadBytesMax);
  });

  test("what no log may hold is refused by the draft", () => {
    const bad: (() => void)[] = [
      () => draftOf(2).addWrite(0, 0),
      () => draftOf(2).addWrite(0, 4097),
      () => draftOf(2).addWrite(-1, 5),
      () => draftOf(2).addWrite(0.5, 5),
      () => draftOf(2).addRange(entryKind.trim, 2 ** 50 - 1, 2),
      () => draftOf(2).addRange(entryKind.trim, 0, 0),
      () => draftOf(2).addValue(entryKind.mark, "Upper"),
      () => draftOf(2).addValue(entryKind.mark, ""),
      () => draftOf(2).addValue(entryKind.epoch, "café"),
      () => draftOf(2).addValue(entryKind.epoch, 5),
      () => draftOf(2).addValue(entryKind.resize, 511),
      () => draftOf(2).addValue(entryKind.resize, "512"),
      () => draftOf(2).addValue(entryKind.rebase, 0),
    ];
    for (const act of bad) expect(act).toThrow("invariant");
  });

  test("a frame that breaks the log's order is a broken invariant", () => {
    const draft = draftOf(2);
    expect(() => frameRecord(draft, frame)).toThrow("a record has entries");
    draft.addRange(entryKind.trim, 0, 1);
    draft.firstLsn = 7;
    expect(() => frameRecord(draft, { ...frame, durableLsn: 7 })).toThrow("not durable before");
    expect(() => frameRecord(draft, { ...frame, epoch: 0 })).toThrow("a line and an epoch");
    expect(() => frameRecord(draft, { ...frame, line: "0123456789ABCDEF" })).toThrow("a line and an epoch");
  });
});

describe("each rule", () => {
  const broken = (change: (bytes: Buffer) => void): Buffer => {
    const bytes = small();
    change(bytes);
    return seal(bytes);
  };
  /** Replaces the packed header by these bytes. */
  const withHeader = (hex: string): Buffer =>
    broken((bytes) => {
      const header = Buffer.from(hex, "hex");
      bytes.fill(0, 72, 4096);
      header.copy(bytes, 72);
      bytes.writeUInt32LE(header.length, 24);
    });
  const start = `94b0${Buffer.from(line).toString("hex")}01cd03e8`;
  const cases: [title: string, bytes: () => Buffer, fault: string][] = [
    ["an intact record", small, "none"],
    ["the header rebuilt by hand", () => withHeader(`${start}9600cd10000503cd2000cd1000`), "none"],
    ["zeroes", () => Buffer.alloc(8192), "notARecord"],
    ["another magic", () => broken((bytes) => bytes.write("VBAU", 8)), "notARecord"],
    ["a newer version", () => broken((bytes) => bytes.writeUInt16LE(2, 12)), "version"],
    ["flags", () => broken((bytes) => bytes.writeUInt16LE(1, 14)), "flags"],
    ["another payload start", () => broken((bytes) => bytes.writeUInt32LE(4088, 20)), "headerChecksum"],
    ["record bytes beside the payload", () => broken((bytes) => bytes.writeUInt32LE(12_288, 16)), "lengths"],
    [
      "header bytes past the payload start",
      () => broken((bytes) => bytes.writeUInt32LE(4025, 24)),
      "lengths",
    ],
    ["a claim of 4 GiB of payload", () => broken((bytes) => bytes.writeUInt32LE(2 ** 32 - 1, 28)), "lengths"],
    ["no entries", () => broken((bytes) => bytes.writeUInt32LE(0, 40)), "lengths"],
    ["201 entries", () => broken((bytes) => bytes.writeUInt32LE(201, 40)), "lengths"],
    ["LSN 0", () => broken((bytes) => bytes.writeBigUInt64LE(0n, 32)), "fields"],
    ["an LSN past 2^53", () => broken((bytes) => bytes.writeBigUInt64LE(2n ** 53n, 32)), "fields"],
    ["a last LSN past 2^53", () => broken((bytes) => bytes.writeBigUInt64LE(2n ** 53n - 1n, 32)), "fields"],
    ["durable at its own LSN", () => broken((bytes) => bytes.writeBigUInt64LE(1n, 48)), "fields"],
    ["something reserved", () => broken((bytes) => bytes.writeUInt32LE(1, 44)), "fields"],
    ["header padding", () => broken((bytes) => bytes.writeUInt8(1, 4095)), "padding"],
    ["payload padding", () => broken((bytes) => bytes.writeUInt8(1, 8191)), "padding"],
    ["a line in capitals", () => broken((bytes) => bytes.write("ABCDEF", 76)), "fields"],
    ["epoch 0", () => withHeader(start.replace(/01cd03e8$/, "00cd03e8")), "fields"],
    ["a negative epoch", () => withHeader(start.replace(/01cd03e8$/, "ffcd03e8")), "fields"],
    ["three parts", () => withHeader(start.replace(/^94/, "93")), "fields"],
    ["a kind that is not known", () => withHeader(`${start}9608cd10000503cd2000cd1000`), "entries"],
    ["an empty range", () => withHeader(`${start}9600cd10000503cd200000`), "entries"],
    ["a range past 2^50", () => withHeader(`${start}9600cd10000503cb4310000000000000cd1000`), "entries"],
    ["a longer form than needed", () => withHeader(`${start}9600cd1000cc0503cd2000cd1000`), "entries"],
    ["a fraction", () => withHeader(`${start}9600cb40b00080000000000503cd2000cd1000`), "entries"],
    ["payload that no entry takes", () => withHeader(`${start}9600cd10000403cd2000cd1000`), "entries"],
    ["entries that take more payload", () => withHeader(`${start}9600cd10000603cd2000cd1000`), "entries"],
    ["a value too many", () => withHeader(`${start}9700cd10000503cd2000cd100000`), "entries"],
    ["bytes behind the entries", () => withHeader(`${start}9600cd10000503cd2000cd100000`), "entries"],
    ["entries cut off", () => withHeader(`${start}9600cd10000503cd2000`), "entries"],
    ["an array of 2^32 elements", () => withHeader(`${start}ddffffffff`), "entries"],
    ["an array inside the entries", () => withHeader(`${start}9600cd10000503cd2000ddffffffff`), "entries"],
    ["a mark in capitals", () => withHeader(`${start}9500cd10000505a141`), "entries"],
    ["a writer that is not ASCII", () => withHeader(`${start}9500cd10000504a2c3a9`), "entries"],
    ["a size of 0", () => withHeader(`${start}9500cd1000050600`), "entries"],
    ["a rebase to its own LSN", () => withHeader(`${start}9500cd1000050702`), "entries"],
    ["a rebase to the LSN before", () => withHeader(`${start}9500cd1000050701`), "none"],
    [
      "a changed payload",
      () => Buffer.concat([small().subarray(0, 8190), Buffer.from([0, 9])]),
      "payloadChecksum",
    ],
  ];
  for (const [title, bytes, fault] of cases) {
    test(`${title}: ${fault}`, () => expect(faultOf(bytes())).toBe(fault));
  }

  test("less than a block, and less than the record", () => {
    const bytes = small();
    expect(faultOf(bytes.subarray(0, 4095))).toBe("truncated");
    expect(faultOf(bytes.subarray(0, 8191))).toBe("truncated");
    const header = readRecordHeader(bytes.subarray(0, 4096));
    expect(isBadRecord(header)).toBe(false);
    if (!isBadRecord(header)) expect(readRecordPayload(header, bytes)).toMatchObject({ firstLsn: 1 });
  });

  test("elsewhere than in log files the payload follows the header closely", () => {
    const blocks = small();
    const headerBytes = blocks.readUInt32LE(24);
    const payloadStart = Math.ceil((72 + headerBytes) / 8) * 8;
    const bytes = Buffer.alloc(payloadStart + 8);
    blocks.copy(bytes, 0, 0, 72 + headerBytes);
    bytes.write("varve", payloadStart, "latin1");
    bytes.writeUInt32LE(bytes.length, 16);
    bytes.writeUInt32LE(payloadStart, 20);
    seal(bytes);
    expect(faultOf(bytes, "packed")).toBe("none");
    expect((readRecord(bytes, 0, "packed") as Batch).payload.toString()).toBe("varve");
    expect(faultOf(bytes.subarray(0, 79), "packed")).toBe("truncated");
    expect(faultOf(bytes.subarray(0, payloadStart - 1), "packed")).toBe("truncated");
    expect(faultOf(Buffer.concat([bytes, Buffer.alloc(8192)]), "blocks")).toBe("headerChecksum");
    for (const wrong of [72, payloadStart + 4, 4104]) {
      bytes.writeUInt32LE(wrong, 20);
      expect(faultOf(Buffer.concat([bytes, Buffer.alloc(8192)]), "packed")).toBe("headerChecksum");
    }
  });
});

describe("garbage", () => {
  test("random bytes are refused and nothing throws", () => {
    const random = new SeededRandom(5);
    for (let round = 0; round < 2000; round += 1) {
      const bytes = Buffer.alloc(random.between(0, 9000));
      for (let index = 0; index < bytes.length; index += 1) bytes[index] = random.uint32();
      if (bytes.length > 12 && random.chance(0.7)) bytes.write("VBAT", 8);
      if (bytes.length > 24 && random.chance(0.7)) bytes.writeUInt32LE(4096, 20);
      if (bytes.length > 4096 && random.chance(0.7)) seal(bytes);
      for (const home of ["blocks", "packed"] as const)
        expect(isBadRecord(readRecord(bytes, 0, home))).toBe(true);
    }
  });

  test("damage behind repaired checksums is refused, or is a record as Varve writes it", () => {
    const random = new SeededRandom(6);
    let accepted = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const bytes = small();
      const end = 72 + bytes.readUInt32LE(24);
      for (let change = random.between(1, 4); change > 0; change -= 1) {
        const at = random.chance(0.6) ? random.between(72, end) : random.between(8, 72);
        bytes[at] = random.chance(0.5) ? random.between(0, 16) : random.uint32();
      }
      seal(bytes);
      const batch = readRecord(bytes);
      if (isBadRecord(batch)) continue;
      accepted += 1;
      expect(redraft(batch).slab.bytes.subarray(0, bytes.length).equals(bytes)).toBe(true);
    }
    expect(accepted).toBeGreaterThan(100);
  });
});
