// The latency of a depth-1 reader on cached data while a depth-16 reader of the same disk misses the cache: a server whose
// cold reads stall the others shows here. Caller: bench.ts. The cold part of the file is dropped from the page cache before
// each run and read at most once per block, and the file's resident bytes afterwards prove that the reads were cold.

import { execFileSync } from "node:child_process";
import { closeSync, openSync, readSync } from "node:fs";
import { runFio } from "../tools/fio.ts";
import { type Ground, settle } from "./paired-runs.ts";
import type { ProfiledLoad } from "./profile.ts";
import { median, type Pair, type RatioRow } from "./results.ts";
import { peerTitles, type Target } from "./servers.ts";

const hotMiB = 64;
/** Of the bytes that the cold reader got, at least this share must have come from the disk. */
const coldShareMin = 0.9;

interface HotRun {
  readonly hotP50Us: number;
  readonly coldIops: number;
  readonly coldShare: number;
}

/** The same load for --profile, on the profiler's own volume. */
export const profiledHotBesideCold: ProfiledLoad = {
  id: "hot-beside-cold",
  volume: "write",
  fio: ["--invalidate=0", "--rw=randread", "--bs=4k", "--randrepeat=0", "--iodepth=1", `--size=${hotMiB}M`],
  besides: [
    "--invalidate=0",
    "--rw=randread",
    "--bs=4k",
    "--randrepeat=0",
    "--iodepth=16",
    `--offset=${hotMiB}M`,
    `--size=${1024 - hotMiB}M`,
  ],
  prepare: (image) => {
    dropFromCache(image);
    warm(image, 0, hotMiB);
  },
};

export async function runHotBesideCold(ground: Ground, varveImage: string): Promise<RatioRow> {
  const pairs: Pair[] = [];
  const native: number[] = [];
  const cold: string[] = [];
  for (let pair = 0; pair < ground.pairs; pair += 1) {
    const measureVarve = (): Promise<HotRun> => run(ground, ground.varve.write, varveImage);
    const measurePeer = (): Promise<HotRun> => run(ground, ground.peers.nbdkit, ground.file);
    let varve: HotRun;
    let peer: HotRun;
    if (pair % 2 === 0) {
      varve = await measureVarve();
      peer = await measurePeer();
    } else {
      peer = await measurePeer();
      varve = await measureVarve();
    }
    native.push((await run(ground, undefined, ground.file)).hotP50Us);
    pairs.push({ varve: varve.hotP50Us, peer: peer.hotP50Us, ratio: varve.hotP50Us / peer.hotP50Us });
    cold.push(`${Math.round(varve.coldIops)}/${Math.round(peer.coldIops)}`);
  }
  warm(varveImage, 0, ground.sizeMiB);
  warm(ground.file, 0, ground.sizeMiB);
  return {
    id: "hot-beside-cold/nbdkit",
    title: "p50 of a hot depth-1 reader beside a cold depth-16 reader",
    against: peerTitles.nbdkit,
    unit: "µs p50",
    sense: "at most",
    target: 3,
    pairs,
    native: median(native),
    note: `cold reads/s, Varve/peer per pair: ${cold.join(", ")}; at least ${coldShareMin * 100} % of them came from the disk`,
  };
}

async function run(ground: Ground, target: Target | undefined, file: string): Promise<HotRun> {
  await settle(ground);
  dropFromCache(file);
  warm(file, 0, hotMiB);
  const before = residentBytes(file);
  if (before > (hotMiB + 32) * 2 ** 20) {
    throw new Error(`${file}: ${before} bytes are still cached, so the cold reader would not be cold`);
  }
  const engine = (native: string): string[] =>
    target ? ["--ioengine=nbd", `--uri=${target.uri}`] : [`--ioengine=${native}`, `--filename=${file}`];
  const timing = ["--invalidate=0", "--time_based", `--runtime=${ground.runSeconds}`];
  const reads = ["--rw=randread", "--bs=4k", "--randrepeat=0", ...timing];
  const coldMiB = ground.sizeMiB - hotMiB;
  const hotJob = [
    "--name=hot",
    ...engine("psync"),
    ...reads,
    "--iodepth=1",
    "--offset=0",
    `--size=${hotMiB}M`,
  ];
  const coldRange = [`--offset=${hotMiB}M`, `--size=${coldMiB}M`];
  const coldJob = ["--name=cold", ...engine("io_uring"), ...reads, "--iodepth=16", ...coldRange];
  const jobs = await runFio([...hotJob, ...coldJob], (ground.runSeconds + 60) * 1000);
  const hot = jobs.find((job) => job.name === "hot");
  const cold = jobs.find((job) => job.name === "cold");
  if (!hot || !cold || cold.read.operations === 0) throw new Error("hot beside cold: fio did nothing");
  const coldBytes = Math.min(cold.read.operations * 4096, coldMiB * 2 ** 20);
  const coldShare = (residentBytes(file) - before) / coldBytes;
  if (coldShare < coldShareMin)
    throw new Error(`only ${Math.round(coldShare * 100)} % of the cold reads were cold`);
  return { hotP50Us: hot.read.p50Us, coldIops: cold.read.iops, coldShare };
}

/** posix_fadvise(DONTNEED) over the whole file, by dd, which also reports an error. */
export function dropFromCache(file: string): void {
  execFileSync("sync", [file]);
  execFileSync("dd", [`if=${file}`, "iflag=nocache", "count=0", "status=none"]);
}

export function residentBytes(file: string): number {
  const text = execFileSync("fincore", ["--bytes", "--noheadings", "--output", "RES", file], {
    encoding: "utf8",
  });
  return Number(text.trim());
}

export function warm(file: string, fromMiB: number, toMiB: number): void {
  const descriptor = openSync(file, "r");
  const step = Buffer.allocUnsafe(1024 * 1024);
  for (let mebibyte = fromMiB; mebibyte < toMiB; mebibyte += 1) {
    readSync(descriptor, step, 0, step.length, mebibyte * step.length);
  }
  closeSync(descriptor);
}
