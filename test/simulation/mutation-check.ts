/*
 * Proof that the simulator can fail: each mutant of mutants.ts is let loose on seed after seed until one is caught. Called
 * by `simulate.ts --mutants` and, for the quickest, by simulation.test.ts. A mutant that lives is a hole in the simulator.
 */
import type { ClusterMutant } from "./cluster/cluster-mutant.ts";
import { clusterMutants } from "./cluster/cluster-mutants.ts";
import { runClusterSeed } from "./cluster/cluster-run.ts";
import type { Mutant } from "./mutant.ts";
import { mutants } from "./mutants.ts";
import type { PastMutant } from "./past/past-mutant.ts";
import { pastMutants } from "./past/past-mutants.ts";
import { runPastSeed } from "./past/past-run.ts";
import { runSeed } from "./run-seed.ts";
import type { WorldName } from "./seed-list.ts";

export interface Catch {
  /** Seeds that ran until one failed; null where none of them did. */
  readonly seeds: number | null;
  readonly why: string;
}

/** `watchesSteps` false: only by what the volume serves and leaves on its disk, not by what it says of itself. */
export async function catchMutant(mutant: Mutant, seedsMax: number, watchesSteps = true): Promise<Catch> {
  for (let seed = 1; seed <= seedsMax; seed++) {
    const { failure } = await runSeed(seed, { mutant, watchesSteps });
    if (failure !== null) return { seeds: seed, why: failure.message };
  }
  return { seeds: null, why: "" };
}

export async function catchPastMutant(mutant: PastMutant, seedsMax: number, from = 1): Promise<Catch> {
  for (let seed = from; seed < from + seedsMax; seed++) {
    const { failure } = await runPastSeed(seed, { mutant });
    if (failure !== null) return { seeds: seed, why: failure.message };
  }
  return { seeds: null, why: "" };
}

export async function catchClusterMutant(mutant: ClusterMutant, seedsMax: number, from = 1): Promise<Catch> {
  for (let seed = from; seed < from + seedsMax; seed++) {
    const { failure } = await runClusterSeed(seed, { mutant });
    if (failure !== null) return { seeds: seed, why: failure.message };
  }
  return { seeds: null, why: "" };
}

/** Checks them all; gives the number of those that were not caught. */
export async function checkMutants(options: {
  readonly seedsMax: number;
  /** Null: those of all worlds. */
  readonly world: WorldName | null;
  readonly print: (line: string) => void;
}): Promise<number> {
  const { seedsMax, world, print } = options;
  const known = { passed: 0, alive: 0 };
  const judge = (caught: Catch): void => {
    if (caught.seeds === null) known.alive += 1;
    else known.passed += 1;
  };
  for (const mutant of world === null || world === "machine" ? mutants : []) {
    const caught = await catchMutant(mutant, seedsMax);
    const byContent = await catchMutant(mutant, seedsMax, false);
    judge(caught);
    print(
      `${mutant.name}: seed ${caught.seeds ?? "none"}; by content alone: seed ${byContent.seeds ?? "none"}`,
    );
    print(`  ${caught.why}`);
    if (byContent.why !== caught.why) print(`  ${byContent.why}`);
  }
  for (const mutant of world === null || world === "past" ? pastMutants : []) {
    const caught = await catchPastMutant(mutant, seedsMax);
    judge(caught);
    print(`${mutant.name}: seed ${caught.seeds ?? "none"}`);
    print(`  ${caught.why}`);
  }
  for (const mutant of world === null || world === "cluster" ? clusterMutants : []) {
    const caught = await catchClusterMutant(mutant, seedsMax);
    judge(caught);
    print(`${mutant.name}: seed ${caught.seeds ?? "none"}`);
    print(`  ${caught.why}`);
  }
  print(`${known.passed} passed, ${known.alive} failed`);
  return known.alive;
}
