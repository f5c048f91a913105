/*
 * Follows a job of a running server until it ends: a bar on a terminal, else a plain line every ten seconds, nothing with
 * --json. Commands that start background work call it (commands/volume.ts, commands/past.ts, commands/job.ts).
 */

import { errorFromBody } from "#shared/api/error-body.ts";
import type { ApiJob } from "#shared/api/past-api.ts";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { printNote } from "./output.ts";

const askMs = 250;
const plainLineMs = 10_000;
const barWidth = 30;

export interface JobSource {
  job(id: string): Promise<ApiJob>;
}

/** Resolves with the ended job; rejects with its failure. */
export async function followJob(source: JobSource, first: ApiJob, quiet: boolean): Promise<ApiJob> {
  const terminal = process.stderr.isTTY && !quiet;
  let job = first;
  let shownAtMs = performance.now();
  while (job.state === "running") {
    if (terminal) process.stderr.write(`\r${barText(job)}\u001b[K`);
    else if (!quiet && performance.now() - shownAtMs >= plainLineMs) {
      printNote(lineText(job));
      shownAtMs = performance.now();
    }
    await new Promise((resolve) => {
      setTimeout(resolve, askMs);
    });
    job = await source.job(job.id);
  }
  if (terminal) process.stderr.write("\r\u001b[K");
  if (job.failure !== null) throw errorFromBody(job.failure);
  return job;
}

/** `[#####.....]  50%  1.2 GiB of 2.4 GiB  filling`. */
export function barText(job: Pick<ApiJob, "doneBytes" | "totalBytes" | "note">): string {
  const share = shareOf(job);
  const filled = Math.round(share * barWidth);
  const bar = "#".repeat(filled) + ".".repeat(barWidth - filled);
  return `[${bar}] ${String(Math.floor(share * 100)).padStart(3)}%  ${amountText(job)}  ${job.note}`.trimEnd();
}

export function lineText(job: Pick<ApiJob, "doneBytes" | "totalBytes" | "note" | "kind" | "volume">): string {
  const what = `${job.kind} ${job.volume}`.trimEnd();
  return `${what}: ${Math.floor(shareOf(job) * 100)}%, ${amountText(job)}${job.note === "" ? "" : `, ${job.note}`}`;
}

function shareOf(job: Pick<ApiJob, "doneBytes" | "totalBytes">): number {
  return job.totalBytes === 0 ? 0 : Math.min(1, job.doneBytes / job.totalBytes);
}

function amountText(job: Pick<ApiJob, "doneBytes" | "totalBytes">): string {
  return `${readableByteSize(job.doneBytes)} of ${readableByteSize(job.totalBytes)}`;
}
