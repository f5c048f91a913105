/*
 * Commands about the bucket as a whole, as entries of the command table (command-table.ts): check, usage, collection, scrub, deleted
 * volumes, rescue. Check and usage also work without a server, on a bucket's URL.
 */
import { type Command, type Flag, json, served, volumeName } from "./command.ts";
import { detach } from "./history-commands.ts";

const bucketUrl: Flag = {
  name: "bucket",
  value: "URL",
  summary: "ask this bucket itself, not a server: file:///DIR or s3://BUCKET/PREFIX",
};

export const bucketCommands: readonly Command[] = [
  {
    path: ["bucket", "check"],
    summary: "follow every name in the bucket and compare what is there",
    detail: [
      "Reads only. Exit code 1 where something is missing or damaged.",
      "On a server it takes turns with the volumes; with --bucket it has a process of its own.",
    ],
    args: [],
    flags: [
      { name: "quick", summary: "only whether all objects are there, without reading them" },
      bucketUrl,
      detach,
      ...served,
    ],
    load: async () => (await import("./commands/bucket.ts")).bucketCommandRuns.check,
  },
  {
    path: ["bucket", "usage"],
    summary: "show bytes and monthly cost by volume and kind, and the requests made",
    args: [],
    flags: [bucketUrl, ...served],
    load: async () => (await import("./commands/bucket.ts")).bucketCommandRuns.usage,
  },
  {
    path: ["bucket", "collect"],
    summary: "let go what no retained point needs; a server does it by itself",
    detail: ["What nothing names waits for a day before it is deleted, whatever is asked."],
    args: [],
    flags: [
      { name: "dry-run", summary: "change nothing, print what would be trimmed and deleted" },
      { name: "accept-clock", summary: "the wall clock is right: count time by it from now on" },
      detach,
      ...served,
    ],
    load: async () => (await import("./commands/bucket.ts")).bucketCommandRuns.collect,
  },
  {
    path: ["scrub"],
    summary: "compare a volume's image with its history in the bucket",
    detail: [
      "In a cluster every replica is compared, and where the bucket can't be asked, with the other replicas.",
      "Exit code 1 where an extent is damaged and was not repaired, or a replica was passed over.",
    ],
    args: [volumeName],
    flags: [
      { name: "repair", summary: "fetch damaged extents again" },
      { name: "node", value: "NODE", summary: "in a cluster: only the replica there" },
      { name: "rate", value: "SIZE", summary: "read so much a second (default 8M)" },
      detach,
      ...served,
    ],
    load: async () => (await import("./commands/bucket.ts")).bucketCommandRuns.scrub,
  },
  {
    path: ["volume", "undelete"],
    summary: "bring a deleted volume back from the bucket",
    detail: ["NAME may be its id. varve volume list --deleted shows what can come back, and until when."],
    args: [volumeName],
    flags: [{ name: "as", value: "NAME", summary: "another name for it, where its own is taken" }, ...served],
    load: async () => (await import("./commands/bucket.ts")).bucketCommandRuns.undelete,
  },
  {
    path: ["rescue"],
    summary: "bring every volume of a bucket back on an empty machine",
    detail: [
      'Takes the volumes over: a machine that still serves them stops with "rescued elsewhere".',
      "What was written after the last archived entry is not in the bucket. Safe to run again after a crash.",
    ],
    args: [],
    flags: [
      { name: "bucket", value: "URL", summary: "file:///DIR or s3://BUCKET/PREFIX (required)" },
      { name: "data", value: "DIR", env: "VARVE_DATA", summary: "a new or empty data directory (required)" },
      { name: "dry-run", summary: "only list what is there and what would be reached" },
      json,
    ],
    load: async () => (await import("./commands/rescue.ts")).rescue,
  },
];
