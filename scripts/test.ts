// `npm test`: the tools first, then `npm run check`, then the slower stages: deep, simulation, cluster, conformance, crash, e2e, nats, s3,
// package, vm. Side by side run only stages that leave a CPU idle and time nothing closely; the others have the machine to themselves. A failed stage
// does not stop the next one. `npm test -- crash vm` runs only the named stages. The last line is the sum over all stages that ran.
import { finish, resultLine, runLanes, runStep, type Step, type StepResult, vitest } from "./step.ts";

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

/** Entries run one after another, the lanes of one entry side by side. */
type Lanes = readonly (readonly Step[])[];

const plan: readonly Lanes[] = [
  [
    [
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
    ],
  ],
  // One CPU each, and no clock but their own.
  [
    [vitestStage("simulation", minutes(8))],
    [programStage("simulation seeds", minutes(5), "test/simulation/simulate.ts", "--seeds", "100")],
  ],
  [
    [
      vitestStage("cluster", minutes(9)),
      programStage("cluster rounds", minutes(6), "test/cluster/nemesis.ts", "--rounds", "6"),
      vitestStage("conformance", minutes(8)),
      vitestStage("crash", minutes(8)),
      programStage("crash rounds", minutes(8), "test/crash/crash.ts", "--rounds", "6"),
    ],
  ],
  // e2e keeps less than one CPU busy; the others wait three quarters of their time, for elections and time-outs.
  [[vitestStage("e2e", minutes(12))], [vitestStage("nats", minutes(8)), vitestStage("s3", minutes(5))]],
  // A new machine builds a bare Debian first.
  [
    [
      serverStage("package", "compose-spec", "nats-server"),
      vitestStage("package", minutes(6)),
      vitestStage("vm", minutes(20)),
    ],
  ],
];

const firstWord = (step: Step): string => step.name.split(" ", 1)[0] ?? "";

function chosen(names: readonly string[]): readonly Lanes[] {
  const known = new Set(plan.flat(2).map(firstWord));
  const unknown = names.filter((name) => !known.has(name));
  if (unknown.length > 0) {
    console.error(`no such stage: ${unknown.join(", ")}; stages: ${[...known].join(", ")}`);
    process.exit(2);
  }
  if (names.length === 0) return plan;
  return plan.map((lanes) => lanes.map((steps) => steps.filter((step) => names.includes(firstWord(step)))));
}

const results: StepResult[] = [];
for (const entry of chosen(process.argv.slice(2))) {
  const lanes = entry.filter((steps) => steps.length > 0);
  if (lanes.length === 0) continue;
  const alone = lanes.length === 1;
  results.push(...(alone ? await oneAfterAnother(lanes.flat()) : await sideBySide(lanes)));
}
for (const result of results) console.log(resultLine(result));
process.exitCode = finish(results);

async function oneAfterAnother(steps: readonly Step[]): Promise<StepResult[]> {
  const ended: StepResult[] = [];
  for (const step of steps) {
    console.log(`--- ${step.name}`);
    const result = await runStep({ ...step, live: true });
    console.log(`${resultLine(result)}\n`);
    ended.push(result);
  }
  return ended;
}

/** What a stage says comes in one piece, when it has ended. */
async function sideBySide(lanes: Lanes): Promise<StepResult[]> {
  console.log(`--- ${lanes.map((steps) => steps.map((step) => step.name).join(", ")).join(" | ")}`);
  return await runLanes(lanes, (result) => {
    console.log(`--- ${result.name}\n${result.output.trimEnd()}\n${resultLine(result)}\n`);
  });
}
