// What Varve uses and how fast it starts: peak memory at 128 MiB in flight, idle CPU with ten volumes, start of an empty
// data directory and of a 1 TiB thin volume whose log holds 1 GiB that the image doesn't have. Each on servers of its own.
// Caller: bench.ts. Figures come from /proc and from the ready line.

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { runFio } from "../tools/fio.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { usageOf, VarveProcess } from "../tools/varve-process.ts";
import type { LimitRow } from "./results.ts";

const mebibyte = 2 ** 20;
const idleWindowMs = 20_000;

export async function measureMemory(dir: string, runSeconds: number): Promise<LimitRow> {
  return await withServer(dir, { volumes: ["memory:1G"] }, async (server) => {
    const args = ["--ioengine=nbd", `--uri=${server.uri("memory")}`, "--bs=1M", "--size=1G", "--numjobs=4"];
    const timing = ["--iodepth=32", "--group_reporting", "--time_based", `--runtime=${runSeconds}`];
    const beforeMiB = server.usage().rssPeakBytes / mebibyte;
    for (const pattern of ["randwrite", "randread", "randrw"]) {
      await runFio(["--name=memory", `--rw=${pattern}`, ...args, ...timing], (runSeconds + 120) * 1000);
    }
    return {
      id: "memory-peak",
      title: "peak memory of the server, 4 connections × depth 32 × 1 MiB writes, reads and both",
      unit: "MiB",
      sense: "at most",
      target: 300,
      samples: [Math.round(server.usage().rssPeakBytes / mebibyte)],
      note: `VmHWM; ${Math.round(beforeMiB)} MiB after the start`,
    };
  });
}

export async function measureIdle(dir: string): Promise<LimitRow> {
  const volumes = Array.from({ length: 10 }, (_, index) => `idle${index}:1G`);
  return await withServer(dir, { volumes, http: "127.0.0.1:0" }, async (server) => {
    // Not only empty volumes: each has had a client and some data, as at home.
    for (let index = 0; index < volumes.length; index += 1) {
      const client = await NbdClient.connect(server.options.nbd[0] ?? "", `idle${index}`);
      await client.write(0, Buffer.alloc(mebibyte, index + 1));
      await client.flush();
      await client.disconnect();
    }
    await pauseMs(35_000); // past the age at which a checkpoint is due
    const before = usageOf(server.pid).cpuMs;
    const startedAtMs = performance.now();
    await pauseMs(idleWindowMs);
    const share = (usageOf(server.pid).cpuMs - before) / (performance.now() - startedAtMs);
    return {
      id: "idle-cpu",
      title: "CPU of the idle server with ten volumes",
      unit: "% of a core",
      sense: "at most",
      target: 1,
      samples: [Math.round(share * 10_000) / 100],
      note: `user and system time over ${idleWindowMs / 1000} s`,
    };
  });
}

export async function measureEmptyStart(dir: string): Promise<LimitRow> {
  const samples: number[] = [];
  for (let run = 0; run < 5; run += 1) {
    const seconds = await withServer(dir, { volumes: ["disk0:10G"], http: "127.0.0.1:0" }, async (server) =>
      Promise.resolve(server.readyAfterMs / 1000),
    );
    samples.push(Math.round(seconds * 1000) / 1000);
  }
  return {
    id: "start-empty",
    title: "start on an empty data directory, until ready",
    unit: "s",
    sense: "at most",
    target: 1.5,
    samples,
  };
}

/** 1 GiB is written over scattered places of the disk and the process is killed before a checkpoint took it in. */
export async function measureReplayStart(dir: string): Promise<LimitRow> {
  const dataDir = join(dir, "start-replay");
  const options = {
    dataDir,
    nbd: [`unix:${join(dir, "start-replay.sock")}`],
    volumes: ["big:1T"],
    env: { VARVE_TEST_CHECKPOINT_BYTES: String(2 ** 40), VARVE_TEST_CHECKPOINT_AGE_MS: String(2 ** 30) },
  };
  const samples: number[] = [];
  try {
    const server = await VarveProcess.start(options);
    const uri = server.uri("big");
    const pattern = [
      "--rw=randwrite",
      "--bs=64k",
      "--iodepth=32",
      "--size=1023G",
      "--io_size=1G",
      "--norandommap",
    ];
    await runFio(["--name=fill", "--ioengine=nbd", `--uri=${uri}`, ...pattern], 300_000);
    await server.kill9();
    for (let run = 0; run < 3; run += 1) {
      // Killed again right after it was ready, so that the next start finds the same log.
      const again = await server.restart({ readyTimeoutMs: 120_000 });
      samples.push(Math.round(again.readyAfterMs) / 1000);
      await again.kill9();
    }
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
  return {
    id: "start-replay",
    title: "start of a 1 TiB thin volume with 1 GiB of unapplied log, until ready",
    unit: "s",
    sense: "at most",
    target: 10,
    samples,
  };
}

async function withServer<T>(
  dir: string,
  options: { volumes: string[]; http?: string },
  measure: (server: VarveProcess) => Promise<T>,
): Promise<T> {
  const dataDir = join(dir, "resource-data");
  await mkdir(dir, { recursive: true });
  const server = await VarveProcess.start({
    ...options,
    dataDir,
    nbd: [`unix:${join(dir, "resource.sock")}`],
  });
  try {
    const result = await measure(server);
    await server.stop();
    return result;
  } finally {
    server.killNow();
    await server.exited;
    await rm(dataDir, { recursive: true, force: true });
  }
}

function pauseMs(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
