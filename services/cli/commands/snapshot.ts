/*
 * `varve snapshot create|list|delete`: names for moments of a volume. Calls the server by past-access.ts.
 */
import type { CommandLine } from "../command-line.ts";
import { printJson, printLine, table } from "../output.ts";
import { PastAccess } from "../past-access.ts";

const volumeOf = (line: CommandLine): string => line.args[0] ?? "";
const snapshotOf = (line: CommandLine): string => line.args[1] ?? "";
const wantsJson = (line: CommandLine): boolean => line.values.has("json");

async function create(line: CommandLine): Promise<number> {
  const made = await new PastAccess(line).createSnapshot(volumeOf(line), snapshotOf(line));
  if (wantsJson(line)) printJson(made);
  else printLine(`${volumeOf(line)}@${made.name} is entry ${made.lsn}, ${made.createdAt}`);
  return 0;
}

async function list(line: CommandLine): Promise<number> {
  const found = await new PastAccess(line).snapshots(volumeOf(line));
  if (wantsJson(line)) printJson(found);
  else if (found.length === 0)
    printLine(`no snapshots; varve snapshot create ${volumeOf(line)} NAME takes one`);
  else {
    printLine(
      table(
        [
          { title: "SNAPSHOT", cell: (one) => one.name },
          { title: "ENTRY", right: true, cell: (one) => String(one.lsn) },
          { title: "TAKEN", cell: (one) => one.createdAt },
        ],
        found,
      ),
    );
  }
  return 0;
}

async function remove(line: CommandLine): Promise<number> {
  await new PastAccess(line).deleteSnapshot(volumeOf(line), snapshotOf(line));
  if (wantsJson(line)) printJson({ deleted: snapshotOf(line) });
  else printLine(`deleted ${volumeOf(line)}@${snapshotOf(line)}`);
  return 0;
}

export const snapshotCommands = { create, list, delete: remove };
