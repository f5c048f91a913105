// The swarm, small: four volumes for twenty seconds, snapshots taken and judged under load, kill -9, judged again. `npm run swarm` is the
// long one.
import { expect, it } from "vitest";
import { runSwarm } from "../swarm/swarm-run.ts";

it("keeps every byte of every point while volumes are written, snapshotted and read", async () => {
  const result = await runSwarm({ seconds: 20, volumes: 4, bucket: null, stallMs: 10_000 });
  expect(result.failures).toEqual([]);
  const { snapshots, pointsVerified, pointsReread, fileSystems } = result.counts;
  expect(snapshots).toBeGreaterThan(8);
  expect(pointsVerified).toBeGreaterThan(8);
  expect(pointsReread).toBeGreaterThan(8);
  expect(fileSystems).toBeGreaterThan(0);
});
