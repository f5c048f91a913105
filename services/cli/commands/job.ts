/*
 * `varve job list|show`: background work of a running server. `show` follows a job to its end (job-progress.ts).
 */
import type { ApiJob } from "#shared/api/past-api.ts";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import type { CommandLine } from "../command-line.ts";
import { followJob } from "../job-progress.ts";
import { pairs, printJson, printLine, table } from "../output.ts";
import { PastAccess } from "../past-access.ts";

async function list(line: CommandLine): Promise<number> {
  const jobs = await new PastAccess(line).jobs();
  if (line.values.has("json")) printJson(jobs);
  else if (jobs.length === 0) printLine("no jobs since the server started");
  else printLine(jobTable(jobs));
  return 0;
}

async function show(line: CommandLine): Promise<number> {
  const access = new PastAccess(line);
  const json = line.values.has("json");
  const now = await access.job(line.args[0] ?? "");
  const job = line.values.has("detach") ? now : await followJob(access, now, json);
  if (json) printJson(job);
  else printLine(jobDetail(job));
  return 0;
}

export const jobCommands = { list, show };

function jobTable(jobs: readonly ApiJob[]): string {
  return table<ApiJob>(
    [
      { title: "ID", cell: (one) => one.id },
      { title: "KIND", cell: (one) => one.kind },
      { title: "VOLUME", cell: (one) => one.volume },
      { title: "STATE", cell: (one) => one.state },
      { title: "DONE", right: true, cell: (one) => readableByteSize(one.doneBytes) },
      {
        title: "OF",
        right: true,
        cell: (one) => (one.totalBytes === 0 ? "-" : readableByteSize(one.totalBytes)),
      },
      { title: "NOTE", cell: (one) => one.note },
    ],
    jobs,
  );
}

function jobDetail(job: ApiJob): string {
  return pairs([
    ["id", job.id],
    ["kind", job.kind],
    ["volume", job.volume === "" ? null : job.volume],
    ["state", job.state],
    ["started", job.startedAt],
    ["ended", job.endedAt],
    [
      "done",
      job.totalBytes === 0
        ? null
        : `${readableByteSize(job.doneBytes)} of ${readableByteSize(job.totalBytes)}`,
    ],
    ["note", job.note === "" ? null : job.note],
  ]);
}
