// The extent map against a naive model: one cell per byte. Seeded random inserts, removes and queries on small and on
// large maps, the cuts by hand, and the promise that positions follow the bytes through every cut.
import { describe, expect, test } from "vitest";
import { ExtentMap } from "#shared/domain/extent-map.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

type Value = { readonly name: string };
type Piece = [start: number, end: number, name: string, position: number];

function pieces(map: ExtentMap<Value>, start = 0, end = 2 ** 50): Piece[] {
  const found: Piece[] = [];
  map.visit(start, end, (from, to, value, position) => found.push([from, to, value.name, position]));
  return found;
}

const a: Value = { name: "a" };
const b: Value = { name: "b" };
const c: Value = { name: "c" };

describe("cuts", () => {
  test("a new range inside an older one leaves both ends with their positions", () => {
    const map = new ExtentMap<Value>();
    map.insert(100, 200, a, 1000);
    map.insert(140, 150, b, 5000);
    expect(pieces(map)).toEqual([
      [100, 140, "a", 1000],
      [140, 150, "b", 5000],
      [150, 200, "a", 1050],
    ]);
    expect(map.size).toBe(3);
  });

  test("a new range over the ends of two and the whole of a third", () => {
    const map = new ExtentMap<Value>();
    map.insert(0, 10, a, 0);
    map.insert(10, 20, b, 0);
    map.insert(20, 30, a, 100);
    map.insert(5, 25, c, 7);
    expect(pieces(map)).toEqual([
      [0, 5, "a", 0],
      [5, 25, "c", 7],
      [25, 30, "a", 105],
    ]);
  });

  test("the same range again replaces it", () => {
    const map = new ExtentMap<Value>();
    map.insert(10, 20, a, 0);
    map.insert(10, 20, b, 3);
    expect(pieces(map)).toEqual([[10, 20, "b", 3]]);
    expect(map.size).toBe(1);
  });

  test("remove takes only what still maps to the value", () => {
    const map = new ExtentMap<Value>();
    map.insert(0, 100, a, 0);
    map.insert(40, 60, b, 0);
    map.remove(0, 100, a);
    expect(pieces(map)).toEqual([[40, 60, "b", 0]]);
    map.remove(45, 50, b);
    expect(pieces(map)).toEqual([
      [40, 45, "b", 0],
      [50, 60, "b", 10],
    ]);
    map.remove(0, 2 ** 50, b);
    expect(map.size).toBe(0);
  });

  test("a query is clipped, with the position of its first byte", () => {
    const map = new ExtentMap<Value>();
    map.insert(100, 200, a, 1000);
    expect(pieces(map, 130, 150)).toEqual([[130, 150, "a", 1030]]);
    expect(pieces(map, 0, 100)).toEqual([]);
    expect(pieces(map, 200, 300)).toEqual([]);
    expect(pieces(map, 199, 300)).toEqual([[199, 200, "a", 1099]]);
  });

  test("neighbours that continue each other are one range", () => {
    const map = new ExtentMap<Value>();
    for (let index = 0; index < 200; index += 1)
      map.insert(index * 4096, (index + 1) * 4096, a, 64 + index * 4096);
    expect(pieces(map)).toEqual([[0, 200 * 4096, "a", 64]]);
    map.insert(200 * 4096, 201 * 4096, a, 0);
    map.insert(201 * 4096, 202 * 4096, b, 4096);
    expect(map.size).toBe(3);
  });

  test("a trim of the largest device over 100,000 ranges", () => {
    const map = new ExtentMap<Value>();
    for (let index = 0; index < 100_000; index += 1) map.insert(index * 8192, index * 8192 + 4096, a, index);
    expect(map.size).toBe(100_000);
    expect(map.covers(8192, 12_288)).toBe(true);
    expect(map.covers(8192, 12_289)).toBe(false);
    map.insert(0, 2 ** 50, b, 0);
    expect(pieces(map)).toEqual([[0, 2 ** 50, "b", 0]]);
    expect(map.covers(0, 2 ** 50)).toBe(true);
  });

  test("an empty or unsafe range is a broken invariant", () => {
    const map = new ExtentMap<Value>();
    expect(() => map.insert(5, 5, a, 0)).toThrow("invariant");
    expect(() => map.insert(-1, 5, a, 0)).toThrow("invariant");
    expect(() => map.insert(0, 2 ** 53, a, 0)).toThrow("invariant");
  });
});

