/*
 * The simulator's command line: `npm run simulate -- [--seeds N] [--from N] [--seed N] [--world machine|past|cluster] [--trace]
 * [--mutants]`. Runs the seeds of seeds.txt first, then N more of the one-machine world and each third of them in the world with
 * a bucket and in the one with several machines; a failing one prints its replay command and joins seeds.txt. See docs/specs/simulator.md.
 * The last line is the sum; `npm test` (scripts/test.ts) reads it.
 */

import { runClusterSeed } from "./cluster/cluster-run.ts";
import { checkMutants } from "./mutation-check.ts";
import { runPastSeed } from "./past/past-run.ts";
import { runSeed, type SeedResult } from "./run-seed.ts";
import { addFailingSeed, type KeptSeed, keptSeeds, type WorldName, worldNames } from "./seed-list.ts";

interface Arguments {
  readonly seeds: number;
  readonly from: number;
  readonly seed: number | null;
  /** Null: all. */
  readonly world: WorldName | null;
  readonly trace: boolean;
  readonly mutants: boolean;
}

const usage =
  "simulate [--seeds N] [--from N] [--seed N] [--world machine|past|cluster] [--trace] [--mutants]";

function parseArguments(words: readonly string[]): Arguments {
  const numbers: Record<string, number> = {};
  const flags = new Set<string>();
  let world: WorldName | null = null;
  for (let index = 0; index < words.length; index++) {
    const word = words[index] as string;
    if (word === "--trace" || word === "--mutants") {
      flags.add(word);
      continue;
    }
    const text = words[index + 1];
    index += 1;
    const named = worldNames.find((name) => name === text);
    if (word === "--world" && named !== undefined) {
      world = named;
      continue;
    }
    const value = Number(text);
    if (!["--seeds", "--from", "--seed"].includes(word) || !Number.isSafeInteger(value) || value < 0) {
      console.error(usage);
      process.exit(2);
    }
    numbers[word] = value;
  }
  return {
    seeds: numbers["--seeds"] ?? (flags.has("--mutants") ? 300 : 100),
    from: numbers["--from"] ?? 1,
    seed: numbers["--seed"] ?? null,
    world,
    trace: flags.has("--trace"),
    mutants: flags.has("--mutants"),
  };
}

function reportFailure({ world }: KeptSeed, result: SeedResult): void {
  console.log(`${world} seed ${result.seed} failed: ${result.failure?.message}`);
  for (let cause: unknown = result.failure?.cause; cause instanceof Error; cause = cause.cause) {
    console.log(`  because: ${cause.message}`);
  }
  console.log(`  replay: npm run simulate -- --world ${world} --seed ${result.seed} --trace`);
}

const runners = { machine: runSeed, past: runPastSeed, cluster: runClusterSeed } as const;

async function runSeeds(seeds: readonly KeptSeed[], trace: boolean): Promise<number> {
  const counts = new Map<string, number>();
  const startedMs = performance.now();
  let failed = 0;
  let steps = 0;
  for (const kept of seeds) {
    const run = runners[kept.world];
    const result = await run(kept.seed, trace ? { print: (line) => console.log(line) } : {});
    steps += result.steps;
    for (const [what, count] of result.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    if (result.failure === null) continue;
    failed += 1;
    reportFailure(kept, result);
    addFailingSeed(kept);
  }
  const seconds = (performance.now() - startedMs) / 1000;
  for (const [what, count] of [...counts].sort(([one], [other]) => (one < other ? -1 : 1)))
    console.log(`${String(count).padStart(9)}  ${what}`);
  console.log(`${seeds.length} seeds, ${steps} steps, ${seconds.toFixed(1)} s`);
  console.log(`${seeds.length - failed} passed, ${failed} failed`);
  return failed;
}

/** Kept ones first, none twice. */
function seedsOf({ seeds, from, world }: Arguments): readonly KeptSeed[] {
  const wanted = [...keptSeeds()];
  for (let seed = from; seed < from + seeds; seed++) {
    wanted.push({ world: "machine", seed });
    for (const other of ["past", "cluster"] as const) {
      if (seed % 3 === 0 || world === other) wanted.push({ world: other, seed });
    }
  }
  const seen = new Set<string>();
  return wanted.filter((one) => {
    const name = `${one.world} ${one.seed}`;
    if (seen.has(name) || (world !== null && one.world !== world)) return false;
    seen.add(name);
    return true;
  });
}

const args = parseArguments(process.argv.slice(2));
if (args.mutants) {
  const options = { seedsMax: args.seeds, world: args.world, print: console.log };
  process.exitCode = (await checkMutants(options)) > 0 ? 1 : 0;
} else if (args.seed !== null) {
  const one: KeptSeed = { world: args.world ?? "machine", seed: args.seed };
  process.exitCode = (await runSeeds([one], args.trace)) > 0 ? 1 : 0;
} else {
  process.exitCode = (await runSeeds(seedsOf(args), args.trace)) > 0 ? 1 : 0;
}
