// What a process of a cluster says at /readyz as numbers for Prometheus: each metric once with its type, volumes as labels.
import { expect, test } from "vitest";
import { healthMetrics } from "#shared/shell/health-metrics.ts";

test("a gateway's volumes, its counters and what is no number", () => {
  const volume = (name: string, unprovenReads: number) => ({
    volumeId: "5ca1ab1e00c0ffee",
    name,
    state: "serving",
    unprovenReads,
    leaseRemainingMs: 2500.5,
    counters: { readBytes: 7 },
  });
  const detail = {
    gateway: "gate-1",
    nodes: 3,
    volumes: [volume("free", 0), volume("strict", 2)],
    odd: [null, 1, {}],
  };
  expect(healthMetrics({ ready: false, missing: ["NATS"], detail })).toBe(`# TYPE varve_ready gauge
varve_ready 0
# TYPE varve_nodes gauge
varve_nodes 3
# TYPE varve_volume_unproven_reads counter
varve_volume_unproven_reads{volume="free"} 0
varve_volume_unproven_reads{volume="strict"} 2
# TYPE varve_volume_lease_remaining_ms gauge
varve_volume_lease_remaining_ms{volume="free"} 2500.5
varve_volume_lease_remaining_ms{volume="strict"} 2500.5
# TYPE varve_volume_read_bytes counter
varve_volume_read_bytes{volume="free"} 7
varve_volume_read_bytes{volume="strict"} 7
`);
});
