/*
 * Help texts, printed from the command table (command-table.ts), so that help and parser can't differ. main.ts calls it
 * for `varve help …`, --help, and a bare `varve`.
 */

import type { Command, Flag } from "./command.ts";
import { unknownCommand } from "./command-line.ts";
import { pairs } from "./output.ts";

const flagText = (flag: Flag): string =>
  `${flag.short === undefined ? "" : `-${flag.short}, `}--${flag.name}${flag.value === undefined ? "" : ` ${flag.value}`}`;

const indented = (text: string): string => text.replace(/^(?=.)/gm, "  ");

/** Help for everything, for a group (`volume`), or for one command. Throws UsageError for a path that is none of these. */
export function helpText(path: readonly string[], commands: readonly Command[]): string {
  if (path.length === 0) return overview(commands);
  const exact = commands.find((one) => one.path.join(" ") === path.slice(0, one.path.length).join(" "));
  if (exact !== undefined) return commandHelp(exact);
  const group = commands.filter((one) => one.path[0] === path[0]);
  if (group.length > 0 && path.length === 1) return group.map(usageLine).join("\n");
  throw unknownCommand(path, commands);
}

function overview(commands: readonly Command[]): string {
  return [
    "varve: a network disk that keeps its past",
    "",
    indented(pairs(commands.map((one) => [`varve ${usageName(one)}`, one.summary]))),
    "",
    "varve help COMMAND says more. For a first disk:",
    "",
    "  varve up --data ./varve-data --volume disk0:10G",
  ].join("\n");
}

function commandHelp(command: Command): string {
  const parts = [usageLine(command), "", `  ${command.summary}`];
  if (command.args.length > 0) {
    parts.push("", indented(pairs(command.args.map((one) => [one.name, one.summary]))));
  }
  if (command.flags.length > 0) {
    const rows = command.flags.map(
      (flag) =>
        [flagText(flag), flag.env === undefined ? flag.summary : `${flag.summary} [${flag.env}]`] as const,
    );
    parts.push("", indented(pairs(rows)));
  }
  for (const line of command.detail ?? [])
    parts.push(...(line === command.detail?.[0] ? [""] : []), `  ${line}`);
  return parts.join("\n");
}

function usageName(command: Command): string {
  return [...command.path, ...command.args.map((one) => one.name)].join(" ");
}

function usageLine(command: Command): string {
  return `varve ${usageName(command)}${command.flags.length > 0 ? " [flags]" : ""}`;
}
