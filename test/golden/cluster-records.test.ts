// The records of docs/formats/cluster-records.md, byte for byte in both directions; flipped bits, cuts, foreign fields and newer
// versions are refused. The example is read from the page itself.
import { describe, expect, test } from "vitest";
import type { LeaseRecord, NodeRecord, PlacementRecord } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { decodeClusterRecord, encodeClusterRecord } from "#shared/formats/cluster-records.ts";
import { textExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const lease: LeaseRecord = {
  holder: "gate-1",
  address: "127.0.0.1:10809",
  tenure: "0f1e2d3c4b5a6978",
  epoch: 7,
  renewal: 42,
  leaseMs: 3000,
  state: "held",
};
const node: NodeRecord = {
  name: "shelf",
  host: "shelf.lan",
  version: "0.1.0",
  pools: [
    {
      name: "ssd",
      capacityBytes: 10 ** 12,
      freeBytes: 10 ** 11,
      quotaBytes: null,
      tags: ["fast", "mirrored"],
    },
    { name: "hdd", capacityBytes: 10 ** 13, freeBytes: 10 ** 12, quotaBytes: 10 ** 12, tags: [] },
  ],
  renewal: 3,
};
const placement: PlacementRecord = {
  volumeId: "5ca1ab1e00c0ffee",
  beginBytes: 2 ** 30,
  replicas: [{ node: "shelf", pool: "ssd" }],
};

const moving: PlacementRecord = {
  ...placement,
  replicas: [
    { node: "shelf", pool: "ssd", leaving: true },
    { node: "attic", pool: "ssd" },
    { node: "cellar", pool: "ssd" },
    { node: "desk", pool: "ssd" },
  ],
};

const signed = (document: unknown): Buffer => {
  const line = `${JSON.stringify(document)}\n`;
  return Buffer.from(`${line}xxh64:${checksumOf(Buffer.from(line)).toString(16).padStart(16, "0")}\n`);
};
const kindOf = (bytes: Buffer): string => {
  try {
    decodeClusterRecord("lease", bytes, "volume.x");
    return "taken";
  } catch (cause) {
    if (cause instanceof VarveError) return cause.kind;
    throw cause;
  }
};

describe("cluster records", () => {
  const bytes = textExample("cluster-records.md");

  test("the page's bytes are written and read", () => {
    expect(encodeClusterRecord("lease", lease).toString()).toBe(bytes.toString());
    expect(decodeClusterRecord("lease", bytes, "volume.x")).toEqual(lease);
  });

  test("nodes and placements come back as they were", () => {
    expect(decodeClusterRecord("node", encodeClusterRecord("node", node), "node.shelf")).toEqual(node);
    expect(decodeClusterRecord("placement", encodeClusterRecord("placement", placement), "p")).toEqual(
      placement,
    );
    const none = { name: "hdd", quotaBytes: 0, tags: null };
    const pools = { node: "shelf", pools: [{ name: "ssd", quotaBytes: null, tags: ["fast"] }, none] };
    expect(decodeClusterRecord("pools", encodeClusterRecord("pools", pools), "pools.shelf")).toEqual(pools);
    const files = { node: "shelf", pools: [{ name: "ssd", fileBytesMax: 2 ** 44 - 4096 }] };
    expect(decodeClusterRecord("files", encodeClusterRecord("files", files), "files.shelf")).toEqual(files);
    const drain = { node: "shelf" };
    expect(decodeClusterRecord("drain", encodeClusterRecord("drain", drain), "drain.shelf")).toEqual(drain);
  });

  test("an archive is of version 2 where it has a held base", () => {
    const plain = {
      archiver: "keeper",
      archiverEpoch: 2,
      line: "0f1e2d3c4b5a6978",
      archivedLsn: 90,
      heldLsn: 80,
      ...({ lastBaseLsn: 70, state: "running", error: "" } as const),
    };
    for (const [version, record] of [
      [1, plain],
      [2, { ...plain, heldBase: { s: 70, e: 75 } }],
    ] as const) {
      const written = encodeClusterRecord("archive", record);
      expect(written.toString()).toContain(`"version":${version},`);
      expect(decodeClusterRecord("archive", written, "a")).toEqual(record);
    }
  });

  test("a placement is of version 2 while a replica leaves, and only then", () => {
    const written = encodeClusterRecord("placement", moving);
    expect(written.toString()).toContain('"version":2');
    expect(decodeClusterRecord("placement", written, "p")).toEqual(moving);
    expect(encodeClusterRecord("placement", placement).toString()).toContain('"version":1');
    const wrong = (version: number, record: unknown): unknown => {
      try {
        return decodeClusterRecord("placement", signed({ format: "varve-placement", version, record }), "p");
      } catch (cause) {
        return cause instanceof VarveError ? cause.kind : cause;
      }
    };
    expect(wrong(1, moving)).toBe("Corrupt");
    expect(wrong(2, { ...moving, replicas: [{ node: "shelf", pool: "ssd", leaving: false }] })).toBe(
      "Corrupt",
    );
    expect(wrong(3, moving)).toBe("Corrupt");
    expect(wrong(4, moving)).toBe("Invalid");
  });

  test("a placement is of version 3 where it is a clone's, and is never read without its origin", () => {
    const origin = { volumeId: "00112233aabbccdd", lsn: 7 };
    for (const one of [placement, moving, { ...placement, replicas: [] }]) {
      const written = encodeClusterRecord("placement", { ...one, origin });
      expect(written.toString()).toContain('"version":3');
      expect(decodeClusterRecord("placement", written, "p")).toEqual({ ...one, origin });
    }
    for (const version of [1, 2]) {
      const document = { format: "varve-placement", version, record: { ...placement, origin } };
      expect(() => decodeClusterRecord("placement", signed(document), "p")).toThrow(/origin/);
    }
  });

  test("every flipped bit, every cut and every surplus byte is found", () => {
    const accepts = (changed: Buffer): boolean => kindOf(changed) === "taken";
    expect(accepts(bytes)).toBe(true);
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
    expect(accepts(Buffer.concat([bytes, Buffer.from("\n")]))).toBe(false);
  });

  test("what is intact but not ours is refused, a newer version as such", () => {
    const document = { format: "varve-lease", version: 1, record: lease };
    expect(kindOf(signed(document))).toBe("taken");
    expect(kindOf(signed({ ...document, version: 2 }))).toBe("Invalid");
    expect(kindOf(signed({ ...document, format: "varve-node" }))).toBe("Corrupt");
    expect(kindOf(signed({ ...document, record: { ...lease, holder: "a.b" } }))).toBe("Corrupt");
    expect(kindOf(signed({ ...document, record: { ...lease, more: 1 } }))).toBe("Corrupt");
    expect(kindOf(signed({ ...document, record: { ...lease, epoch: 0 } }))).toBe("Corrupt");
    expect(kindOf(signed(null))).toBe("Corrupt");
    expect(kindOf(Buffer.alloc(70_000, " "))).toBe("Corrupt");
  });
});
