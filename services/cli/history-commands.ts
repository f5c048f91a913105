/*
 * Commands about the past, as entries of the command table (command-table.ts): snapshots, timeline, changed ranges, rollback,
 * fill, jobs. All of them ask a running server.
 */
import { type Argument, type Command, type Flag, served, volumeName } from "./command.ts";

/** What may be set of a volume's history, at creation and later. */
export const policyFlags: readonly Flag[] = [
  { name: "history", value: "SPAN", summary: "every moment opens so far back, e.g. 7d (the default)" },
  {
    name: "residency",
    value: "full|tiered",
    summary: "full: all extents on this machine (default); tiered: cold ones in the bucket only",
  },
  {
    name: "cold-after",
    value: "SPAN",
    summary: "tiered: what was not touched for so long is cold (default 30d)",
  },
  {
    name: "bucket-away",
    value: "stop|drop-history",
    summary: "when the bucket stays away and the log is full: refuse writes (default), or give up history",
  },
];

export const detach: Flag = { name: "detach", summary: "do not wait for the background work" };

const snapshotName: Argument = { name: "SNAPSHOT", summary: "the snapshot's name" };
const volume: Argument = { ...volumeName, name: "VOLUME" };

const snapshotCommand = (
  name: "create" | "list" | "delete",
  summary: string,
  args: readonly Argument[],
  detail: readonly string[] = [],
): Command => ({
  path: ["snapshot", name],
  summary,
  detail,
  args,
  flags: served,
  load: async () => (await import("./commands/snapshot.ts")).snapshotCommands[name],
});

export const historyCommands: readonly Command[] = [
  {
    path: ["volume", "rollback"],
    summary: "put a volume back to what it was at a point",
    detail: [
      "Everything written since stays in the history: roll forward with a later point.",
      "Refused while a client is attached, but with --force.",
    ],
    args: [volumeName],
    flags: [
      { name: "to", value: "POINT", summary: "a snapshot's name, lsn:N, or a time with its zone (required)" },
      { name: "force", summary: "cut the connections of attached clients first" },
      detach,
      ...served,
    ],
    load: async () => (await import("./commands/past.ts")).rollback,
  },
  {
    path: ["volume", "fill"],
    summary: "fetch what a volume has in the bucket only",
    args: [volumeName],
    flags: [detach, ...served],
    load: async () => (await import("./commands/past.ts")).fill,
  },
  {
    path: ["volume", "tier"],
    summary: "give what is cold back to the bucket now, behind a fresh base",
    detail: [
      "Varve does this by itself every ten minutes; for volumes with residency tiered.",
      "Waits until the bucket holds the base: with stores that settle, minutes.",
    ],
    args: [volumeName],
    flags: [
      {
        name: "cold-after",
        value: "SPAN",
        summary: "not touched for so long, in hours; 0s: all of it (default: the volume's own)",
      },
      detach,
      ...served,
    ],
    load: async () => (await import("./commands/past.ts")).tier,
  },
  snapshotCommand(
    "create",
    "give the present moment of a volume a name",
    [volume, snapshotName],
    ["One log entry, whatever the volume's size. Clients may stay attached; open it as VOLUME@SNAPSHOT."],
  ),
  snapshotCommand("list", "list a volume's snapshots", [volume]),
  snapshotCommand(
    "delete",
    "take a snapshot's name away",
    [volume, snapshotName],
    ["What lies behind it goes when nothing else keeps it."],
  ),
  {
    path: ["history"],
    summary: "show what was written when, and which points open",
    args: [volume],
    flags: [
      { name: "since", value: "TIME", summary: "begin here (default: the oldest point that opens)" },
      { name: "until", value: "TIME", summary: "end here (default: now)" },
      { name: "intervals", value: "N", summary: "parts of the timeline (default 24)" },
      ...served,
    ],
    load: async () => (await import("./commands/past.ts")).history,
  },
  {
    path: ["changes"],
    summary: "show which ranges differ between two points",
    args: [volume],
    flags: [
      { name: "from", value: "POINT", summary: "the one point (required)" },
      { name: "to", value: "POINT", summary: "the other (required)" },
      ...served,
    ],
    load: async () => (await import("./commands/past.ts")).changes,
  },
  {
    path: ["job", "list"],
    summary: "list background work: fills, restores, rescues",
    args: [],
    flags: served,
    load: async () => (await import("./commands/job.ts")).jobCommands.list,
  },
  {
    path: ["job", "show"],
    summary: "follow one piece of background work to its end",
    args: [{ name: "ID", summary: "the job" }],
    flags: [{ ...detach, summary: "print its state now" }, ...served],
    load: async () => (await import("./commands/job.ts")).jobCommands.show,
  },
];
