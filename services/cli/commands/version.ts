/*
 * `varve version`: Varve's own version and the Node it runs on. The version stands in package.json and nowhere else.
 * Also read by doctor.ts and by the API's status.
 */
import { readFileSync } from "node:fs";
import type { CommandLine } from "../command-line.ts";
import { printJson, printLine } from "../output.ts";

export function varveVersion(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return String((JSON.parse(text) as { version?: unknown }).version);
}

export async function version(line: CommandLine): Promise<number> {
  const found = { varve: varveVersion(), node: process.versions.node };
  if (line.values.has("json")) printJson(found);
  else printLine(`varve ${found.varve} (node ${found.node})`);
  return 0;
}
