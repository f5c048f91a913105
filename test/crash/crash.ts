// Command line of the crash rounds: npm run test:crash -- --rounds 100 [--seed S] [--drop-unsynced] [--keep]
// One line per round, a summary, exit code 1 when anything acknowledged was lost; then the data directory is kept.

import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { CrashRun, type RoundReport } from "./crash-run.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "20" },
    seed: { type: "string" },
    "drop-unsynced": { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed);
if (!Number.isSafeInteger(rounds) || rounds < 1 || !Number.isSafeInteger(seed)) {
  console.error("crash: --rounds and --seed want whole numbers, e.g. --rounds 100 --seed 7");
  process.exit(64);
}

const dir = await mkdtemp(join(tmpdir(), "varve-crash-"));
const dropUnsynced = values["drop-unsynced"];
const mode = dropUnsynced
  ? "unsynced writes are lost with the process"
  : "the page cache outlives the process";
console.log(`crash: ${rounds} rounds, seed ${seed}, ${mode}`);
const run = new CrashRun({ dir, seed, dropUnsynced });
const reports: RoundReport[] = [];
const failures: string[] = [];
const startedAtMs = performance.now();
try {
  await run.open();
  for (let round = 0; round < rounds && failures.length === 0; round += 1) {
    const report = await run.round(round);
    reports.push(report);
    console.log(lineOf(report));
    failures.push(...report.failures);
  }
  if (failures.length === 0) failures.push(...(await run.close()));
  if (failures.length === 0 && dropUnsynced && rounds >= 5 && run.unpromisedLosses === 0) {
    failures.push(
      "no unflushed write was lost in any round: the layer that drops unsynced writes is not at work",
    );
  }
} catch (cause) {
  failures.push(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
}

const sum = (pick: (report: RoundReport) => number): number =>
  reports.reduce((total, report) => total + pick(report), 0);
const seconds = Math.round((performance.now() - startedAtMs) / 1000);
console.log(
  `crash: ${reports.length} rounds in ${seconds} s, ${sum((r) => r.acknowledged)} acknowledged operations, ` +
    `${(sum((r) => r.bytesWritten) / 2 ** 30).toFixed(2)} GiB, ${sum((r) => r.fioVerified)} fio jobs verified, ` +
    `${sum((r) => r.killsWhileStarting)} kills during recovery, ${run.unpromisedLosses} blocks lost ` +
    `that nothing had promised to keep, ${failures.length} failures`,
);
if (failures.length > 0) {
  for (const failure of failures.slice(0, 20)) console.error(`  ${failure}`);
  const flag = dropUnsynced ? " --drop-unsynced" : "";
  console.error(
    `crash: data kept in ${dir}; again: npm run test:crash -- --rounds ${rounds} --seed ${seed}${flag}`,
  );
  console.error(run.serverOutput().slice(-4000));
  run.abandon();
} else if (values.keep) {
  console.log(`crash: data kept in ${dir}`);
} else {
  rmSync(dir, { recursive: true, force: true });
}
// A failure outside of the rounds counts as one, too.
const passedRounds = reports.filter((report) => report.failures.length === 0).length;
console.log(
  `${passedRounds} passed, ${failures.length === 0 ? 0 : Math.max(1, reports.length - passedRounds)} failed`,
);
process.exit(failures.length === 0 ? 0 : 1);

function lineOf(report: RoundReport): string {
  const bytes = `${(report.bytesWritten / 2 ** 20).toFixed(0)} MiB`;
  const verdict = report.failures.length === 0 ? "ok" : `${report.failures.length} FAILURES`;
  return (
    `round ${String(report.round + 1).padStart(3)}  seed ${report.seed}  killed after ${report.killedAfterMs} ms` +
    `  ${report.acknowledged} acked, ${bytes}, fio ${report.fioVerified}/2` +
    `  ${report.killsWhileStarting} kills in recovery  ready in ${report.readyAfterMs.toFixed(0)} ms  ${verdict}`
  );
}
