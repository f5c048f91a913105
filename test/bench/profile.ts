// Runs Varve under V8's CPU profiler with one case's load and says where the main thread's time went.
// Caller: bench.ts --profile ROW. The figures go to docs/bench/profiles.json, from which the report quotes them.

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runFio } from "../tools/fio.ts";
import { clockTicksPerSecond, repositoryDir, VarveProcess } from "../tools/varve-process.ts";
import type { Case } from "./rows.ts";

/** What is profiled: a case's load, or several jobs beside each other after something was done to the image. */
export type ProfiledLoad = Pick<Case, "id" | "volume" | "fio"> & {
  /** Options that begin a further job; each has the target and the timing, too. */
  readonly besides?: readonly string[];
  readonly prepare?: (image: string) => void;
};

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  /** Monotonic clock of the machine, in microseconds. */
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const linesMax = 25;

export async function profileCase(
  spec: ProfiledLoad,
  dir: string,
  docsDir: string,
  runSeconds: number,
): Promise<string[]> {
  const profiles = join(dir, "profiles");
  const durability = spec.volume === "flush" ? ",durability=flush" : "";
  const server = await VarveProcess.start({
    dataDir: join(dir, "profile-data"),
    nbd: [`unix:${join(dir, "profile.sock")}`],
    volumes: [`profile:1G${durability}`],
    args: ["--bucket", "none"],
    env: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profiles} --cpu-prof-interval=500` },
  });
  const target = ["--ioengine=nbd", `--uri=${server.uri("profile")}`, "--size=1G"];
  await runFio(["--name=fill", ...target, "--rw=write", "--bs=1M", "--iodepth=8"], 120_000);
  spec.prepare?.(join(dir, "profile-data", "volumes", "profile", "disk.raw"));
  const timing = ["--time_based", `--runtime=${runSeconds}`, "--norandommap"];
  const besides = spec.besides ? ["--name=beside", ...target, ...spec.besides, ...timing] : [];
  const fromUs = monotonicUs();
  const before = threadTimes(server.pid);
  const load = ["--name=profile", ...target, ...spec.fio, ...timing, ...besides];
  const jobs = await runFio(load, (runSeconds + 60) * 1000);
  const toUs = monotonicUs();
  const after = threadTimes(server.pid);
  const requests = jobs.reduce((sum, { read, write }) => sum + read.iops + write.iops, 0);
  await server.stop();
  const files = readdirSync(profiles).filter((name) => name.endsWith(".cpuprofile"));
  // The main thread's profile is the one with the most of the server's own functions.
  const read = (name: string): CpuProfile =>
    JSON.parse(readFileSync(join(profiles, name), "utf8")) as CpuProfile;
  const main = files.map(read).sort((a, b) => b.nodes.length - a.nodes.length)[0];
  if (!main) throw new Error("no profile was written");
  const perThread = [...after].map(([name, ms]): [string, number] => [
    name,
    ((ms - (before.get(name) ?? 0)) * 1000) / (requests * runSeconds),
  ]);
  const lines = [
    `${Math.round(requests)} requests/s under the profiler`,
    ...perThread.sort((a, b) => b[1] - a[1]).map(([name, us]) => `${us.toFixed(1).padStart(7)} µs  ${name}`),
    ...topSelf(main, fromUs, toUs),
  ];
  keep(docsDir, spec.id, lines);
  return lines;
}

/** Processor time of the process's threads in ms, by their name: MainThread, WorkerThread (the image thread), the pool. */
function threadTimes(pid: number): Map<string, number> {
  const times = new Map<string, number>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
    const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const ticks = Number(fields[11]) + Number(fields[12]);
    times.set(name, (times.get(name) ?? 0) + (ticks * 1000) / clockTicksPerSecond);
  }
  return times;
}

/** Self time within the load's window, as shares of the time that the thread was busy; idle as a share of all. */
function topSelf(profile: CpuProfile, fromUs: number, toUs: number): string[] {
  const names = new Map(profile.nodes.map((node) => [node.id, nameOf(node.callFrame)]));
  const selfUs = new Map<string, number>();
  let busyUs = 0;
  let idleUs = 0;
  let atUs = profile.startTime;
  for (const [index, id] of profile.samples.entries()) {
    const deltaUs = profile.timeDeltas[index] ?? 0;
    atUs += deltaUs;
    if (atUs < fromUs || atUs > toUs) continue;
    const name = names.get(id) ?? "?";
    if (name === "(idle)") idleUs += deltaUs;
    else {
      busyUs += deltaUs;
      selfUs.set(name, (selfUs.get(name) ?? 0) + deltaUs);
    }
  }
  const top = [...selfUs].sort((a, b) => b[1] - a[1]).slice(0, linesMax);
  const share = (us: number, ofUs: number): string => `${((us / ofUs) * 100).toFixed(1).padStart(5)} %`;
  return [
    `${share(idleUs, busyUs + idleUs)} of the time idle; of the busy time:`,
    ...top.map(([name, us]) => `${share(us, busyUs)}  ${name}`),
  ];
}

function monotonicUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

function nameOf(frame: CpuProfile["nodes"][number]["callFrame"]): string {
  const name = frame.functionName || "(anonymous)";
  if (frame.url === "") return name;
  const path = frame.url.startsWith("file:") ? fileURLToPath(frame.url) : frame.url;
  return `${name}  ${path.replace(`${repositoryDir}/`, "")}:${frame.lineNumber + 1}`;
}

function keep(docsDir: string, row: string, lines: readonly string[]): void {
  const file = join(docsDir, "profiles.json");
  const all = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>) : {};
  all[row] = { measuredAt: new Date().toISOString(), lines };
  writeFileSync(file, `${JSON.stringify(all, null, 2)}\n`);
}
