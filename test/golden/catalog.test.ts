// The catalogue of docs/formats/catalog.md, byte for byte in both directions; every flipped bit, every cut and every
// surplus byte is found. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { noOrders } from "#shared/domain/volume-orders.ts";
import { decodeCatalog, encodeCatalog } from "#shared/formats/catalog.ts";
import { textExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const records: VolumeRecord[] = [
  {
    id: "5ca1ab1e00c0ffee",
    name: "disk0",
    sizeBytes: 10_737_418_240,
    durability: "write",
    createdAtMs: 1_763_688_000_000,
    state: "active",
  },
  {
    id: "0123456789abcdef",
    name: "backup_2026",
    sizeBytes: 536_870_912,
    durability: "flush",
    createdAtMs: 1_763_688_000_001,
    state: "creating",
  },
];

describe("catalogue", () => {
  const bytes = textExample("catalog.md");
  const accepts = (changed: Buffer): boolean => {
    try {
      decodeCatalog(changed, "catalog.json");
      return true;
    } catch (cause) {
      if (cause instanceof VarveError && cause.kind === "Corrupt") return false;
      throw cause;
    }
  };

  test("the page's bytes are written, whatever the order of the records", () => {
    expect(encodeCatalog(records).toString()).toBe(bytes.toString());
    expect(encodeCatalog(records.toReversed()).toString()).toBe(bytes.toString());
  });

  test("the page's bytes are read, sorted by name", () => {
    expect(decodeCatalog(bytes, "catalog.json")).toEqual(records.toReversed());
  });

  test("version 2 is written where a volume needs it, and only there", () => {
    const [disk0, backup] = records as [VolumeRecord, VolumeRecord];
    const strict = { ...disk0, reads: "strict" } as const;
    const page = textExample("catalog.md", "json-2");
    expect(encodeCatalog([strict, backup]).toString()).toBe(page.toString());
    expect(decodeCatalog(page, "catalog.json")).toEqual([backup, strict]);
    expect(undetectedFlips(page, accepts)).toEqual([]);
    const usual = [{ ...disk0, reads: "available" }, backup] as const;
    expect(encodeCatalog(usual).toString()).toBe(bytes.toString());
  });

  test("version 3 is written where a volume has orders, and only there", () => {
    const [disk0, backup] = records as [VolumeRecord, VolumeRecord];
    const daily = { name: "daily", everyMs: 86_400_000, keep: 7 };
    const orders = { lab: "home", tags: ["ssd"], logReplicas: 3, schedules: [daily] };
    const page = textExample("catalog.md", "json-3");
    expect(encodeCatalog([{ ...disk0, orders }, backup]).toString()).toBe(page.toString());
    expect(decodeCatalog(page, "catalog.json")).toEqual([backup, { ...disk0, orders }]);
    expect(undetectedFlips(page, accepts)).toEqual([]);
    expect(encodeCatalog([{ ...disk0, orders: noOrders }, backup]).toString()).toBe(bytes.toString());
  });

  test("version 4 is written where a volume was moved, or arrives", () => {
    const [disk0, backup] = records as [VolumeRecord, VolumeRecord];
    const move = { volumeId: "00c0ffee5ca1ab1e", place: "http://10.83.0.41:8080" };
    const moved = { ...disk0, state: "moved", move } as const;
    const page = textExample("catalog.md", "json-4");
    expect(encodeCatalog([moved, backup]).toString()).toBe(page.toString());
    expect(decodeCatalog(page, "catalog.json")).toEqual([backup, moved]);
    expect(undetectedFlips(page, accepts)).toEqual([]);
  });

  test("version 5 is written where a deleted volume's files stay", () => {
    const [disk0, backup] = records as [VolumeRecord, VolumeRecord];
    const settling = { ...disk0, state: "settling" } as const;
    const page = textExample("catalog.md", "json-5");
    expect(encodeCatalog([settling, backup]).toString()).toBe(page.toString());
    expect(decodeCatalog(page, "catalog.json")).toEqual([backup, settling]);
    expect(undetectedFlips(page, accepts)).toEqual([]);
  });

  test("they are JSON as they stand", () => {
    expect(JSON.parse(bytes.toString())).toMatchObject({ format: "varve-catalog", version: 1 });
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every cut and every surplus byte is found", () => {
    expect(accepts(bytes)).toBe(true);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.from("\n")]))).toBe(false);
  });
});
