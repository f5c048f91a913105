// Segments from random logs: what goes in comes out, entry by entry and byte by byte; the builder keeps the chain; cut, grown,
// swapped and random bytes are refused with the fault that the page names.
import { describe, expect, test } from "vitest";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { frameCoding, openFrame, openFrameLater } from "#shared/formats/object-frame.ts";
import { type BadObject, isBadObject, writeDigest } from "#shared/formats/sealed-object.ts";
import {
  openSegment,
  readSegmentFooter,
  type SealedSegment,
  SegmentBuilder,
  type SegmentStream,
  sealSegment,
} from "#shared/formats/segment-object.ts";
import { type MadeBatch, type MadeEntry, MadeLog } from "../../tools/made-log.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const owner = { volumeId: "5ca1ab1e00c0ffee", line: "0f1e2d3c4b5a6978", archiverEpoch: 3 };
const startMs = 1_763_688_000_000;

function good<T extends object>(value: T | BadObject): T {
  if (isBadObject(value)) throw new Error(`${value.fault}: ${value.detail}`);
  return value;
}

function randomEntry(random: SeededRandom, lsn: number): MadeEntry {
  const offset = random.between(0, 2 ** 30);
  const kind = random.weighted({
    write: 12,
    trim: 3,
    zero: 2,
    zeroAllocated: 1,
    mark: 1,
    resize: 1,
    rebase: 1,
  });
  if (kind === "write") {
    const bytes = Buffer.alloc(random.logUniform(1, 40_000), random.between(0, 256));
    for (let at = 0; at < bytes.length; at += 97) bytes[at] = random.between(0, 256);
    return { kind, offset, bytes };
  }
  if (kind === "mark") return { kind, name: `mark-${lsn}` };
  if (kind === "resize") return { kind, sizeBytes: 512 * random.between(1, 2 ** 30) };
  if (kind === "rebase")
    return lsn > 1 ? { kind, lsn: random.between(1, lsn) } : { kind: "epoch", writer: "w" };
  return { kind, offset, length: random.logUniform(1, 2 ** 28) };
}

function randomBatches(random: SeededRandom, count: number, log = new MadeLog(owner.line)): MadeBatch[] {
  return Array.from({ length: count }, (_, index) => {
    const entries: MadeEntry[] = [];
    if (index === 0) entries.push({ kind: "epoch", writer: "attic pid 4711" });
    for (let more = random.between(1, 12); more > 0; more -= 1) {
      entries.push(randomEntry(random, log.lastLsn + 1 + entries.length));
    }
    return log.batch(entries, startMs + random.between(-5000, 5000));
  });
}

function streamOf(batches: readonly MadeBatch[]): SegmentStream {
  const builder = new SegmentBuilder(owner);
  for (const batch of batches) builder.add(batch);
  return builder.take();
}

const seal = (batches: readonly MadeBatch[], level = 3): SealedSegment =>
  good(sealSegment(streamOf(batches), level));

const footerOf = ({ object, ref }: SealedSegment) =>
  good(readSegmentFooter(object.subarray(ref.footerStart), object.length));

