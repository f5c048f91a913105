// Command line of the power cuts: npm run test:power-cut -- --rounds N [--seed S] [--lying-disk] [--keep]
// One line per round, then a sum; exit code 1 when anything acknowledged was lost, and then the disks are kept.
// With --lying-disk the machine's disk ignores flushes, so the run must find losses: exit code 1 if it does not.
import { parseArgs } from "node:util";
import { SeededRandom } from "../tools/seeded-random.ts";
import { PowerCutRig, planRound, type RoundReport } from "./power-cut-rig.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seed: { type: "string" },
    "lying-disk": { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed);
if (!Number.isSafeInteger(rounds) || rounds < 1 || !Number.isSafeInteger(seed)) {
  console.error("power-cut: --rounds and --seed want whole numbers, e.g. --rounds 20 --seed 7");
  process.exit(64);
}
const lying = values["lying-disk"];
console.log(`power-cut: ${rounds} rounds, seed ${seed}${lying ? ", the disk lies about flushes" : ""}`);

const random = new SeededRandom(seed);
const startedAtMs = performance.now();
const rig = await PowerCutRig.open(seed);
const reports: RoundReport[] = [];
let broken: string | undefined;
try {
  for (let round = 0; round < rounds; round++) {
    const drawn = planRound(random);
    const plan = lying ? { ...drawn, mode: "drop" as const, lieAfterMs: drawn.loadMs / 2 } : drawn;
    const report = await rig.round(plan);
    reports.push(report);
    console.log(lineOf(round, report));
    if (report.failures.length > 0 && !lying) break;
  }
} catch (cause) {
  broken = `${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}\n${rig.output()}`;
}

const failures = reports.flatMap((report) => report.failures);
const sum = (pick: (report: RoundReport) => number): number => reports.reduce((n, r) => n + pick(r), 0);
const controlLosses = sum((report) => report.controlLosses);
// The control volume answers before its sync: had it lost nothing either, these cuts would have proved nothing.
const bad =
  broken !== undefined ||
  controlLosses === 0 ||
  (lying ? reports.some((r) => r.failures.length === 0) : failures.length > 0);
await rig.close(bad || values.keep);
const cuts = reports.flatMap((report) => report.cuts);
console.log(
  `power-cut: ${reports.length} rounds and ${cuts.length} cuts in ${Math.round((performance.now() - startedAtMs) / 1000)} s, ` +
    `${sum((r) => r.acknowledged)} acknowledged operations, ${(sum((r) => r.bytesWritten) / 2 ** 20).toFixed(0)} MiB, ` +
    `${cuts.reduce((n, cut) => n + cut.sectorsLost, 0)} unflushed sectors lost by the disk, ` +
    `${failures.length} losses found${lying ? " (wanted: the disk lied)" : ""}, ` +
    `${controlLosses} in the volume that answers before its sync (wanted)`,
);
if (broken !== undefined) console.error(broken);
if (bad) {
  for (const failure of failures.slice(0, 20)) console.error(`  ${failure}`);
  console.error(
    `power-cut: disks kept in ${rig.dir}; again: npm run test:power-cut -- --rounds ${rounds} --seed ${seed}`,
  );
}
console.log(bad ? "0 passed, 1 failed" : "1 passed, 0 failed");
process.exitCode = bad ? 1 : 0;

function lineOf(round: number, report: RoundReport): string {
  const cuts = report.cuts
    .map((cut) => `${cut.writes} unflushed, ${cut.sectorsLost} sectors lost`)
    .join("; then ");
  return (
    `round ${String(round + 1).padStart(3)}  ${report.plan.mode.padEnd(7)} after ${report.plan.loadMs} ms` +
    `  ${report.acknowledged} acked, ${(report.bytesWritten / 2 ** 20).toFixed(0)} MiB  disk: ${cuts}` +
    `  control lost ${report.controlLosses}  ready in ${Math.round(report.readyAfterMs)} ms  ${report.failures.length === 0 ? "ok" : `${report.failures.length} LOSSES`}`
  );
}
