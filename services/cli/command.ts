/*
 * The shape of a command in the command table, and the flags and arguments that several commands share. command-table.ts,
 * history-commands.ts and bucket-commands.ts make their entries with it.
 */
import type { CommandLine } from "./command-line.ts";

export interface Flag {
  /** Without the dashes. */
  readonly name: string;
  /** One letter that may stand for the name, behind one dash. */
  readonly short?: string;
  /** What the value is called in help; absent for a switch. */
  readonly value?: string;
  readonly repeat?: boolean;
  /** Environment variable that stands in for the flag; several values of a repeatable flag are parted by spaces. */
  readonly env?: string;
  readonly summary: string;
}

export interface Argument {
  readonly name: string;
  readonly summary: string;
}

export interface Command {
  readonly path: readonly string[];
  readonly summary: string;
  readonly detail?: readonly string[];
  readonly args: readonly Argument[];
  readonly flags: readonly Flag[];
  readonly load: () => Promise<(line: CommandLine) => Promise<number>>;
}

export const json: Flag = { name: "json", summary: "print JSON for programs instead of text for people" };
export const api: Flag = {
  name: "api",
  value: "URL",
  env: "VARVE_API",
  summary: "the running server (default http://127.0.0.1:8080)",
};
export const offline: Flag = {
  name: "data",
  value: "DIR",
  summary: "work on this data directory itself, while no server runs on it",
};
export const volumeName: Argument = { name: "NAME", summary: "the volume" };
export const target = [api, offline, json];

/** For commands that only a running server can carry out. */
export const served = [api, json];
