// Runs one step of a check or test run as a child process and says how it ended: time, tests passed and failed, output.
// scripts/check.ts and scripts/test.ts call it, for steps one after another or in lanes side by side. A step's figures come from the program that
// ran: vitest's JSON report, or the line `N passed, N failed` that Varve's own test programs print last. A step that ran nothing has failed.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const reports = join(root, ".test-results");

/** How a step's result is counted: one for the exit code, or the tests inside it. */
export type Count = "exit-code" | "vitest" | "sum-line";

export type Step = {
  readonly name: string;
  readonly command: readonly string[];
  readonly count: Count;
  readonly timeoutMs: number;
  /** Pass the child's output through while it runs, instead of keeping it for a failure. */
  readonly live?: boolean;
};

export type StepResult = {
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly elapsedMs: number;
  readonly output: string;
};

const outputBytesMax = 4 * 1024 * 1024;
const sumLine = /^(\d+) passed, (\d+) failed$/;

/** The vitest command for some projects, with a report that `runStep` can count. */
export const vitest = (name: string, projects: readonly string[]): readonly string[] => [
  "vitest",
  "run",
  ...projects.flatMap((project) => ["--project", project]),
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${reportPath(name)}`,
];

function reportPath(name: string): string {
  return join(reports, `${name.replace(/[^a-z0-9]+/gi, "-")}.json`);
}

export async function runStep(step: Step): Promise<StepResult> {
  mkdirSync(reports, { recursive: true });
  rmSync(reportPath(step.name), { force: true });
  const startedMs = performance.now();
  const { code, output } = await runChild(step);
  const elapsedMs = performance.now() - startedMs;
  return { name: step.name, elapsedMs, output, ...counted(step, code, output) };
}

/** Runs each lane's steps in order and the lanes side by side. Steps tell of themselves when they end, results come lane by lane. */
export async function runLanes(
  lanes: readonly (readonly Step[])[],
  ended: (result: StepResult) => void,
): Promise<StepResult[]> {
  const run = async (steps: readonly Step[]): Promise<StepResult[]> => {
    const results: StepResult[] = [];
    for (const step of steps) {
      const result = await runStep(step);
      ended(result);
      results.push(result);
    }
    return results;
  };
  return (await Promise.all(lanes.map(run))).flat();
}

/** Own process group, so that a step that outlives its time takes its servers and virtual machines along. */
async function runChild(step: Step): Promise<{ code: number; output: string }> {
  const [program, ...args] = step.command;
  if (program === undefined) throw new Error(`step ${step.name} has no command`);
  const path = `${join(root, "node_modules", ".bin")}:${process.env["PATH"] ?? ""}`;
  const child = spawn(program, args, {
    cwd: root,
    env: { ...process.env, PATH: path, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let output = "";
  const keep = (chunk: Buffer): void => {
    if (step.live === true) process.stdout.write(chunk);
    output = (output + chunk.toString("utf8")).slice(-outputBytesMax);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  running.add(child);
  process.once("SIGINT", interrupt);
  process.once("SIGTERM", interrupt);
  const timer = setTimeout(() => {
    output += `\n${step.name}: stopped after ${step.timeoutMs / 1000} s, its limit\n`;
    kill(child, "SIGKILL");
  }, step.timeoutMs);
  const code = await new Promise<number>((resolve) => {
    child.once("error", (error) => {
      output += `\n${String(error)}\n`;
      resolve(127);
    });
    child.once("close", (exitCode) => resolve(exitCode ?? 137));
  });
  clearTimeout(timer);
  running.delete(child);
  process.removeListener("SIGINT", interrupt);
  process.removeListener("SIGTERM", interrupt);
  return { code, output };
}

const running = new Set<ChildProcess>();

/** Of every lane: the first one that hears of it ends the run. */
function interrupt(): void {
  for (const child of running) kill(child, "SIGTERM");
  process.exit(130);
}

function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ESRCH") throw cause;
  }
}

function counted(step: Step, code: number, output: string): { passed: number; failed: number } {
  const inside =
    step.count === "vitest" ? fromVitest(step) : step.count === "sum-line" ? fromSumLine(output) : undefined;
  if (step.count === "exit-code") return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
  // No figures, nothing run, or a bad exit code without a failed test: the step itself is the failure.
  if (inside === undefined) return { passed: 0, failed: 1 };
  if (inside.failed === 0 && (code !== 0 || inside.passed === 0)) return { passed: inside.passed, failed: 1 };
  return inside;
}

/** A skipped test counts as failed: wherever these steps run, every tool is installed first. */
function fromVitest(step: Step): { passed: number; failed: number } | undefined {
  try {
    const report: unknown = JSON.parse(readFileSync(reportPath(step.name), "utf8"));
    const field = (key: string): number => {
      const value: unknown = (report as Record<string, unknown>)[key];
      if (typeof value !== "number") throw new TypeError(`vitest's report has no number ${key}`);
      return value;
    };
    const passed = field("numPassedTests");
    return { passed, failed: field("numTotalTests") - passed };
  } catch {
    return undefined;
  }
}

function fromSumLine(output: string): { passed: number; failed: number } | undefined {
  const match = sumLine.exec(output.trimEnd().split("\n").at(-1) ?? "");
  if (match === null) return undefined;
  return { passed: Number(match[1]), failed: Number(match[2]) };
}

export function resultLine(result: StepResult): string {
  const verdict = result.failed === 0 ? "ok    " : "FAILED";
  const seconds = (result.elapsedMs / 1000).toFixed(1).padStart(7);
  return `${verdict} ${result.name.padEnd(22)} ${seconds} s   ${result.passed} passed, ${result.failed} failed`;
}

/** Prints the sum as the last line and gives the exit code. */
export function finish(results: readonly StepResult[]): number {
  const passed = results.reduce((sum, result) => sum + result.passed, 0);
  const failed = results.reduce((sum, result) => sum + result.failed, 0);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 && passed > 0 ? 0 : 1;
}
