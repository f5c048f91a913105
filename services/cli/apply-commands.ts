/*
 * `varve apply` as an entry of the command table (command-table.ts).
 */
import { type Command, served } from "./command.ts";

export const applyCommands: readonly Command[] = [
  {
    path: ["apply"],
    summary: "make a cluster, or one machine, what a lab file says",
    detail: [
      "Creates and changes what is missing or differs; a second run changes nothing. All mistakes of the file are told together.",
      "Deletes nothing without --prune, and then only volumes that an apply of the same lab made. See docs/specs/apply.md.",
    ],
    args: [],
    flags: [
      {
        name: "file",
        short: "f",
        value: "FILE",
        summary: "the lab file, YAML (required); -: standard input",
      },
      { name: "dry-run", summary: "print what would be done, and do nothing" },
      { name: "prune", summary: "delete volumes that this lab made and that the file no longer names" },
      ...served,
    ],
    load: async () => (await import("./commands/apply.ts")).apply,
  },
];
