/*
 * Proof that the simulator can fail: each mutant of mutants.ts is let loose on seed after seed until one is caught. Called
 * by `simulate.ts --mutants` and, for the quickest, by simulation.test.ts. A mutant that lives is a hole in the simulator.
 */
import type { Mutant } from "./mutant.ts";
import { mutants } from "./mutants.ts";
import { runSeed } from "./run-seed.ts";

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

/** Checks them all; gives the number of those that were not caught. */
export async function checkMutants(options: {
  readonly seedsMax: number;
  readonly print: (line: string) => void;
}): Promise<number> {
  const { seedsMax, print } = options;
  let alive = 0;
  for (const mutant of mutants) {
    const caught = await catchMutant(mutant, seedsMax);
    const byContent = await catchMutant(mutant, seedsMax, false);
    if (caught.seeds === null) alive += 1;
    print(
      `${mutant.name}: seed ${caught.seeds ?? "none"}; by content alone: seed ${byContent.seeds ?? "none"}`,
    );
    print(`  ${caught.why}`);
    if (byContent.why !== caught.why) print(`  ${byContent.why}`);
  }
  print(`${mutants.length - alive} passed, ${alive} failed`);
  return alive;
}
