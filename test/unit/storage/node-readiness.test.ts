// What a storage node calls ready: a replica that stopped is named and counted, and takes nothing from those that go on.
import { expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { healthMetrics } from "#shared/shell/health-metrics.ts";
import { type NodeFacts, nodeReadiness } from "../../../services/storage/engine/node-readiness.ts";

const replica = (volume: string, condition: "following" | "halted"): NodeFacts["replicas"][number] => ({
  volume,
  node: "one",
  host: "one",
  condition,
  reason: "",
  appliedLsn: 7,
  checkpointLsn: 5,
  epoch: 1,
  sizeBytes: 2 ** 20,
  allocatedBytes: 0,
  roomBytes: 2 ** 20,
});
const damaged = (volume: string): NodeFacts["failures"][number] => ({
  volume,
  error: new VarveError("ImageDamaged", "Corrupt", "its image is damaged"),
});
const facts = (changes: Partial<NodeFacts>): NodeFacts => ({
  node: "one",
  away: null,
  replicas: [],
  failures: [],
  ...changes,
});

test("a node without replicas, or with all of them going, is ready", () => {
  const going = { replicas: [replica("a", "following"), replica("b", "following")] };
  for (const one of [{}, going])
    expect(nodeReadiness(facts(one))).toMatchObject({ ready: true, missing: [], degraded: [] });
});

test("one that halted, or could not be opened, is named, and the node stays ready by the other", () => {
  const replicas = [replica("a", "following"), replica("b", "halted")];
  const state = nodeReadiness(facts({ replicas, failures: [damaged("b"), damaged("c")] }));
  expect(state).toMatchObject({ ready: true, missing: [] });
  expect(state.degraded).toEqual([
    "the replica of b: its image is damaged",
    "the replica of c: its image is damaged",
  ]);
  const metrics = healthMetrics(state);
  for (const line of ["varve_ready 1", "varve_degraded 2"]) expect(metrics).toContain(`${line}\n`);
  for (const [volume, failed] of [
    ["a", 0],
    ["b", 1],
    ["c", 1],
  ] as const)
    expect(metrics).toContain(`varve_volume_failed{volume="${volume}"} ${failed}\n`);
});

test("where every replica stopped, and where NATS is away, it is not ready", () => {
  const all = nodeReadiness(facts({ replicas: [replica("b", "halted")], failures: [damaged("b")] }));
  expect(all).toMatchObject({ ready: false, missing: ["the replica of b: its image is damaged"] });
  const away = nodeReadiness(facts({ away: "NATS is away", replicas: [replica("a", "following")] }));
  expect(away).toMatchObject({ ready: false, missing: ["NATS is away"], degraded: [] });
});
