// Whether archiving keeps up with 100 MB/s of writes on two cores (the S3 server takes its share of them), what it costs the writers, and
// how many requests it takes. Latency is compared in pairs with `--bucket none`, in turns. Caller: bench.ts.

import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import type { ApiJob } from "#shared/api/past-api.ts";
import { limits } from "#shared/domain/limits.ts";
import { runFio } from "../../tools/fio.ts";
import { PastServer, succeed } from "../../tools/past-server.ts";
import { usageOf, withheldMs } from "../../tools/varve-process.ts";
import type { Pair, RatioRow } from "../results.ts";
import { measureDiskAlone } from "./disk-alone.ts";
import { difference, type Ground, pauseMs, requestsOf, round } from "./ground.ts";
import { besideUploads, type Sent } from "./s3-upload.ts";

interface Load {
  readonly id: string;
  readonly title: string;
  readonly fio: readonly string[];
}

const sizeMiB = 2048;
const hundred: Load = {
  id: "128k",
  title: "100 MB/s in random writes of 128 KiB",
  fio: ["--rw=randwrite", "--bs=128k", "--iodepth=8", "--rate=100m"],
};
const small: Load = {
  id: "4k",
  title: "3,000 random writes of 4 KiB a second",
  fio: ["--rw=randwrite", "--bs=4k", "--iodepth=8", "--rate_iops=3000"],
};
const content = [
  "--refill_buffers",
  "--buffer_compress_percentage=50",
  "--norandommap",
  "--randrepeat=0",
  `--size=${sizeMiB}M`,
];

const offeredRate = "110m";

/**
 * 110 MB/s are offered; what reaches the bucket meanwhile counts, and how far it is behind at the end. After each run the disk is asked what
 * it takes of the same bytes without Varve.
 */
export async function measureArchiveRate(ground: Ground): Promise<void> {
  const rates: number[] = [];
  const notes: string[] = [];
  const seconds = ground.quick ? 8 : 30;
  for (let run = 0; run < ground.pairs; run += 1) {
    const server = await startServer(ground, ground.s3.url(`rate${run}`));
    let objectBytes = 0;
    try {
      const before = await requestsOf(server);
      const blockBytes = 131_072;
      const watch = watchArchive(server, seconds, blockBytes);
      const jobs = await write(
        server,
        { ...hundred, fio: [...hundred.fio.slice(0, -1), `--rate=${offeredRate}`] },
        seconds,
      );
      const { rate, lagMiB, lagMaxMiB } = await watch;
      rates.push(round(rate));
      const offered = jobs.reduce((sum, job) => sum + job.write.bytesPerSecond, 0) / 1e6;
      notes.push(
        `${round(rate)} of ${round(offered)} MB/s written, ${round(lagMiB)} MiB behind at the end (at most ${round(lagMaxMiB)})`,
      );
      const requests = difference(await requestsOf(server), before);
      objectBytes = requests.putBytes;
      if (run === 0) {
        const bytes = offered * 1e6 * seconds;
        ground.announceRequests({
          id: "written",
          title: `written: ${hundred.title}`,
          bytes,
          seconds,
          requests,
        });
      }
    } finally {
      await server.end();
    }
    ground.memory.fill();
    await succeed("sync");
    const { bytesPerSecond, p99Ms } = await measureDiskAlone(offeredRate, objectBytes / seconds, seconds);
    notes.push(
      `the disk alone, fio with the bytes of log, image and objects, ${round(bytesPerSecond / 1e6)} MB/s, p99 of a log write ${round(p99Ms)} ms`,
    );
  }
  ground.announceLimit({
    id: "archive-rate",
    title: "archived while 110 MB/s are written",
    unit: "MB/s",
    sense: "at least",
    target: 100,
    samples: rates,
    note: notes.join("; "),
  });
}

export async function measureLargeLatency(ground: Ground): Promise<void> {
  await measureLatency(ground, hundred);
}

export async function measureSmallLatency(ground: Ground): Promise<void> {
  await measureLatency(ground, small);
}

const places = ["none", "s3", "beside", "busy", "directory"] as const;
const backwards = ["directory", "s3", "beside", "busy", "none"] as const;
type Place = (typeof places)[number];

/**
 * s3: the server takes its share of the two processors and of the disk. beside: without a bucket, while the AWS client puts to that server
 * what the archiver put in the run before. busy: without a bucket, while threads that get only what nobody else wants (SCHED_IDLE) leave no
 * processor idle: what a wake-up costs on this machine when there is work for both, whosever it is.
 */
