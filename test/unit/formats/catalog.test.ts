// The catalogue's mistakes, each named with its place; kinds of refusal by docs/formats/catalog.md; and the largest
// catalogue, which still fits what a reader takes.
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { catalogBytesMax, checkVolumes, decodeCatalog, encodeCatalog } from "#shared/formats/catalog.ts";
import { checksumOf } from "#shared/formats/checksum.ts";

const record: VolumeRecord = {
  id: "0011223344556677",
  name: "disk0",
  sizeBytes: 1024,
  durability: "write",
  createdAtMs: 5,
  state: "active",
};

function refusal(act: () => unknown): VarveError {
  try {
    act();
  } catch (cause) {
    if (cause instanceof VarveError) return cause;
    throw cause;
  }
  throw new Error("nothing was refused");
}

/** Any text with a true checksum line behind it. */
function sealed(text: string): Buffer {
  const sum = checksumOf(Buffer.from(text)).toString(16).padStart(16, "0");
  return Buffer.from(`${text}  "checksum": "xxh64:${sum}"\n}\n`);
}

const documentOf = (version: number, volumes: string): Buffer =>
  sealed(`{\n  "format": "varve-catalog",\n  "version": ${version},\n  "volumes": ${volumes},\n`);

describe("round trip", () => {
  test("none, one, and as many as there may be", () => {
    expect(decodeCatalog(encodeCatalog([]), "c")).toEqual([]);
    expect(decodeCatalog(encodeCatalog([record]), "c")).toEqual([record]);
    const most = Array.from(
      { length: limits.volumesMax },
      (_, index): VolumeRecord => ({
        id: (2n ** 64n - 1n - BigInt(index)).toString(16),
        name: `${String(index).padStart(4, "0")}${"n".repeat(limits.nameLengthMax - 4)}`,
        sizeBytes: limits.volumeBytesMax,
        durability: "flush",
        createdAtMs: Number.MAX_SAFE_INTEGER,
        state: "creating",
        reads: "strict",
        move: { volumeId: "f".repeat(16), place: "p".repeat(100) },
        orders: {
          lab: "l".repeat(limits.nameLengthMax),
          tags: ["a", "b", "c", "d"].map((letter) => letter.repeat(limits.nameLengthMax)),
          logReplicas: 3,
          schedules: ["a", "b", "c", "d"].map((letter) => ({
            name: letter.repeat(limits.scheduleNameMax),
            everyMs: limits.scheduleEveryMsMax,
            keep: limits.scheduleKeepMax,
          })),
        },
      }),
    );
    const bytes = encodeCatalog(most);
    expect(bytes.length).toBeLessThan(catalogBytesMax);
    expect(decodeCatalog(bytes, "c")).toEqual(most);
    const one = { ...record, id: "ffffffffffffffff", name: "one-more" };
    expect(refusal(() => encodeCatalog([...most, one])).message).toContain("1025 volumes, at most 1024");
  });
});