describe("a segment", () => {
  test.each([1, 2, 3, 4, 5, 6])("of random log %i gives back every batch and entry", (seed) => {
    const random = new SeededRandom(seed);
    const batches = randomBatches(random, random.between(1, 60));
    const sealed = seal(batches, seed % 2 === 0 ? 3 : 0);
    const { index, stream } = good(openSegment(sealed.object));
    expect(stream.equals(Buffer.concat(batches.map((batch) => batch.record)))).toBe(true);
    expect(footerOf(sealed).columns).toEqual(index.columns);
    const entries = batches.flatMap((batch) => batch.entries.map((entry) => ({ batch, entry })));
    expect(index.entryCount).toBe(entries.length);
    let place = 0;
    for (const [number, { batch, entry }] of entries.entries()) {
      const own = index.batchOf(number);
      expect(index.columns.checksums[own]).toBe(batch.checksum);
      expect(index.wallTimeOf(number)).toBe(batch.wallTimeMs);
      expect(index.kinds[number]).toBe(entryKind[entry.kind]);
      if (entry.kind !== "write") continue;
      place = index.places[number] ?? -1;
      const bytes = batch.payload.subarray(entry.payloadStart, entry.payloadStart + entry.length);
      expect([index.offsets[number], index.lengths[number]]).toEqual([entry.offset, entry.length]);
      expect(stream.subarray(place, place + entry.length).equals(bytes)).toBe(true);
    }
  });

  test("is read from its footer and single frames, decompressed here or on the thread pool", async () => {
    const batches = randomBatches(new SeededRandom(9), 120);
    const { object, ref } = seal(batches);
    const index = good(readSegmentFooter(object.subarray(ref.footerStart - 100), object.length));
    const stream = Buffer.concat(batches.map((batch) => batch.record));
    expect(index.frames.length).toBeGreaterThan(3);
    for (const frame of index.frames) {
      const stored = object.subarray(frame.objectOffset, frame.objectOffset + frame.storedBytes);
      const raw = stream.subarray(frame.place, frame.place + frame.rawBytes);
      expect(good(openFrame(stored, frame)).equals(raw)).toBe(true);
      expect(good(await openFrameLater(stored, frame)).equals(raw)).toBe(true);
      expect(openFrame(stored.subarray(1), frame)).toMatchObject({ fault: "truncated" });
      const broken = Buffer.from(stored);
      broken[5] = (broken[5] ?? 0) ^ 4;
      expect(openFrame(broken, frame)).toMatchObject({ fault: "checksum" });
      expect(await openFrameLater(broken, frame)).toMatchObject({ fault: "checksum" });
    }
    expect(index.frameOf(stream.length - 1)).toBe(index.frames.at(-1));
    expect(index.framesOf(262_143, 2)).toEqual(index.frames.slice(0, 2));
  });

  test("says in its reference and summary what it holds", () => {
    const log = new MadeLog(owner.line);
    const MiB = 2 ** 20;
    const batches = [
      log.batch(
        [
          { kind: "epoch", writer: "attic" },
          { kind: "write", offset: 0, bytes: Buffer.alloc(10, 1) },
        ],
        50,
      ),
      log.batch(
        [
          { kind: "trim", offset: 40 * MiB, length: 9 * MiB },
          { kind: "mark", name: "monday" },
        ],
        20,
      ),
      log.batch([{ kind: "write", offset: 4 * MiB - 1, bytes: Buffer.alloc(2, 1) }], 90),
    ];
    const { ref, summary, object, lastChecksum, lastEpoch } = seal(batches);
    expect(ref).toEqual({
      key: "volumes/5ca1ab1e00c0ffee/log/0000000000000001-0000000000000005.0f1e2d3c4b5a6978.00000003.seg",
      firstLsn: 1,
      lastLsn: 5,
      bytes: object.length,
      footerStart: ref.footerStart,
      recordBytes: 5 * 4096,
      wallMinMs: 20,
      wallMaxMs: 90,
    });
    expect(summary).toEqual({
      ...ref,
      writes: 2,
      writeBytes: 12,
      zeroes: 1,
      zeroBytes: 9 * MiB,
      extents: [
        { first: 0, count: 2 },
        { first: 10, count: 3 },
      ],
      events: [
        { kind: "epoch", lsn: 1, wallTimeMs: 50, writer: "attic", epoch: 1 },
        { kind: "mark", lsn: 4, wallTimeMs: 20, name: "monday" },
      ],
    });
    expect([lastChecksum, lastEpoch]).toEqual([log.lastChecksum, 1]);
  });

  test("a resize touches from its end on, a rebase everything", () => {
    const log = new MadeLog(owner.line);
    const resize = log.batch([{ kind: "resize", sizeBytes: 5 * 2 ** 20 }], 1);
    expect(seal([resize]).summary.extents).toEqual([{ first: 1, count: 2 ** 28 - 1 }]);
    const rebase = log.batch([{ kind: "rebase", lsn: 1 }], 1);
    expect(seal([rebase]).summary.extents).toEqual([{ first: 0, count: 2 ** 28 }]);
  });

  test("a summary with too many runs closes the smallest holes and never forgets an extent", () => {
    const log = new MadeLog(owner.line);
    const random = new SeededRandom(4);
    const touched = new Set<number>();
    const batches = Array.from({ length: 20 }, () =>
      log.batch(
        Array.from({ length: 200 }, (): MadeEntry => {
          const extent = random.between(0, 2 ** 20);
          touched.add(extent);
          return { kind: "trim", offset: extent * limits.extentBytes + 5, length: 100 };
        }),
        1,
      ),
    );
    const { extents } = seal(batches).summary;
    expect(extents.length).toBe(limits.summaryExtentRunsMax);
    const covered = (extent: number): boolean =>
      extents.some((run) => extent >= run.first && extent < run.first + run.count);
    expect([...touched].filter((extent) => !covered(extent))).toEqual([]);
  });

  test("entries in (from, to] are found by LSN", () => {
    const log = new MadeLog(owner.line, 100);
    const index = footerOf(
      seal([
        log.batch(
          Array.from({ length: 10 }, () => ({ kind: "mark", name: "x" }) as const),
          1,
        ),
      ]),
    );
    expect([index.firstLsn, index.lastLsn]).toEqual([101, 110]);
    expect(index.entryRange(0, 200)).toEqual({ start: 0, end: 10 });
    expect(index.entryRange(101, 103)).toEqual({ start: 1, end: 3 });
    expect(index.entryRange(110, 120)).toEqual({ start: 10, end: 10 });
    expect(index.entryRange(0, 50)).toEqual({ start: 0, end: 0 });
  });
});

