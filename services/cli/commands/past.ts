/*
 * `varve volume rollback|fill`, `varve history`, `varve changes`: what happened to a volume, and how to go back. Calls the
 * server by past-access.ts; background work is followed by job-progress.ts.
 */
import type { ApiChanges, ApiHistory, ApiInterval, ApiJob } from "#shared/api/past-api.ts";
import { exactByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { timeSpanFrom } from "#shared/domain/time-span.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { followJob } from "../job-progress.ts";
import { pairs, printJson, printLine, table } from "../output.ts";
import { PastAccess } from "../past-access.ts";

const nameOf = (line: CommandLine): string => line.args[0] ?? "";
const wantsJson = (line: CommandLine): boolean => line.values.has("json");

export async function rollback(line: CommandLine): Promise<number> {
  const { to: point } = requiredPoints(line, "to");
  const access = new PastAccess(line);
  const started = await access.rollback(nameOf(line), point, line.values.has("force"));
  if (!wantsJson(line)) {
    const { volume, disconnected } = started;
    if (disconnected > 0) printLine(`cut ${disconnected} connection${disconnected === 1 ? "" : "s"}`);
    printLine(
      `${volume.name} is what it was at entry ${started.point.lsn}, ${started.point.time}: ${exactByteSize(volume.sizeBytes)}`,
    );
  }
  const job = await finish(line, access, started.job);
  if (wantsJson(line)) printJson({ ...started, job });
  return 0;
}

export async function fill(line: CommandLine): Promise<number> {
  const access = new PastAccess(line);
  const job = await finish(line, access, await access.fill(nameOf(line)));
  if (wantsJson(line)) printJson(job);
  return 0;
}

export async function tier(line: CommandLine): Promise<number> {
  const access = new PastAccess(line);
  const coldAfter = line.values.get("cold-after")?.[0];
  const span = coldAfter === undefined ? undefined : timeSpanFrom(coldAfter, "--cold-after");
  const job = await finish(line, access, await access.tier(nameOf(line), span));
  if (wantsJson(line)) printJson(job);
  return 0;
}

export async function history(line: CommandLine): Promise<number> {
  const one = (flag: string): string | undefined => line.values.get(flag)?.[0];
  const found = await new PastAccess(line).history(nameOf(line), {
    ...optional("since", one("since")),
    ...optional("until", one("until")),
    ...optional("intervals", one("intervals")),
  });
  if (wantsJson(line)) printJson(found);
  else printLine(historyText(found));
  return 0;
}

export async function changes(line: CommandLine): Promise<number> {
  const { from, to } = requiredPoints(line, "from", "to");
  const found = await new PastAccess(line).changes(nameOf(line), from, to);
  if (wantsJson(line)) printJson(found);
  else printLine(changesText(found));
  return 0;
}

/** Waits for background work and says how it ended; with --detach only which job it is. */
export async function finish(line: CommandLine, access: PastAccess, job: ApiJob): Promise<ApiJob> {
  const json = wantsJson(line);
  if (line.values.has("detach")) {
    if (!json && job.state === "running") printLine(`in the background: varve job show ${job.id}`);
    return job;
  }
  const ended = await followJob(access, job, json);
  if (!json) printLine(ended.note);
  return ended;
}

function optional<K extends string>(name: K, value: string | undefined): { readonly [key in K]?: string } {
  return (value === undefined ? {} : { [name]: value }) as { readonly [key in K]?: string };
}

/** All of them; or an error with the whole command for every one that is missing. */
function requiredPoints<F extends string>(
  line: CommandLine,
  ...flags: readonly F[]
): Readonly<Record<F, string>> {
  const example = flags.map(
    (flag, at) => `--${flag} ${line.values.get(flag)?.[0] ?? `lsn:${120 * (at + 1)}`}`,
  );
  const path = line.command.path.join(" ");
  const mistakes = flags
    .filter((flag) => !line.values.has(flag))
    .map((flag) => `--${flag} is missing: varve ${path} ${nameOf(line)} ${example.join(" ")}`);
  if (mistakes.length > 0) {
    throw new UsageError(
      mistakes,
      `A point is a snapshot's name, lsn:N, or a time with its zone. See: varve help ${path}.`,
    );
  }
  const values = flags.map((flag) => [flag, line.values.get(flag)?.[0] ?? ""]);
  return Object.fromEntries(values) as Record<F, string>;
}

function historyText(found: ApiHistory): string {
  const { range } = found;
  const head = pairs([
    ["volume", found.volume],
    ["opens from", `entry ${range.fromLsn}, ${range.from}`],
    ["to", `entry ${range.toLsn}, ${range.to}`],
    ["archived", `up to entry ${found.archivedLsn}, safe in the bucket up to ${found.heldLsn}`],
  ]);
  const busy = found.intervals.filter((one) => one.lastLsn >= one.firstLsn && one.lastLsn > 0);
  const lines = table<ApiInterval>(
    [
      { title: "FROM", cell: (one) => one.from },
      { title: "ENTRIES", right: true, cell: (one) => `${one.firstLsn}-${one.lastLsn}` },
      { title: "WRITES", right: true, cell: (one) => String(one.writes) },
      { title: "WRITTEN", right: true, cell: (one) => readableByteSize(one.writeBytes) },
      { title: "ZEROED", right: true, cell: (one) => readableByteSize(one.zeroBytes) },
      { title: "EVENTS", cell: (one) => one.events.join(", ") },
    ],
    busy,
  );
  const snapshots = found.snapshots.map(
    (one) => `${found.volume}@${one.name}  entry ${one.lsn}, ${one.createdAt}`,
  );
  return [head, busy.length === 0 ? "nothing was written in this time" : lines, snapshots.join("\n")]
    .filter((part) => part !== "")
    .join("\n\n");
}

function changesText(found: ApiChanges): string {
  const head = pairs([
    ["from", `entry ${found.from.lsn}, ${found.from.time}`],
    ["to", `entry ${found.to.lsn}, ${found.to.time}`],
    ["changed", `${readableByteSize(found.changedBytes)} of ${readableByteSize(found.sizeBytes)}`],
  ]);
  if (found.ranges.length === 0) return head;
  const ranges = table(
    [
      { title: "OFFSET", right: true, cell: (one) => String(one.offset) },
      { title: "LENGTH", right: true, cell: (one) => String(one.length) },
    ],
    found.ranges,
  );
  return `${head}\n\n${ranges}`;
}
