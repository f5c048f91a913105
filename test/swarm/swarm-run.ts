// Runs the swarm: many volumes with their loads on one server with a bucket, memory watched, then a kill -9, a restart, every volume and
// kept snapshot judged again, and the bucket checked. Callers: swarm.ts for minutes, test/e2e/swarm.test.ts for half of one.

import type { ApiJob } from "#shared/api/past-api.ts";
import { percentile } from "../soak/drift.ts";
import { PastServer } from "../tools/past-server.ts";
import { CheckedVolume, checkedBytes } from "./checked-volume.ts";
import { FileSystemVolume, fileSystemMiB } from "./file-system-volume.ts";
import { boundOf, type Slowness, type Step, SwarmContext, type SwarmCounts } from "./swarm-volume.ts";

export interface SwarmOptions {
  readonly seconds: number;
  readonly volumes: number;
  /** `--bucket`; null: the default, a directory. */
  readonly bucket: { readonly url: string; readonly env: Readonly<Record<string, string>> } | null;
  /** A request, snapshot or opening that takes longer is a failure. */
  readonly stallMs: number;
  readonly onSample?: (text: string) => void;
}

export interface SwarmSample {
  readonly atSeconds: number;
  readonly rssMiB: number;
  readonly fds: number;
  readonly cpuPercent: number;
}

export interface SwarmResult {
  readonly seconds: number;
  readonly volumes: number;
  readonly fileSystemVolumes: number;
  readonly counts: SwarmCounts;
  readonly times: Readonly<Record<Step, Slowness>>;
  readonly rssPeakMiB: number;
  readonly memory: {
    readonly firstMiB: number;
    readonly lastMiB: number;
    readonly allowedMiB: number;
  } | null;
  readonly failures: readonly string[];
  readonly samples: readonly SwarmSample[];
}

const sampleEveryMs = 5000;
/** Of each four volumes one holds file systems. */
const fileSystemShare = 4;
/** Caches fill in the first part; the last third may have so much more than the third before the middle. */
const memoryFactor = 1.15;
const memorySlackMiB = 16;
/** The check at the end reads every byte that ten minutes brought: some GB. */
const checkMs = 600_000;

export async function runSwarm(options: SwarmOptions): Promise<SwarmResult> {
  const { volumes, bucket } = options;
  const names = Array.from({ length: volumes }, (_, index) =>
    index % fileSystemShare === fileSystemShare - 1 ? `files${index}` : `blocks${index}`,
  );
  const sized = names.map(
    (name) => `${name}:${name.startsWith("files") ? fileSystemMiB : checkedBytes / 2 ** 20}M`,
  );
  const server = await PastServer.start(
    sized,
    bucket === null ? {} : { args: ["--bucket", bucket.url], env: bucket.env },
  );
  const stop = new AbortController();
  const context = new SwarmContext(server, stop.signal, options.stallMs);
  const all = names.map((name, seed) =>
    name.startsWith("files")
      ? new FileSystemVolume(name, seed, server.directory)
      : new CheckedVolume(name, seed),
  );
  const watch = watchMemory(options, context);
  const loads = all.map(async (volume) => {
    try {
      await volume.run(context);
    } catch (cause) {
      context.fail(volume.name, cause instanceof Error ? cause.message : String(cause));
    }
    if (context.failures.length > 0) stop.abort();
  });
  const timer = setTimeout(() => stop.abort(), options.seconds * 1000);
  await Promise.all(loads);
  clearTimeout(timer);
  const { samples, rssPeakMiB } = await watch;
  if (context.failures.length === 0) await judgeAll(context, all);
  const result: SwarmResult = {
    seconds: options.seconds,
    volumes,
    fileSystemVolumes: names.filter((name) => name.startsWith("files")).length,
    counts: context.counts,
    times: context.times,
    rssPeakMiB,
    memory: memoryOf(samples, context),
    failures: context.failures,
    samples,
  };
  if (context.failures.length === 0) await server.end();
  else {
    options.onSample?.(`data kept in ${server.directory}`);
    await server.kill();
  }
  return result;
}

/** After a kill -9 everything is still what it was, and the bucket holds all that it names. */
async function judgeAll(
  context: SwarmContext,
  all: readonly (CheckedVolume | FileSystemVolume)[],
): Promise<void> {
  const { server } = context;
  try {
    for (const volume of all) await volume.judge(context);
    await server.kill();
    await server.up();
    for (const volume of all) await volume.judge(context);
    const job = await server.ok<ApiJob>("POST", "/bucket/check", {});
    const ended = await server.ended(job, checkMs);
    if (!ended.note.startsWith("0 problems")) context.fail("bucket check", ended.note);
  } catch (cause) {
    context.fail("at the end", cause instanceof Error ? cause.message : String(cause));
  }
}

async function watchMemory(options: SwarmOptions, context: SwarmContext) {
  const samples: SwarmSample[] = [];
  const startedAtMs = performance.now();
  let rssPeakMiB = 0;
  let last = { atMs: startedAtMs, cpuMs: context.server.process.usage().cpuMs };
  while (!context.signal.aborted) {
    await context.pause(sampleEveryMs);
    const usage = context.server.process.usage();
    const atMs = performance.now();
    const cpuPercent = ((usage.cpuMs - last.cpuMs) / (atMs - last.atMs)) * 100;
    last = { atMs, cpuMs: usage.cpuMs };
    rssPeakMiB = Math.round(usage.rssPeakBytes / 2 ** 20);
    const atSeconds = Math.round((atMs - startedAtMs) / 1000);
    samples.push({
      atSeconds,
      rssMiB: Math.round(usage.rssBytes / 2 ** 20),
      fds: usage.fds,
      cpuPercent: Math.round(cpuPercent),
    });
    options.onSample?.(sampleLine(context, samples.at(-1) as SwarmSample));
  }
  return { samples, rssPeakMiB };
}

function sampleLine(context: SwarmContext, sample: SwarmSample): string {
  const { counts, times } = context;
  const slow = `requests p99 ≤ ${boundOf(times.request, 0.99)} ms, worst ${Math.round(times.request.worstMs)}; snapshots worst ${Math.round(times.snapshot.worstMs)}; points worst ${Math.round(times["point open"].worstMs)}`;
  return `${sample.atSeconds} s  rss ${sample.rssMiB} MiB  fds ${sample.fds}  cpu ${sample.cpuPercent} %  ${times.request.count} requests, ${counts.snapshots} snapshots, ${counts.pointsVerified} + ${counts.pointsReread} points  ${slow}`;
}

/** Null where the run is too short to tell growth from caches. */
function memoryOf(samples: readonly SwarmSample[], context: SwarmContext): SwarmResult["memory"] {
  if (samples.length < 24) return null;
  const steady = samples.slice(Math.floor(samples.length / 4));
  const third = Math.floor(steady.length / 3);
  const middle = (part: readonly SwarmSample[]): number =>
    percentile(
      part.map(({ rssMiB }) => rssMiB),
      0.5,
    );
  const firstMiB = middle(steady.slice(0, third));
  const lastMiB = middle(steady.slice(-third));
  const allowedMiB = Math.round(firstMiB * memoryFactor + memorySlackMiB);
  if (lastMiB > allowedMiB)
    context.fail("memory", `grew from ${firstMiB} to ${lastMiB} MiB, at most ${allowedMiB}`);
  return { firstMiB, lastMiB, allowedMiB };
}
