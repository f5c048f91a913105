/*
 * Commands that change where a cluster's replicas are, and compare them. Entries of the command table; cluster-commands.ts joins them.
 */
import { type Argument, type Command, type Flag, served, volumeName } from "./command.ts";

const node = (summary: string): Flag => ({ name: "node", value: "NODE", summary });
const nodeName: Argument = { name: "NODE", summary: "the storage node" };
const fillFrom: readonly Flag[] = [
  { name: "from-peers", summary: "fill it from the other replicas alone" },
  { name: "from-bucket", summary: "fill it from the bucket alone" },
];
const load = async () => (await import("./commands/replica.ts")).replicaCommandModule;

export const replicaCommands: readonly Command[] = [
  {
    path: ["replica", "add"],
    summary: "put one more replica of a volume on a storage node",
    detail: [
      "The node fills it while the volume is in use: from the bucket where it was given one, else from the other replicas.",
      "See: varve replica list.",
    ],
    args: [volumeName],
    flags: [node("where (default: the node with the fewest volumes that has room)"), ...fillFrom, ...served],
    load: async () => (await load()).add,
  },
  {
    path: ["replica", "move"],
    summary: "move a replica of a volume to another storage node",
    detail: ["The new one is filled; the old one goes when every other one follows."],
    args: [volumeName],
    flags: [
      { name: "from", value: "NODE", summary: "where it is (required)" },
      { name: "to", value: "NODE", summary: "where it goes (default: the emptiest node)" },
      ...served,
    ],
    load: async () => (await load()).move,
  },
  {
    path: ["replica", "remove"],
    summary: "take a replica of a volume away from a storage node",
    detail: [
      "Another replica must follow. A node that is gone for good is no obstacle: the log no longer waits for it.",
    ],
    args: [volumeName],
    flags: [node("where it is (required)"), ...served],
    load: async () => (await load()).remove,
  },
  {
    path: ["replica", "repair"],
    summary: "fill a replica again from the bucket or the others",
    detail: [
      "What it holds stays until the copy is whole. The only one that follows is filled with --from-bucket alone; reads wait meanwhile.",
    ],
    args: [volumeName],
    flags: [node("where it is (required)"), ...fillFrom, ...served],
    load: async () => (await load()).repair,
  },
  {
    path: ["replica", "verify"],
    summary: "compare a volume's replicas with each other at one LSN",
    detail: ["Exit code 1 and the extents, where they differ. The volume may be in use."],
    args: [volumeName],
    flags: [{ name: "rate", value: "SIZE", summary: "bytes a second at most (default no limit)" }, ...served],
    load: async () => (await load()).verify,
  },
  {
    path: ["node", "drain"],
    summary: "move every replica away from a storage node, and give it no new ones",
    detail: [
      "Says how far it is until nothing is left; to stop watching ends nothing. May be told again at any time.",
    ],
    args: [nodeName],
    flags: [{ name: "no-wait", summary: "do not wait until it is empty" }, ...served],
    load: async () => (await load()).drain,
  },
  {
    path: ["node", "undrain"],
    summary: "let a storage node have replicas again",
    detail: ["Moves away from it that have not ended are undone; what is moved already stays where it is."],
    args: [nodeName],
    flags: served,
    load: async () => (await load()).undrain,
  },
];