describe("the builder", () => {
  test("is full at 8 MiB of records or 256 events, and continues the chain after take()", () => {
    const log = new MadeLog(owner.line);
    const builder = new SegmentBuilder(owner);
    const large = Buffer.alloc(limits.batchPayloadBytesMax, 7);
    builder.add(log.batch([{ kind: "write", offset: 0, bytes: large }], 1));
    expect(builder.full).toBe(false);
    builder.add(log.batch([{ kind: "write", offset: 0, bytes: large }], 1));
    expect(builder.full).toBe(true);
    const first = builder.take();
    expect([builder.empty, builder.full, first.lastLsn]).toEqual([true, false, 2]);
    builder.reuse(first.records);
    const marks = Array.from({ length: 128 }, () => ({ kind: "mark", name: "x" }) as const);
    for (let more = 0; more < 2; more += 1) {
      builder.add(log.batch(marks.slice(0, 64), 1));
      expect(builder.full).toBe(false);
      builder.add(log.batch(marks.slice(0, 64), 1));
    }
    expect(builder.full).toBe(true);
    const second = builder.take();
    expect(second.records).toBe(first.records);
    expect(good(sealSegment(second, 1)).ref).toMatchObject({ firstLsn: 3, lastLsn: 258 });
    log.batch([{ kind: "mark", name: "skipped" }], 1);
    expect(() => builder.add(log.batch([{ kind: "mark", name: "x" }], 1))).toThrow("follow one another");
  });

  test("the largest segment fits an object", () => {
    const log = new MadeLog(owner.line);
    const builder = new SegmentBuilder(owner);
    const random = new SeededRandom(1);
    const noise = Buffer.alloc(limits.batchPayloadBytesMax);
    for (let at = 0; at < noise.length; at += 4) noise.writeUInt32LE(random.uint32(), at);
    builder.add(log.batch([{ kind: "write", offset: 0, bytes: noise }], 1));
    while (builder.recordBytes < limits.segmentRecordBytes - limits.blockBytes) {
      const trim = (): MadeEntry => ({ kind: "trim", offset: random.between(0, 2 ** 49), length: 1 });
      builder.add(log.batch(Array.from({ length: 200 }, trim), 1));
    }
    builder.add(log.batch([{ kind: "write", offset: 0, bytes: noise }], 1));
    const { object, ref } = good(sealSegment(builder.take(), 0));
    expect(object.length).toBeLessThan(limits.objectBytesMax);
    expect(footerOf({ object, ref } as SealedSegment).entryCount).toBeGreaterThan(200_000);
  });

  test("records that were damaged on the way make no object", () => {
    const stream = streamOf(randomBatches(new SeededRandom(3), 5));
    Buffer.from(stream.records).writeUInt8(0xff, stream.recordBytes - 1);
    expect(sealSegment(stream, 3)).toMatchObject({ fault: "fields" });
  });
});

