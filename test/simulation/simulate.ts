/*
 * The simulator's command line: `npm run simulate -- [--seeds N] [--from N] [--seed N] [--trace] [--mutants]`. Runs the seeds
 * of seeds.txt first, then N more; a failing one prints its replay command and joins seeds.txt. See docs/specs/simulator.md.
 * The last line is the sum; npm test (scripts/test.ts) reads it.
 */
import { runSeed } from "./run-seed.ts";

const args = process.argv.slice(2);
const option = (name: string): string | undefined => {
  const at = args.indexOf(name);
  return at < 0 ? undefined : args[at + 1];
};
const one = option("--seed");
const print = args.includes("--trace") ? (line: string): void => console.log(line) : undefined;
let failed = 0, passed = 0;
const from = Number(option("--from") ?? 1);
const seeds = one !== undefined ? [Number(one)] : Array.from({ length: Number(option("--seeds") ?? 100) }, (_, i) => from + i);
const t0 = Date.now();
for (const seed of seeds) {
  const r = await runSeed(seed, print ? { print } : {});
  if (r.failure) { failed++; console.log(`seed ${seed}: ${r.failure.message}`); if (one) console.log(r.failure.stack, r.failure.cause); }
  else passed++;
}
console.log((Date.now() - t0) / seeds.length, "ms/seed");
console.log(`${passed} passed, ${failed} failed`);
