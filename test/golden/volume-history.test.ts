// The history file of docs/formats/volume-history.md, byte for byte in both directions; every flipped bit, every cut and
// every surplus byte is found, and every kind of wrong content is named. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import {
  decodeVolumeHistory,
  encodeVolumeHistory,
  encodeVolumeHistoryFile,
  readVolumeHistory,
} from "#shared/formats/volume-history.ts";
import { textExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const record: HistoryRecord = {
  volumeId: "5ca1ab1e00c0ffee",
  beginBytes: 10_737_418_240,
  archiverEpoch: 3,
  historyMs: 604_800_000,
  residency: "tiered",
  coldAfterMs: 2_592_000_000,
  bucketAway: "stop",
  origin: { volumeId: "0123456789abcdef", name: "disk1", lsn: 4711 },
  pins: [
    { lsn: 90, holder: "00000000000000aa" },
    { lsn: 90, holder: "rebase" },
  ],
  snapshots: [
    { name: "before-upgrade", lsn: 90, wallTimeMs: 1_763_688_000_000 },
    { name: "nightly.2", lsn: 1200, wallTimeMs: 1_763_688_100_000 },
  ],
};

const read = (bytes: Buffer): HistoryRecord => decodeVolumeHistory(bytes, "history.json", record.volumeId);

/** The same text with another part, under a checksum of its own. */
function edited(from: string, to: string): Buffer {
  const text = encodeVolumeHistory(record).toString();
  const covered = text.slice(0, text.lastIndexOf('  "checksum"')).replace(from, to);
  expect(text).toContain(from);
  const sum = checksumOf(Buffer.from(covered)).toString(16).padStart(16, "0");
  return Buffer.from(`${covered}  "checksum": "xxh64:${sum}"\n}\n`);
}

describe("volume history", () => {
  const bytes = textExample("volume-history.md");
  const accepts = (changed: Buffer): boolean => {
    try {
      read(changed);
      return true;
    } catch (cause) {
      if (cause instanceof VarveError && cause.kind === "Corrupt") return false;
      throw cause;
    }
  };

  test("the page's bytes are written, whatever the order of lists", () => {
    expect(encodeVolumeHistory(record).toString()).toBe(bytes.toString());
    const turned = { ...record, pins: record.pins.toReversed(), snapshots: record.snapshots.toReversed() };
    expect(encodeVolumeHistory(turned).toString()).toBe(bytes.toString());
  });

  test("the page's bytes are read", () => expect(read(bytes)).toEqual(record));

  test("a new volume's history has empty lists and no origin", () => {
    const fresh = newHistoryRecord(record.volumeId, 512);
    expect(read(encodeVolumeHistory(fresh))).toEqual(fresh);
  });

  test("a line that was taken makes it version 2, and is read again", () => {
    const taken = { ...record, line: { number: 2, id: "00000000000000bb" } };
    const text = encodeVolumeHistory(taken).toString();
    expect(text).toContain(
      '"version": 2,\n  "volumeId": "5ca1ab1e00c0ffee",\n  "beginBytes": 10737418240,\n  "archiverEpoch": 3,\n  "line": {"number":2,"id":"00000000000000bb"},\n',
    );
    expect(read(Buffer.from(text))).toEqual(taken);
    expect(undetectedFlips(Buffer.from(text), accepts)).toEqual([]);
    const first = { ...taken, line: { number: 1, id: "00000000000000bb" } };
    expect(() => encodeVolumeHistory(first)).toThrow("line.number is not a line's number");
  });

  test("every flipped bit is found", () => expect(undetectedFlips(bytes, accepts)).toEqual([]));

  test("every cut and every surplus byte is found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.from("\n")]))).toBe(false);
  });

  test("a replica's pin makes it version 3, with and without a line, and names a node", () => {
    const pinned = { ...record, pins: [...record.pins, { lsn: 91, holder: "replica:shelf-2" }] };
    for (const one of [pinned, { ...pinned, line: { number: 2, id: "00000000000000bb" } }]) {
      const written = encodeVolumeHistory(one);
      expect(written.toString()).toContain('"version": 3,\n');
      expect(read(written)).toEqual(one);
    }
    const nobody = { ...record, pins: [{ lsn: 91, holder: "replica:No Node" }] };
    expect(() => encodeVolumeHistory(nobody)).toThrow("must be made of a-z");
  });

  test("a file that is overwritten is filled up to 16 KiB, whatever is in it, and ends as the others do", () => {
    const written = encodeVolumeHistoryFile(record);
    expect(written.length).toBe(16 * 1024);
    const plain = bytes.toString().replace('"version": 1', '"version": 4');
    const covered = plain.slice(0, plain.lastIndexOf('  "checksum"'));
    const text = written.toString();
    expect(text.startsWith(`${covered}  `)).toBe(true);
    expect(text.slice(covered.length)).toMatch(/^ +\n {2}"checksum": "xxh64:[0-9a-f]{16}"\n\}\n$/);
    expect(read(written)).toEqual(record);
    expect(undetectedCuts(written, accepts)).toEqual([]);
    const taken = { ...record, line: { number: 2, id: "00000000000000bb" } };
    expect(read(encodeVolumeHistoryFile(taken))).toEqual(taken);
  });

  test("a longer text has the next length in time, and the longest that a volume may have fits", () => {
    const lengthOf = (snapshots: number, pins: number): number => {
      const long = "n".repeat(63);
      const written = encodeVolumeHistoryFile({
        ...record,
        origin: { volumeId: "0123456789abcdef", name: long, lsn: 2 ** 53 - 1 },
        pins: Array.from({ length: pins }, (_, index) => ({
          lsn: 2 ** 53 - 1 - index,
          holder: `replica:${long}`,
        })),
        snapshots: Array.from({ length: snapshots }, (_, index) => ({
          name: `${long.slice(4)}${String(index).padStart(4, "0")}`,
          lsn: 2 ** 53 - 1,
          wallTimeMs: 2 ** 53 - 1,
        })),
      });
      expect(read(written).snapshots).toHaveLength(snapshots);
      return written.length;
    };
    expect(lengthOf(80, 0)).toBe(16 * 1024);
    expect(lengthOf(100, 0)).toBe(32 * 1024);
    expect(lengthOf(limits.snapshotsMax, limits.pinsMax)).toBe(1024 * 1024);
  });

  test("the copy speaks where the file was torn, is gone or can't be read, and only there", async () => {
    const eio = new FileStoreError("read", "/data/history.json", "EIO");
    const both = async (file: Buffer | null | Error, copy: Buffer | null | Error) =>
      readVolumeHistory(
        async (path) => {
          const content = path === "/data/history.json" ? file : copy;
          if (content instanceof Error) throw content;
          return content;
        },
        "/data/history.json",
        record.volumeId,
      );
    const old = encodeVolumeHistoryFile({ ...record, snapshots: [] });
    const torn = Buffer.concat([bytes.subarray(0, 600), old.subarray(600)]);
    for (const copy of [old, torn, null, eio])
      expect(await both(bytes, copy)).toEqual({ record, copyUsed: null });
    expect(await both(torn, bytes)).toMatchObject({
      record,
      copyUsed: expect.stringContaining("/data/history.json: not a usable"),
    });
    expect(await both(eio, bytes)).toMatchObject({
      record,
      copyUsed: expect.stringContaining("read /data/history.json: EIO"),
    });
    expect(await both(null, bytes)).toEqual({ record, copyUsed: "/data/history.json is missing" });
    expect(await both(null, null)).toBeNull();
    for (const copy of [torn, null, eio])
      await expect(both(torn, copy)).rejects.toThrow("/data/history.json: not a usable volume history");
    await expect(both(null, torn)).rejects.toThrow("/data/history.copy.json: not a usable volume history");
    const foreign = encodeVolumeHistory({ ...record, volumeId: "aaaaaaaaaaaaaaaa" });
    await expect(both(foreign, bytes)).rejects.toThrow(
      "/data/history.json belongs to volume aaaaaaaaaaaaaaaa",
    );
    await expect(both(edited('"version": 1', '"version": 5'), bytes)).rejects.toThrow(
      "version 5 is not known",
    );
    const denied = new FileStoreError("read", "/data/history.json", "EACCES");
    await expect(both(denied, bytes)).rejects.toThrow("EACCES");
  });

  test("another version and another volume are told from damage", () => {
    expect(() => read(edited('"version": 1', '"version": 5'))).toThrow(
      "history.json: version 5 is not known",
    );
    // Not filled up; the version of a line that was taken, with none; that of a replica's pin, with none.
    expect(() => read(edited('"version": 1', '"version": 4'))).toThrow("the form that Varve writes");
    expect(() => read(edited('"version": 1', '"version": 3'))).toThrow("the form that Varve writes");
    expect(() => read(edited('"version": 1', '"version": 2'))).toThrow("the form that Varve writes");
    expect(() => decodeVolumeHistory(bytes, "history.json", "aaaaaaaaaaaaaaaa")).toThrow(
      "history.json belongs to volume 5ca1ab1e00c0ffee",
    );
  });

  test.each([
    ['"beginBytes": 10737418240', '"beginBytes": 3', "beginBytes is not a volume's size"],
    ['"residency": "tiered"', '"residency": "cold"', 'residency is not "full" or "tiered"'],
    ['"historyMs": 604800000', '"historyMs": -1', "historyMs is not a time span of 0 ms to 100 years"],
    ['"lsn":4711', '"lsn":0', "origin.lsn is not an LSN"],
    ['"holder":"rebase"', '"holder":"me"', 'pins[1].holder is neither a volume id nor "rebase"'],
    ['"name":"nightly.2"', '"name":"before-upgrade"', "snapshots[1] is there twice: before-upgrade"],
    ['"bucketAway": "stop"', '"bucketAway": "stop",\n  "extra": 1', '"extra" is not known'],
  ])("%s → %s is named", (from, to, message) => {
    expect(() => read(edited(from, to))).toThrow(message);
  });
});
