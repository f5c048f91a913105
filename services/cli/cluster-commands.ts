/*
 * Commands of a cluster: its processes (gateway, storage, archiver, api) with their settings, and what is done to it from outside. Entries of
 * the command table (command-table.ts). Each setting is a flag, an environment variable and a name in the file of --config.
 */
import { api, type Command, type Flag, json, served, volumeName } from "./command.ts";
import { replicaCommands } from "./replica-commands.ts";

const setting = (name: string, value: string, summary: string, repeat = false): Flag => ({
  name,
  value,
  env: `VARVE_${name.replaceAll("-", "_").toUpperCase()}`,
  summary,
  ...(repeat ? { repeat } : {}),
});

const config = setting(
  "config",
  "FILE",
  "JSON object of these settings; flags and environment count for more",
);

const nats: readonly Flag[] = [
  setting("nats", "HOST:PORT", "a NATS server; may be repeated (default 127.0.0.1:4222)", true),
  setting("nats-user", "NAME", "user at the NATS servers"),
  setting("nats-password-file", "FILE", "file with that user's password"),
  setting(
    "nats-monitor",
    "URL",
    "monitoring address of a NATS server, to check its settings; may be repeated (default http://127.0.0.1:8222)",
    true,
  ),
  setting("nats-replicas", "1|3", "copies of streams and tables that are made now (default 1)"),
];

const service = (health: string): readonly Flag[] => [
  config,
  setting("name", "NAME", "name in the cluster (default: this machine's host name)"),
  ...nats,
  setting("health", "ADDR|off", `serve /healthz and /readyz on HOST:PORT (default ${health})`),
];

const bucket = setting(
  "bucket",
  "URL",
  "file:///DIR on storage that all machines share, or s3://BUCKET/PREFIX?endpoint=http://HOST:PORT",
);
const only = setting("only", "VOLUME", "serve this volume and no other");
const ends =
  "SIGTERM or SIGINT: finishes what is under way, closes cleanly, exits 0. A second one exits at once.";

export const clusterCommands: readonly Command[] = [
  {
    path: ["gateway"],
    summary: "serve a cluster's volumes over NBD, as one of its gateways",
    detail: [
      "Takes a volume's lease when a client opens its export, and writes through NATS JetStream.",
      ends,
    ],
    args: [],
    flags: [
      ...service("127.0.0.1:8081"),
      setting(
        "nbd",
        "ADDR",
        "listen for NBD on HOST:PORT or unix:PATH; may be repeated (default 127.0.0.1:10809)",
        true,
      ),
      setting("advertise", "ADDR", "where clients reach this gateway (default: the first --nbd)"),
      { ...bucket, summary: "the archivers' bucket: volumes' points are served as VOL@POINT" },
      setting(
        "mdns",
        "ADDRESS|off",
        "announce itself by mDNS on the network of this IPv4 address (default off)",
      ),
      only,
      setting("payload-max", "SIZE", "memory for payloads of all volumes together (default 128M)"),
      setting("log-max", "SIZE", "log of one volume at most (default 10G)"),
      setting("connections-max", "N", "NBD connections at most (default 256)"),
      json,
    ],
    load: async () => (await import("./commands/gateway.ts")).gateway,
  },
  {
    path: ["storage"],
    summary: "keep replicas of a cluster's volumes, as one of its storage nodes",
    detail: [
      "Follows the logs of the volumes that are placed here into raw images, and answers reads.",
      ends,
    ],
    args: [],
    flags: [
      ...service("127.0.0.1:8082"),
      setting(
        "pool",
        "NAME:DIR[,quota=SIZE][,tag=TAG]",
        "a directory for replicas; may be repeated (required)",
        true,
      ),
      setting(
        "fill-rate",
        "SIZE",
        "bytes a second that filling one replica takes at most (default no limit)",
      ),
      setting(
        "image-max",
        "SIZE",
        "room of a tiered volume's image: beyond it the coldest extents leave before their time (default no limit)",
      ),
      {
        ...bucket,
        summary: "the archivers' bucket: replicas are filled from it first (default from other nodes)",
      },
      only,
      json,
    ],
    load: async () => (await import("./commands/storage.ts")).storage,
  },
  {
    path: ["archiver"],
    summary: "keep the past of a cluster's volumes in a bucket, as one of its archivers",
    detail: [
      "Follows the logs of all volumes that no other archiver has, and stores them; log goes when the bucket holds it.",
      "S3 credentials come from the environment, as for varve up.",
      ends,
    ],
    args: [],
    flags: [...service("127.0.0.1:8084"), { ...bucket, summary: `${bucket.summary} (required)` }, only, json],
    load: async () => (await import("./commands/archiver.ts")).archiver,
  },
  {
    path: ["api"],
    summary: "serve the HTTP API of a cluster",
    detail: ["Creates and deletes volumes, shows nodes, replicas and who serves what.", ends],
    args: [],
    flags: [
      ...service("127.0.0.1:8083"),
      setting("http", "ADDR", "listen for the HTTP API on HOST:PORT (default 127.0.0.1:8080)"),
      { ...bucket, summary: `the archivers' bucket: new volumes keep their past, and it is read from there` },
      json,
    ],
    load: async () => (await import("./commands/api.ts")).api,
  },
  {
    path: ["node", "list"],
    summary: "list the storage nodes of a cluster with their pools",
    args: [],
    flags: served,
    load: async () => (await import("./commands/cluster.ts")).clusterCommandModule.nodes,
  },
  {
    path: ["replica", "list"],
    summary: "list the replicas of a cluster with what they do",
    args: [],
    flags: served,
    load: async () => (await import("./commands/cluster.ts")).clusterCommandModule.replicas,
  },
  ...replicaCommands,
  {
    path: ["attachments"],
    summary:
      "list which gateway of a cluster serves which volume, or what this machine's kernel has attached",
    args: [],
    flags: [
      { name: "local", summary: "the disks that varve attach gave to this machine's kernel" },
      ...served,
    ],
    load: async () => (await import("./commands/cluster.ts")).clusterCommandModule.attachments,
  },
  {
    path: ["volume", "move"],
    summary: "move a volume of a stopped varve up into a cluster",
    detail: [
      "Copies it through a gateway, reads all of it back, and marks it as moved here: it is never served twice.",
      "Killed at any time: run it again, it goes on. Its past of before stays in its bucket, for varve rescue.",
    ],
    args: [volumeName],
    flags: [
      { name: "data", value: "DIR", summary: "the data directory that has it (required)" },
      api,
      { name: "gateway", value: "ADDR", summary: "NBD address of a gateway of the cluster (required)" },
      { name: "replicas", value: "N", summary: "images on so many storage nodes (default 1)" },
      {
        name: "reads",
        value: "available|strict",
        summary: "of a gateway that is cut off: its last state (default), or nothing",
      },
      { name: "dry-run", summary: "say what would be done, and change nothing" },
      json,
    ],
    load: async () => (await import("./commands/move.ts")).move,
  },
  {
    path: ["volume", "takeover"],
    summary: "take a volume away from the gateway that serves it",
    detail: [
      "Its clients get errors for what was not answered, and connect again; nothing answered is lost.",
    ],
    args: [volumeName],
    flags: [{ name: "force", summary: "yes, cut its clients off (required)" }, ...served],
    load: async () => (await import("./commands/cluster.ts")).clusterCommandModule.takeover,
  },
];
