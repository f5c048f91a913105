// Orders of a lab file in a cluster's key tables: quotas and tags of pools go before what the node says, and by them replicas are placed.
import { beforeEach, describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import type { PoolRecord } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { placeReplicas } from "#shared/domain/placement.ts";
import { requireNode, requirePools } from "../../../services/api/engine/node-rules.ts";

const own: PoolRecord = {
  name: "main",
  capacityBytes: 2 ** 40,
  freeBytes: 2 ** 39,
  quotaBytes: 2 ** 30,
  tags: ["old"],
};
const tagOf = (act: () => unknown): string => {
  try {
    act();
  } catch (cause) {
    if (cause instanceof VarveError) return cause._tag;
    throw cause;
  }
  return "done";
};
let map: KeyTableMap;
let other: KeyTableMap;

beforeEach(async () => {
  const keys = new MemoryKeys();
  map = new KeyTableMap(new MemoryKeyTable(keys), new SystemClock());
  other = new KeyTableMap(new MemoryKeyTable(keys), new SystemClock());
  for (const name of ["a", "b"]) {
    await map.putNode({ name, host: name, version: "0", pools: [own], renewal: 1 });
  }
});

const poolOf = async (name: string): Promise<PoolRecord | undefined> => {
  await new Promise<void>((resolve) => {
    setImmediate(resolve);
  });
  return other.nodes().find(({ record }) => record.name === name)?.record.pools[0];
};
const order = { name: "main", quotaBytes: null, tags: null };

describe("pools", () => {
  test("an order holds for everybody, whatever the node says later, and each part by itself", async () => {
    await map.setPools("a", [{ ...order, quotaBytes: 2 ** 20 }]);
    expect(await poolOf("a")).toMatchObject({ quotaBytes: 2 ** 20, tags: ["old"] });
    await other.setPools("a", [{ ...order, tags: ["ssd"] }]);
    await map.putNode({ name: "a", host: "a", version: "1", pools: [own], renewal: 2 });
    expect(await poolOf("a")).toMatchObject({ quotaBytes: 2 ** 20, tags: ["ssd"], freeBytes: 2 ** 39 });
    await map.setPools("a", [
      { ...order, quotaBytes: 0 },
      { ...order, name: "later", tags: [] },
    ]);
    expect(await poolOf("a")).toMatchObject({ quotaBytes: null, tags: ["ssd"] });
    expect(await poolOf("b")).toEqual(own);
  });

  test("how large files may be is with the pool for everybody, whatever else is ordered or said", async () => {
    await map.putFileLimits({ node: "a", pools: [{ name: "main", fileBytesMax: 2 ** 44 }] });
    await map.setPools("a", [{ ...order, tags: ["ssd"] }]);
    expect(await poolOf("a")).toEqual({ ...own, tags: ["ssd"], fileBytesMax: 2 ** 44 });
    await map.putNode({ name: "a", host: "a", version: "1", pools: [own], renewal: 2 });
    await map.putFileLimits({ node: "a", pools: [{ name: "main", fileBytesMax: 2 ** 50 }] });
    expect(await poolOf("a")).toMatchObject({ fileBytesMax: 2 ** 50 });
    expect(await poolOf("b")).toEqual(own);
  });

  test("what is not there can't be ordered, and nothing holds of orders with a mistake", () => {
    const node = { name: "a", host: "a", version: "0", pools: [own], renewal: 1 };
    const view = { ...node, alive: true, drained: false, ageMs: 0, volumes: [] };
    expect(tagOf(() => requirePools(view, [order, { ...order, name: "hdd" }]))).toBe("UnknownPoolError");
    expect(tagOf(() => requirePools(view, [{ ...order, tags: ["SSD"] }]))).toBe("PoolOrderError");
    expect(tagOf(() => requirePools(view, [{ ...order, tags: ["ssd"] }]))).toBe("done");
    expect(tagOf(() => requireNode(undefined, "b", [view]))).toBe("UnknownNodeError");
  });

  test("replicas are placed by ordered tags and quotas", async () => {
    const place = (): readonly string[] =>
      placeReplicas(
        { sizeBytes: 2 ** 21, replicas: 1, tags: ["ssd"] },
        { nodes: map.nodes().map(({ record }) => record), placements: [], sizeOf: () => 0 },
      ).map(({ node }) => node);
    expect(place).toThrow("lacks the tag ssd");
    await map.setPools("b", [{ ...order, tags: ["old", "ssd"] }]);
    expect(place()).toEqual(["b"]);
    await map.setPools("b", [{ ...order, quotaBytes: 2 ** 20 }]);
    expect(place).toThrow("has its quota used up");
  });
});