describe("bytes that are no segment", () => {
  const sealed = seal(randomBatches(new SeededRandom(7), 20));
  const { object, ref } = sealed;
  const tail = object.subarray(ref.footerStart);

  test("cut or grown", () => {
    expect(readSegmentFooter(tail.subarray(1), object.length)).toMatchObject({ fault: "truncated" });
    expect(readSegmentFooter(tail.subarray(0, 50), object.length)).toMatchObject({ fault: "truncated" });
    expect(readSegmentFooter(tail, object.length + 1)).toMatchObject({ fault: "checksum" });
    expect(openSegment(object.subarray(0, 100))).toMatchObject({ fault: "truncated" });
    expect(openSegment(object.subarray(0, -1))).toMatchObject({ fault: "checksum" });
    expect(openSegment(Buffer.concat([object, Buffer.alloc(1)]))).toMatchObject({ fault: "checksum" });
  });

  test("another kind, random bytes", () => {
    const random = new SeededRandom(11);
    for (let round = 0; round < 300; round += 1) {
      const bytes = Buffer.alloc(random.logUniform(1, 5000));
      for (let at = 0; at < bytes.length; at += 1) bytes[at] = random.between(0, 256);
      expect(isBadObject(openSegment(bytes))).toBe(true);
      expect(isBadObject(readSegmentFooter(bytes, bytes.length + random.between(0, 100)))).toBe(true);
    }
    expect(openSegment(Buffer.alloc(500))).toMatchObject({ fault: "notThisKind" });
    expect(readSegmentFooter(Buffer.alloc(500), 500)).toMatchObject({ fault: "notThisKind" });
  });

  test("damage behind repaired checksums: never an exception, never taken by the whole check", () => {
    const random = new SeededRandom(21);
    const plain = seal(randomBatches(new SeededRandom(22), 12), 0);
    const { footerStart } = plain.ref;
    let takenByFooter = 0;
    for (let round = 0; round < 3000; round += 1) {
      const changed = Buffer.from(plain.object);
      const end = changed.length - 72;
      const at = round % 10 === 0 ? random.between(0, 64) : random.between(footerStart, end + 24);
      changed[at] = (changed[at] ?? 0) ^ random.between(1, 256);
      changed.writeBigUInt64LE(checksumOf(changed.subarray(footerStart, end + 32)), end + 32);
      writeDigest(changed);
      expect(isBadObject(openSegment(changed)), `byte ${at}`).toBe(true);
      const index = readSegmentFooter(changed.subarray(footerStart), changed.length);
      if (isBadObject(index)) continue;
      takenByFooter += 1;
      expect(index.frames).toHaveLength(Math.ceil(index.recordBytes / limits.archiveFrameBytes));
    }
    // Wall times, checksums and the like can't be judged without the records; nearly all else is.
    expect(takenByFooter).toBeGreaterThan(0);
  });

  test("a newer version, flags and encryption are told by name", () => {
    const changed = (change: (bytes: Buffer, at: number) => void): Buffer => {
      const bytes = Buffer.from(object);
      const at = bytes.length - 72;
      change(bytes, at);
      bytes.writeBigUInt64LE(checksumOf(bytes.subarray(ref.footerStart, at + 32)), at + 32);
      writeDigest(bytes);
      return bytes;
    };
    const footerFault = (bytes: Buffer) => readSegmentFooter(bytes.subarray(ref.footerStart), bytes.length);
    expect(footerFault(changed((bytes, at) => bytes.writeUInt16LE(2, at + 28)))).toMatchObject({
      fault: "version",
    });
    expect(footerFault(changed((bytes, at) => bytes.writeUInt16LE(1, at + 30)))).toMatchObject({
      fault: "flags",
      detail: expect.stringContaining("encrypted"),
    });
    expect(openSegment(changed((bytes) => bytes.writeUInt16LE(2, 4)))).toMatchObject({ fault: "version" });
    expect(openSegment(changed((bytes) => bytes.writeUInt16LE(1, 6)))).toMatchObject({ fault: "flags" });
    const claims = changed((bytes, at) => bytes.writeUInt32LE(0xffff_ffff, at + 12));
    expect(footerFault(claims)).toMatchObject({ fault: "lengths" });
  });

  test("frames of stored bytes are told from compressed ones by their coding only", () => {
    const frame = footerOf(sealed).frames[0];
    expect(frame?.coding).toBe(frameCoding.zstd);
  });
});
