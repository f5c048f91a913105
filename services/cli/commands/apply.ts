/*
 * `varve apply`: reads a lab file, asks the server what there is, and takes the steps from the one to the other in order. All mistakes of
 * the file are told before anything is asked, all that don't fit what is there before anything is changed. See docs/specs/apply.md.
 */
import { readFileSync } from "node:fs";
import { VarveError } from "#shared/domain/errors.ts";
import type { LabFile, LabMistake } from "#shared/domain/lab-file.ts";
import { planLab } from "#shared/domain/lab-plan.ts";
import { ApiClient, defaultApi } from "../api-client.ts";
import { labFileBytesMax, readLab } from "../apply/lab-reader.ts";
import { labState, runStep, stepText, stoppedAt } from "../apply/lab-steps.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { printJson, printLine, printNote } from "../output.ts";

export async function apply(line: CommandLine): Promise<number> {
  const place = line.values.get("file")?.[0];
  if (place === undefined) {
    throw new UsageError(["--file is missing: varve apply -f lab.yaml"], "See: varve help apply.");
  }
  const [json, dryRun] = [line.values.has("json"), line.values.has("dry-run")];
  const file = readFile(place);
  const client = new ApiClient(line.values.get("api")?.[0] ?? defaultApi);
  const { steps, notes, mistakes } = planLab(file, await labState(client), line.values.has("prune"));
  if (mistakes.length > 0) throw labError(place, mistakes);
  const lines = steps.map(stepText);
  let done = 0;
  for (const step of dryRun ? [] : steps) {
    try {
      await runStep(client, step);
    } catch (cause) {
      throw stoppedAt(lines[done] ?? "", done, steps.length, cause);
    }
    if (!json) printLine(`${lines[done]}: done`);
    done += 1;
  }
  if (json) printJson({ steps: steps.map((step, index) => ({ ...step, text: lines[index] })), notes, done });
  else report(lines, notes, dryRun);
  return 0;
}

function report(lines: readonly string[], notes: readonly string[], dryRun: boolean): void {
  if (dryRun) for (const text of lines) printLine(text);
  if (lines.length === 0) printLine("nothing to do");
  for (const note of notes) printNote(`note: ${note}`);
}

function readFile(place: string): LabFile {
  const { file, mistakes } = readLab(textOf(place));
  if (mistakes.length > 0) throw labError(place, mistakes);
  return file;
}

function textOf(place: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(place === "-" ? 0 : place);
  } catch (cause) {
    throw new VarveError("LabFileUnreadable", "Invalid", `${place}: ${(cause as Error).message}`, {
      hint: "Name a file: varve apply -f lab.yaml. Nothing was changed.",
      fields: { place },
      cause,
    });
  }
  if (bytes.length <= labFileBytesMax) return bytes.toString("utf8");
  throw labError(place, [
    { line: 1, text: `the file has ${bytes.length} bytes, at most ${labFileBytesMax}` },
  ]);
}

function labError(place: string, mistakes: readonly LabMistake[]): VarveError {
  const name = place === "-" ? "standard input" : place;
  const lines = mistakes.map(({ line, text }) => `${name}:${line}: ${text}`);
  return new VarveError("LabFileError", "Invalid", lines.join("\n"), {
    hint: "What may stand there is in docs/specs/apply.md. Nothing was changed.",
    fields: { mistakes: lines.length },
  });
}
