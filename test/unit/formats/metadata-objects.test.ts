// Manifests, index pages, bases and base pages: every rule of their pages, one mistake at a time, by which a reader refuses and a
// writer stops; fields missing and unknown; envelopes that are intact but newer, encrypted, too large or no JSON; garbage.
import { zstdCompressSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { BaseContent, BasePage, SegmentSummary, VolumeManifest } from "#shared/domain/archive.ts";
import { baseKey, basePageKey, indexPageKey, segmentKey } from "#shared/domain/archive.ts";
import { decodeBase, decodeBasePage, encodeBase, encodeBasePage } from "#shared/formats/base-object.ts";
import {
  decodeIndexPage,
  encodeIndexPage,
  type IndexPage,
  indexPageRefOf,
} from "#shared/formats/index-page.ts";
import { decodeManifest, encodeManifest } from "#shared/formats/manifest-object.ts";
import { type BadObject, isBadObject, writeDigest } from "#shared/formats/sealed-object.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const volumeId = "5ca1ab1e00c0ffee";
const owner = { volumeId, line: "0f1e2d3c4b5a6978", archiverEpoch: 3 };
const GiB = 2 ** 30;

const segment = (firstLsn: number, lastLsn: number) => ({
  key: segmentKey(owner, firstLsn, lastLsn),
  firstLsn,
  lastLsn,
  bytes: 9000,
  footerStart: 8000,
  recordBytes: 8192,
  wallMinMs: 5,
  wallMaxMs: 7,
});

const summary = (firstLsn: number, lastLsn: number): SegmentSummary => ({
  ...segment(firstLsn, lastLsn),
  writes: lastLsn - firstLsn,
  writeBytes: 100,
  zeroes: 0,
  zeroBytes: 0,
  extents: [
    { first: 0, count: 2 },
    { first: 7, count: 1 },
  ],
  events: [{ kind: "mark", lsn: lastLsn, wallTimeMs: 6, name: "monday" }],
});

const page: IndexPage = { volumeId, segments: [summary(1, 10), summary(11, 20)] };
const pageRef = indexPageRefOf(page, indexPageKey(owner, 1, 20));

const base = (s: number, e: number, serial: number | null = 77) => ({
  key: baseKey(owner, s, e, serial),
  s,
  e,
  sizeBytes: GiB,
  newChunkBytes: 0,
});

const manifest: VolumeManifest = {
  ...owner,
  name: "attic",
  sizeBytes: GiB,
  durability: "write",
  createdAtMs: 1,
  lineNumber: 2,
  number: 4,
  writtenAtMs: 9,
  ancestors: [{ line: "1111111111111111", lastLsn: 12 }],
  origin: { volumeId: "00c0ffee00c0ffee", name: "parent", lsn: 0 },
  beginBytes: GiB,
  archivedLsn: 40,
  archivedEpoch: 2,
  archivedChecksum: "146dcf450a1866a3",
  retainedFromLsn: 3,
  historyMs: 604_800_000,
  policy: { residency: "full", coldAfterMs: 1, bucketAway: "stop" },
  deletedAtMs: null,
  snapshots: [{ name: "monday", lsn: 20, wallTimeMs: 6 }],
  rebases: [{ lsn: 25, toLsn: 9 }],
  resizes: [{ lsn: 24, sizeBytes: GiB }],
  gaps: [],
  pins: [{ lsn: 9, holder: "rebase" }],
  bases: [base(10, 20), base(25, 30)],
  pages: [pageRef],
  segments: [segment(21, 30), segment(31, 40)],
};

const baseContent: BaseContent = {
  volumeId,
  s: 10,
  e: 20,
  sizeBytes: 5 * GiB,
  pages: [null, basePageKey(owner, 77, 1)],
};
const basePage: BasePage = {
  volumeId,
  serial: 77,
  firstExtent: 1024,
  chunks: [null, `${"ab".repeat(32)}.281474976710655`],
};

interface Kind<T extends object> {
  readonly name: string;
  readonly good: T;
  readonly encode: (content: T) => Buffer;
  readonly decode: (object: Buffer) => T | BadObject;
  /** What makes it wrong, and a word of the sentence that says so. */
  readonly mistakes: readonly (readonly [mistake: string, changed: Partial<Record<keyof T, unknown>>])[];
  readonly fine: readonly Partial<T>[];
}

const manifests: Kind<VolumeManifest> = {
  name: "manifest",
  good: manifest,
  encode: encodeManifest,
  decode: decodeManifest,
  fine: [
    {
      archivedLsn: 0,
      archivedEpoch: 0,
      archivedChecksum: "0".repeat(16),
      retainedFromLsn: 0,
      bases: [],
      pages: [],
      segments: [],
    },
    // A rescue's first manifest: nothing of the new line is archived yet.
    { archivedChecksum: "0".repeat(16) },
    // Trimmed: only a snapshot's part and what is retained.
    { retainedFromLsn: 30, segments: [segment(31, 40)] },
    { retainedFromLsn: 40, segments: [], pages: [pageRef], bases: [base(40, 40)] },
    { pages: [], segments: [], bases: [], retainedFromLsn: 40 },
    // History given up, and back again with a base.
    { gaps: [{ fromLsn: 21, toLsn: 31 }], segments: [segment(31, 40)], bases: [base(30, 31)] },
    { bases: [base(10, 10), base(10, 20)] },
    // As they were named before: without a serial.
    { bases: [base(10, 10, null), base(10, 20, 2 ** 48 - 1)] },
    { origin: null, deletedAtMs: 5 },
    { policy: { residency: "tiered", coldAfterMs: 0, bucketAway: "drop history" } },
  ],
  mistakes: [
    ["volumeId", { volumeId: "5CA1AB1E00C0FFEE" }],
    ["name", { name: "Attic" }],
    ["sizeBytes", { sizeBytes: 511 }],
    ["durability", { durability: "never" }],
    ["createdAtMs", { createdAtMs: -1 }],
    ["lineNumber", { lineNumber: 0 }],
    ["lineNumber", { lineNumber: 1.5 }],
    ["number", { number: "4" }],
    ["more ancestors", { lineNumber: 1 }],
    [
      "ancestors out of order",
      { lineNumber: 3, ancestors: [...manifest.ancestors, { line: volumeId, lastLsn: 11 }] },
    ],
    ["origin is itself", { origin: { volumeId, name: "parent", lsn: 1 } }],
    ["origin.lsn", { origin: { volumeId: "00c0ffee00c0ffee", name: "parent", lsn: null } }],
    ["beginBytes", { beginBytes: 0 }],
    ["without an epoch", { archivedEpoch: 0 }],
    ["nothing archived", { archivedLsn: 0, retainedFromLsn: 0 }],
    ["archivedChecksum", { archivedChecksum: "146dcf45" }],
    ["not archived", { retainedFromLsn: 41 }],
    ["deletedAtMs", { deletedAtMs: false }],
    ["policy", { policy: null }],
    ["policy.residency", { policy: { residency: "half", coldAfterMs: 0, bucketAway: "stop" } }],
    ["policy has no bucketAway", { policy: { residency: "full", coldAfterMs: 0 } }],
    ['"colour"', { policy: { residency: "full", coldAfterMs: 0, bucketAway: "stop", colour: 1 } }],
    ["two snapshots", { snapshots: [...manifest.snapshots, ...manifest.snapshots] }],
    ["snapshots[0].name", { snapshots: [{ name: "-", lsn: 1, wallTimeMs: 1 }] }],
    ["later LSN", { rebases: [{ lsn: 25, toLsn: 25 }] }],
    ["rebases out of order", { rebases: [...manifest.rebases, ...manifest.rebases] }],
    ["resizes out of order", { resizes: [...manifest.resizes, ...manifest.resizes] }],
    ["empty gap", { gaps: [{ fromLsn: 9, toLsn: 9 }] }],
    [
      "gaps overlap",
      {
        gaps: [
          { fromLsn: 1, toLsn: 9 },
          { fromLsn: 8, toLsn: 12 },
        ],
      },
    ],
    ["holder", { pins: [{ lsn: 1, holder: "a b" }] }],
    ["bases out of order", { bases: [base(25, 30), base(10, 20)] }],
    ["bases out of order", { bases: [base(10, 20), base(10, 20)] }],
    ["after e", { bases: [base(21, 20)] }],
    ["is not archived", { bases: [base(30, 41)] }],
    ["spans the rebase", { bases: [base(24, 25)] }],
    ["not this base's key", { bases: [{ ...base(10, 20), key: base(10, 21).key }] }],
    ["not the key", { segments: [{ ...segment(21, 30), key: segment(21, 31).key }, segment(31, 40)] }],
    [
      "not the key",
      { pages: [{ ...pageRef, key: indexPageKey({ ...owner, volumeId: owner.line }, 1, 20) }] },
    ],
    ["ends at LSN 20", { segments: [segment(22, 30), segment(31, 40)] }],
    ["ends at LSN 30", { segments: [segment(21, 30), segment(30, 40)] }],
    ["ends at LSN 30, not at 40", { segments: [segment(21, 30)] }],
    ["ends at LSN 50", { segments: [segment(21, 50)] }],
    ["after 20", { segments: [{ ...segment(21, 20) }] }],
    ["footer starts past", { segments: [{ ...segment(21, 40), footerStart: 9000 }] }],
    ["wall time", { segments: [{ ...segment(21, 40), wallMinMs: 8 }] }],
    [
      "257 elements",
      { segments: Array.from({ length: 257 }, (_, index) => segment(21 + index, 21 + index)) },
    ],
  ],
};

const pages: Kind<IndexPage> = {
  name: "index page",
  good: page,
  encode: encodeIndexPage,
  decode: decodeIndexPage,
  fine: [{ segments: [summary(1, 10), summary(30, 40)] }],
  mistakes: [
    ["0 elements", { segments: [] }],
    ["out of order", { segments: [summary(11, 20), summary(1, 10)] }],
    ["not this segment's key", { segments: [{ ...summary(1, 10), key: summary(1, 11).key }] }],
    ["are not its 10 entries", { segments: [{ ...summary(1, 10), writes: 8 }] }],
    [
      "runs out of order",
      {
        segments: [
          {
            ...summary(1, 10),
            extents: [
              { first: 3, count: 2 },
              { first: 5, count: 1 },
            ],
          },
        ],
      },
    ],
    ["runs out of order", { segments: [{ ...summary(1, 10), extents: [{ first: 5, count: 2 ** 28 }] }] }],
    ["count", { segments: [{ ...summary(1, 10), extents: [{ first: 5, count: 0 }] }] }],
    [
      "event at LSN 11",
      { segments: [{ ...summary(1, 10), events: [{ kind: "mark", lsn: 11, wallTimeMs: 1, name: "x" }] }] },
    ],
    ["kind", { segments: [{ ...summary(1, 10), events: [{ kind: "flush", lsn: 1, wallTimeMs: 1 }] }] }],
    ["kind", { segments: [{ ...summary(1, 10), events: [null] }] }],
    [
      "writer",
      {
        segments: [
          { ...summary(1, 10), events: [{ kind: "epoch", lsn: 1, wallTimeMs: 1, writer: "ü", epoch: 1 }] },
        ],
      },
    ],
    [
      "rebase to a later",
      { segments: [{ ...summary(1, 10), events: [{ kind: "rebase", lsn: 9, wallTimeMs: 1, toLsn: 9 }] }] },
    ],
  ],
};

const bases: Kind<BaseContent> = {
  name: "base",
  good: baseContent,
  encode: encodeBase,
  decode: decodeBase,
  fine: [
    { s: 0, e: 0 },
    { sizeBytes: 512, pages: [null] },
  ],
  mistakes: [
    ["after e", { s: 21 }],
    ["2 pages for", { sizeBytes: 4 * GiB }],
    ["2 pages for", { sizeBytes: 8 * GiB + 1 }],
    ["not a key of page 1", { pages: [null, basePageKey(owner, 77, 0)] }],
    ["not a key of page 0", { pages: [basePageKey({ ...owner, volumeId: owner.line }, 77, 0), null] }],
    ["not a key of page 0", { pages: ["volumes/x", null] }],
    ["pages[0]", { pages: ["ü", null] }],
  ],
};

const basePages: Kind<BasePage> = {
  name: "base page",
  good: basePage,
  encode: encodeBasePage,
  decode: (object) => decodeBasePage(object, basePageKey(owner, 77, 1)),
  fine: [{ chunks: Array<null>(1024).fill(null) }],
  mistakes: [
    ["no page's", { firstExtent: 1 }],
    ["firstExtent", { firstExtent: -0 }],
    ["0 elements", { chunks: [] }],
    ["1025 elements", { chunks: Array<null>(1025).fill(null) }],
    ["chunks[0]", { chunks: [`${"ab".repeat(32)}.0`] }],
    ["chunks[0]", { chunks: ["ab".repeat(32)] }],
    ["chunks[0]", { chunks: [`${"AB".repeat(32)}.1`] }],
  ],
};

/** The object of any content at all, in an intact envelope. */
function enveloped(like: Buffer, json: Buffer, change: (object: Buffer) => void = () => undefined): Buffer {
  const packed = zstdCompressSync(json);
  const object = Buffer.concat([like.subarray(0, 16), packed, Buffer.alloc(32)]);
  object.writeUInt32LE(packed.length, 8);
  object.writeUInt32LE(json.length, 12);
  change(object);
  writeDigest(object);
  return object;
}

const all = [manifests, pages, bases, basePages] as unknown as readonly Kind<object>[];

describe.each(all)("$name", ({ good, encode, decode, mistakes, fine }) => {
  const object = encode(good);
  const changed = (json: unknown): Buffer => enveloped(object, Buffer.from(JSON.stringify(json)));

  test("comes back as it was", () => {
    expect(decode(object)).toEqual(good);
    for (const change of fine) expect(decode(encode({ ...good, ...change }))).toEqual({ ...good, ...change });
  });

  test("with any mistake is refused by the reader and never written", () => {
    for (const [mistake, change] of mistakes) {
      const wrong = { ...good, ...change };
      // JSON has no -0: such a number can only come from a writer.
      if (!Object.values(change).some((value) => Object.is(value, -0))) {
        const result = decode(changed(wrong));
        expect([mistake, result]).toEqual([mistake, expect.objectContaining({ fault: "fields" })]);
        expect((result as BadObject).detail).toContain(mistake);
      }
      expect(() => encode(wrong)).toThrow(mistake);
    }
  });

  test("without a field, or with one more, is refused", () => {
    for (const name of Object.keys(good)) {
      const { [name]: _gone, ...rest } = good as Record<string, unknown>;
      expect(decode(changed(rest))).toMatchObject({ fault: "fields" });
    }
    expect(decode(changed({ ...good, future: 1 }))).toMatchObject({ fault: "fields" });
    for (const json of [null, 57, "x", [], [good]])
      expect(decode(changed(json))).toMatchObject({ fault: "fields" });
  });

  test("in an intact envelope that is newer, encrypted or does not fit is refused by name", () => {
    const json = Buffer.from(JSON.stringify(good));
    const faultOf = (change: (bytes: Buffer) => void): unknown => decode(enveloped(object, json, change));
    expect(faultOf((bytes) => bytes.writeUInt16LE(3, 4))).toMatchObject({ fault: "version" });
    expect(faultOf((bytes) => bytes.writeUInt16LE(1, 6))).toMatchObject({
      fault: "flags",
      detail: expect.stringContaining("encrypted"),
    });
    expect(faultOf((bytes) => bytes.writeUInt16LE(2, 6))).toMatchObject({ fault: "flags" });
    expect(faultOf((bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(8) - 1, 8))).toMatchObject({
      fault: "lengths",
    });
    expect(faultOf((bytes) => bytes.writeUInt32LE(0xffff_ffff, 12))).toMatchObject({ fault: "lengths" });
    expect(faultOf((bytes) => bytes.writeUInt32LE(json.length - 1, 12))).toMatchObject({
      fault: "compression",
    });
    expect(faultOf((bytes) => bytes.writeUInt32LE(json.length + 1, 12))).toMatchObject({
      fault: "compression",
    });
    expect(decode(enveloped(object, Buffer.from("{no json")))).toMatchObject({ fault: "fields" });
  });

  test("as garbage is refused", () => {
    const random = new SeededRandom(5);
    for (let round = 0; round < 300; round += 1) {
      const bytes = Buffer.alloc(random.logUniform(1, 2000));
      for (let at = 0; at < bytes.length; at += 1) bytes[at] = random.between(0, 256);
      expect(isBadObject(decode(bytes))).toBe(true);
      // The same behind the right head and digest: what is in it decides.
      const intact = Buffer.concat([object.subarray(0, 16), bytes, Buffer.alloc(32)]);
      intact.writeUInt32LE(bytes.length, 8);
      writeDigest(intact);
      expect(isBadObject(decode(intact))).toBe(true);
    }
    expect(decode(Buffer.alloc(100))).toMatchObject({ fault: "notThisKind" });
    expect(decode(object.subarray(0, 40))).toMatchObject({ fault: "truncated" });
    expect(decode(object.subarray(0, -1))).toMatchObject({ fault: "truncated" });
  });
});

test("a small frame that unpacks to gigabytes is refused without unpacking it", () => {
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
  const object = Buffer.concat([encodeBasePage(basePage).subarray(0, 16), bomb, Buffer.alloc(32)]);
  object.writeUInt32LE(bomb.length, 8);
  object.writeUInt32LE(1000, 12);
  writeDigest(object);
  const before = process.memoryUsage().arrayBuffers;
  expect(decodeBasePage(object, "x")).toMatchObject({ fault: "compression" });
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 * 1024);
});

test("a base page under another page's key is refused", () => {
  const object = encodeBasePage(basePage);
  const others = [
    basePageKey(owner, 78, 1),
    basePageKey(owner, 77, 2),
    basePageKey({ ...owner, volumeId: owner.line }, 77, 1),
  ];
  for (const key of [...others, "", "x"])
    expect(decodeBasePage(object, key)).toMatchObject({ fault: "fields" });
  // Line and epoch are those of whoever wrote it.
  expect(decodeBasePage(object, basePageKey({ ...owner, archiverEpoch: 9 }, 77, 1))).toEqual(basePage);
});
