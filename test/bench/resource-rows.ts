// What Varve uses and how fast it starts: peak memory at 128 MiB in flight, idle CPU with ten volumes, start of an empty
// data directory and of a 1 TiB thin volume whose log holds 1 GiB that the image doesn't have. Each on servers of its own.
// Caller: bench.ts. Figures come from /proc and from the ready line.

import { statSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { runFio } from "../tools/fio.ts";
import { freePort } from "../tools/free-port.ts";
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
  return await withServer(dir, { volumes, http: await freeHttpAddress() }, async (server) => {
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
    const seconds = await withServer(
      dir,
      { volumes: ["disk0:10G"], http: await freeHttpAddress() },
      async (server) => Promise.resolve(server.readyAfterMs / 1000),
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

/**
 * 1 GiB is written over scattered places and the process is killed before a checkpoint took any of it in. One volume alone
 * never has that much: half a GiB of image writes, or 30 s, bring a checkpoint. So three volumes of 1 TiB share it, which a
 * start has to replay all the same, and the row fails when one of them had its checkpoint in between.
 */
export async function measureReplayStart(dir: string): Promise<LimitRow> {
  const dataDir = join(dir, "start-replay");
  const names = ["big0", "big1", "big2"];
  const nbd = [`unix:${join(dir, "start-replay.sock")}`];
  const samples: number[] = [];
  let fillSeconds = 0;
  try {
    for (let run = 0; run < 3; run += 1) {
      const server = await VarveProcess.start({ dataDir, nbd, volumes: names.map((name) => `${name}:1T`) });
      const before = checkpointTimes(dataDir, names);
      const startedAtMs = performance.now();
      const pattern = [
        "--rw=randwrite",
        "--bs=64k",
        "--iodepth=16",
        "--size=1023G",
        "--norandommap",
        "--randrepeat=0",
      ];
      const fill = names.map((name) =>
        runFio(
          [`--name=${name}`, "--ioengine=nbd", `--uri=${server.uri(name)}`, ...pattern, "--io_size=342M"],
          120_000,
        ),
      );
      await Promise.all(fill);
      fillSeconds = Math.max(fillSeconds, (performance.now() - startedAtMs) / 1000);
      await server.kill9();
      if (checkpointTimes(dataDir, names).join() !== before.join()) {
        throw new Error(`start-replay: a checkpoint fell into the ${fillSeconds.toFixed(1)} s of the fill`);
      }
      const again = await server.restart({ readyTimeoutMs: 120_000 });
      samples.push(Math.round(again.readyAfterMs) / 1000);
      await again.stop();
      await rm(dataDir, { recursive: true, force: true });
    }
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
  return {
    id: "start-replay",
    title: "start with 1 GiB of unapplied log on 1 TiB thin volumes, until ready",
    unit: "s",
    sense: "at most",
    target: 10,
    samples,
    note: `64 KiB writes scattered over three volumes of 1 TiB, 1,026 MiB together, written in at most ${fillSeconds.toFixed(1)} s and killed`,
  };
}

function checkpointTimes(dataDir: string, names: readonly string[]): number[] {
  return names.map((name) => statSync(join(dataDir, "volumes", name, "disk.raw.checkpoint")).mtimeMs);
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

async function freeHttpAddress(): Promise<string> {
  return `127.0.0.1:${await freePort()}`;
}

function pauseMs(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
