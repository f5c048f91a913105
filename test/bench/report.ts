// Turns a bench result into what people read: the table on the terminal, docs/bench/one-machine.{json,md,svg}.
// Caller: bench.ts, also with --report to write the page again from the JSON. Nothing in the page is typed by hand.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { drawChart } from "./chart.ts";
import { limitNotes } from "./limit-notes.ts";
import { type BenchResult, type LimitRow, limitVerdict, type RatioRow, ratioVerdict } from "./results.ts";

export function writeReport(result: BenchResult, dir: string): void {
  writeFileSync(join(dir, "one-machine.json"), `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(join(dir, "one-machine.svg"), drawChart(result));
  writeFileSync(join(dir, "one-machine.md"), page(result, profilesIn(dir)));
}

export function readResult(dir: string): BenchResult {
  return JSON.parse(readFileSync(join(dir, "one-machine.json"), "utf8")) as BenchResult;
}

/** Rows measured now replace the same rows of an earlier run; a partial run keeps the rest, and one quick row makes it quick. */
export function merged(now: BenchResult, dir: string): BenchResult {
  if (!existsSync(join(dir, "one-machine.json"))) return now;
  const before = readResult(dir);
  const merge = <T extends { readonly id: string }>(old: readonly T[], fresh: readonly T[]): T[] => {
    const byId = new Map(fresh.map((row) => [row.id, row]));
    const kept = old.map((row) => byId.get(row.id) ?? row);
    return [...kept, ...fresh.filter((row) => !old.some((other) => other.id === row.id))];
  };
  const quick = now.quick || before.quick;
  return {
    ...now,
    quick,
    ratios: merge(before.ratios, now.ratios),
    limits: merge(before.limits, now.limits),
  };
}

export function table(result: BenchResult): string {
  const lines = [
    "| case | against | Varve | peer | raw file | ratio: median (range) | target | |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ...result.ratios.map(ratioLine),
    "",
    "| figure | Varve: median (range) | limit | |",
    "| --- | ---: | ---: | --- |",
    ...result.limits.map(limitLine),
  ];
  return lines.join("\n");
}

function ratioLine(row: RatioRow): string {
  const { median, min, max, holds } = ratioVerdict(row);
  const middle = [...row.pairs].sort((a, b) => a.ratio - b.ratio)[row.pairs.length >> 1];
  const cells = [
    row.title,
    row.against,
    figure(middle?.varve, row.unit),
    figure(middle?.peer, row.unit),
    figure(row.native, row.unit),
    `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`,
    `${row.sense} ${row.target}`,
    holds ? "holds" : "**missed**",
  ];
  return `| ${cells.join(" | ")} |`;
}

function limitLine(row: LimitRow): string {
  const { median, min, max, holds } = limitVerdict(row);
  const range = row.samples.length > 1 ? ` (${min}–${max})` : "";
  const verdict = holds ? "holds" : "**missed**";
  return `| ${row.title} | ${figure(median, row.unit)}${range} | ${row.sense} ${row.target} | ${verdict} |`;
}

function figure(value: number | undefined, unit: string): string {
  if (value === undefined) return "";
  const text = value >= 1000 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 100) / 100);
  return unit === "requests/s" ? `${text}/s` : `${text} ${unit}`;
}

function page(result: BenchResult, profiles: Profiles): string {
  const { machine } = result;
  const missed = [
    ...result.ratios
      .filter((row) => !ratioVerdict(row).holds)
      .map((row) => `${row.title}, against ${row.against}`),
    ...result.limits.filter((row) => !limitVerdict(row).holds).map((row) => row.title),
  ];
  const notes = [...result.ratios, ...result.limits]
    .filter((row) => row.note)
    .map((row) => `- ${row.title}: ${row.note}.`);
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  return `# Varve beside the C servers, on one machine

Written by \`npm run bench\` from [one-machine.json](one-machine.json)${result.quick ? " (a quick run: short and rough)" : ""}.

![ratios](one-machine.svg)

${table(result)}

${missed.length === 0 ? "Every target holds." : `Missed: ${missed.join("; ")}.`}

## How it was measured

- Machine: ${machine.cores} cores (${machine.cpu}), ${machine.memoryGiB} GiB, Linux ${machine.kernel}, ${machine.fileSystem}; measured ${result.measuredAt}.
- Versions: ${versions.join(", ")}.
- Load: fio's nbd engine over a unix socket, ${result.runSeconds} s per run after 1 s of warm-up, ${result.workingSetMiB} MiB disks that were
  written full and read once before, so that reads come from the page cache. "Raw file" is the same pattern by fio's
  io_uring engine on the peers' file (for durable writes with O_DSYNC), without any server.
- Runs are interleaved: Varve, each peer, the raw file, then the next pair in the opposite order. A ratio is made within a
  pair; the table shows the median of ${result.pairs} with its range, and the figures of the middle pair. Between runs the
  files are synced and Varve has come to rest.
- Varve is the whole product: log before image, checksums, checkpoints and segment preparation on. Beside the peers it keeps no
  history (\`--bucket none\`), as they keep none: [history.md](history.md) says what that costs. The rows without a peer run with the
  default bucket. A durable write is
  acknowledged after its log record is synced; nbdkit with fuamode=force, qemu-nbd with cache=writethrough and nbd-server
  with sync=true give the same promise.
${notes.join("\n")}
${limitSection(result, profiles)}${profileSection(profiles)}`;
}

/** Profiles that `npm run bench -- --profile ROW` left beside the result, by row. */
type Profiles = Readonly<Record<string, { readonly measuredAt: string; readonly lines: readonly string[] }>>;

function profilesIn(dir: string): Profiles {
  const file = join(dir, "profiles.json");
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Profiles) : {};
}

/** What limits the rows that are missed: the text of limit-notes.ts, and the profile below where there is one. */
function limitSection(result: BenchResult, profiles: Profiles): string {
  const missed = new Map(
    result.ratios.filter((row) => !ratioVerdict(row).holds).map((row) => [row.id.split("/")[0], row.title]),
  );
  const sections = limitNotes
    .filter(({ row }) => missed.has(row))
    .map(({ row, text }) => {
      const profile = row in profiles ? ` Its profile is [below](#${row}).` : "";
      return `### ${missed.get(row)}\n\n${text}${profile}\n`;
    });
  return sections.length === 0 ? "" : `\n## What limits the missed rows\n\n${sections.join("\n")}`;
}

function profileSection(profiles: Profiles): string {
  const sections = Object.entries(profiles).map(
    ([row, { lines }]) => `### ${row}\n\n\`\`\`\n${lines.join("\n")}\n\`\`\`\n`,
  );
  if (sections.length === 0) return "";
  return `\n## Profiles\n\nProcessor time of the server's threads per request, and self time of its main thread under that load (\`--cpu-prof\`).\n\n${sections.join("\n")}`;
}
