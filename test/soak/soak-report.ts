// Writes docs/bench/soak.json and docs/bench/soak.md. Caller: soak.ts. Nothing in the page is typed by hand.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DriftCheck, type Sample, warmUpSeconds } from "./drift.ts";
import type { LoadContext } from "./loads.ts";

export interface SoakResult {
  readonly measuredAt: string;
  readonly minutes: number;
  readonly counts: LoadContext["counts"];
  readonly rssPeakMiB: number;
  readonly rssPeakMiBMax: number;
  readonly checks: readonly DriftCheck[];
  readonly failures: readonly string[];
  readonly samples: readonly Sample[];
}

const tableRowsMax = 20;

export function writeSoakReport(result: SoakResult, dir: string): void {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "soak.json"), `${JSON.stringify(result, null, 1)}\n`);
  writeFileSync(join(dir, "soak.md"), page(result));
}

export function passed(result: SoakResult): boolean {
  const small = result.rssPeakMiB <= result.rssPeakMiBMax;
  return result.failures.length === 0 && small && result.checks.every((check) => check.holds);
}

export function driftTable(checks: readonly DriftCheck[]): string {
  return [
    "| figure | first third | last third | at most | | limit |",
    "| --- | ---: | ---: | ---: | --- | --- |",
    ...checks.map((check) => {
      const control = check.withControl === true ? " × control" : "";
      const limit = `first × ${check.factor}${control} + ${check.slack}: ${check.why}`;
      const figures = [check.first, check.last, check.allowed].map(short).join(" | ");
      return `| ${check.figure} | ${figures} | ${check.holds ? "holds" : "**drift**"} | ${limit} |`;
    }),
  ].join("\n");
}

function page(result: SoakResult): string {
  const { counts } = result;
  const step = Math.max(1, Math.ceil(result.samples.length / tableRowsMax));
  const shown = result.samples.filter((_, index) => index % step === step - 1);
  const verdict = passed(result) ? "Passed: no error, no drift." : "**Failed.**";
  return `# Soak: ${result.minutes} minutes of mixed load

Written by \`npm run soak -- --minutes ${result.minutes}\` from [soak.json](soak.json); measured ${result.measuredAt}. ${verdict}

The load: two block checkers (durability write and flush, unaligned and overlapping requests, ${counts.checkerOperations.toLocaleString("en")} operations,
${counts.quietChecks} full checks in quiet moments), fio with verify on volumes of both durabilities (${counts.fioRuns} runs), ext4 images copied
in and out by nbdcopy, compared and checked by e2fsck (${counts.fileSystems}), and a probe of 20 writes and reads a second whose latency
is what the table shows, beside a control: the same write with fdatasync to a plain file, without Varve. Peak memory of the server: ${Math.round(result.rssPeakMiB)} MiB (at most ${result.rssPeakMiBMax}).

## Drift

Medians of the last third against the first third of the samples after ${Math.round(warmUpSeconds(result.minutes * 60))} s of warm-up.

${driftTable(result.checks)}

${result.failures.length === 0 ? "" : `## Failures\n\n${result.failures.map((failure) => `- ${failure}`).join("\n")}\n\n`}## Samples

One of ${step} samples; all are in the JSON.

| s | RSS MiB | fds | threads | CPU % | data MiB | write p50 / p99 ms | read p50 / p99 ms | control p50 ms |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
${shown
  .map((s) => {
    const latency = `${short(s.writeP50Ms)} / ${short(s.writeP99Ms)} | ${short(s.readP50Ms)} / ${short(s.readP99Ms)}`;
    return `| ${Math.round(s.atSeconds)} | ${short(s.rssMiB)} | ${s.fds} | ${s.threads} | ${short(s.cpuPercent)} | ${short(s.dataMiB)} | ${latency} | ${short(s.controlP50Ms)} |`;
  })
  .join("\n")}
`;
}

function short(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Math.round(value * 100) / 100);
}