describe("every mistake is named", () => {
  const cases: [volumes: unknown, mistakes: string[]][] = [
    [{}, ["volumes is not a list"]],
    [[5, null, []], [0, 1, 2].map((index) => `volumes[${index}] is not an object`)],
    [[{ ...record, id: "00" }], ["volumes[0].id is not 16 lower-case hex digits"]],
    [[{ ...record, name: "" }], ["volumes[0].name is empty"]],
    [[{ ...record, name: 7 }], ["volumes[0].name is not a text"]],
    [[{ ...record, name: "n".repeat(64) }], ["volumes[0].name is longer than 63 characters"]],
    [[{ ...record, sizeBytes: "1G" }], ["volumes[0].sizeBytes is not a number"]],
    [[{ ...record, sizeBytes: 1000 }], ["volumes[0].sizeBytes is not a multiple of 512 bytes"]],
    [[{ ...record, durability: "never" }], ['volumes[0].durability is neither "write" nor "flush"']],
    [[{ ...record, createdAtMs: -1 }], ["volumes[0].createdAtMs is not a time in ms"]],
    [
      [{ ...record, state: "gone" }],
      ['volumes[0].state is not "creating", "active", "deleting", "arriving", "moved" or "settling"'],
    ],
    [[{ ...record, reads: "any" }], ['volumes[0].reads is neither "available" nor "strict"']],
    [[{ ...record, orders: { lab: null } }], ["volumes[0].orders is wrong: has no tags"]],
    [
      [{ ...record, orders: { lab: null, tags: ["A", "b", "b"], logReplicas: 2, schedules: [] } }],
      [
        "volumes[0].orders are wrong: tag \"A\" must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case), tag b is there twice, 2 log replicas are neither 1 nor 3",
      ],
    ],
    [
      [{ ...record, move: { volumeId: "f".repeat(16), place: 'a"b' } }],
      ['volumes[0].move is wrong: .place "a\\"b" is not 1 to 100 plain characters'],
    ],
    [[{ ...record, color: "red" }], ['volumes[0]."color" is not known']],
    [
      [record, record],
      ['volumes[1].id "0011223344556677" is there twice', 'volumes[1].name "disk0" is there twice'],
    ],
  ];
  for (const [volumes, mistakes] of cases) {
    test(mistakes.join("; "), () => expect(checkVolumes(volumes)).toEqual(mistakes));
  }

  test("all of them at once, in writing and in reading", () => {
    const wrong = { ...record, name: "Disk", sizeBytes: 5 } as VolumeRecord;
    const inWriting = refusal(() => encodeCatalog([wrong]));
    expect(inWriting).toMatchObject({ _tag: "CatalogContentError", kind: "Invalid" });
    const inReading = refusal(() =>
      decodeCatalog(documentOf(1, `[\n    ${JSON.stringify(wrong)}\n  ]`), "c"),
    );
    expect(inReading).toMatchObject({ _tag: "CatalogContentError", kind: "Corrupt" });
    for (const error of [inWriting, inReading]) {
      expect(error.message).toContain("volumes[0].name");
      expect(error.message).toContain("volumes[0].sizeBytes");
      expect(error.hint).toContain("Nothing was changed");
    }
  });
});

describe("kinds of refusal", () => {
  const cases: [title: string, bytes: () => Buffer, tag: string, kind: string, says: string][] = [
    ["an empty file", () => Buffer.alloc(0), "CatalogDamagedError", "Corrupt", "checksum line"],
    [
      "edited by hand",
      () => Buffer.from(encodeCatalog([record]).toString().replace("1024", "2048")),
      "CatalogDamagedError",
      "Corrupt",
      "edited by hand",
    ],
    ["not JSON", () => sealed("{ nothing,\n"), "CatalogDamagedError", "Corrupt", "not JSON"],
    [
      "another file's text",
      () => sealed('{\n  "format": "other",\n'),
      "CatalogDamagedError",
      "Corrupt",
      "format",
    ],
    ["a newer version", () => documentOf(6, "[]"), "CatalogVersionError", "Invalid", "version 6"],
    ["another form", () => documentOf(1, "[ ]"), "CatalogDamagedError", "Corrupt", "form"],
    ["a field twice", () => documentOf(1, '[],\n  "volumes": []'), "CatalogDamagedError", "Corrupt", "form"],
    ["too large", () => Buffer.alloc(catalogBytesMax + 1, 32), "CatalogDamagedError", "Corrupt", "bytes"],
  ];
  for (const [title, bytes, tag, kind, says] of cases) {
    test(title, () => {
      const error = refusal(() => decodeCatalog(bytes(), "DATA/catalog.json"));
      expect(error).toMatchObject({ _tag: tag, kind });
      expect(error.message).toContain(says);
      expect(error.message).toContain("DATA/catalog.json");
      expect(error.hint).not.toBe("");
    });
  }
});
