/*
 * `varve bucket check|usage|collect`, `varve scrub`, `varve volume undelete` and `volume list --deleted`: asks the server by
 * bucket-access.ts, follows jobs, prints reports. With --bucket, check and usage read the bucket in this process.
 */
import type { ApiBucketReport, ApiDeletedVolume } from "#shared/api/bucket-api.ts";
import { byteSizeFrom, exactByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { timeSpanText } from "#shared/domain/time-span.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type {
  BucketCheckReport,
  BucketLimits,
  BucketUsageReport,
  BucketUsageRow,
  BucketVolumeRow,
  CollectReport,
  RescuedVolume,
  ScrubbedReplica,
  ScrubReport,
} from "#shared/ports/bucket-administration.ts";
import { BucketAccess } from "../bucket-access.ts";
import type { CommandLine } from "../command-line.ts";
import { followJob } from "../job-progress.ts";
import { pairs, printJson, printLine, table } from "../output.ts";

const wantsJson = (line: CommandLine): boolean => line.values.has("json");
/** The command worked, and found something. */
const foundExitCode = 1;

async function check(line: CommandLine): Promise<number> {
  const quick = line.values.has("quick");
  const url = line.values.get("bucket")?.[0];
  if (url !== undefined) {
    const { checkBucketAt } = await import("../bucket-store.ts");
    return printCheck(line, await checkBucketAt(url, quick));
  }
  const access = new BucketAccess(line);
  const report = await reportOf(line, access, await access.check(quick));
  return report?.kind === "check" ? printCheck(line, report.report) : 0;
}

async function usage(line: CommandLine): Promise<number> {
  const url = line.values.get("bucket")?.[0];
  const report =
    url === undefined
      ? await new BucketAccess(line).usage()
      : await (await import("../bucket-store.ts")).usageOfBucketAt(url);
  if (wantsJson(line)) printJson(report);
  else printLine(usageText(report));
  return 0;
}

async function collect(line: CommandLine): Promise<number> {
  const access = new BucketAccess(line);
  const dryRun = line.values.has("dry-run");
  const started = await access.collect({ dryRun, acceptClock: line.values.has("accept-clock") });
  const report = await reportOf(line, access, started);
  if (report?.kind !== "collect") return 0;
  if (wantsJson(line)) printJson(report.report);
  else printLine(collectText(report.report));
  return 0;
}

async function scrub(line: CommandLine): Promise<number> {
  const access = new BucketAccess(line);
  const rate = line.values.get("rate")?.[0];
  const node = line.values.get("node")?.[0];
  const started = await access.scrub(line.args[0] ?? "", {
    repair: line.values.has("repair"),
    ...(rate === undefined ? {} : { bytesPerSecond: byteSizeFrom(rate, "--rate") }),
    ...(node === undefined ? {} : { node }),
  });
  const report = await reportOf(line, access, started);
  if (report?.kind !== "scrub") return 0;
  if (wantsJson(line)) printJson(report.report);
  else printLine(scrubText(report.report, line.values.has("repair")));
  const { damaged, replicas = [] } = report.report;
  const isWhole = damaged.every((one) => one.repaired) && replicas.every((one) => one.against !== null);
  return isWhole ? 0 : foundExitCode;
}

async function undelete(line: CommandLine): Promise<number> {
  const volume = await new BucketAccess(line).undelete(line.args[0] ?? "", line.values.get("as")?.[0]);
  if (wantsJson(line)) printJson(volume);
  else
    printLine(
      `${rescuedText(volume)}; it is served now, bytes that are not here are fetched in the background`,
    );
  return 0;
}

/** `varve volume list --deleted`. */
export async function listDeleted(line: CommandLine): Promise<number> {
  const found = await new BucketAccess(line).deleted();
  if (wantsJson(line)) printJson(found);
  else printLine(found.length === 0 ? "no deleted volumes" : deletedTable(found));
  return 0;
}

