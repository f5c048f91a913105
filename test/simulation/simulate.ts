/*
 * The simulator's command line: `npm run simulate -- [--seeds N] [--from N] [--seed N] [--trace] [--mutants]`. Runs the seeds
 * of seeds.txt first, then N more; a failing one prints its replay command and joins seeds.txt. See docs/specs/simulator.md.
 * The last line is the sum; `npm test` (scripts/test.ts) reads it.
 */
import { checkMutants } from "./mutation-check.ts";
import { runSeed, type SeedResult } from "./run-seed.ts";
import { addFailingSeed, keptSeeds } from "./seed-list.ts";

interface Arguments {
  readonly seeds: number;
  readonly from: number;
  readonly seed: number | null;
  readonly trace: boolean;
  readonly mutants: boolean;
}

function parseArguments(words: readonly string[]): Arguments {
  const numbers: Record<string, number> = {};
  const flags = new Set<string>();
  for (let index = 0; index < words.length; index++) {
    const word = words[index] as string;
    if (word === "--trace" || word === "--mutants") {
      flags.add(word);
      continue;
    }
    const value = Number(words[index + 1]);
    if (!["--seeds", "--from", "--seed"].includes(word) || !Number.isSafeInteger(value) || value < 0) {
      console.error("simulate [--seeds N] [--from N] [--seed N] [--trace] [--mutants]");
      process.exit(2);
    }
    numbers[word] = value;
    index += 1;
  }
  return {
    seeds: numbers["--seeds"] ?? (flags.has("--mutants") ? 300 : 100),
    from: numbers["--from"] ?? 1,
    seed: numbers["--seed"] ?? null,
    trace: flags.has("--trace"),
    mutants: flags.has("--mutants"),
  };
}

function reportFailure(result: SeedResult): void {
  console.log(`seed ${result.seed} failed: ${result.failure?.message}`);
  for (let cause: unknown = result.failure?.cause; cause instanceof Error; cause = cause.cause) {
    console.log(`  because: ${cause.message}`);
  }
  console.log(`  replay: npm run simulate -- --seed ${result.seed} --trace`);
}

async function runSeeds(seeds: readonly number[], trace: boolean): Promise<number> {
  const counts = new Map<string, number>();
  const startedMs = performance.now();
  let failed = 0;
  let steps = 0;
  for (const seed of seeds) {
    const result = await runSeed(seed, trace ? { print: (line) => console.log(line) } : {});
    steps += result.steps;
    for (const [what, count] of result.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    if (result.failure === null) continue;
    failed += 1;
    reportFailure(result);
    addFailingSeed(seed);
  }
  const seconds = (performance.now() - startedMs) / 1000;
  for (const [what, count] of [...counts].sort(([one], [other]) => (one < other ? -1 : 1)))
    console.log(`${String(count).padStart(9)}  ${what}`);
  console.log(`${seeds.length} seeds, ${steps} steps, ${seconds.toFixed(1)} s`);
  console.log(`${seeds.length - failed} passed, ${failed} failed`);
  return failed;
}

const args = parseArguments(process.argv.slice(2));
if (args.mutants) {
  process.exitCode = (await checkMutants({ seedsMax: args.seeds, print: console.log })) > 0 ? 1 : 0;
} else if (args.seed !== null) {
  process.exitCode = (await runSeeds([args.seed], args.trace)) > 0 ? 1 : 0;
} else {
  const more = Array.from({ length: args.seeds }, (_, index) => args.from + index);
  const seeds = [...new Set([...keptSeeds(), ...more])];
  process.exitCode = (await runSeeds(seeds, args.trace)) > 0 ? 1 : 0;
}
