// Placement of replicas: fewest volumes first, first pool that fits, one replica per node; too few nodes change nothing and say why.
import { describe, expect, test } from "vitest";
import type { NodeRecord, PlacementRecord, PoolRecord } from "#shared/domain/cluster.ts";
import { machineNameMistake } from "#shared/domain/cluster.ts";
import { limits } from "#shared/domain/limits.ts";
import { type PlacementGround, placeReplicas, placesTooSmall } from "#shared/domain/placement.ts";

const gib = 2 ** 30;
const pool = (name: string, changes: Partial<PoolRecord> = {}): PoolRecord => ({
  name,
  capacityBytes: 100 * gib,
  freeBytes: 50 * gib,
  quotaBytes: null,
  tags: [],
  ...changes,
});
const node = (name: string, pools: readonly PoolRecord[] = [pool("main")]): NodeRecord => ({
  name,
  host: name,
  version: "1",
  pools,
  renewal: 1,
});
const placed = (volumeId: string, ...places: readonly string[]): PlacementRecord => ({
  volumeId,
  beginBytes: gib,
  replicas: places.map((place) => ({ node: place.split("/")[0] ?? "", pool: place.split("/")[1] ?? "" })),
});
const ground = (
  nodes: readonly NodeRecord[],
  placements: readonly PlacementRecord[] = [],
): PlacementGround => ({ nodes, placements, sizeOf: () => 10 * gib });
const wish = { sizeBytes: 10 * gib, replicas: 1, tags: [] };

describe("placement", () => {
  test("the node with the fewest volumes comes first, then the name decides", () => {
    const nodes = [node("c"), node("b"), node("a")];
    expect(placeReplicas(wish, ground(nodes))).toEqual([{ node: "a", pool: "main" }]);
    expect(placeReplicas(wish, ground(nodes, [placed("1", "a/main"), placed("2", "b/main")]))).toEqual([
      { node: "c", pool: "main" },
    ]);
  });

  test("one replica per node", () => {
    const nodes = [node("a", [pool("x"), pool("y")]), node("b")];
    expect(placeReplicas({ ...wish, replicas: 2 }, ground(nodes))).toEqual([
      { node: "a", pool: "x" },
      { node: "b", pool: "main" },
    ]);
    expect(() => placeReplicas({ ...wish, replicas: 3 }, ground(nodes))).toThrow("and 2 can take one");
  });

  test("nodes that are silent or drained are named where they are missed", () => {
    const unfit = new Map([
      ["b", "is not heard for 12 s"],
      ["c", "is drained"],
    ]);
    const some = { ...ground([node("a")]), unfit };
    expect(() => placeReplicas({ ...wish, replicas: 2 }, some)).toThrow(
      "and 1 can take one: b is not heard for 12 s; c is drained",
    );
    expect(() => placeReplicas({ ...wish, node: "c" }, some)).toThrow("and 0 can take one: c is drained");
  });

  test("quota, free space and tags pass pools over, and the refusal names each", () => {
    const nodes = [
      node("a", [pool("full", { freeBytes: 0 }), pool("quota", { quotaBytes: 15 * gib })]),
      node("b", [pool("slow"), pool("fast", { tags: ["ssd", "mirror"] })]),
    ];
    const before = [placed("1", "a/quota")];
    expect(placeReplicas(wish, ground(nodes, before))).toEqual([{ node: "b", pool: "slow" }]);
    expect(placeReplicas({ ...wish, tags: ["ssd"] }, ground(nodes, before))).toEqual([
      { node: "b", pool: "fast" },
    ]);
    expect(() => placeReplicas({ ...wish, tags: ["nvme"] }, ground(nodes, before))).toThrow(
      "b/slow lacks the tag nvme; b/fast lacks the tag nvme; a/full lacks the tag nvme; a/quota lacks the tag nvme",
    );
    expect(() => placeReplicas({ ...wish, replicas: 2 }, ground(nodes, before))).toThrow(
      "a/full has no free space above its reserve; a/quota has its quota used up",
    );
  });

  test("a file system that takes no file of the size passes its pool over, and says how large they may be", () => {
    const nodes = [
      node("a", [pool("ext4", { fileBytesMax: 16 * 1024 * gib - 4096 })]),
      node("b", [pool("xfs", { fileBytesMax: limits.volumeBytesMax })]),
      node("c", [pool("unsaid")]),
    ];
    const large = { ...wish, sizeBytes: 16 * 1024 * gib, replicas: 2 };
    expect(placeReplicas(large, ground(nodes)).map((place) => place.node)).toEqual(["b", "c"]);
    expect(() => placeReplicas({ ...large, replicas: 3 }, ground(nodes))).toThrow(
      /a\/ext4 holds no file larger than 1[0-9.]+ TiB/,
    );
    const places = [...placed("1", "a/ext4", "b/xfs", "c/unsaid").replicas];
    expect(placesTooSmall(large.sizeBytes - 4096, places, nodes)).toEqual([]);
    expect(placesTooSmall(large.sizeBytes, places, nodes)).toEqual([
      expect.stringMatching(/^a\/ext4 holds no file larger than/),
    ]);
  });

  test("names of machines stand in subjects: no dots, no capitals", () => {
    expect(["node-1", "a"].map(machineNameMistake)).toEqual([null, null]);
    for (const name of ["", "a.b", "A", "-a", "a*", "a".repeat(64)])
      expect(machineNameMistake(name)).not.toBeNull();
  });
});