export const bucketCommandRuns = { check, usage, collect, scrub, undelete };

/** The job's report when it is done; null with --detach. */
async function reportOf(
  line: CommandLine,
  access: BucketAccess,
  job: Awaited<ReturnType<BucketAccess["job"]>>,
): Promise<ApiBucketReport | null> {
  if (line.values.has("detach")) {
    if (wantsJson(line)) printJson(job);
    else printLine(`in the background: varve job show ${job.id}`);
    return null;
  }
  const ended = await followJob(access, job, wantsJson(line));
  return await access.report(ended.id);
}

function printCheck(line: CommandLine, report: BucketCheckReport): number {
  if (wantsJson(line)) printJson(report);
  else {
    for (const { key, problem } of report.findings) printLine(`${key} ${problem}`);
    const more = report.problems - report.findings.length;
    if (more > 0) printLine(`${more} more`);
    printLine(
      pairs([
        ["bucket", report.place],
        ["volumes", String(report.volumes)],
        ["objects", `${report.objects}, ${readableByteSize(report.bytes)}`],
        ["unnamed", `${report.unnamedObjects} that wait to be collected`],
        ["verdict", report.problems === 0 ? "all is there" : `${report.problems} problems`],
      ]),
    );
  }
  return report.problems === 0 ? 0 : foundExitCode;
}

const dollars = (cost: number): string => (cost === 0 ? "-" : `$${cost.toFixed(cost < 1 ? 4 : 2)}`);

function usageText(report: BucketUsageReport): string {
  const rows = table<BucketUsageRow>(
    [
      { title: "VOLUME", cell: (row) => row.volume },
      { title: "KIND", cell: (row) => row.kind },
      { title: "OBJECTS", right: true, cell: (row) => String(row.objects) },
      { title: "BYTES", right: true, cell: (row) => readableByteSize(row.bytes) },
      { title: "A MONTH", right: true, cell: (row) => dollars(row.monthlyCost) },
    ],
    report.rows,
  );
  const requests = Object.entries(report.requests)
    .filter(([kind, count]) => count > 0 && !kind.endsWith("Bytes"))
    .map(([kind, count]) => `${count} ${kind}`);
  const kept = table<BucketVolumeRow>(
    [
      { title: "VOLUME", cell: (one) => one.volume },
      { title: "HISTORY", right: true, cell: (one) => timeSpanText(one.historyMs) },
      { title: "OPENS FROM ENTRY", right: true, cell: (one) => String(Math.max(1, one.retainedFromLsn)) },
      { title: "TO ENTRY", right: true, cell: (one) => String(one.archivedLsn) },
      { title: "SNAPSHOTS", right: true, cell: (one) => String(one.snapshots) },
    ],
    report.volumes,
  );
  const sums = pairs([
    ["bucket", report.place],
    [
      "in all",
      `${report.objects} objects, ${readableByteSize(report.bytes)}, ${dollars(report.monthlyCost)} a month`,
    ],
    ["prices", report.prices],
    ["requests", requests.length === 0 ? "none" : `${requests.join(", ")}: ${dollars(report.requestCost)}`],
    ...limitRows(report.limits),
    ...report.notes.map((note) => ["note", note] as const),
  ]);
  return [
    ...(report.rows.length === 0 ? [] : [rows]),
    ...(report.volumes.length === 0 ? [] : [kept]),
    sums,
  ].join("\n\n");
}

function limitRows(limits: BucketLimits | null): readonly (readonly [string, string])[] {
  if (limits === null) return [];
  const rate = (bytes: number | null): string =>
    bytes === null ? "no limit" : `${readableByteSize(bytes)}/s at most`;
  const { bytesMax, uploadBytesPerSecond, downloadBytesPerSecond, fillBytesPerSecond } = limits;
  return [
    [
      "size",
      bytesMax === null ? "no limit" : `${readableByteSize(bytesMax)} at most, then the oldest history goes`,
    ],
    ["uploads", rate(uploadBytesPerSecond)],
    ["downloads", rate(downloadBytesPerSecond)],
    ["fills", rate(fillBytesPerSecond)],
  ];
}

