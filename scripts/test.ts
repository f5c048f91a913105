// `npm test`: the tools first, then `npm run check`, then every slower stage one after another: deep, simulation, s3, nats, cluster,
// conformance, crash, e2e, package, vm. Stages never overlap, because they start servers and measure time. A failed stage does not stop the
// next one. `npm test -- crash vm` runs only the named stages. The last line is the sum over all stages that ran.
import { finish, resultLine, runStep, type Step, type StepResult, vitest } from "./step.ts";

const minutes = (count: number): number => count * 60_000;

const vitestStage = (name: string, timeoutMs: number): Step => ({
  name,
  command: vitest(name, [name]),
  count: "vitest",
  timeoutMs,
});
const programStage = (name: string, timeoutMs: number, ...args: readonly string[]): Step => ({
  name,
  command: ["node", ...args],
  count: "sum-line",
  timeoutMs,
});
/** Finds or builds the servers of one stage, so that the build's minutes are not the stage's. */
const serverStage = (stage: string, ...servers: readonly string[]): Step => ({
  name: `tools of ${stage}`,
  command: ["node", "scripts/test-server-binary.ts", ...servers],
  count: "exit-code",
  timeoutMs: minutes(20),
});

const stages: readonly Step[] = [
  {
    name: "tools",
    command: ["scripts/install-test-tools.sh"],
    count: "exit-code",
    timeoutMs: minutes(10),
  },
  serverStage("s3", "weed"),
  serverStage("nats", "nats-server"),
  programStage("check", minutes(5), "scripts/check.ts"),
  vitestStage("deep", minutes(8)),
  vitestStage("simulation", minutes(8)),
  programStage("simulation seeds", minutes(5), "test/simulation/simulate.ts", "--seeds", "100"),
  vitestStage("s3", minutes(5)),
  vitestStage("nats", minutes(8)),
  vitestStage("cluster", minutes(9)),
  programStage("cluster rounds", minutes(6), "test/cluster/nemesis.ts", "--rounds", "6"),
  vitestStage("conformance", minutes(8)),
  vitestStage("crash", minutes(8)),
  programStage("crash rounds", minutes(8), "test/crash/crash.ts", "--rounds", "6"),
  vitestStage("e2e", minutes(12)),
  serverStage("package", "compose-spec", "nats-server"),
  vitestStage("package", minutes(6)),
  vitestStage("vm", minutes(20)),
];

function chosen(names: readonly string[]): readonly Step[] {
  const known = new Set(stages.map((stage) => stage.name.split(" ", 1)[0]));
  const unknown = names.filter((name) => !known.has(name));
  if (unknown.length > 0) {
    console.error(`no such stage: ${unknown.join(", ")}; stages: ${[...known].join(", ")}`);
    process.exit(2);
  }
  return names.length === 0
    ? stages
    : stages.filter((stage) => names.includes(stage.name.split(" ", 1)[0] ?? ""));
}

const results: StepResult[] = [];
for (const stage of chosen(process.argv.slice(2))) {
  console.log(`--- ${stage.name}`);
  const result = await runStep({ ...stage, live: true });
  results.push(result);
  console.log(`${resultLine(result)}\n`);
}
for (const result of results) console.log(resultLine(result));
process.exitCode = finish(results);
