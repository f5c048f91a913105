// The soak's drift check must be able to fail, and must not fail on noise.

import { describe, expect, it } from "vitest";
import { checkDrift, type Sample } from "../soak/drift.ts";

const steady: Sample = {
  atSeconds: 0,
  rssMiB: 150,
  fds: 40,
  threads: 20,
  cpuPercent: 50,
  dataMiB: 1500,
  writeP50Ms: 1,
  writeP99Ms: 5,
  readP50Ms: 0.3,
  readP99Ms: 2,
  controlP50Ms: 0.6,
};

const run = (change: (index: number) => Partial<Sample>): Sample[] =>
  Array.from({ length: 180 }, (_, index) => ({ ...steady, ...change(index), atSeconds: (index + 1) * 10 }));

const broken = (samples: Sample[]): string[] =>
  checkDrift(samples, 1800)
    .filter((check) => !check.holds)
    .map((check) => check.figure);

describe("drift", () => {
  it("passes a steady run with noise and a warm-up", () => {
    const noisy = run((index) => ({
      rssMiB: index < 30 ? 60 + index * 3 : 150 + (index % 7),
      fds: 40 + (index % 4),
    }));
    expect(broken(noisy)).toEqual([]);
  });

  it("finds a slow leak of memory and of descriptors, and a growing log", () => {
    expect(broken(run((index) => ({ rssMiB: 150 + index * 0.5 })))).toEqual(["rssMiB"]);
    expect(broken(run((index) => ({ fds: 40 + index * 0.5 })))).toEqual(["fds"]);
    expect(broken(run((index) => ({ dataMiB: 1500 + index * 10 })))).toEqual(["dataMiB"]);
  });

  it("finds latency that climbs", () => {
    expect(broken(run((index) => ({ writeP50Ms: 1 + index * 0.03 })))).toEqual(["writeP50Ms"]);
  });

  it("lets latency climb as far as the disk itself became slower", () => {
    const climbs = (index: number) => ({ writeP50Ms: 1 + index * 0.03 });
    expect(broken(run((index) => ({ ...climbs(index), controlP50Ms: 0.6 + index * 0.02 })))).toEqual([]);
  });

  it("refuses to judge a run without samples", () => {
    expect(() => checkDrift([], 60)).toThrow("too few samples");
  });
});
