/*
 * The `varve` command: reads the command line, loads the one module that it needs, prints errors, sets the exit code.
 * Started by bin/varve under the pinned Node. Next: command-line.ts, then services/cli/commands/. Exit codes are those of
 * errorTable (shared/domain/errors.ts): 0 done, 1 doctor or check found something, 2 wrong input, 65 damage, 70 our own fault, …
 */
import { errorTable, toVarveError, VarveError } from "#shared/domain/errors.ts";
import { parseCommandLine } from "./command-line.ts";
import { commands } from "./command-table.ts";
import { helpText } from "./help.ts";
import { printError, printLine } from "./output.ts";

async function main(words: readonly string[]): Promise<number> {
  try {
    const parsed = parseCommandLine(words, commands, process.env);
    if (parsed.kind === "help") {
      printLine(helpText(parsed.path, commands));
      return 0;
    }
    const run = await parsed.line.command.load();
    return await run(parsed.line);
  } catch (cause) {
    const error = cause instanceof VarveError ? cause : toVarveError(cause, "varve");
    printError(error, words.includes("--json"));
    return errorTable[error.kind].exitCode;
  }
}

const words = process.argv.slice(2);
const isServer = ["up", "gateway", "storage", "archiver", "api"].includes(words[0] ?? "");
// Somebody who closes the pipe (varve … | head) has seen enough. A server goes on without a listener, and drains unheard.
process.stdout.on("error", () => {
  if (!isServer) process.exit(0);
});
process.stderr.on("error", () => {});
// Timers and threads of the engines keep no process alive, so that none outlives its work. A command that waits for one of
// them, with nothing else open (a shutdown after its last client left), must not end in the middle.
const alive = setInterval(() => {}, 2 ** 31 - 1);
const exitCode = await main(words);
clearInterval(alive);
// A pipe takes what it has room for; the rest is still in this process, and exit would throw it away. A server drains unheard.
if (!isServer) await Promise.all([process.stdout, process.stderr].map(written));
process.exit(exitCode);

function written(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    stream.write("", () => resolve());
  });
}