async function measureLatency(ground: Ground, load: Load): Promise<void> {
  const runs: Record<Place, number[]> = { none: [], s3: [], beside: [], busy: [], directory: [] };
  const cpu: string[] = [];
  for (let pair = 0; pair < ground.pairs; pair += 1) {
    let sent: Sent = { objects: 0, bytes: 0, seconds: 0 };
    for (const place of pair % 2 === 0 ? places : backwards) {
      const prefix = `latency-${load.id}-${pair}`;
      const run = await {
        none: () => runOnce(ground, load, "none"),
        s3: () => runOnce(ground, load, ground.s3.url(prefix)),
        beside: () => besideUploads(ground.s3, `${prefix}-beside`, sent, () => runOnce(ground, load, "none")),
        busy: () => besideIdlers(() => runOnce(ground, load, "none")),
        directory: () => runOnce(ground, load, "default"),
      }[place]();
      if (place === "s3") sent = run.sent;
      runs[place].push(run.p99Ms);
      cpu.push(`${place} ${Math.round(run.cpuPercent)} (${Math.round(run.withheldPercent)}) %`);
    }
  }
  announceLatency(ground, load, runs, cpu);
}

function announceLatency(
  ground: Ground,
  load: Load,
  runs: Readonly<Record<Place, readonly number[]>>,
  cpu: readonly string[],
): void {
  const announce = (id: string, where: string, ours: Place, theirs: Place, more: Partial<RatioRow> = {}) => {
    ground.announceRatio({
      id: `archive-p99-${load.id}/${id}`,
      title: `${load.title}, bucket ${where}`,
      unit: "ms p99",
      sense: "at most",
      target: 1.5,
      native: undefined,
      against: "Varve, --bucket none",
      pairs: pairsOf(runs[ours], runs[theirs]),
      ...more,
    });
  };
  const onServer = "on the local S3 server";
  const note = `CPU of the server in percent of one core, in the order of the runs (and what the host withheld of them meanwhile, for its own work on this machine's disk or for others): ${cpu.join(", ")}`;
  announce("s3", onServer, "s3", "none", { note });
  const against = "Varve, --bucket none, while the AWS client puts as many bytes to that server";
  announce("beside", onServer, "s3", "beside", { against });
  const againstBusy = "Varve, --bucket none, while threads of idle priority leave no processor idle";
  announce("busy", onServer, "s3", "busy", { against: againstBusy });
  announce("directory", "in a directory of the same disk", "directory", "none");
}

function pairsOf(ours: readonly number[], theirs: readonly number[]): Pair[] {
  return ours.map((p99Ms, pair) => {
    const peer = theirs[pair] ?? Number.NaN;
    return { varve: round(p99Ms), peer: round(peer), ratio: p99Ms / peer };
  });
}

async function besideIdlers<T>(measure: () => Promise<T>): Promise<T> {
  // They end by themselves where nobody is left who would kill them.
  const spin = "const end = performance.now() + 120_000; while (performance.now() < end);";
  const idlers = Array.from({ length: availableParallelism() }, () =>
    spawn("chrt", ["--idle", "0", process.execPath, "--eval", spin], { stdio: "ignore" }),
  );
  try {
    return await measure();
  } finally {
    for (const idler of idlers) idler.kill("SIGKILL");
  }
}

async function runOnce(ground: Ground, load: Load, url: string) {
  const seconds = ground.quick ? 4 : 10;
  const server = await startServer(ground, url);
  try {
    await write(server, load, 2); // the log's first files, the image's first blocks
    await pauseMs(1000);
    const requestsBefore = url === "none" ? null : await requestsOf(server);
    const cpuBeforeMs = usageOf(server.process.pid).cpuMs;
    const withheldBeforeMs = withheldMs();
    const [job] = await write(server, load, seconds);
    const cpuPercent = (usageOf(server.process.pid).cpuMs - cpuBeforeMs) / (10 * seconds);
    const withheldPercent = (withheldMs() - withheldBeforeMs) / (10 * seconds);
    let sent: Sent = { objects: 0, bytes: 0, seconds };
    if (requestsBefore !== null) {
      const { put, putBytes } = difference(await requestsOf(server), requestsBefore);
      sent = { objects: put, bytes: putBytes, seconds };
    }
    await server.kill();
    return { p99Ms: (job?.write.p99Us ?? Number.NaN) / 1000, cpuPercent, withheldPercent, sent };
  } finally {
    await server.end();
  }
}

