// How check and npm test count what ran: scripts/step.ts, on small real child processes. A run that says nothing, ran
// nothing, was skipped or ended badly must never count as passed, since these figures are what CI is believed by.
// The programs are one-liners of Node, so that no tool but the pinned Node is needed.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { finish, resultLine, root, runLanes, runStep, type Step } from "../../scripts/step.ts";

const node = (count: Step["count"], script: string, timeoutMs = 10_000): Step => ({
  name: `step test ${process.pid} ${count}`,
  command: [process.execPath, "-e", script],
  count,
  timeoutMs,
});

test.each([
  { script: "", passed: 1, failed: 0 },
  { script: "process.exit(3)", passed: 0, failed: 1 },
])("an exit code counts as one: $script", async ({ script, passed, failed }) => {
  expect(await runStep(node("exit-code", script))).toMatchObject({ passed, failed });
});

test.each([
  { script: "console.log('x\\n7 passed, 0 failed')", passed: 7, failed: 0 },
  { script: "console.log('7 passed, 2 failed'); process.exit(1)", passed: 7, failed: 2 },
  { script: "console.log('7 passed, 0 failed'); process.exit(1)", passed: 7, failed: 1 },
  { script: "console.log('0 passed, 0 failed')", passed: 0, failed: 1 },
  { script: "console.log('7 passed, 0 failed\\nand then a crash')", passed: 0, failed: 1 },
  { script: "", passed: 0, failed: 1 },
])("the last line is the sum: $script", async ({ script, passed, failed }) => {
  expect(await runStep(node("sum-line", script))).toMatchObject({ passed, failed });
});

/** Writes the report that vitest would have written for this step. */
const report = (step: Step, content: string): string => {
  const path = join(root, ".test-results", `${step.name.replaceAll(" ", "-")}.json`);
  return `require("fs").writeFileSync(${JSON.stringify(path)}, ${JSON.stringify(content)});`;
};

test.each([
  { content: '{"numPassedTests":5,"numTotalTests":5}', code: 0, passed: 5, failed: 0 },
  { content: '{"numPassedTests":4,"numTotalTests":5}', code: 1, passed: 4, failed: 1 },
  { content: '{"numPassedTests":4,"numTotalTests":5}', code: 0, passed: 4, failed: 1 },
  { content: '{"numPassedTests":5,"numTotalTests":5}', code: 1, passed: 5, failed: 1 },
  { content: '{"numPassedTests":0,"numTotalTests":0}', code: 0, passed: 0, failed: 1 },
  { content: "not JSON", code: 0, passed: 0, failed: 1 },
])("a vitest report $content with exit code $code", async ({ content, code, passed, failed }) => {
  const plain = node("vitest", "");
  const step = {
    ...plain,
    command: [process.execPath, "-e", `${report(plain, content)}process.exit(${code})`],
  };
  try {
    expect(await runStep(step)).toMatchObject({ passed, failed });
  } finally {
    rmSync(join(root, ".test-results", `${step.name.replaceAll(" ", "-")}.json`), { force: true });
  }
});

test("a program that is not there has failed", async () => {
  const step: Step = {
    name: "absent",
    command: ["varve-no-such-program"],
    count: "exit-code",
    timeoutMs: 1000,
  };
  expect(await runStep(step)).toMatchObject({ passed: 0, failed: 1 });
});

test("a step past its time is killed with all that it started", async () => {
  const folder = mkdtempSync(join(tmpdir(), "varve-step-"));
  const pidFile = join(folder, "pid");
  writeFileSync(pidFile, "");
  const script = `
    const child = require("child_process").spawn("sleep", ["60"], { stdio: "inherit" });
    require("fs").writeFileSync(${JSON.stringify(pidFile)}, String(child.pid));
    setTimeout(() => {}, 60000);`;
  const result = await runStep(node("exit-code", script, 1500));
  const grandchild = Number(readFileSync(pidFile, "utf8"));
  rmSync(folder, { recursive: true, force: true });
  expect(result).toMatchObject({ passed: 0, failed: 1 });
  expect(result.output).toContain("stopped after 1.5 s");
  expect(grandchild).toBeGreaterThan(1);
  // Whoever adopted it may not have reaped it yet; a killed process is a zombie or gone.
  expect(stateOf(grandchild)).toMatch(/^(gone|Z)$/);
});

function stateOf(pid: number): string {
  try {
    return /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1] ?? "unknown";
  } catch {
    return "gone";
  }
}

test("lanes run side by side, a lane's steps one after another", async () => {
  const folder = mkdtempSync(join(tmpdir(), "varve-lanes-"));
  const path = (name: string): string => JSON.stringify(join(folder, name));
  // Each lane's first step ends only when the other's has begun; the second finds what the first has left.
  const waits = (mine: string, other: string): string => `
    const fs = require("fs");
    fs.writeFileSync(${path(mine)}, "");
    setInterval(() => { if (fs.existsSync(${path(other)})) { fs.writeFileSync(${path(`${mine}-done`)}, ""); process.exit(0); } }, 5);`;
  const finds = (mine: string): string =>
    `process.exit(require("fs").existsSync(${path(`${mine}-done`)}) ? 0 : 1)`;
  const lane = (mine: string, other: string): Step[] => [
    { ...node("exit-code", waits(mine, other)), name: `${mine} 1` },
    { ...node("exit-code", finds(mine)), name: `${mine} 2` },
  ];
  const told: string[] = [];
  const results = await runLanes([lane("a", "b"), lane("b", "a")], (result) => told.push(result.name));
  rmSync(folder, { recursive: true, force: true });
  expect(results.map(({ name, passed, failed }) => [name, passed, failed])).toEqual(
    ["a 1", "a 2", "b 1", "b 2"].map((name) => [name, 1, 0]),
  );
  expect(told.toSorted()).toEqual(["a 1", "a 2", "b 1", "b 2"]);
});

test("the sum is the last word, and nothing run is a failure", () => {
  const step = { name: "a", elapsedMs: 1234, output: "" };
  expect(resultLine({ ...step, passed: 3, failed: 1 })).toMatch(/^FAILED a +1\.2 s +3 passed, 1 failed$/);
  expect(finish([{ ...step, passed: 3, failed: 0 }])).toBe(0);
  expect(finish([{ ...step, passed: 3, failed: 1 }])).toBe(1);
  expect(finish([])).toBe(1);
});
