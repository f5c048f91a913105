/*
 * The bounded simulation of `npm test`: every seed that ever failed, some more, and the quickest mutants, so that a
 * simulator that can't fail shows. The whole of it is `npm run simulate`. See docs/specs/simulator.md.
 */
import { describe, expect, it } from "vitest";
import { clusterMutants } from "./cluster/cluster-mutants.ts";
import { runClusterSeed } from "./cluster/cluster-run.ts";
import { mutants } from "./mutants.ts";
import { catchClusterMutant, catchMutant, catchPastMutant } from "./mutation-check.ts";
import { PrefixOracle } from "./oracle.ts";
import { pastMutants } from "./past/past-mutants.ts";
import { runPastSeed } from "./past/past-run.ts";
import { runSeed } from "./run-seed.ts";
import { keptSeeds, type WorldName } from "./seed-list.ts";

const kept = (world: WorldName): number[] =>
  keptSeeds().flatMap((one) => (one.world === world ? [one.seed] : []));
const moreSeeds = Array.from({ length: 60 }, (_, index) => 100_001 + index);
const moreClusterSeeds = Array.from({ length: 20 }, (_, index) => 300_001 + index);
const morePastSeeds = Array.from({ length: 12 }, (_, index) => 200_001 + index);

describe("the one-machine system under faults", () => {
  it.each([...new Set([...kept("machine"), ...moreSeeds])])("seed %i", async (seed) => {
    const { failure } = await runSeed(seed);
    expect(failure, `replay: npm run simulate -- --seed ${seed} --trace`).toBeNull();
  });

  it("gives the same run for the same seed", async () => {
    const traceOf = async (): Promise<readonly string[]> => {
      const lines: string[] = [];
      await runSeed(7, { print: (line) => lines.push(line) });
      return lines;
    };
    const first = await traceOf();
    expect(first.length).toBeGreaterThan(100);
    expect(await traceOf()).toEqual(first);
  });
});

describe("a machine with a bucket under faults of both", () => {
  it.each([...new Set([...kept("past"), ...morePastSeeds])])("seed %i", async (seed) => {
    const { failure } = await runPastSeed(seed);
    expect(failure, `replay: npm run simulate -- --world past --seed ${seed} --trace`).toBeNull();
  });

  it("gives the same run for the same seed", async () => {
    const traceOf = async (): Promise<readonly string[]> => {
      const lines: string[] = [];
      await runPastSeed(9, { print: (line) => lines.push(line) });
      return lines;
    };
    const first = await traceOf();
    expect(first.length).toBeGreaterThan(100);
    expect(await traceOf()).toEqual(first);
  });
});

describe("several machines under faults of processes, servers and network", () => {
  it.each([...new Set([...kept("cluster"), ...moreClusterSeeds])])("seed %i", async (seed) => {
    const { failure } = await runClusterSeed(seed);
    expect(failure, `replay: npm run simulate -- --world cluster --seed ${seed} --trace`).toBeNull();
  });

  it("gives the same run for the same seed", async () => {
    const runOf = async (): Promise<{ lines: readonly string[]; steps: number }> => {
      const lines: string[] = [];
      const { steps } = await runClusterSeed(300_003, { print: (line) => lines.push(line) });
      return { lines, steps };
    };
    const first = await runOf();
    expect(first.lines.length).toBeGreaterThan(20);
    expect(await runOf()).toEqual(first);
  });
});

describe("the simulator notices", () => {
  const quick = [
    "writes are answered before they are durable",
    "a durable write is not synced",
    "the overlay is dropped before the apply",
    "the image's sync does nothing",
    "the checkpoint is written before the image's sync",
    "new names are never synced",
    "one answer in a hundred is lost",
  ];
  it.each(mutants.filter(({ name }) => quick.includes(name)))("$name", async (mutant) => {
    const caught = await catchMutant(mutant, 20);
    expect(caught.seeds, "no seed caught this deliberate bug").not.toBeNull();
  });

  /** Seeds before these don't catch it, and would only take time. */
  const begins = new Map([
    ["a fenced session goes on serving", 55],
    ["a grant that was taken back goes on", 183],
    ["what a node granted before it was killed goes on while it replays", 1281],
  ]);
  it.each(clusterMutants)("$name", async (mutant) => {
    const caught = await catchClusterMutant(mutant, 40, begins.get(mutant.name) ?? 1);
    expect(caught.seeds, "no seed caught this deliberate bug").not.toBeNull();
  });

  const quickPast = [
    "log is released as soon as it is durable",
    "a manifest is published before its segments are stored",
    "a chunk is taken for stored when it was only sent",
  ];
  it.each(pastMutants.filter(({ name }) => quickPast.includes(name)))("$name", async (mutant) => {
    const caught = await catchPastMutant(mutant, 10, 41);
    expect(caught.seeds, "no seed caught this deliberate bug").not.toBeNull();
  });
});

describe("the prefix oracle", () => {
  const bytes = (value: number, length: number): Uint8Array => new Uint8Array(length).fill(value);

  it("accepts every prefix from the promised one on, and no other content", () => {
    const oracle = new PrefixOracle(8);
    oracle.submit({ kind: "write", offset: 0, bytes: bytes(1, 4) });
    oracle.submit({ kind: "write", offset: 2, bytes: bytes(2, 4) });
    oracle.submit({ kind: "zero", offset: 0, length: 3 });
    expect(oracle.judge(Uint8Array.of(1, 1, 2, 2, 2, 2, 0, 0), 1).prefix).toBe(2);
    expect(oracle.judge(Uint8Array.of(1, 1, 1, 1, 0, 0, 0, 0), 1).prefix).toBe(1);
    expect(oracle.judge(Uint8Array.of(1, 1, 1, 1, 0, 0, 0, 0), 2).prefix).toBe(-1);
    expect(oracle.judge(Uint8Array.of(1, 1, 2, 2, 0, 0, 0, 0), 0).prefix).toBe(-1);
    expect(oracle.judge(Uint8Array.of(0, 0, 0, 2, 2, 2, 0, 0), 0).prefix).toBe(3);
  });

  it("judges each byte of a read by the states that it may show", () => {
    const oracle = new PrefixOracle(4);
    oracle.submit({ kind: "write", offset: 0, bytes: bytes(1, 4) });
    oracle.submit({ kind: "write", offset: 0, bytes: bytes(2, 2) });
    expect(oracle.judgeRead(0, Uint8Array.of(2, 1, 1, 1), 1, 2)).toBe("");
    expect(oracle.judgeRead(0, Uint8Array.of(0, 1, 1, 1), 1, 2)).not.toBe("");
    expect(oracle.judgeRead(0, Uint8Array.of(1, 1, 1, 1), 2, 2)).not.toBe("");
  });

  it("forgets a refused operation, and follows the disk's size", () => {
    const oracle = new PrefixOracle(2);
    const refused = oracle.submit({ kind: "write", offset: 0, bytes: bytes(9, 2) });
    oracle.refuse(refused);
    oracle.submit({ kind: "resize", sizeBytes: 4 });
    expect(oracle.judge(Uint8Array.of(0, 0, 0, 0), 2).prefix).toBe(2);
    expect(oracle.judge(Uint8Array.of(0, 0), 2).prefix).toBe(-1);
    expect(oracle.judge(Uint8Array.of(9, 9, 0, 0), 1).prefix).toBe(-1);
  });
});
