/*
 * Every command of `varve`: arguments, flags, one line of help each, and the module that runs it (loaded only when it is
 * called, because start-up time counts). main.ts reads a command line against this table (command-line.ts), help.ts prints
 * it. A flag that takes a value can also be given as VARVE_ and its name in capitals where `env` is set.
 */

import { applyCommands } from "./apply-commands.ts";
import { attachCommands } from "./attach-commands.ts";
import { bucketCommands } from "./bucket-commands.ts";
import { clusterCommands } from "./cluster-commands.ts";
import { type Argument, type Command, type Flag, json, target, volumeName } from "./command.ts";
import { detach, historyCommands, policyFlags } from "./history-commands.ts";

const volumeCommand = (
  name: "create" | "list" | "show" | "set" | "resize" | "delete",
  summary: string,
  args: readonly Argument[],
  flags: readonly Flag[],
  detail: readonly string[] = [],
): Command => ({
  path: ["volume", name],
  summary,
  detail,
  args,
  flags: [...flags, ...target],
  load: async () => (await import("./commands/volume.ts")).volumeCommands[name],
});

const imageCommand = (
  name: "check" | "adopt" | "discard",
  summary: string,
  detail: readonly string[],
): Command => ({
  path: ["image", name],
  summary,
  detail,
  args: [volumeName],
  flags: target,
  load: async () => (await import("./commands/image.ts")).imageCommands[name],
});

const limit = (name: string, value: string, summary: string): Flag => ({
  name,
  value,
  env: `VARVE_${name.replaceAll("-", "_").toUpperCase()}`,
  summary,
});

const up: Command = {
  path: ["up"],
  summary: "serve all volumes of a data directory over NBD",
  detail: [
    "Creates the data directory and the volumes named by --volume that are missing; changes no volume that exists.",
    "SIGTERM or SIGINT: stops accepting, finishes what is under way, checkpoints, exits 0. A second one exits at once.",
  ],
  args: [],
  flags: [
    { name: "data", value: "DIR", env: "VARVE_DATA", summary: "data directory (required)" },
    {
      name: "nbd",
      value: "ADDR",
      repeat: true,
      env: "VARVE_NBD",
      summary: "listen for NBD on HOST:PORT or unix:PATH; may be repeated (default 127.0.0.1:10809)",
    },
    {
      name: "http",
      value: "ADDR|off",
      env: "VARVE_HTTP",
      summary: "listen for the HTTP API on HOST:PORT (default 127.0.0.1:8080)",
    },
    {
      name: "volume",
      value: "NAME:SIZE[,durability=flush]",
      repeat: true,
      env: "VARVE_VOLUME",
      summary: "create this volume where it is missing; may be repeated",
    },
    {
      name: "bucket",
      value: "URL|none",
      env: "VARVE_BUCKET",
      summary:
        "where history goes: file:///DIR, s3://BUCKET/PREFIX?endpoint=URL (default DATA/bucket); none: no history",
    },
    limit(
      "bucket-max",
      "SIZE",
      "room of history in the bucket: beyond it the oldest goes before its time (default no limit)",
    ),
    limit("upload-rate", "SIZE", "bytes a second to the bucket at most (default no limit)"),
    limit("download-rate", "SIZE", "bytes a second from the bucket at most (default no limit)"),
    limit(
      "fill-rate",
      "SIZE",
      "bytes a second that each volume's background fill takes at most (default no limit)",
    ),
    limit(
      "image-max",
      "SIZE",
      "room of a tiered volume's image: beyond it the coldest extents leave before their time (default no limit)",
    ),
    limit("mdns", "ADDRESS|off", "announce itself by mDNS on the network of this IPv4 address (default off)"),
    limit("payload-max", "SIZE", "memory for payloads of all volumes together (default 128M)"),
    limit("log-max", "SIZE", "hot log of one volume at most (default 10G)"),
    limit("log-keep", "SIZE", "log kept behind the checkpoint (default 256M)"),
    limit("connections-max", "N", "NBD connections at most (default 256)"),
    { name: "json", summary: "print the start-up report as one JSON line, then the ready line" },
  ],
  load: async () => (await import("./commands/up.ts")).up,
};

const reads: Flag = {
  name: "reads",
  value: "available|strict",
  summary: "of a gateway that is cut off: its last state (available, default in a cluster), or nothing",
};

