// Turns a result of the history bench into docs/bench/history.{json,md,svg}. Caller: bench.ts, also with --report to write the page again
// from the JSON. Nothing in the page is typed by hand.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { drawChart } from "../chart.ts";
import { type LimitRow, limitVerdict, type Machine, type RatioRow, ratioVerdict } from "../results.ts";
import type { RequestRow, Requests } from "./ground.ts";

export interface HistoryResult {
  readonly measuredAt: string;
  readonly quick: boolean;
  readonly pairs: number;
  /** The S3 server and its version. */
  readonly s3: string;
  readonly machine: Machine;
  readonly ratios: readonly RatioRow[];
  readonly limits: readonly LimitRow[];
  readonly requests: readonly RequestRow[];
}

const GiB = 2 ** 30;
/** US dollars: AWS S3 standard, PUT and LIST per 1,000, GET and HEAD per 1,000. */
const putPrice = 0.005 / 1000;
const getPrice = 0.0004 / 1000;

export function writeHistory(result: HistoryResult, dir: string): void {
  writeFileSync(join(dir, "history.json"), `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(join(dir, "history.svg"), drawChart(result, chartText));
  writeFileSync(join(dir, "history.md"), page(result));
}

export function readHistory(dir: string): HistoryResult {
  return JSON.parse(readFileSync(join(dir, "history.json"), "utf8")) as HistoryResult;
}

/** Rows measured now replace the same rows of an earlier run; one quick row makes the whole quick. */
export function merged(now: HistoryResult, dir: string): HistoryResult {
  if (!existsSync(join(dir, "history.json"))) return now;
  const before = readHistory(dir);
  const merge = <T extends { readonly id: string }>(old: readonly T[], fresh: readonly T[]): T[] => {
    const byId = new Map(fresh.map((row) => [row.id, row]));
    const kept = old.map((row) => byId.get(row.id) ?? row);
    return [...kept, ...fresh.filter((row) => !old.some((other) => other.id === row.id))];
  };
  return {
    ...now,
    quick: now.quick || before.quick,
    ratios: merge(before.ratios, now.ratios),
    limits: merge(before.limits, now.limits),
    requests: merge(before.requests, now.requests),
  };
}

export function tables(result: HistoryResult): string {
  return `${rowTables(result)}\n\n${requestTable(result.requests)}`;
}

function rowTables({ ratios, limits }: Pick<HistoryResult, "ratios" | "limits">): string {
  return [
    "| figure | Varve | limit | |",
    "| --- | ---: | ---: | --- |",
    ...limits.map(limitLine),
    "",
    "| case | against | Varve | the other | ratio: median (range in pairs) | target | |",
    "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ...ratios.map(ratioLine),
  ].join("\n");
}

function limitLine(row: LimitRow): string {
  const { median, min, max, holds } = limitVerdict(row);
  const range = row.samples.length > 1 ? ` (${short(min)}–${short(max)})` : "";
  const cells = [row.title, `${short(median)} ${row.unit}${range}`, `${row.sense} ${row.target} ${row.unit}`];
  return `| ${cells.join(" | ")} | ${holds ? "holds" : "**missed**"} |`;
}

function ratioLine(row: RatioRow): string {
  const { median, min, max, holds } = ratioVerdict(row);
  const middle = [...row.pairs].sort((a, b) => a.ratio - b.ratio)[row.pairs.length >> 1];
  const figures = [middle?.varve, middle?.peer].map((value) => `${short(value ?? Number.NaN)} ${row.unit}`);
  const range = `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)} in ${row.pairs.length})`;
  const cells = [row.title, row.against, ...figures, range, `${row.sense} ${row.target}`];
  return `| ${cells.join(" | ")} | ${holds ? "holds" : "**missed**"} |`;
}

function requestTable(rows: readonly RequestRow[]): string {
  return [
    "| per GiB of disk | PUT | GET | HEAD | LIST | bytes up | bytes down | requests cost |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...rows.map(({ title, bytes, seconds, requests }) => {
      const per = (count: number): string => short(count / (bytes / GiB));
      const mib = (count: number): string => `${Math.round(count / (bytes / GiB) / 2 ** 20)} MiB`;
      const cells = [per(requests.put), per(requests.get), per(requests.head), per(requests.list)];
      const moved = [
        mib(requests.putBytes),
        mib(requests.getBytes),
        `$${(cost(requests) / (bytes / GiB)).toFixed(5)}`,
      ];
      return `| ${title} (${short(bytes / GiB)} GiB in ${Math.round(seconds)} s) | ${[...cells, ...moved].join(" | ")} |`;
    }),
  ].join("\n");
}

function cost(requests: Requests): number {
  return (requests.put + requests.list) * putPrice + (requests.get + requests.head) * getPrice;
}

function page(result: HistoryResult): string {
  const { machine } = result;
  const missed = [
    ...result.ratios.filter((row) => !ratioVerdict(row).holds),
    ...result.limits.filter((row) => !limitVerdict(row).holds),
  ].map((row) => row.title);
  const notes = [...result.ratios, ...result.limits, ...result.requests]
    .filter((row) => row.note !== undefined)
    .map((row) => `- ${row.title}: ${row.note}.`);
  return `# The past: what it costs and how fast it opens

Written by \`npm run bench:history\` from [history.json](history.json)${result.quick ? " (a quick run: short and rough)" : ""}.

![ratios](history.svg)

${rowTables(result)}

${missed.length === 0 ? "Every target holds." : `Missed: ${missed.join("; ")}.`}

## Requests

By the server's own counters (\`varve_bucket_…\` at \`/metrics\`), retries included. Costs at AWS S3's list price for requests: $0.005 for 1,000
PUTs or LISTs, $0.0004 for 1,000 GETs or HEADs; deletes are free.

${requestTable(result.requests)}

## How it was measured

- Machine: ${machine.cores} cores (${machine.cpu}), ${machine.memoryGiB} GiB, Linux ${machine.kernel}, ${machine.fileSystem}; measured ${result.measuredAt}.
  That is the newest run. Rows that it did not measure keep the figures of earlier runs, which may be from other machines: compare within a row.
- S3 server: ${result.s3} on the same machine, cores and disk, so its work is part of every figure.
- The volume of 1 TiB is made straight in the bucket by \`test/bench/history/made-volume.ts\`: real base, pages, chunks, segments and manifest; its
  extents take turns with a few chunks, so that it is small on the disk. Varve gets it by \`varve rescue\` and finds nothing out of the ordinary.
- Ratios are made within a pair of runs, in turns; the table has the median, its range and the number of pairs. Each run has a server and a data
  directory of its own. Before each run of the rows that write for long, memory is filled with page cache that nobody needs, as on a machine
  that has run for a day (\`test/bench/history/full-memory.ts\`; not yet for figures from before 2026-11-30).
${notes.join("\n")}
`;
}

const chartText = {
  title: "The past beside its measures",
  subtitle:
    "Ratio in the same pair of runs: bar = median, whisker = range, tick = target. Fills: right is better; latency: left is better.",
};

function short(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Math.round(value * 100) / 100);
}