/** Per byte: the value and the position it has to stand at. */
class NaiveMap {
  readonly values: (Value | null)[];
  readonly positions: number[];

  constructor(bytes: number) {
    this.values = Array.from({ length: bytes }, () => null);
    this.positions = Array.from({ length: bytes }, () => 0);
  }

  insert(start: number, end: number, value: Value, position: number): void {
    for (let at = start; at < end; at += 1) {
      this.values[at] = value;
      this.positions[at] = position + at - start;
    }
  }

  remove(start: number, end: number, value: Value): void {
    for (let at = start; at < end; at += 1) if (this.values[at] === value) this.values[at] = null;
  }
}

function expectSame(map: ExtentMap<Value>, naive: NaiveMap, start: number, end: number): void {
  let at = start;
  let mistakes = 0;
  let last = -1;
  map.visit(start, end, (from, to, value, position) => {
    if (from < at || to <= from || from <= last - 1) mistakes += 1;
    for (; at < from; at += 1) if (naive.values[at] !== null) mistakes += 1;
    for (; at < to; at += 1) {
      if (naive.values[at] !== value || naive.positions[at] !== position + at - from) mistakes += 1;
    }
    last = to;
  });
  for (; at < end; at += 1) if (naive.values[at] !== null) mistakes += 1;
  expect(mistakes).toBe(0);
}

describe("against one cell per byte", () => {
  const runs = [
    { title: "few large ranges", bytes: 256, lengthMax: 80, steps: 3000, seed: 1 },
    { title: "many small ranges, several chunks", bytes: 6000, lengthMax: 6, steps: 12_000, seed: 2 },
    {
      title: "small ranges and sweeps over many chunks",
      bytes: 6000,
      lengthMax: 6,
      steps: 12_000,
      seed: 3,
      sweeps: true,
    },
  ];
  for (const run of runs) {
    test(run.title, () => {
      const random = new SeededRandom(run.seed);
      const map = new ExtentMap<Value>();
      const naive = new NaiveMap(run.bytes);
      const values = Array.from({ length: 12 }, (_, index): Value => ({ name: String(index) }));
      for (let step = 0; step < run.steps; step += 1) {
        const wide = run.sweeps === true && random.chance(0.004);
        const start = random.between(0, run.bytes);
        const end = Math.min(run.bytes, start + random.between(1, wide ? run.bytes : run.lengthMax + 1));
        const value = values[random.between(0, values.length)] as Value;
        if (random.chance(0.6)) {
          const position = random.between(0, 4) * 1000;
          map.insert(start, end, value, position);
          naive.insert(start, end, value, position);
        } else {
          const spread = random.chance(0.02) ? 500 : 0;
          map.remove(Math.max(0, start - spread), Math.min(run.bytes, end + spread), value);
          naive.remove(Math.max(0, start - spread), Math.min(run.bytes, end + spread), value);
        }
        if (step % 97 === 0) {
          expectSame(map, naive, 0, run.bytes);
          expectSame(map, naive, start, end);
          expect(map.covers(start, end)).toBe(naive.values.slice(start, end).every((cell) => cell !== null));
        }
      }
      expectSame(map, naive, 0, run.bytes);
      let found = 0;
      map.visit(0, run.bytes, () => (found += 1));
      expect(map.size).toBe(found);
      for (const value of values) map.remove(0, run.bytes, value);
      expect(map.size).toBe(0);
    });
  }
});
