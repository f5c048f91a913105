/*
 * `varve image check|adopt|discard`: what to do about an image file that another program changed while Varve did not hold
 * it (design, promise 7). Calls volume-access.ts; the work is the storage service's.
 */
import type { CommandLine } from "../command-line.ts";
import { pairs, printJson, printLine } from "../output.ts";
import { withVolumes } from "../volume-access.ts";

/** A check that found something. Not an error of the command. */
const foundExitCode = 1;

const run =
  (operation: "check" | "adopt" | "discard") =>
  async (line: CommandLine): Promise<number> => {
    const name = line.args[0] ?? "";
    const report = await withVolumes(line, async (volumes) => volumes.image(operation, name));
    if (line.values.has("json")) {
      printJson(report);
    } else {
      if (report.clean && report.findings.length === 0) printLine(`the image of ${report.name} is in order`);
      for (const finding of report.findings) printLine(finding);
      const fields = Object.entries(report.fields);
      if (fields.length > 0) printLine(pairs(fields.map(([field, value]) => [field, String(value)])));
    }
    return operation === "check" && !report.clean ? foundExitCode : 0;
  };

export const imageCommands = { check: run("check"), adopt: run("adopt"), discard: run("discard") };
