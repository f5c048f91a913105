// The table of extents and the blocks of a partly local one against the plainest model: one mark per byte. Every query,
// the record in a checkpoint and the table made of it again say the same.
import { describe, expect, test } from "vitest";
import { ExtentTable } from "#shared/adapters/replica-image/extent-table.ts";
import { limits } from "#shared/domain/limits.ts";
import { LocalBlocks } from "#shared/domain/local-blocks.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";

const { extentBytes } = limits;
const pointA: RemotePoint = { volumeId: "00000000000000aa", lsn: 1 };
const pointB: RemotePoint = { volumeId: "00000000000000bb", lsn: 2 };

describe("local blocks", { timeout: 60_000 }, () => {
  test("any ranges, in any order, are exactly what was added", () => {
    const random = new SteppedRandom(2);
    for (let round = 0; round < 30; round += 1) {
      const local = new LocalBlocks();
      const model = new Uint8Array(extentBytes);
      // Near each other, so that they touch, overlap and fill blocks.
      const from = random.integer(0, extentBytes - 40_000);
      for (let index = 0; index < 60; index += 1) {
        const start = from + random.integer(0, 30_000);
        const end = Math.min(extentBytes, start + random.integer(1, random.chance(0.5) ? 300 : 9000));
        local.add(start, end);
        model.fill(1, start, end);
      }
      const seen = new Uint8Array(extentBytes).fill(7);
      let at = 0;
      let before: boolean | null = null;
      local.visit(0, extentBytes, (start, end, inFile) => {
        expect([start, end > start, inFile !== before]).toEqual([at, true, true]);
        seen.fill(inFile ? 1 : 0, start, end);
        at = end;
        before = inFile;
      });
      expect(Buffer.compare(seen, model)).toBe(0);
      const start = from + random.integer(0, 30_000);
      const end = start + random.integer(1, 5000);
      expect(local.covers(start, end)).toBe(!model.subarray(start, end).includes(0));
      expect(local.full).toBe(false);
    }
  });

  test("an extent written block by block, or byte range by byte range, is full", () => {
    const blocks = new LocalBlocks();
    for (let at = 0; at < extentBytes; at += 4096) blocks.add(at, at + 4096);
    expect([blocks.full, blocks.edgeCount]).toEqual([true, 0]);
    const odd = new LocalBlocks();
    for (let at = 0; at < extentBytes; at += 3001) odd.add(at, Math.min(extentBytes, at + 3001));
    expect([odd.full, odd.edgeCount]).toEqual([true, 0]);
  });
});

describe("extent table", { timeout: 60_000 }, () => {
  /** Where each 512-byte sector is. */
  class Model {
    places: (RemotePoint | null)[];
    constructor(sizeBytes: number) {
      this.places = Array.from({ length: sizeBytes / 512 }, () => null);
    }
  }

  function expectSame(table: ExtentTable, model: Model): void {
    const seen: (RemotePoint | null)[] = [];
    let at = 0;
    table.visit(0, table.sizeBytes, (start, end, point) => {
      expect(start).toBe(at);
      for (let sector = start / 512; sector < end / 512; sector += 1) seen.push(point);
      at = end;
    });
    expect(seen.length).toBe(model.places.length);
    const wrong = seen.findIndex((point, index) => point?.lsn !== model.places[index]?.lsn);
    expect(wrong).toBe(-1);
    const perExtent = extentBytes / 512;
    let notLocal = 0;
    for (let extent = 0; extent < table.extents; extent += 1) {
      const inside = model.places.slice(extent * perExtent, (extent + 1) * perExtent);
      const remote = inside.some((place) => place !== null);
      if (remote) notLocal += 1;
      expect(table.isLocal(extent)).toBe(!remote);
    }
    expect([table.notLocal, table.allLocal]).toEqual([notLocal, notLocal === 0]);
    const first = model.places.findIndex((place) => place !== null);
    expect(table.nextRemote(0)).toBe(first === -1 ? -1 : Math.floor(first / perExtent));
  }

  test("random marks, evictions, rollbacks and sizes; recorded and read again", () => {
    for (let seed = 0; seed < 12; seed += 1) {
      const random = new SteppedRandom(seed);
      const model = new Model(6 * extentBytes + 512 * 100);
      let table = new ExtentTable(model.places.length * 512);
      for (let step = 0; step < 30; step += 1) {
        const kind = random.next();
        const first = random.integer(0, table.extents);
        const count = random.integer(1, 4);
        if (kind < 0.3) {
          const point = random.chance(0.5) ? pointA : pointB;
          table.setRemote(first, count, point);
          const perExtent = extentBytes / 512;
          const end = Math.min(model.places.length, (first + count) * perExtent);
          model.places.fill(point, first * perExtent, end);
        } else if (kind < 0.8) {
          const start = random.integer(0, model.places.length);
          const end = Math.min(
            model.places.length,
            start + random.integer(1, random.chance(0.5) ? 200 : 20_000),
          );
          table.markLocal(start * 512, end * 512);
          model.places.fill(null, start, end);
        } else if (kind < 0.9) {
          const sectors = random.integer(100, 60_000);
          table.resize(sectors * 512);
          while (model.places.length < sectors) model.places.push(null);
          model.places.length = sectors;
        } else {
          const recorded = table.record(new Map());
          if (recorded !== "full") table = ExtentTable.of(recorded, table.sizeBytes);
          else table = new ExtentTable(table.sizeBytes);
        }
        expectSame(table, model);
      }
    }
  });

  test("extents that are leaving are recorded as remote, the last one's end as local", () => {
    const table = new ExtentTable(2 * extentBytes + 4096);
    const recorded = table.record(new Map([[2, pointA]]));
    expect(recorded).toMatchObject({
      points: [pointA],
      runs: [
        { extents: 2, place: 0 },
        { extents: 1, place: 1 },
      ],
    });
    if (recorded === "full") throw new TypeError("an extent is leaving");
    const again = ExtentTable.of(recorded, 2 * extentBytes + 4096);
    again.resize(3 * extentBytes);
    expect(again.isRangeLocal(2 * extentBytes + 4096, extentBytes - 4096)).toBe(true);
    expect(again.isRangeLocal(2 * extentBytes, 1)).toBe(false);
    expect(table.allLocal).toBe(true);
  });

  test("a terabyte that is remote is one run, and eviction moves own points along", () => {
    const table = new ExtentTable(2 ** 40);
    table.setRemote(0, table.extents, pointA);
    expect(table.record(new Map())).toMatchObject({ runs: [{ extents: 262_144, place: 1 }], parts: [] });
    table.setRemote(100, 5, { ...pointB, lsn: 9 });
    table.repointOwn({ ...pointB, lsn: 12 });
    expect(table.points()).toEqual([pointA, { ...pointB, lsn: 12 }]);
    expect(table.pointOf(102)).toEqual({ ...pointB, lsn: 12 });
  });
});