export const commands: readonly Command[] = [
  up,
  volumeCommand(
    "create",
    "create a volume, empty or as another volume was",
    [volumeName],
    [
      { name: "size", value: "SIZE", summary: "size in binary units, e.g. 10G (required, but with --from)" },
      {
        name: "from",
        value: "VOL@POINT",
        summary: "clone or restore: begin as that volume was at a snapshot, lsn:N or a time",
      },
      {
        name: "durability",
        value: "write|flush",
        summary: "when a write counts as safe: at its reply (write, default), or at flush",
      },
      reads,
      {
        name: "replicas",
        value: "N",
        summary: "images on so many storage nodes, in a cluster (default 1; with --from the parent's)",
      },
      ...policyFlags,
      detach,
    ],
    [
      "With --from the volume is there at once and writable; its bytes are fetched in the background.",
      "POINT is a snapshot's name, lsn:N, or a time with its zone such as 2026-11-20T10:15:00Z.",
    ],
  ),
  volumeCommand(
    "list",
    "list the volumes",
    [],
    [{ name: "deleted", summary: "those that are deleted and can come back, by a server with a bucket" }],
  ),
  volumeCommand("show", "show one volume: state, image file, log, clients", [volumeName], []),
  volumeCommand(
    "set",
    "change a volume's settings",
    [volumeName],
    [
      { name: "durability", value: "write|flush", summary: "when a write counts as safe" },
      reads,
      ...policyFlags,
    ],
    ["Durability is refused while a client is attached; the rest takes effect at once."],
  ),
  volumeCommand(
    "resize",
    "change a volume's size",
    [volumeName],
    [
      { name: "size", value: "SIZE", summary: "new size in binary units (required)" },
      { name: "shrink", summary: "allow a smaller size: what lies behind the new end is lost" },
    ],
    [
      "Growing works while clients are attached; they learn the new size when they reconnect.",
      "Shrinking wants --shrink and no client attached.",
    ],
  ),
  volumeCommand(
    "delete",
    "delete a volume with all its data",
    [volumeName],
    [],
    ["Refused while a client is attached."],
  ),
  ...applyCommands,
  ...historyCommands,
  ...bucketCommands,
  ...clusterCommands,
  ...attachCommands,
  {
    path: ["log", "inspect"],
    summary: "read a volume's log and say what is in it",
    detail: ["Reads and checks every record. Changes nothing."],
    args: [volumeName],
    flags: [
      {
        name: "data",
        value: "DIR",
        env: "VARVE_DATA",
        summary: "the data directory (required); no server may run on it",
      },
      { name: "from", value: "LSN", summary: "start at this entry (default: the oldest)" },
      { name: "count", value: "N", summary: "print at most N batches (default 20; 0: only the sums)" },
      json,
    ],
    load: async () => (await import("./commands/log.ts")).inspectLog,
  },
  imageCommand("check", "compare a volume's image with its checkpoint and log", ["Changes nothing."]),
  imageCommand("adopt", "keep what another program wrote into the image file", [
    "Appends the difference between log and image to the log as writes.",
  ]),
  imageCommand("discard", "throw away what another program wrote into the image file", [
    "Fills the image again from the log. Refused where the log no longer reaches back far enough.",
  ]),
  {
    path: ["doctor"],
    summary: "say whether this machine can serve volumes well",
    detail: ["Exit code 1 when something fails."],
    args: [],
    flags: [
      {
        name: "data",
        value: "DIR",
        env: "VARVE_DATA",
        summary: "the data directory that is meant (default ./varve-data)",
      },
      {
        name: "nbd",
        value: "ADDR",
        repeat: true,
        env: "VARVE_NBD",
        summary: "NBD address that will be used",
      },
      { name: "http", value: "ADDR|off", env: "VARVE_HTTP", summary: "HTTP address that will be used" },
      { name: "bucket", value: "URL|none", env: "VARVE_BUCKET", summary: "where history will go" },
      limit("bucket-max", "SIZE", "room that history will be given"),
      json,
    ],
    load: async () => (await import("./commands/doctor.ts")).doctor,
  },
  {
    path: ["version"],
    summary: "print the version",
    args: [],
    flags: [json],
    load: async () => (await import("./commands/version.ts")).version,
  },
];