function collectText(report: CollectReport): string {
  const verb = report.dryRun ? "would go" : "deleted";
  const lines = report.trimmed.map(
    (one) =>
      `${one.volume}: opens from entry ${one.retainedFromLsn} on; ${one.segments} segments and ${one.bases} bases left its history`,
  );
  for (const { key, problem } of report.findings) lines.push(`${key} ${problem}`);
  for (const key of report.keys) lines.push(key);
  lines.push(
    pairs([
      ["retention time", timeText(report.timeMs)],
      [
        "behind",
        report.behindMs < 60_000
          ? null
          : `${Math.round(report.behindMs / 60_000)} minutes: time in which nobody collected`,
      ],
      ["paused", report.paused],
      ["objects", `${report.listed} listed, ${report.named} named`],
      ["waiting", `${report.waiting}, ${readableByteSize(report.waitingBytes)}`],
      [verb, `${report.deleted}, ${readableByteSize(report.deletedBytes)}`],
    ]),
  );
  return lines.join("\n");
}

function scrubText(report: ScrubReport, wasAsked: boolean): string {
  const left = wasAsked
    ? "not repaired: it is written to, or the bucket does not hold what was written last; try again in some minutes"
    : "not repaired";
  const lines = report.damaged.map(({ extent, firstOffset, repaired, node, why }) => {
    const where = node === undefined ? "" : `${node}: `;
    const notDone = why === undefined ? left : `not repaired: ${why}`;
    return `${where}extent ${extent} differs from byte ${firstOffset} on: ${repaired ? "repaired" : notDone}`;
  });
  const replicas = report.replicas ?? [];
  for (const one of replicas) lines.push(replicaText(one));
  const passedOver = replicas.filter((one) => one.against === null).length;
  const agreed = replicas.length === 0 ? "image and history agree" : "what was compared agrees";
  lines.push(
    pairs([
      ["volume", report.volume],
      ["compared", `${report.compared} of ${report.extents} extents`],
      ["in the bucket only", report.remote === 0 ? null : String(report.remote)],
      ["written to meanwhile", report.busy === 0 ? null : String(report.busy)],
      ["passed over", passedOver === 0 ? null : `${passedOver} of ${replicas.length} replicas`],
      ["verdict", report.damaged.length === 0 ? agreed : `${report.damaged.length} damaged`],
    ]),
  );
  return lines.join("\n");
}

function replicaText({ node, against, compared, reason }: ScrubbedReplica): string {
  const why = reason === "" ? "" : ` (${reason})`;
  if (against === null) return `${node}: passed over${why}`;
  const other = against === "bucket" ? "the bucket" : "the other replicas";
  return `${node}: ${compared} extents compared with ${other}${why}`;
}

export function rescuedText(volume: RescuedVolume): string {
  const reached =
    volume.reachedMs === null ? "nothing was archived" : `entry ${volume.lsn}, ${timeText(volume.reachedMs)}`;
  return `${volume.name}: ${exactByteSize(volume.sizeBytes)}, ${reached}`;
}

function deletedTable(volumes: readonly ApiDeletedVolume[]): string {
  return table<ApiDeletedVolume>(
    [
      { title: "NAME", cell: (one) => one.name },
      { title: "SIZE", right: true, cell: (one) => exactByteSize(one.sizeBytes) },
      { title: "ENTRY", right: true, cell: (one) => String(one.archivedLsn) },
      { title: "DELETED", cell: (one) => timeText(one.deletedAtMs) },
      {
        title: "GOES IN",
        cell: (one) => (one.goesInMs === null ? "7 days" : `${Math.ceil(one.goesInMs / 3_600_000)} hours`),
      },
      { title: "ID", cell: (one) => one.volumeId },
    ],
    volumes,
  );
}
