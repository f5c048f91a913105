// `npm run check`: everything that is fast, in under a minute: format, lint, types, Effect diagnostics, and the unit,
// contract, golden and tidy tests. The static steps run beside the tests, one line per step; what a failed step said
// follows its line. scripts/test.ts runs this first. Nothing here needs root, a network or a Debian package.
import { finish, resultLine, runLanes, type Step, vitest } from "./step.ts";

const timeoutMs = 180_000;
const still = (name: string, ...command: readonly string[]): Step => ({
  name,
  command,
  count: "exit-code",
  timeoutMs,
});

const staticSteps: readonly Step[] = [
  still("format", "biome", "check", "--error-on-warnings", "."),
  still("lint", "oxlint"),
  still("types", "tsc", "--noEmit"),
  still(
    "effect diagnostics",
    "effect-tsgo",
    "diagnostics",
    "--project",
    "tsconfig.effect.json",
    "--format",
    "text",
  ),
];
const fastTests = ["unit", "contract", "golden", "tidy"];
/** One run: its files share the workers to the end. */
const testSteps: readonly Step[] = [
  { name: "fast tests", command: vitest("fast tests", fastTests), count: "vitest", timeoutMs },
];

const results = await runLanes([staticSteps, testSteps], (result) => {
  console.log(resultLine(result));
  if (result.failed > 0) console.log(`${result.output.trimEnd()}\n`);
});
process.exitCode = finish(results);
