/*
 * Proof that the simulator can fail: each mutant of mutants.ts is let loose on seed after seed until one is caught. Called
 * by `simulate.ts --mutants` and, for the quickest, by simulation.test.ts. A mutant that lives is a hole in the simulator.
 */
import type { Mutant } from "./mutant.ts";
import { mutants } from "./mutants.ts";
import { runSeed } from "./run-seed.ts";

export interface Catch {
  readonly mutant: string;
  /** Seeds that ran until one failed; null where none of them did. */
  readonly seeds: number | null;
  readonly why: string;
}

export async function catchMutant(mutant: Mutant, seedsMax: number): Promise<Catch> {
  for (let seed = 1; seed <= seedsMax; seed++) {
    const { failure } = await runSeed(seed, { mutant });
    if (failure !== null) return { mutant: mutant.name, seeds: seed, why: failure.message };
  }
  return { mutant: mutant.name, seeds: null, why: "" };
}

/** Checks them all; gives the number of those that were not caught. */
export async function checkMutants(options: {
  readonly seedsMax: number;
  readonly print: (line: string) => void;
}): Promise<number> {
  let alive = 0;
  for (const mutant of mutants) {
    const caught = await catchMutant(mutant, options.seedsMax);
    if (caught.seeds === null) {
      alive += 1;
      options.print(`${mutant.name}: not caught by ${options.seedsMax} seeds`);
    } else {
      options.print(`${mutant.name}: caught by seed ${caught.seeds}: ${caught.why}`);
    }
  }
  options.print(`${mutants.length - alive} passed, ${alive} failed`);
  return alive;
}
