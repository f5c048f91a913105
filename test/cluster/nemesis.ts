// Command line of the nemesis: npm run test:cluster -- --rounds 200 [--seed S [--first N]] [--fault "rolled back" [--away bucket]] [--fio] [--bucket versitygw]
// One line per round, a table of what each fault made clients wait, exit code 1 when anything acknowledged was lost, anything older was read
// than promised, the replicas differ, or the bucket's fold does. Last line: `N passed, N failed`.
import { parseArgs } from "node:util";
import { insideOwnNetwork } from "../tools/lab-network.ts";
import { s3ServerDefault } from "../tools/s3-servers.ts";
import type { ArchiveVerdict } from "./nemesis-archive.ts";
import { type NemesisReport, NemesisRun } from "./nemesis-run.ts";

/** So often the bucket's fold is compared with the replicas, and after the last round. */
const archiveEach = 20;
const watchMs = 500;
const standstillMs = 3000;

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "20" },
    seed: { type: "string" },
    first: { type: "string", default: "1" },
    fault: { type: "string", default: "" },
    away: { type: "string", default: "" },
    fio: { type: "boolean", default: false },
    bucket: { type: "string", default: s3ServerDefault },
  },
});
const rounds = Number(values.rounds);
const first = Number(values.first);
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed);
const bucket = (["seaweedfs", "versitygw"] as const).find((name) => name === values.bucket);
if (bucket === undefined) {
  console.error("test:cluster: --bucket is seaweedfs or versitygw");
  process.exit(64);
}
if (![rounds, first, seed].every(Number.isSafeInteger) || rounds < 1 || first < 1) {
  console.error("test:cluster: --rounds, --first and --seed want whole numbers, e.g. --rounds 200 --seed 7");
  process.exit(64);
}
if (!(await insideOwnNetwork())) process.exit();
console.log(
  `nemesis: ${rounds} rounds, seed ${seed}; three NATS servers, three storage nodes, two gateways, an api, two archivers and a bucket (${bucket}), each with a network of its own`,
);
// Waits in which nothing ran at all are nobody's: of a machine that was suspended, or processes that were stopped together.
let lastMs = performance.now();
const watch = setInterval(() => {
  const stoodMs = performance.now() - lastMs - watchMs;
  lastMs += stoodMs + watchMs;
  if (stoodMs > standstillMs) console.log(`(this process stood still for ${Math.round(stoodMs)} ms)`);
}, watchMs);
watch.unref();
const reports: NemesisReport[] = [];
const failures: string[] = [];
let begun = first;
const run = await NemesisRun.open({
  seed,
  only: values.fault,
  away: values.away,
  withFio: values.fio,
  bucket,
});
try {
  const last = first + rounds - 1;
  for (let round = first; round <= last && failures.length === 0; round += 1) {
    begun = round;
    const report = await run.round(round);
    reports.push(report);
    failures.push(...report.failures);
    console.log(lineOf(report));
    if (failures.length > 0 || (round % archiveEach !== 0 && round !== last)) continue;
    for (const verdict of await run.judgeArchives()) {
      failures.push(...verdict.failures);
      console.log(archiveLineOf(verdict));
    }
  }
  for (const line of run.summary()) console.log(line);
  if (failures.length === 0) failures.push(...(await run.close()));
} catch (cause) {
  failures.push(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
}
for (const line of waitsOf(reports)) console.log(line);
if (failures.length > 0) {
  for (const failure of failures.slice(0, 20)) console.error(`  ${failure}`);
  const filter = values.fault === "" ? "" : ` --fault "${values.fault}"`;
  const away = values.away === "" ? "" : ` --away "${values.away}"`;
  const again = `npm run test:cluster -- --seed ${seed}${filter}${away}`;
  console.error(`in or after round ${begun}, ${run.planOf(begun)}`);
  console.error(
    `again: ${again} --rounds ${rounds} --first ${first}; the round alone: ${again} --rounds 1 --first ${begun}`,
  );
  console.error(await run.outputs());
  await run.abandon();
}
const passed = reports.filter((report) => report.failures.length === 0).length;
console.log(`${passed} passed, ${failures.length === 0 ? 0 : Math.max(1, reports.length - passed)} failed`);
process.exit(failures.length === 0 ? 0 : 1);

function lineOf({ round, plan, acknowledged, waitedMs, failures: found }: NemesisReport): string {
  const verdict = found.length === 0 ? "ok" : `${found.length} FAILURES`;
  return `round ${String(round).padStart(3)}  ${plan.padEnd(44)} ${String(acknowledged).padStart(5)} acked  waited ${Math.round(waitedMs)} ms  ${verdict}`;
}

function archiveLineOf({ volume, lastLsn, oldestLsn, lastBaseLsn, failures: found }: ArchiveVerdict): string {
  const verdict = found.length === 0 ? "is both replicas, byte for byte" : `${found.length} FAILURES`;
  return `archive    ${volume} at LSN ${lastLsn}: the bucket's fold ${verdict} (base at ${lastBaseLsn}, log kept from ${oldestLsn})`;
}

/** The longest that a client waited, by fault: median and worst of its rounds. */
function waitsOf(all: readonly NemesisReport[]): readonly string[] {
  const names = [...new Set(all.map((report) => report.fault))].sort();
  return names.map((name) => {
    const waits = all.filter((report) => report.fault === name).map((report) => report.waitedMs);
    waits.sort((a, b) => a - b);
    const [median, worst] = [waits[Math.floor(waits.length / 2)] ?? 0, waits.at(-1) ?? 0];
    return `${name.padEnd(30)} ${waits.length} rounds, waited ${Math.round(median)} ms (median), ${Math.round(worst)} ms (worst)`;
  });
}
