// Where a load's processor time goes: user and system seconds of the bench's own process and of every process it started, by name, between
// two looks at /proc. Caller: disk-loads.ts for the rows whose limit is the processors; bench.ts prints it.
import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";

/** Of one process, for each 100 MB that the client wrote. */
export interface ProcessorUse {
  readonly who: string;
  readonly userSeconds: number;
  readonly systemSeconds: number;
}

interface Look {
  readonly atMs: number;
  readonly processes: ReadonlyMap<string, { readonly user: number; readonly system: number }>;
}

/** Linux counts in hundredths of a second. */
const tickSeconds = 0.01;

/** All processes that descend from this one, and itself. */
export function lookAtProcesses(): Look {
  const stats = readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .flatMap((pid) => statOf(Number(pid)));
  const ours = new Set([process.pid]);
  for (let before = 0; before < ours.size; ) {
    before = ours.size;
    for (const { pid, parent } of stats) if (ours.has(parent)) ours.add(pid);
  }
  const processes = stats
    .filter(({ pid }) => ours.has(pid))
    .map(({ pid, user, system }) => [nameOf(pid), { user, system }] as const);
  return { atMs: performance.now(), processes: new Map(processes) };
}

/** What each took between two looks while the client wrote at that rate; those that took next to nothing are left out. */
export function processorUse(before: Look, after: Look, bytesPerSecond: number): ProcessorUse[] {
  const hundreds = (((after.atMs - before.atMs) / 1000) * bytesPerSecond) / 1e8;
  return [...after.processes]
    .map(([who, { user, system }]) => {
      const first = before.processes.get(who) ?? { user: 0, system: 0 };
      return {
        who,
        userSeconds: (user - first.user) / hundreds,
        systemSeconds: (system - first.system) / hundreds,
      };
    })
    .filter(({ userSeconds, systemSeconds }) => userSeconds + systemSeconds >= tickSeconds)
    .sort((a, b) => a.who.localeCompare(b.who));
}

/** Of each process the middle one of the runs, by both its times together. */
export function medianUse(runs: readonly (readonly ProcessorUse[])[]): ProcessorUse[] {
  const names = [...new Set(runs.flat().map(({ who }) => who))].sort();
  return names.flatMap((who) => {
    const found = runs.flat().filter((use) => use.who === who);
    found.sort((a, b) => bothOf(a) - bothOf(b));
    return found[found.length >> 1] ?? [];
  });
}

/** For the page. */
export function useTable(use: readonly ProcessorUse[]): string {
  const line = (who: string, user: number, system: number): string =>
    `| ${who} | ${user.toFixed(2)} | ${system.toFixed(2)} | ${(user + system).toFixed(2)} |`;
  const sum = (of: (one: ProcessorUse) => number): number => use.reduce((total, one) => total + of(one), 0);
  const lines = use.map(({ who, userSeconds, systemSeconds }) => line(who, userSeconds, systemSeconds));
  const all = line(
    "all",
    sum(({ userSeconds }) => userSeconds),
    sum(({ systemSeconds }) => systemSeconds),
  );
  return `
## Where the processors' time goes

Seconds of a core for each 100 MB that the client writes: R3, two replicas, NBD, stores and images in memory; the middle of the row's runs
for each process.

| process | user | system | both |
| --- | ---: | ---: | ---: |
${[...lines, all].join("\n")}
`;
}

function bothOf({ userSeconds, systemSeconds }: ProcessorUse): number {
  return userSeconds + systemSeconds;
}

function statOf(pid: number): { pid: number; parent: number; user: number; system: number }[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Behind the name, which may hold anything: state, parent; user and system time are fields 14 and 15 of all.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const ticks = (place: number): number => Number(fields[place - 3]) * tickSeconds;
    return [{ pid, parent: Number(fields[1]), user: ticks(14), system: ticks(15) }];
  } catch {
    return []; // it ended meanwhile
  }
}

/** "nats-server n1", "storage shelf-1", "fio": the program, and its configuration file's name. */
function nameOf(pid: number): string {
  if (pid === process.pid) return "bench";
  let words: string[];
  try {
    words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return String(pid);
  }
  const main = words.findIndex((word) => word.endsWith("services/cli/main.ts"));
  const program = main === -1 ? basename(words[0] ?? "") : (words[main + 1] ?? "");
  const file = words[words.findIndex((word) => word === "-c" || word === "--config") + 1] ?? "";
  return file.endsWith(".conf") || file.endsWith(".json")
    ? `${program} ${basename(file).replace(/\.[a-z]+$/, "")}`
    : program;
}