/** A volume that is written steadily, but slowly: what it costs while nobody needs anything. */
export async function measureBusyVolume(ground: Ground): Promise<void> {
  const server = await startServer(ground, ground.s3.url("busy"));
  try {
    await pauseMs(1000);
    const before = await requestsOf(server);
    const seconds = ground.quick ? 20 : 150;
    const jobs = await write(
      server,
      { ...small, fio: ["--rw=randwrite", "--bs=16k", "--iodepth=1", "--rate=1m"] },
      seconds,
    );
    const requests = difference(await requestsOf(server), before);
    const bytes = jobs.reduce((sum, job) => sum + job.write.operations * 16_384, 0);
    const segments = Math.max(Math.ceil((bytes * 1.3) / (8 * 2 ** 20)), Math.ceil(seconds / 60));
    const note = `${round(bytes / 2 ** 20)} MiB in ${seconds} s: at most ${segments} segments (8 MiB of records or a minute) and a manifest for each; LIST requests: ${requests.list}`;
    ground.announceRequests({
      id: "busy",
      title: "written: 1 MB/s in writes of 16 KiB",
      bytes,
      seconds,
      requests,
    });
    ground.announceLimit({
      id: "busy-puts",
      title: "PUTs of a busy volume",
      unit: "PUTs",
      sense: "at most",
      target: 2 * segments,
      samples: [requests.put],
      note,
    });
    if (requests.list > 0) throw new Error(`busy-puts: ${requests.list} LIST requests in ${seconds} s`);
  } finally {
    await server.end();
  }
}

/** Base, eviction and the way back, by a directory bucket: its PUTs are durable, so nothing waits five minutes. */
export async function measureTiering(ground: Ground): Promise<void> {
  const server = await startServer(ground, "default");
  try {
    const bytes = (ground.quick ? 256 : 1024) * 2 ** 20;
    const fill = ["--rw=write", "--bs=1M", "--iodepth=8", "--refill_buffers", `--size=${bytes / 2 ** 20}M`];
    await runFio(["--name=fill", "--ioengine=nbd", `--uri=${server.uri("disk")}`, ...fill], 300_000);
    const before = await requestsOf(server);
    const startedAtMs = performance.now();
    await server.ok("PATCH", "/volumes/disk", { residency: "tiered" });
    await ended(server, await server.ok("POST", "/volumes/disk/tier", { coldAfter: 0 }));
    const left = (await server.volume("disk")).past?.extents;
    const gone = left?.remote ?? 0;
    if (gone < bytes / limits.extentBytes) throw new Error(`tiering moved ${gone} extents of ${bytes} bytes`);
    const evicted = await requestsOf(server);
    const evictedAtMs = performance.now();
    await ended(server, await server.ok("POST", "/volumes/disk/fill"));
    const filled = await requestsOf(server);
    const seconds = (evictedAtMs - startedAtMs) / 1000;
    ground.announceRequests({
      id: "tiered",
      title: "tiered: base taken, extents evicted",
      bytes,
      seconds,
      requests: difference(evicted, before),
    });
    ground.announceRequests({
      id: "filled",
      title: "filled again",
      bytes,
      seconds: (performance.now() - evictedAtMs) / 1000,
      requests: difference(filled, evicted),
    });
  } finally {
    await server.end();
  }
}

async function ended(server: PastServer, job: ApiJob): Promise<void> {
  const deadlineMs = performance.now() + 300_000;
  for (let now = job; now.state === "running"; now = await server.ok<ApiJob>("GET", `/jobs/${job.id}`)) {
    if (performance.now() > deadlineMs) throw new Error(`${job.kind} still runs after five minutes`);
    await pauseMs(100);
  }
  const { state, failure } = await server.ok<ApiJob>("GET", `/jobs/${job.id}`);
  if (state !== "done") throw new Error(`${job.kind} ${state}: ${JSON.stringify(failure)}`);
}

async function startServer(ground: Ground, url: string): Promise<PastServer> {
  ground.memory.fill();
  await succeed("sync");
  return await PastServer.start([`disk:${sizeMiB}M`], {
    args: url === "default" ? [] : ["--bucket", url],
    env: ground.s3.env,
  });
}

async function write(server: PastServer, load: Load, seconds: number) {
  const target = ["--name=load", "--ioengine=nbd", `--uri=${server.uri("disk")}`];
  return await runFio(
    [...target, ...load.fio, ...content, "--time_based", `--runtime=${seconds}`],
    (seconds + 60) * 1000,
  );
}

/** Rate at which entries reached the bucket between a quarter of the time and its end, each of blockBytes. */
async function watchArchive(server: PastServer, seconds: number, blockBytes: number) {
  const look = async () => {
    const { past, figures } = await server.volume("disk");
    return { atMs: performance.now(), archived: past?.archivedLsn ?? 0, durable: figures?.durableLsn ?? 0 };
  };
  await pauseMs(seconds * 250);
  const first = await look();
  let lagMax = 0;
  let last = first;
  while (last.atMs - first.atMs < seconds * 700) {
    await pauseMs(500);
    last = await look();
    lagMax = Math.max(lagMax, last.durable - last.archived);
  }
  const rate = ((last.archived - first.archived) * blockBytes) / 1e3 / (last.atMs - first.atMs);
  return {
    rate,
    lagMiB: ((last.durable - last.archived) * blockBytes) / 2 ** 20,
    lagMaxMiB: (lagMax * blockBytes) / 2 ** 20,
  };
}
